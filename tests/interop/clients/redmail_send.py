"""Red Mail: STARTTLS unless it is told otherwise."""

import os
import smtplib
from pathlib import Path

from redmail import EmailSender

tls = os.environ["MAIL_TLS"]
more = {
    "none": {"use_starttls": False},
    "starttls": {},
    "implicit": {"use_starttls": False, "cls_smtp": smtplib.SMTP_SSL},
}[tls]
if tls != "none":
    more |= {"username": os.environ["MAIL_USER"], "password": os.environ["MAIL_PASSWORD"]}
EmailSender(host=os.environ["MAIL_HOST"], port=int(os.environ["MAIL_PORT"]), **more).send(
    subject=os.environ["MAIL_SUBJECT"],
    sender=os.environ["MAIL_FROM"],
    receivers=[os.environ["MAIL_TO"]],
    text=Path("body.txt").read_text("utf-8"),
)
