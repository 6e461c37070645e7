"""The failure notice: what the sender is told when recipients are given up.

Between: `outbound.outcome` asks for one in the commit that gives them up; it goes out as any mail does.
Contract: pure. The notice's envelope sender is null, its header block is ASCII (but for a sender whose local
    part is not: then, and only then, it needs SMTPUTF8). No line of ours is over 998 octets. Of the original
    only the header block is returned (`head`). Action, Status and words say the same: `failed`, with a
    class of 4 where trying longer might have helped. A Diagnostic-Code of type smtp is what a peer said; what
    we found out ourselves is x-local, without the words of our resolver, and promises no other attempt.
Raises: nothing.
Standards: RFC 3464 (message/delivery-status), RFC 3463 2 (classes), RFC 6522 (multipart/report),
    RFC 5321 4.5.5 (null sender), RFC 3834 (Auto-Submitted), RFC 6533 (UTF-8 addresses), RFC 2045 6.4 (8bit),
    RFC 5322 2.1.1 (lines).
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate

from mta.core.mail.address import ascii_address
from mta.core.mail.text import printable
from mta.core.model import Kind, Message, Option, Outcome, Recipient, Subject
from mta.core.queueid import created, text

MAX_RETURNED = 64 * 1024  # octets of the original's header block
MAX_SHOWN = 240  # characters of a line that somebody else wrote
MAX_DIAGNOSTIC = 900  # characters
_PROMISES = ("; it is tried again", "; we will ask again", "; it is counted and the mail is tried again")


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
    to, domain = ascii_address(message.sender)
    utf8 = not to.isascii()
    certain = any(outcome.kind is not Kind.AMBIGUOUS for _, outcome in failed)
    parts = [
        _head(to, shown, hostname, boundary, now, certain),
        _explanation(message, failed, hostname, boundary, certain),
        _status(message, failed, hostname, boundary),
    ]
    content = "".join(parts).replace("\n", "\r\n").encode()
    kind = "message/global-headers" if utf8 or _is_utf8(head) else "text/rfc822-headers"
    content += f"--{boundary}\r\nContent-Type: {kind}\r\n".encode()
    content += b"Content-Transfer-Encoding: 8bit\r\n\r\n" + head[:MAX_RETURNED]
    content += f"\r\n--{boundary}--\r\n".encode()
    options = Option.EIGHTBIT | (Option.SMTPUTF8 if utf8 else 0)
    options |= message.options & Option.REQUIRE_TLS  # it tells who wrote to whom (RFC 8689 5)
    recipient = Recipient(0, to, domain)
    message_id = f"<{shown}@{hostname}>"
    return Message(
        notice_id, "", message.tenant, message.stream, "", expires, len(content), message_id, options,
        [recipient], content, True,
    )  # fmt: skip


def _is_utf8(head: bytes) -> bool:
    """Octets that are no Unicode are nobody's but their author's, and go back as they are."""
    try:
        return not head[:MAX_RETURNED].decode().isascii()
    except UnicodeDecodeError as error:
        return error.end == MAX_RETURNED  # cut in the middle of a letter


def _head(to: str, shown: str, hostname: str, boundary: str, now: float, certain: bool) -> str:
    subject = "Your mail could not be delivered" if certain else "Your mail may not have been delivered"
    return (
        f"From: Mail delivery <postmaster@{hostname}>\n"
        f"To: <{to}>\n"
        f"Subject: {subject}\n"
        f"Date: {formatdate(now, localtime=False)}\n"
        f"Message-ID: <{shown}@{hostname}>\n"
        "Auto-Submitted: auto-replied\n"
        "MIME-Version: 1.0\n"
        "Content-Transfer-Encoding: 8bit\n"
        f'Content-Type: multipart/report; report-type=delivery-status;\n\tboundary="{boundary}"\n\n'
    )


def _explanation(
    message: Message,
    failed: Sequence[tuple[Recipient, Outcome]],
    hostname: str,
    boundary: str,
    certain: bool,
) -> str:
    what = "could not deliver" if certain else "does not know whether it has delivered"
    lines = [
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        f"The mail system at {hostname} {what} your message",
        f"{_shown(message.message_id)} to the recipients below, and has given up.",
    ]
    for recipient, outcome in failed:
        lines += ["", f"<{recipient.address}>", f"    {_what(outcome)}:"]
        lines += [f"    {_shown(line)}" for line in _words(outcome).splitlines()]
    return "\n".join([*lines, "", ""])


def _what(outcome: Outcome) -> str:
    """What became of it, in our words; those of others follow."""
    where = f" by {outcome.host}" if outcome.host else ""
    if outcome.kind is Kind.AMBIGUOUS:
        return f"may have been taken{where} or not, and is not sent again"
    if outcome.kind is Kind.EXPIRED:
        last = f"; what {outcome.host} said last" if outcome.is_said and outcome.host else ""
        return f"could not be delivered in the time it was given{last}"
    return f"was refused{where}" if outcome.is_said else "cannot be delivered"


def _words(outcome: Outcome) -> str:
    """The reply of a peer as it was; of what we say ourselves what is for the sender."""
    if outcome.is_said:
        return str(outcome.reply)
    said = outcome.reply.text
    for promise in _PROMISES:
        said = said.replace(promise, "")
    if outcome.subject in (Subject.DNS, Subject.SOURCE):  # what is in brackets is for the operator
        before, bracket, rest = said.partition(" (")
        said = before + rest.rpartition(")")[2] if bracket else said
    return said


def _status(
    message: Message, failed: Sequence[tuple[Recipient, Outcome]], hostname: str, boundary: str
) -> str:
    ascii_only = all(recipient.address.isascii() for recipient, _ in failed)
    lines = [f"--{boundary}"]
    if ascii_only:
        lines += ["Content-Type: message/delivery-status"]
    else:
        lines += ["Content-Type: message/global-delivery-status", "Content-Transfer-Encoding: 8bit"]
    lines += [
        "",
        f"Reporting-MTA: dns; {hostname}",
        f"X-Queue-ID: {text(message.id)}",
        f"Arrival-Date: {formatdate(created(message.id), localtime=False)}",
    ]
    for recipient, outcome in failed:
        kind = "rfc822" if recipient.address.isascii() else "utf-8"
        lines += ["", f"Final-Recipient: {kind}; {recipient.address}", "Action: failed"]
        lines += [f"Status: {_status_code(outcome)}"]
        if outcome.host:
            lines += [f"Remote-MTA: dns; {outcome.host}"]
        said = " ".join(_words(outcome).split()).encode("ascii", "backslashreplace").decode()
        kind = "smtp" if outcome.is_said else "x-local"
        lines += [f"Diagnostic-Code: {kind}; {printable(said)[:MAX_DIAGNOSTIC]}"]
    return "\n".join([*lines, "", ""])


def _shown(line: str) -> str:
    """Somebody else's words, for people."""
    return printable(line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}...")


def _status_code(outcome: Outcome) -> str:
    """RFC 3463 2: of what was refused the class is 5; of what was given up it is what was said last."""
    enhanced = outcome.reply.enhanced
    if outcome.kind is Kind.BOUNCED:
        return f"5{enhanced[1:]}" if enhanced else "5.0.0"
    if not enhanced:
        return "4.4.7"  # the time was over
    return enhanced if enhanced[0] == "5" else f"4{enhanced[1:]}"
