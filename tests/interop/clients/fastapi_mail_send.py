"""fastapi-mail, with the settings that an application would have."""

import asyncio
import os
from pathlib import Path

from fastapi_mail import ConnectionConfig, FastMail, MessageSchema, MessageType

tls = os.environ["MAIL_TLS"]
config = ConnectionConfig(
    MAIL_USERNAME=os.environ["MAIL_USER"],
    MAIL_PASSWORD=os.environ["MAIL_PASSWORD"],
    MAIL_FROM=os.environ["MAIL_FROM"],
    MAIL_SERVER=os.environ["MAIL_HOST"],
    MAIL_PORT=int(os.environ["MAIL_PORT"]),
    MAIL_STARTTLS=tls == "starttls",
    MAIL_SSL_TLS=tls == "implicit",
    USE_CREDENTIALS=tls != "none",
)
message = MessageSchema(
    subject=os.environ["MAIL_SUBJECT"],
    recipients=[os.environ["MAIL_TO"]],
    body=Path("body.txt").read_text("utf-8"),
    subtype=MessageType.plain,
)
asyncio.run(FastMail(config).send_message(message))
