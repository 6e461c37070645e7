"""smtplib as its own documentation has it: a connection, a login, the message as text."""

import os
import smtplib
import ssl
from pathlib import Path

host, port, tls = os.environ["MAIL_HOST"], int(os.environ["MAIL_PORT"]), os.environ["MAIL_TLS"]
octets = Path("message.eml").read_bytes().replace(b"\n", b"\r\n")  # sendmail mends the ends of str only
context = ssl.create_default_context()
with smtplib.SMTP_SSL(host, port, context=context) if tls == "implicit" else smtplib.SMTP(host, port) as smtp:
    if tls == "starttls":
        smtp.starttls(context=context)
    if tls != "none":
        smtp.login(os.environ["MAIL_USER"], os.environ["MAIL_PASSWORD"])
    smtp.sendmail(os.environ["MAIL_FROM"], [os.environ["MAIL_TO"]], octets)
