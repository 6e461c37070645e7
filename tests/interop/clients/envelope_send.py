"""envelope: one chain of calls."""

import os
import sys
from pathlib import Path

from envelope import Envelope

tls = os.environ["MAIL_TLS"]
server = {"host": os.environ["MAIL_HOST"], "port": int(os.environ["MAIL_PORT"])}
if tls != "none":
    security = {"starttls": "starttls", "implicit": "tls"}[tls]
    server |= {"user": os.environ["MAIL_USER"], "password": os.environ["MAIL_PASSWORD"], "security": security}
sent = (
    Envelope(Path("body.txt").read_text("utf-8"))
    .subject(os.environ["MAIL_SUBJECT"])
    .from_(os.environ["MAIL_FROM"])
    .to(os.environ["MAIL_TO"])
    .smtp(**server)
    .send()
)
sys.exit(not sent)
