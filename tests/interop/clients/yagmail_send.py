"""yagmail, which takes the lines of a text: TLS from the start unless told otherwise, and always a login."""

import os
import ssl
from pathlib import Path

import yagmail

tls = os.environ["MAIL_TLS"]
host, port = os.environ["MAIL_HOST"], os.environ["MAIL_PORT"]
context = {"context": ssl.create_default_context()}
more = {"smtp_ssl": False, "smtp_starttls": context} if tls == "starttls" else context
with yagmail.SMTP(
    {os.environ["MAIL_USER"]: os.environ["MAIL_FROM"]},
    os.environ["MAIL_PASSWORD"],
    host,
    port,
    soft_email_validation=False,
    **more,
) as yag:
    lines = Path("body.txt").read_text("utf-8").split("\n")
    yag.send(os.environ["MAIL_TO"], os.environ["MAIL_SUBJECT"], lines)
