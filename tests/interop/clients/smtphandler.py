"""logging.handlers.SMTPHandler: a program's log by mail."""

import logging.handlers
import os
from pathlib import Path

tls = os.environ["MAIL_TLS"] == "starttls"
handler = logging.handlers.SMTPHandler(
    (os.environ["MAIL_HOST"], int(os.environ["MAIL_PORT"])),
    os.environ["MAIL_FROM"],
    [os.environ["MAIL_TO"]],
    os.environ["MAIL_SUBJECT"],
    credentials=(os.environ["MAIL_USER"], os.environ["MAIL_PASSWORD"]) if tls else None,
    secure=() if tls else None,
)
logging.raiseExceptions = False
handler.handleError = lambda record: os._exit(1)
handler.emit(logging.makeLogRecord({"msg": Path("body.txt").read_text("utf-8")}))
