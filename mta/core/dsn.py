"""The failure notice: what the sender is told when recipients are given up.

Between: `outbound.outcome` asks for one in the commit that gives them up; it goes out as any mail does.
Contract: pure. The notice's envelope sender is null, its header block is ASCII (but for a sender who is
    not). No line of ours is over 998 octets. Of the original only the header block is returned (`head`).
Raises: nothing.
Standards: RFC 3464 (message/delivery-status), RFC 6522 (multipart/report), RFC 5321 4.5.5 (null sender),
    RFC 3834 (Auto-Submitted), RFC 6533 (UTF-8 addresses), RFC 2045 6.4 (8bit), RFC 5322 2.1.1 (lines).
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate

from mta.core.address import PathError, a_label
from mta.core.model import Kind, Message, Option, Outcome, Recipient
from mta.core.queueid import created, text

MAX_RETURNED = 64 * 1024  # octets of the original's header block
MAX_SHOWN = 240  # characters of a line that somebody else wrote
_ACTIONS = {
    Kind.BOUNCED: "was refused",
    Kind.EXPIRED: "could not be delivered in the time it was given",
}


def failure_notice(
    message: Message,
    failed: Sequence[tuple[Recipient, Outcome]],
    *,
    head: bytes,
    notice_id: int,
    hostname: str,
    now: float,
    expires: float,
) -> Message:
    """The notice for `failed`, ready for the spool."""
    shown = text(notice_id)
    boundary = f"=_{shown}"
    utf8 = bool(message.options & Option.SMTPUTF8)
    parts = [
        _head(message.sender, shown, hostname, boundary, now),
        _explanation(message, failed, hostname, boundary),
        _status(message, failed, hostname, boundary, utf8),
    ]
    content = "".join(parts).replace("\n", "\r\n").encode()
    kind = "message/global-headers" if utf8 else "text/rfc822-headers"
    content += f"--{boundary}\r\nContent-Type: {kind}\r\n".encode()
    content += b"Content-Transfer-Encoding: 8bit\r\n\r\n" + head[:MAX_RETURNED]
    content += f"\r\n--{boundary}--\r\n".encode()
    domain = message.sender.rpartition("@")[2]
    try:
        domain = a_label(domain)
    except PathError:
        domain = domain.lower()
    options = Option.EIGHTBIT | (message.options & Option.SMTPUTF8)
    recipient = Recipient(0, message.sender, domain)
    message_id = f"<{shown}@{hostname}>"
    return Message(
        notice_id, "", message.tenant, message.stream, "", expires, len(content), message_id, options,
        [recipient], content, True,
    )  # fmt: skip


def _head(to: str, shown: str, hostname: str, boundary: str, now: float) -> str:
    return (
        f"From: Mail delivery <postmaster@{hostname}>\n"
        f"To: <{to}>\n"
        "Subject: Your mail could not be delivered\n"
        f"Date: {formatdate(now, localtime=False)}\n"
        f"Message-ID: <{shown}@{hostname}>\n"
        "Auto-Submitted: auto-replied\n"
        "MIME-Version: 1.0\n"
        "Content-Transfer-Encoding: 8bit\n"
        f'Content-Type: multipart/report; report-type=delivery-status;\n\tboundary="{boundary}"\n\n'
    )


def _explanation(
    message: Message, failed: Sequence[tuple[Recipient, Outcome]], hostname: str, boundary: str
) -> str:
    lines = [
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        f"The mail system at {hostname} could not deliver your message",
        f"{_shown(message.message_id)} to the recipients below, and has given up.",
    ]
    for recipient, outcome in failed:
        peer = f" by {outcome.host}" if outcome.host else ""
        lines += ["", f"<{recipient.address}>", f"    {_ACTIONS[outcome.kind]}{peer}:"]
        lines += [f"    {_shown(line)}" for line in str(outcome.reply).splitlines()]
    return "\n".join([*lines, "", ""])


def _status(
    message: Message,
    failed: Sequence[tuple[Recipient, Outcome]],
    hostname: str,
    boundary: str,
    utf8: bool,
) -> str:
    kind = "message/global-delivery-status" if utf8 else "message/delivery-status"
    lines = [
        f"--{boundary}",
        f"Content-Type: {kind}",
        "",
        f"Reporting-MTA: dns; {hostname}",
        f"X-Queue-ID: {text(message.id)}",
        f"Arrival-Date: {formatdate(created(message.id), localtime=False)}",
    ]
    for recipient, outcome in failed:
        reply = outcome.reply
        kind = "rfc822" if recipient.address.isascii() else "utf-8"
        lines += ["", f"Final-Recipient: {kind}; {recipient.address}", "Action: failed"]
        lines += [f"Status: {_status_code(outcome)}"]
        if outcome.host:
            lines += [f"Remote-MTA: dns; {outcome.host}"]
        diagnostic = " ".join(str(reply).split()).encode("ascii", "backslashreplace").decode()
        lines += [f"Diagnostic-Code: smtp; {_printable(diagnostic)[:900]}"]
    return "\n".join([*lines, "", ""])


def _shown(line: str) -> str:
    """Somebody else's words, for people."""
    return _printable(line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}...")


def _printable(line: str) -> str:
    return line if line.isprintable() else "".join(each if each.isprintable() else "?" for each in line)


def _status_code(outcome: Outcome) -> str:
    """RFC 3463: given up is permanent, whatever class the last answer had."""
    enhanced = outcome.reply.enhanced
    return f"5{enhanced[1:]}" if enhanced else ("5.4.7" if outcome.kind is Kind.EXPIRED else "5.0.0")
