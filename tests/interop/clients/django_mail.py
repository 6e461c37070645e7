"""Django's send_mail, with the settings that a project would have."""

import os
from pathlib import Path

import django
from django.conf import settings
from django.core.mail import send_mail

tls = os.environ["MAIL_TLS"]
settings.configure(
    EMAIL_HOST=os.environ["MAIL_HOST"],
    EMAIL_PORT=int(os.environ["MAIL_PORT"]),
    EMAIL_HOST_USER=os.environ["MAIL_USER"] if tls != "none" else "",
    EMAIL_HOST_PASSWORD=os.environ["MAIL_PASSWORD"] if tls != "none" else "",
    EMAIL_USE_TLS=tls == "starttls",
    EMAIL_USE_SSL=tls == "implicit",
)
django.setup()
body = Path("body.txt").read_text("utf-8")
send_mail(os.environ["MAIL_SUBJECT"], body, os.environ["MAIL_FROM"], [os.environ["MAIL_TO"]])
