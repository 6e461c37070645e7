"""The networks of clients: their written form, and which of many a client is in.

Between: credentials name networks; authentication asks where the client's address is the credential, and
    whoever counts what clients do asks for `client_network`.
Contract: pure. The most specific network comes first; of two alike the first one counts. To find one of
    any number of networks is a dictionary look-up for each length of prefix that occurs.
Raises: ValueError where the client has no numeric address, or whose text says what to write.
Standards: RFC 4632 (CIDR), RFC 4291 2.5.5.2 (an IPv4 client of an IPv6 socket is ::ffff:a.b.c.d).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Network = IPv4Network | IPv6Network

_WIDEST = {4: 8, 6: 16}  # a shorter prefix is the whole internet, by mistake or by ::ffff:0:0/96


@lru_cache(4096)
def client_address(ip: str) -> IPv4Address | IPv6Address:
    """A peer's numeric address; an IPv4 client of an IPv6 socket is what it is, a zone is of our side."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(4096)
def client_network(ip: str) -> str:
    """Whom the deeds of a client are held against: one IPv6 customer has a whole /64 to come from."""
    address = client_address(ip)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """`192.0.2.0/24`, `2001:db8::/32`, `192.0.2.1` -> networks, none of them the whole internet."""
    return tuple(dict.fromkeys(_network(text) for text in texts))


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


@lru_cache(4096)
def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}: write a network like 192.0.2.0/24 or 2001:db8::/32") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        network = network if mapped is None else IPv4Network((mapped, network.prefixlen - 96))
    widest = _WIDEST[network.version]
    if network.prefixlen < widest:
        raise ValueError(
            f"{text!r} is too much of the internet: /{widest} is the widest for IPv{network.version}"
        )
    return network
