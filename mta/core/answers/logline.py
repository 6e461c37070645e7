"""A reply as logs, notices and people quote it -> what the peer said, and to which command.

Between: `mta classify` reads lines with it; `config.rules` the examples of rules.
Contract: pure. Understood are the reply alone, with blanks around it; its lines joined by a written \\n,
    by line feeds, or by blanks ("550-5.1.1 No 550 5.1.1 such user"); the same after other words ("host mx
    said: 550 ...", "smtp; 550 ..."). The command is "" where the line does not tell it.
Raises: ReplyError where no reply is in it.
Standards: RFC 5321 4.2 (replies), RFC 3464 2.3.6 (Diagnostic-Code).
"""

from __future__ import annotations

import re

from mta.core.answers.reply import ReplyError, ReplyParser
from mta.core.model import Reply

MAX_QUOTED = 4096  # characters of one quoted reply
MAX_LINE = 1024  # characters of one of its lines
# At the beginning, or behind the words with which logs introduce a reply.
_BEGIN = re.compile(r"(?:^|said: |smtp; ?|: |\")([2-5][0-9][0-9])(?=[\s-]|$)")
_COMMAND = re.compile(r" ?\(in reply to (?:end of )?([A-Z]+)(?: (?:TO|FROM))? command\)$")
_ENDED = " (in reply to end of DATA command)"


def quoted(line: str) -> tuple[Reply, str]:
    """The reply in a line, and the command that it answers."""
    line = line.lstrip("\ufeff").strip()[:MAX_QUOTED].replace("\\r", "").replace("\\n", "\n")
    begin = _BEGIN.search(line)
    if begin is None:
        raise ReplyError(f"no reply: {line[:80]!r}; it begins with a code such as 550")
    text = line[begin.start(1) :]
    command = _COMMAND.search(text)
    stage = ""
    if command is not None:
        stage = "." if text.endswith(_ENDED) else command[1]
        text = text[: command.start()]
    return _reply(begin[1], text), stage


def _reply(code: str, text: str) -> Reply:
    joined = text.startswith(f"{code}-")
    parts = re.split(rf"\s+(?={code}[- ])" if joined else r"\n", text)
    texts = [re.sub(rf"^{code}(?:[-\s]|$)", "", part.strip())[:MAX_LINE] for part in parts]
    texts = [part for part in texts if part] or [""]
    lines = [f"{code}-{part}" for part in texts[:-1]] + [f"{code} {texts[-1]}"]
    (reply,) = ReplyParser().feed("".join(f"{' '.join(each.split())}\r\n" for each in lines).encode())
    return reply
