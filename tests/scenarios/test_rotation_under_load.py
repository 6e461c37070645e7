"""Keys take over from each other while mail goes on: none signs before DNS shows its record."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import dkim

from mta.config.settings import Dns, Duration, Endpoint
from mta.core.domain import SendingDomain
from mta.signing.keys import KeyFolder
from mta.signing.rotation import ROUND, make
from mta.store.domains import DomainStore
from tests.fakes.clock import HandClock
from tests.fakes.dns import Misfortune, NameServer
from tests.fakes.house import House, routed, running, settings
from tests.fakes.network import FIRST, own_network
from tests.fakes.receiver import Receiver
from tests.fakes.relay import MUTE

ROTATIONS = 10
NAME = "src.test"
MESSAGE = b"From: a@src.test\r\nTo: b@dst.test\r\nSubject: %d\r\n\r\nHello.\r\n"
Zone = dict[tuple[str, str], list[str] | Misfortune]


class Traffic:
    """Mail that never stops; each message is verified by what DNS shows at the moment when it arrives."""

    def __init__(self, house: House, target: Receiver, zone: Zone) -> None:
        self._house, self._target, self._zone = house, target, zone
        self.verified = 0
        self.selectors: set[bytes] = set()
        self.came = asyncio.Event()
        self.stopping = False

    async def run(self) -> None:
        while not self.stopping:
            said = await self._house.send("b@dst.test", content=MESSAGE % self.verified)
            assert said.startswith("250 "), said
            await self._target.until(self.verified + 1)
            for content in self._target.messages[self.verified :]:
                signature = dkim.DKIM(content)
                assert signature.verify(dnsfunc=self._looked_up), content
                self.selectors.add(signature.signature_fields[b"s"])
                self.verified += 1
                self.came.set()

    def _looked_up(self, name: bytes, timeout: int) -> bytes | None:
        shown = self._zone.get((name.decode().rstrip("."), "TXT"))
        return shown[0].strip('"').encode() if isinstance(shown, list) else None


def publish(zone: Zone, domain: SendingDomain) -> None:
    for key in domain.keys:
        zone[key.host(NAME), "TXT"] = [f'"{key.record}"']


async def test_ten_rotations_under_load_fail_no_verification(tmp_path: Path) -> None:
    spool, zone = tmp_path / "spool", Zone({(NAME, "NS"): [f"ns.{NAME}."], (f"ns.{NAME}", "A"): [FIRST]})
    spool.mkdir()
    domain = make(KeyFolder(spool), SendingDomain(NAME), "ed25519-sha256", 0.0)
    publish(zone, domain)
    with own_network(), DomainStore(spool) as store:
        store.put(domain)
        clock = HandClock(1_700_000_000.0)
        async with NameServer(zone, host=FIRST, port=53), Receiver() as target:
            dns = Dns((Endpoint(FIRST, 53),), Duration(5.0))
            terms = replace(settings(tmp_path, routes=routed(target.port)), dns=dns)
            async with running(terms, clock, (MUTE,)) as house:
                traffic = Traffic(house, target, zone)
                sending = asyncio.create_task(traffic.run())
                try:
                    for n in range(ROTATIONS):
                        await rotated(store, spool, zone, clock, f"s{n}", traffic)
                finally:
                    traffic.stopping = True
                    await sending
    assert traffic.verified >= ROTATIONS
    assert len(traffic.selectors) == ROTATIONS + 1


async def rotated(
    store: DomainStore, spool: Path, zone: Zone, clock: HandClock, selector: str, traffic: Traffic
) -> None:
    """A new key is made, published late, and signs; then one message at least has come by it."""
    known = store.get(NAME)
    assert known is not None
    made = make(KeyFolder(spool), known, "ed25519-sha256", clock.now(), selector)
    store.change_keys(NAME, lambda _: [made.keys[-1]])
    async with asyncio.timeout(30):
        await clock.advance(ROUND)
        publish(zone, made)
        while selector.encode() not in traffic.selectors:
            await clock.advance(ROUND / 4)
            traffic.came.clear()
            await traffic.came.wait()
