"""One-click unsubscription: has a message the two fields that it takes?

Between: the check `one-click` asks.
Contract: pure; takes the values of the fields in lower case, folded or not. "" where all is well, else what
    is wrong, for the sender.
Raises: nothing.
Standards: RFC 8058 3.1 (both fields, one https URI at least), RFC 2369 2 (URIs in angle brackets, parted by
    commas).
Why: large providers refuse bulk mail without it, or show it less. That a signature covers both, which RFC
    8058 4 asks for, is not looked at: ours covers them always.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_HTTPS = re.compile(rb"<\s*+https://[^<>]")
ONE_CLICK = b"list-unsubscribe=one-click"


def missing(unsubscribe: Sequence[bytes], post: Sequence[bytes]) -> str:
    """What the fields `List-Unsubscribe` and `List-Unsubscribe-Post` lack."""
    if len(unsubscribe) != 1 or not _HTTPS.search(unsubscribe[0]):
        return "List-Unsubscribe: <https://...>"
    if len(post) != 1 or b"".join(post[0].split()) != ONE_CLICK:
        return "List-Unsubscribe-Post: List-Unsubscribe=One-Click"
    return ""
