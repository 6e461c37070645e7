"""A tag list: `v=DMARC1; p=none`, as DKIM's key records and DMARC's records are written.

Between: `core.mail.dmarc` and `core.domain` read records of DNS with it.
Contract: pure; linear. Names are in lower case, values without the blanks around them. What is no
    `name=value` is passed over; of a name that stands there twice the first counts.
Raises: nothing.
Standards: RFC 6376 3.2, RFC 9989 4.8.
"""

from __future__ import annotations

_BLANKS = " \t\r\n"


def tags(record: bytes) -> dict[str, str]:
    """The tags of one record."""
    found: dict[str, str] = {}
    for part in record.decode("latin-1").split(";"):
        name, equals, value = part.partition("=")
        if equals:
            found.setdefault(name.strip(_BLANKS).lower(), value.strip(_BLANKS))
    return found
