"""aiosmtplib.send: STARTTLS where it is offered, unless it is told otherwise."""

import asyncio
import os
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib

message = EmailMessage()
message["From"], message["To"] = os.environ["MAIL_FROM"], os.environ["MAIL_TO"]
message["Subject"] = os.environ["MAIL_SUBJECT"]
message.set_content(Path("body.txt").read_text("utf-8"))
tls = os.environ["MAIL_TLS"]
login = (
    {"username": os.environ["MAIL_USER"], "password": os.environ["MAIL_PASSWORD"]} if tls != "none" else {}
)
host, port = os.environ["MAIL_HOST"], int(os.environ["MAIL_PORT"])
asyncio.run(aiosmtplib.send(message, hostname=host, port=port, use_tls=tls == "implicit", **login))
