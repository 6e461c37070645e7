"""emails (python-emails)."""

import os
import sys
from pathlib import Path

import emails

tls = os.environ["MAIL_TLS"]
server = {"host": os.environ["MAIL_HOST"], "port": int(os.environ["MAIL_PORT"])}
if tls != "none":
    server |= {"user": os.environ["MAIL_USER"], "password": os.environ["MAIL_PASSWORD"]}
    server["tls" if tls == "starttls" else "ssl"] = True
body = Path("body.txt").read_text("utf-8")
message = emails.Message(text=body, subject=os.environ["MAIL_SUBJECT"], mail_from=os.environ["MAIL_FROM"])
answer = message.send(to=os.environ["MAIL_TO"], smtp=server)
sys.exit(None if answer.status_code == 250 else f"{answer.error or answer.status_text}")
