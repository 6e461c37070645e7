"""Which of many networks a client is in.

Between: authentication asks where the client's address is the credential.
Contract: pure. The most specific network comes first; of two alike the first one counts. To find one of
    any number of networks is a dictionary look-up for each length of prefix that occurs.
Raises: ValueError where the client has no numeric address.
Standards: RFC 4632 (CIDR).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mta.core.credential import Network, client_address


class Networks:
    """Whose networks they are, by login."""

    def __init__(self, owners: Iterable[tuple[Network, str]] = ()) -> None:
        tables: dict[tuple[int, int], dict[int, tuple[str, str]]] = {}
        for network, login in owners:
            shift = network.max_prefixlen - network.prefixlen
            prefix = int(network.network_address) >> shift
            tables.setdefault((network.version, shift), {}).setdefault(prefix, (str(network), login))
        self._tables = sorted(tables.items())  # few bits to shift away: a long prefix

    def find(self, client_ip: str) -> Iterator[tuple[str, str]]:
        """The networks that the client is in, and whose they are."""
        client = client_address(client_ip)
        address = int(client)
        for (version, shift), table in self._tables:
            if version == client.version and (found := table.get(address >> shift)) is not None:
                yield found
