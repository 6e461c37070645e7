"""Flask-Mail, with the settings that an application would have."""

import os
from pathlib import Path

from flask import Flask
from flask_mail import Mail, Message

tls = os.environ["MAIL_TLS"]
app = Flask("client")
app.config.update(
    MAIL_SERVER=os.environ["MAIL_HOST"],
    MAIL_PORT=int(os.environ["MAIL_PORT"]),
    MAIL_USERNAME=os.environ["MAIL_USER"] if tls != "none" else None,
    MAIL_PASSWORD=os.environ["MAIL_PASSWORD"] if tls != "none" else None,
    MAIL_USE_TLS=tls == "starttls",
    MAIL_USE_SSL=tls == "implicit",
)
body = Path("body.txt").read_text("utf-8")
message = Message(os.environ["MAIL_SUBJECT"], [os.environ["MAIL_TO"]], body, sender=os.environ["MAIL_FROM"])
with app.app_context():
    Mail(app).send(message)
