"""Every metric, with its help and label values.

Between: `daemon` makes one `Metrics` and sets the gauges' functions; services count through the attributes
    they were given; `api.admin` shows the registry.
Contract: children exist from construction, so a series starts at 0 and `inc` is a lock and an addition;
    what every message counts is counted in the loop only, without the lock.
    Durations are seconds, sizes octets. No label's value ever comes from the internet. A gauge's function
    runs in the loop at every scrape: it looks at a number, it does not ask the spool.
Raises: nothing.
Standards: Prometheus text format and OpenMetrics (units and suffixes of the names).
Why: the library's counter makes five calls (0.5 us), its histogram ten (1 us): for each message that was one
    part in a hundred of all its work.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Final, Generic, Literal, TypeVar, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from mta.core.check import NAMES, CheckName
from mta.core.model import Kind

# IANA's service names for 587 and 465; "network" is where the client's address is the credential.
ListenerName = Literal["submission", "submissions", "network"]
Room = Literal[
    "intake",
    "signing",
    "guard",
    "spool",
    "outbound",
    "delivery",
    "events",
    "smtp",
    "dns",
    "api",
    "ops",
    "sandbox",
    "loop",
]

COMMIT_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
COMMIT_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5)
DELIVERY_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 28800, 86400)

log = logging.getLogger(__name__)

# Otherwise half of all series would be _created; the library's only switch is for the whole process.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Count:
    """A child of `Counts`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, many: int = 1) -> None:
        """So many more."""
        self.value += many


Value = TypeVar("Value", bound=Hashable)


class Counts(Collector, Generic[Value]):
    """A counter by one label, of what every message counts."""

    def __init__(
        self, name: str, help: str, label: str, values: Mapping[Value, str], registry: CollectorRegistry
    ) -> None:
        self._family = partial(CounterMetricFamily, name, help, labels=[label])
        self._values = values
        self.children: Mapping[Value, Count] = {value: Count() for value in values}
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        family = self._family()
        for value, child in self.children.items():
            family.add_metric([self._values[value]], child.value)
        yield family


class Durations(Collector):
    """A histogram of what every message measures."""

    def __init__(self, name: str, help: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._family = partial(HistogramMetricFamily, name, help)
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[Metric]:
        family = self._family()
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        family.add_metric([], list(zip(names, accumulate(self._counts), strict=True)), self._sum)
        yield family


class Metrics:
    """The daemon's metrics; the attributes are what services count with."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._intake()
        self._guard()
        self._outbound()
        self._dns()
        self._spool()

    def _intake(self) -> None:
        registry = self.registry
        names: Sequence[ListenerName] = get_args(ListenerName)
        self.receptions = Counts(
            "mta_receptions", "Messages that we answered 250 and own.", "listener",
            {name: name for name in names}, registry,
        ).children  # fmt: skip
        signatures = Counts(
            "mta_signed_messages", "Messages that were to be signed, by what came of it.", "result",
            {result: result for result in ("success", "failure")}, registry,
        ).children  # fmt: skip
        self.signed, self.signing_failed = signatures["success"], signatures["failure"]
        self.signers_known = Gauge(
            "mta_signers_known", "From domains of which is remembered who signs for them.", registry=registry
        )
        rejections = Counter(
            "mta_rejections",
            "Commands and messages of clients that we refused, by class of our reply.",
            ["code"],  # 4yz, 5yz
            registry=registry,
        )
        self.rejected_4yz = rejections.labels("4yz")
        self.rejected_5yz = rejections.labels("5yz")
        authentications = Counter(
            "mta_authentications",
            "Logins that were checked.",
            ["result"],  # success, failure
            registry=registry,
        )
        self.authenticated = authentications.labels("success")
        self.authentication_failed = authentications.labels("failure")
        self.handshakes_failed = Counter(
            "mta_handshakes_failed", "TLS handshakes of clients that came to nothing.", registry=registry
        )
        places = Gauge(
            "mta_places",
            "Connections of clients, by what holds them.",
            ["holder"],  # client (logged in), stranger (not yet)
            registry=registry,
        )
        self.places_client, self.places_stranger = places.labels("client"), places.labels("stranger")
        self.places_refused = Counter(
            "mta_places_refused", "Clients that found no place, or lost theirs to another.", registry=registry
        )
        self.certificate_expires = Gauge(
            "mta_certificate_expires_timestamp_seconds",
            "When the certificate that clients are shown ends; 0 where there is none.",
            registry=registry,
        )
        self.memory_receiving_bytes = Gauge(
            "mta_memory_receiving_bytes", "Contents of messages on their way in.", registry=registry
        )
        self.disk_free_bytes = Gauge(
            "mta_disk_free_bytes", "What the spool's disk has left for us.", registry=registry
        )
        self.connections_in = Gauge("mta_connections_in", "Open connections of clients.", registry=registry)

    def _guard(self) -> None:
        registry = self.registry
        names: Mapping[CheckName, str] = {name: name for name in NAMES}
        self.check_warnings = Counts(
            "mta_check_warnings", "Objections of checks in mode warn.", "check", names, registry
        ).children
        self.check_refusals = Counts(
            "mta_check_refusals", "Objections of checks in mode enforce.", "check", names, registry
        ).children
        self.check_records = Gauge(
            "mta_check_records", "Names whose DNS records checks have in memory.", registry=registry
        )
        self.check_volumes = Gauge(
            "mta_check_volumes",
            "Pairs of a From domain and a provider whose recipients are counted.",
            registry=registry,
        )

    def _outbound(self) -> None:
        registry = self.registry
        self.outcomes = Counts(
            "mta_outcomes", "Recipients by what became of an attempt.", "kind",
            {kind: kind.value for kind in Kind}, registry,
        ).children  # fmt: skip
        self.delivered = self.outcomes[Kind.DELIVERED]
        self.deferred = self.outcomes[Kind.DEFERRED]
        self.bounced = self.outcomes[Kind.BOUNCED]
        self.expired = self.outcomes[Kind.EXPIRED]
        self.ambiguous = self.outcomes[Kind.AMBIGUOUS]
        self.delivery_seconds = Durations(
            "mta_delivery_seconds",
            "From our 250 to the peer's, per delivered recipient.",
            DELIVERY_SECONDS,
            registry,
        )
        self.lanes = Gauge("mta_lanes", "Lanes that hold mail or a connection.", registry=registry)
        self.hosts = Gauge(
            "mta_hosts", "Receiving hosts of which something is remembered, by address.", registry=registry
        )
        self.memory_sending_bytes = Gauge(
            "mta_memory_sending_bytes", "Contents read back from disk to be sent.", registry=registry
        )
        self.connections_out = Gauge(
            "mta_connections_out", "Connections to peers, being dialled or open.", registry=registry
        )
        self.connections_out_waiting = Gauge(
            "mta_connections_out_waiting", "Lanes that wait for a place among these.", registry=registry
        )
        self.branches_learned = Gauge(
            "mta_branches_learned", "Branches whose limits are remembered.", registry=registry
        )
        self.routes_known = Gauge("mta_routes_known", "Domains whose route is remembered.", registry=registry)

    def _dns(self) -> None:
        registry = self.registry
        self.dns_questions = Gauge(
            "mta_dns_questions", "Questions to name servers that wait for an answer.", registry=registry
        )
        self.dns_cache_bytes = Gauge(
            "mta_dns_cache_bytes",
            "What is remembered of name servers' answers, estimated.",
            registry=registry,
        )
        self.dns_ignored = Counter(
            "mta_dns_ignored",
            "Datagrams from name servers that answer no question of ours: forged, or late.",
            registry=registry,
        )

    def _spool(self) -> None:
        registry = self.registry
        queue = Gauge(
            "mta_queue_recipients",
            "Recipients in the spool.",
            ["state"],  # fresh (the first attempt is not over), deferred (waits for its due time)
            registry=registry,
        )
        self.queue_fresh = queue.labels("fresh")
        self.queue_deferred = queue.labels("deferred")
        self.commit_batch = Histogram(
            "mta_commit_batch", "Jobs in one commit.", buckets=COMMIT_BATCH, registry=registry
        )
        self.commit_seconds = Histogram(
            "mta_commit_seconds",
            "One commit, from BEGIN to synced.",
            buckets=COMMIT_SECONDS,
            registry=registry,
        )
        self.memory_bodies_bytes = Gauge(
            "mta_memory_bodies_bytes", "Contents of fresh messages held in memory.", registry=registry
        )
        self.threads = Gauge("mta_threads", "Threads of the process, but libraries' own.", registry=registry)
        bugs = Counter(
            "mta_bugs",
            "Exceptions that are our own fault: any rise is worth a report.",
            ["module"],  # the rooms
            registry=registry,
        )
        self.bugs: Mapping[Room, Counter] = {room: bugs.labels(room) for room in get_args(Room)}

    def bug(self, room: Room, what: str, error: BaseException) -> None:
        """An exception that is our own fault has ended here: count it and tell it.

        What the machine refuses (files, memory, a disk) is told without a traceback.
        """
        self.bugs[room].inc()
        if isinstance(error, OSError):
            log.error("%s: %s", what, error)
        else:
            log.error("%s", what, exc_info=error)
