"""Values with their unit: the text an operator writes -> a number, a rate or an endpoint, and back.

Between: `config.load` and the commands, which read and write the same words in the file and at the terminal.
Contract: durations become seconds, sizes octets (K is 1024), rates an amount and its period in seconds.
    A number without a unit is refused, except 0: nobody can tell 30 seconds from 30 minutes. `..._text`
    writes what is read back to the same value; `about_...` three digits of what was measured, for people.
Raises: ValueError, whose text says what to write.
Standards: RFC 3986 3.2.2 (an IPv6 address stands in brackets before a port).
"""

from __future__ import annotations

import ipaddress
import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import idna

from mta.config.settings import (
    DAY,
    HOUR,
    KIB,
    MIB,
    MINUTE,
    Address,
    Duration,
    Endpoint,
    FeedbackId,
    Hop,
    HostName,
    Instance,
    MailAddress,
    Port,
    Priority,
    Size,
    Suffix,
)
from mta.core.check import NAMES
from mta.core.limits.order import HIGHEST, LOWEST
from mta.core.limits.throttle import Rate
from mta.core.limits.window import Window
from mta.core.mail import feedbackid
from mta.core.mail.address import PathError, a_label, parse
from mta.core.queueid import INSTANCES

# The count of digits is bounded: beyond it int() refuses with other words and float() answers inf.
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,12})([KMG])")
_RATE = re.compile(r"([0-9]{1,12})/([0-9]{0,9})(s|min|h|day)")
_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(
    rf"(?:({_DAY}(?:-{_DAY})?(?:,{_DAY}(?:-{_DAY})?)*) +)?"
    r"([0-9]{2}):([0-5][0-9])-([0-9]{2}):([0-5][0-9])(?: +([A-Za-z0-9_+/-]+))?"
)
_NUMERIC_HOST = re.compile(r"[0-9.]+")
_HOST = re.compile(r"[^\s:\[\]/@,]+")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
# Below a country's domain these are registries' own: example.co.uk is somebody, co.uk is everybody.
_REGISTRIES = frozenset({
    "ac", "asso", "co", "com", "ed", "edu", "go", "gob", "gouv", "gov", "gv", "id", "ind", "info", "ltd",
    "me", "mil", "ne", "net", "nhs", "nom", "or", "org", "plc", "sch",
})  # fmt: skip

_LABELLED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_SECONDS = {"ms": 0.001, "s": 1.0, "m": MINUTE, "h": HOUR, "d": DAY}
_OCTETS = {"K": KIB, "M": MIB, "G": 1024 * MIB}
_PERIODS = {"s": 1.0, "min": MINUTE, "h": HOUR, "day": DAY}


def duration(text: str) -> Duration:
    """`250ms`, `30s`, `5m`, `2h`, `4d` -> seconds."""
    if text == "0":
        return Duration(0.0)
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write a number and a unit: 250ms, 30s, 5m, 2h, 4d")
    return Duration(float(match[1]) * _SECONDS[match[2]])


def size(text: str) -> Size:
    """`64K`, `25M`, `1G` -> octets."""
    if text == "0":
        return Size(0)
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size: write a whole number and a unit: 64K, 25M, 1G")
    return Size(int(match[1]) * _OCTETS[match[2]])


def rate(text: str) -> Rate:
    """`100/min`, `20/30min` -> so many in so many seconds."""
    match = _RATE.fullmatch(text)
    amount, count = (int(match[1]), int(match[2] or 1)) if match else (0, 0)
    if match is None or not amount or not count:
        raise ValueError(f"{text!r} is not a rate: write 10/s, 100/min, 20/30min, 5000/h or 100000/day")
    return Rate(amount, count * _PERIODS[match[3]])


def priority(text: str) -> Priority:
    """-9 to 9."""
    if not LOWEST <= int(text) <= HIGHEST:
        raise ValueError(f"{text} is no priority: write a whole number from {LOWEST} to {HIGHEST}")
    return Priority(int(text))


def instance(text: str) -> Instance:
    """0 to 15."""
    if not 0 <= int(text) < INSTANCES:
        raise ValueError(f"{text} is no instance: write a whole number from 0 to {INSTANCES - 1}")
    return Instance(int(text))


def port(text: str) -> Port:
    """1 to 65535."""
    if not 1 <= int(text) <= 65535:
        raise ValueError(f"{text} is no port: write a number from 1 to 65535")
    return Port(int(text))


def address(text: str) -> Address:
    """A numeric address that a connection can leave from."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an address: write 192.0.2.10 or 2001:db8::10") from None
    if found.is_unspecified or found.is_multicast or found.is_link_local:
        raise ValueError(f"{text} is no address that mail can leave from")
    return Address(str(found))


def label(text: str) -> str:
    """A name that stands in events and on the command line."""
    if not _LABELLED.fullmatch(text):
        raise ValueError(f"{text!r} is not a name: write letters, digits, '.', '_' and '-', 64 at most")
    return text


def check_name(text: str) -> str:
    """One of our checks."""
    if text not in NAMES:
        raise ValueError(f"{text!r} is no check; there are {', '.join(NAMES)}")
    return text


def mail_address(text: str) -> MailAddress:
    """An address for a header field, in ASCII."""
    words = f"{text!r} is not an address: write user@example.com"
    try:
        path, parameters = parse(b"FROM", f"FROM:<{text}>".encode())
    except PathError:
        raise ValueError(words) from None
    if path.address != text or parameters or not text.isascii() or not text:
        raise ValueError(words)
    return MailAddress(text)


def feedback_id(text: str) -> FeedbackId:
    """A pattern such as {stream}:{tenant}:{domain}:example."""
    feedbackid.check(text)
    return FeedbackId(text)


def window(text: str) -> Window:
    """`08:00-20:00`, `mon-fri 08:00-20:00`, `sat,sun 10:00-16:00 Europe/Berlin`; without a zone it is UTC."""
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} are no hours: write 08:00-20:00 or mon-fri 08:00-20:00 Europe/Berlin")
    begin, end = (int(match[n]) * 60 + int(match[n + 1]) for n in (2, 4))
    if begin >= 24 * 60 or end > 24 * 60:
        raise ValueError(f"{text!r} are no hours: a day has 24 of them")
    try:
        zone = ZoneInfo(match[6] or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"{match[6]!r} is no time zone: write a name like Europe/Berlin") from None
    return Window(begin, end, _days(match[1] or "mon-sun"), zone, text)


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        start, stop = _DAYS.index(first), _DAYS.index(last or first)
        days |= {day % 7 for day in range(start, (stop if stop >= start else stop + 7) + 1)}
    return frozenset(days)


def domain_name(text: str) -> HostName:
    """As the envelope has it: lower case, A-labels, no final dot; or an address literal."""
    try:
        name = a_label(_ascii(text))
    except PathError:
        raise ValueError(f"{text!r} is not a domain name: write example.com") from None
    if _NUMERIC_HOST.fullmatch(name):
        raise ValueError(f"{text!r} is not a domain name: write [{name}] for mail to an address")
    return HostName(name)


def routed_domain(text: str) -> HostName:
    """A domain, or `*` for all that have no route of their own."""
    return HostName(text) if text == "*" else domain_name(text)


def host_name(text: str) -> HostName:
    """`mx1.example.com`: a name that DNS can have."""
    name = _ascii(text)
    if not _NAME.fullmatch(name) or _NUMERIC_HOST.fullmatch(name):
        raise ValueError(f"{text!r} is no host name: write mx1.example.com")
    return HostName(name)


def _ascii(text: str) -> str:
    """Lower case, A-labels, no final dot."""
    name = text.removesuffix(".")
    try:
        return name.lower() if name.isascii() else idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(f"not a domain name: {error}") from None


def suffix(text: str) -> Suffix:
    """`example.com`, for itself and every name below it; a dot before it changes nothing."""
    name = host_name(text.removeprefix("."))
    labels = name.split(".")
    if len(labels) < 2:
        raise ValueError(f"{text!r} takes half the world: write two labels or more, mx.example.com")
    if len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _REGISTRIES:
        raise ValueError(f"{text!r} is a public suffix: add the label before it")
    return Suffix(name)


def endpoint(text: str) -> Endpoint:
    """`127.0.0.1:587`, `[::1]:587`, `mx.example.com:25` -> host and port."""
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{text!r} has no port: write 127.0.0.1:587, [::1]:587 or mx.example.com:25")
    if host.startswith("[") and host.endswith("]"):
        return Endpoint(_ipv6(host[1:-1]), int(port))
    if ":" in host:
        raise ValueError(f"{text!r} is ambiguous: put an IPv6 address in brackets: [::1]:587")
    if not _HOST.fullmatch(host):
        raise ValueError(f"{text!r} has no valid host: write 127.0.0.1:587, [::1]:587 or mx.example.com:25")
    if _NUMERIC_HOST.fullmatch(host):
        _refuse_bad_ipv4(host)
    return Endpoint(host, int(port))


def hop(text: str) -> Hop:
    """An endpoint that can be dialled."""
    found = endpoint(text)
    if not found.port:
        raise ValueError("port 0 is nobody's: write host:port")
    return Hop(found)


def _ipv6(host: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        raise ValueError(f"{host!r} in brackets is not an IPv6 address: write [::1]:587") from None


def _refuse_bad_ipv4(host: str) -> None:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IPv4 address: write 127.0.0.1:587") from None


# And back


def duration_text(seconds: float) -> str:
    """In the unit that gives a whole number, the shortest such; in decimals where none does."""
    texts = []
    for unit in ("s", "m", "h", "d", "ms"):
        span = _SECONDS[unit]
        number = f"{seconds / span:.9f}".rstrip("0").rstrip(".")
        texts.append((float(number) * span != seconds, "." in number, len(number), number + unit))
    return min(texts, key=lambda candidate: candidate[:3])[3]


def size_text(octets: int) -> str:
    """In the largest unit that gives a whole number."""
    whole = (unit for unit in "GMK" if octets and octets % _OCTETS[unit] == 0)
    return next((f"{octets // _OCTETS[unit]}{unit}" for unit in whole), str(octets))


def rate_text(rate: Rate) -> str:
    """So many in the largest period that gives a whole number."""
    unit = next(unit for unit in ("day", "h", "min", "s") if rate.period % _PERIODS[unit] == 0)
    count = round(rate.period / _PERIODS[unit])
    return f"{rate.amount}/{'' if count == 1 else count}{unit}"


def about_duration(seconds: float) -> str:
    """`45.2s`, `1.5m`, `2h`."""
    unit = next((unit for unit in ("d", "h", "m") if seconds >= _SECONDS[unit]), "s")
    return f"{seconds / _SECONDS[unit]:.3g}{unit}"


def about_size(octets: int) -> str:
    """`0.5K`, `12.1K`, `25M`; 1000K are still K."""
    unit = next((unit for unit in "GM" if octets >= _OCTETS[unit]), "K")
    number = octets / _OCTETS[unit]
    return (
        f"{number:.0f}{unit}"
        if number >= 100
        else f"{number:.2g}{unit}"
        if number < 1
        else f"{number:.3g}{unit}"
    )


def about_rate(per_second: float) -> str:
    """`300/min`; always by the minute, so that two of them can be compared at a glance."""
    by_minute = per_second * MINUTE
    return f"{by_minute:.0f}/min" if by_minute >= 100 else f"{by_minute:.3g}/min"
