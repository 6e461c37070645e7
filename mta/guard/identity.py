"""Is mail from whom it says: the checks `alignment`, `key`, `stream` and `one-click`.

Between: `guard.checks` asks them; `guard.records` has what DNS shows.
Contract: synchronous, from memory; what is not known is Go. Of a From domain that nobody has added `key`
    says so each time, with one look into a table.
Raises: nothing.
Standards: RFC 9989 5.3 (alignment), RFC 6376 3.6 (keys), RFC 8058 (one click).
"""

from __future__ import annotations

import re
from functools import lru_cache

from mta.core.check import Answer, Mail, Refuse
from mta.core.mail.dmarc import alignment
from mta.core.mail.header import Header, values
from mta.core.mail.taglist import tags
from mta.core.mail.unsubscribe import missing
from mta.core.model import Go
from mta.guard.records import Records

GO = Go()
MAX_SIGNATURES = 10  # of the application's own, that are looked at
_DOMAIN = re.compile(r"[a-z0-9._-]{1,253}")


class Identity:
    """What the three know."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def alignment(self, mail: Mail, now: float) -> Answer:
        """Is the domain in From that of a signature, or of the return path? RFC 9989 5.3."""
        author, path = mail.author, mail.path
        if not author or author == path or author in mail.signers:
            return GO
        signers = [*mail.signers, *(_signers(mail.header) if mail.header is not None else ())]
        if alignment(author, signers, path, self._records.walked) is not False:
            return GO
        return _unaligned(author, path, mail.signers)

    def key(self, mail: Mail, now: float) -> Answer:
        """Can others verify our signatures?"""
        domain = mail.domain
        if domain is None:
            return _not_added(mail.author) if mail.author and not mail.signers else GO
        missing = ""
        for key in domain.signers:
            missing = key.host(domain.name)
            shown = self._records.shown(missing)
            if shown is None or any(map(key.is_shown_by, shown)):
                return GO
        return _not_shown(domain.name, missing)

    async def refresh(self, mail: Mail) -> None:
        """Look up what both need to know of it."""
        domain = mail.domain
        names = (mail.author, mail.path, *mail.signers)
        for name in filter(None, dict.fromkeys(names)):
            await self._records.fresh_walk(name)
        if domain is not None:
            for key in domain.signers:
                await self._records.fresh_key(key.host(domain.name))


def stream(mail: Mail, now: float) -> Answer:
    """May mail of this stream have this domain in From?"""
    domain = mail.domain
    if domain is None or not domain.streams or mail.stream in domain.streams:
        return GO
    return _other_stream(domain.name, domain.streams, mail.stream)


def is_nobodys(mail: Mail) -> bool:
    """Nobody has added its From domain."""
    return mail.domain is None


def is_sender(mail: Mail) -> bool:
    """It is nobody's, and aligned by the sender that the client names."""
    return mail.domain is None and mail.author in ("", mail.sender)


def is_no_list(mail: Mail) -> bool:
    """It is nobody's, and has not the first field."""
    return mail.domain is None and mail.header is not None and not mail.header.is_list


def one_click(mail: Mail, now: float) -> Answer:
    """Can the recipient leave the list with one click?"""
    header = mail.header
    if header is None:
        return GO
    lacks = missing(values(header, b"list-unsubscribe"), values(header, b"list-unsubscribe-post"))
    return _no_click(lacks) if lacks else GO


def _signers(header: Header) -> list[str]:
    """The d= of the signatures that the application brings; whether they hold others will see."""
    found = values(header, b"dkim-signature")[:MAX_SIGNATURES]
    domains = [tags(each).get("d", "") for each in found]
    return [each for each in domains if _DOMAIN.fullmatch(each)]


@lru_cache(maxsize=1024)
def _not_added(author: str) -> Refuse:
    return Refuse(
        f"Nobody has added the From domain {author}, so its mail is not signed here: mta domain add {author}"
    )


def _unaligned(author: str, path: str, signers: tuple[str, ...]) -> Refuse:
    signed = f"the signature of {' and '.join(signers)}" if signers else "any signature of ours"
    words = f"The From domain {author} is aligned with neither {signed} nor the return path"
    return Refuse(f"{words} ({path or 'none'}): send from {author}, or write another From")


def _not_shown(domain: str, name: str) -> Refuse:
    if not name:
        return Refuse(f"The From domain {domain} has no key to sign with: make one")
    return Refuse(f"DNS does not show the key of {domain}: publish the TXT record {name}")


@lru_cache(maxsize=1024)
def _other_stream(domain: str, streams: tuple[str, ...], said: str) -> Refuse:
    return Refuse(
        f"From addresses of {domain} are for {' and '.join(streams)} mail, and this is {said}: write another "
        "From, or name the stream in X-MTA-Stream"
    )


@lru_cache(maxsize=2)
def _no_click(lacks: str) -> Refuse:
    return Refuse(f"Bulk mail needs a one-click unsubscription: add the field {lacks}")
