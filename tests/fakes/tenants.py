"""Two tenants of one daemon, told apart by the address that they submit from."""

from __future__ import annotations

import pytest

from mta.core.credential import Credential

SHOP = Credential(
    "shop", "shop", "transactional", networks=("127.0.0.1/32",), kind="network", notify=False
)  # its mail goes at priority 4
OTHER = Credential(
    "other", "other", "bulk", networks=("127.0.0.2/32",), priority=4, kind="network", notify=False
)  # its mail goes at priority -4, where it asks for no other
BOTH = (SHOP, OTHER)
FROM_SHOP, FROM_OTHER = "127.0.0.1", "127.0.0.2"
# What another list of OTHER's, at its own priority, must not stand before: (origin, priority).
URGENT = [
    pytest.param(FROM_OTHER, 4, id="a password of its own"),
    pytest.param(FROM_SHOP, -4, id="a newsletter of another tenant"),
]
