"""The settings: these types are the schema, the defaults and the documentation.

Between: `config.load` builds one `Settings`; `config.policy` makes of it what services ask.
Contract: frozen values. Durations are seconds (float; written `30s`, `5m`, `2h`, `4d`), sizes are octets
    (int; written `25M`), rates are `Rate` (written `100/min`), paths are absolute after loading.
Raises: ValueError in `__post_init__` for what two keys forbid each other; `config.load` gives it a place.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, NewType

from mta.core.check import CheckMode
from mta.core.limits.room import Quota as Quota
from mta.core.limits.room import Size as Size
from mta.core.limits.throttle import Rate
from mta.core.limits.window import Window
from mta.core.queue.retry import Duration as Duration
from mta.core.route.terms import Terms, overlay

Priority = NewType("Priority", int)  # -9 to 9 (RFC 6710)
Instance = NewType("Instance", int)  # 0 to 15
Port = NewType("Port", int)  # 1 to 65535
Address = NewType("Address", str)  # numeric, as `ipaddress` writes it
HostName = NewType("HostName", str)  # lower-case A-labels, no final dot
Suffix = NewType("Suffix", str)  # of host names: two labels or more, and no public suffix

MailAddress = NewType("MailAddress", str)  # user@example.com, ASCII
FeedbackId = NewType("FeedbackId", str)  # a pattern: `core.mail.feedbackid` fills it

PRIORITIES = {"transactional": Priority(4), "bulk": Priority(-4)}  # of streams that do not say theirs

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
KIB, MIB = 1024, 1024 * 1024


class Endpoint(NamedTuple):
    """A host and a port, written `127.0.0.1:587` or `[::1]:587`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True only for a numeric loopback address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


EightBit = Literal["send", "convert", "return"]
Hop = NewType("Hop", Endpoint)  # where mail can be sent: no port 0

SECRET = "identity.secret"  # in the spool directory
KEYS = "keys"  # the folder of DKIM keys there
ADMIN_BIND = Endpoint("127.0.0.1", 8025)
ANY_LOOPBACK = Endpoint("127.0.0.1", 0)


@dataclass(frozen=True)
class ListenerSettings:
    """One address that takes submissions."""

    bind: Endpoint
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    auth: Literal["password", "network"] = "password"  # network: the client's address is the credential

    def __post_init__(self) -> None:
        if self.tls == "none" and not (self.auth == "network" and self.bind.is_loopback):
            raise ValueError("tls: none is only for auth: network on a loopback address")


@dataclass(frozen=True)
class Stream:
    """A class of traffic; a credential names the one that its mail belongs to."""

    expire: Duration = Duration(4 * DAY)  # undelivered for so long: the sender is told
    retry_first: Duration = Duration(5 * MINUTE)
    retry_max: Duration = Duration(2 * HOUR)  # the wait doubles up to this
    priority: Priority | None = None  # none: 4 for transactional, -4 for bulk, 0 for any other
    hours: Window | None = None  # when its mail may be delivered; none: always
    pool: str | None = None  # the sources that its mail leaves from; none: `default`
    checks: Mapping[str, CheckMode] = field(default_factory=dict)  # above those of `guard`

    def __post_init__(self) -> None:
        _check_modes(self.checks)
        if not self.expire or not self.retry_first:
            raise ValueError("expire and retry_first are never 0: the mail would not be tried again")
        if self.retry_max < self.retry_first:
            raise ValueError("retry_first is above retry_max")
        if self.hours is not None and self.expire <= self.hours.longest_pause:
            raise ValueError("hours pause for longer than expire: mail would expire before it may go")


def _check_modes(checks: Mapping[str, CheckMode]) -> None:
    if checks.get("proximity") == "enforce":
        raise ValueError(
            "checks.proximity is warn or off: it counts what was delivered, and keeps nothing back"
        )


@dataclass(frozen=True)
class GuardSettings:
    """What protects our reputation."""

    checks: Mapping[str, CheckMode] = field(default_factory=dict)  # by name; of those left out docs/checks.md

    def __post_init__(self) -> None:
        _check_modes(self.checks)


@dataclass(frozen=True)
class IdentitySettings:
    """As whom we send, besides what `mta domain` knows."""

    default: HostName | None = None  # the domain that signs where nobody has added that of the From field
    second: HostName | None = None  # the domain that signs as well: where feedback loops are enrolled
    rotate: Duration = Duration(180 * DAY)  # a key is followed by a new one at this age; 0: by hand only
    feedback_id: FeedbackId | None = None  # what a message gets that has no Feedback-ID field
    complaints: MailAddress | None = None  # what it gets as CFBL-Address (RFC 9477)
    secret: Path | None = None  # what our tokens are made with; none: `SECRET` in the spool directory

    @property
    def is_silent(self) -> bool:
        """Nobody signs but who was added, and only his own."""
        return self.default is None and self.second is None


@dataclass(frozen=True)
class SourceSettings:
    """An address of this machine that mail leaves from. Written `192.0.2.10` where only that matters."""

    address: Address
    hostname: HostName | None = None  # in EHLO: what the PTR record of the address says; none: `hostname`


@dataclass(frozen=True)
class ProviderSettings(Terms):
    """What changes in a shipped profile, or a provider of one's own; each value left out is as it was."""

    match: tuple[Suffix, ...] = ()  # suffixes of MX host names: all hosts of the best preference end in one
    domains: tuple[HostName, ...] = ()  # recipient domains that belong to it whatever their MX
    examples: tuple[HostName, ...] = ()  # MX host names; one at least for each suffix
    per: Literal["provider", "site"] | None = None  # whose limits: all its sites', or each site's


@dataclass(frozen=True)
class Destination(Terms):
    """Terms towards one recipient domain; the key `default` is for all, below provider and destination."""

    port: Port | None = None  # of the MX hosts


DEFAULT = Destination(
    connections=20,
    connections_start=2,  # who does not know us yet is not to meet twenty of us
    rate_start=Rate(300, MINUTE),
    messages_per_connection=100,
    recipients_per_message=50,
    tls="opportunistic",
    port=Port(25),
)


@dataclass(frozen=True)
class StaticRoute:
    """A fixed next hop. Written `host:port` where only the host matters."""

    host: Hop
    connections: int = 20
    messages_per_connection: int = 1000
    recipients_per_message: int = 50
    rate: Rate | None = None
    user: str = ""
    password_file: Path | None = None
    tls: Literal["opportunistic", "required"] = (
        "opportunistic"  # always required with a user, but on loopback
    )

    def __post_init__(self) -> None:
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file go together")


@dataclass(frozen=True)
class Dns:
    """Where names are looked up."""

    servers: tuple[Endpoint, ...] = ()  # none: those of /etc/resolv.conf
    timeout: Duration = Duration(5.0)  # for one answer, all servers tried


@dataclass(frozen=True)
class Tls:
    """Our certificate for clients (P-256 is the cheapest to serve)."""

    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class SpoolSettings:
    """The durable store."""

    path: Path = Path("/var/lib/mta")
    memory: Size = Size(64 * MIB)  # fresh contents that may wait in memory
    reserve: Size = Size(512 * MIB)  # free octets below which new mail is refused; what is queued goes on


@dataclass(frozen=True)
class Events:
    """The event log."""

    path: Path | None = None  # none: `events.jsonl` in the spool directory
    retention: Duration = Duration(30 * DAY)  # how long the file of a day is kept after it


@dataclass(frozen=True)
class AdminSettings:
    """Where operators and monitoring ask."""

    bind: Endpoint = ADMIN_BIND  # /metrics /healthz /readyz
    socket: Path | None = None  # none: `control` in the spool directory


@dataclass(frozen=True)
class Limits:
    """What one client, or all of them, may take of this machine."""

    message_size: Size = Size(50 * MIB)  # or half of `memory`, where that is less
    recipients: int = 1000  # per message
    connections: int = 1000  # of clients at once
    connections_per_client: int = 100  # from one address
    connections_out: int | None = None  # to peers at once; none: what files and memory are enough for
    memory: Size = Size(256 * MIB)  # contents on their way in, over all clients; as many on their way out
    header: Size = Size(MIB)  # the fields of one message, 10,000 at most
    hops: int = 50  # Received fields in a message before it is taken for a loop
    command_timeout: Duration = Duration(5 * MINUTE)  # RFC 5321 4.5.3.2.7
    data_timeout: Duration = Duration(10 * MINUTE)  # for the whole of one message
    session_timeout: Duration = Duration(4 * HOUR)
    drain: Duration = Duration(30.0)  # how long a stop waits for transactions under way
    tenants: Mapping[str, Quota] = field(default_factory=dict)  # `default`: each without a line of its own


@dataclass(frozen=True)
class Sandbox:
    """Nothing leaves this machine: every domain's mail goes to a receiving MX of our own."""

    path: Path  # each message is kept there as an .eml
    bind: Endpoint = ANY_LOOPBACK

    def __post_init__(self) -> None:
        if not self.bind.is_loopback:
            raise ValueError("the sandbox binds to a loopback address only")


@dataclass(frozen=True)
class Settings:
    """The whole of mta.yaml."""

    hostname: HostName
    instance: Instance = Instance(0)  # in queue ids: another one for each daemon, where there are several
    listeners: tuple[ListenerSettings, ...] = (
        ListenerSettings(Endpoint("0.0.0.0", 587)),
        ListenerSettings(Endpoint("0.0.0.0", 465), tls="implicit"),
    )
    bare_newlines: Literal["refuse", "normalise"] = "refuse"  # bare CR or LF in a message
    eight_bit: EightBit = "send"  # where 8BITMIME is missing
    received: Literal["hidden", "full"] = "hidden"  # what the Received field says of the client
    streams: Mapping[str, Stream] = field(
        default_factory=lambda: {"transactional": Stream(), "bulk": Stream()}
    )
    sources: Mapping[str, SourceSettings] = field(default_factory=dict)  # none: the system chooses
    pools: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # weights; `default`: else all alike
    routes: Mapping[str, StaticRoute] = field(default_factory=dict)
    providers: Mapping[str, ProviderSettings] = field(default_factory=dict)
    destinations: Mapping[str, Destination] = field(default_factory=dict)  # always with `default`, complete
    identity: IdentitySettings = IdentitySettings()
    guard: GuardSettings = GuardSettings()
    dns: Dns = Dns()
    tls: Tls = Tls()
    spool: SpoolSettings = SpoolSettings()
    events: Events = Events()
    admin: AdminSettings = AdminSettings()
    limits: Limits = Limits()
    sandbox: Sandbox | None = None

    def __post_init__(self) -> None:
        needs_tls = any(listener.tls != "none" for listener in self.listeners)
        if needs_tls and not (self.tls.certificate and self.tls.key):
            raise ValueError("tls.certificate and tls.key are needed: a listener speaks TLS")
        if self.sandbox and self.routes:
            raise ValueError("sandbox and routes exclude each other: in the sandbox nothing leaves")
        default = _complete(self.destinations.get("default", Destination()))
        object.__setattr__(self, "destinations", {**self.destinations, "default": default})

    def priority(self, stream: str) -> Priority:
        """The priority of a stream's mail."""
        said = self.streams[stream].priority
        return PRIORITIES.get(stream, Priority(0)) if said is None else said

    @property
    def event_log(self) -> Path:
        return self.events.path or self.spool.path / "events.jsonl"

    @property
    def secret(self) -> Path:
        return self.identity.secret or self.spool.path / SECRET

    @property
    def control_socket(self) -> Path:
        return self.admin.socket or self.spool.path / "control"


def _complete(said: Destination) -> Destination:
    """What holds for every destination, where some of it is said."""
    try:
        return replace(overlay(DEFAULT, said), port=DEFAULT.port if said.port is None else said.port)
    except ValueError as error:
        words = f"destinations.default: {error}, which is {DEFAULT.connections} where it is not said"
        raise ValueError(words) from None
