"""smtplib with a message of the email package; addresses outside of ASCII bring SMTPUTF8."""

import os
import smtplib
import ssl
from email.message import EmailMessage
from pathlib import Path

host, port, tls = os.environ["MAIL_HOST"], int(os.environ["MAIL_PORT"]), os.environ["MAIL_TLS"]
message = EmailMessage()
message["From"], message["To"] = os.environ["MAIL_FROM"], os.environ["MAIL_TO"]
message["Subject"] = os.environ["MAIL_SUBJECT"]
message.set_content(Path("body.txt").read_text("utf-8"))
with smtplib.SMTP_SSL(host, port) if tls == "implicit" else smtplib.SMTP(host, port) as smtp:
    if tls == "starttls":
        smtp.starttls(context=ssl.create_default_context())
    if tls != "none":
        smtp.login(os.environ["MAIL_USER"], os.environ["MAIL_PASSWORD"])
    smtp.send_message(message)
