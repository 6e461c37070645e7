"""The parts list: builds everything, starts in order, adopts a new policy, drains in reverse.

Between: the command line runs one `Daemon`; nobody else constructs services.
Contract: `run` returns after a drain. It is ready (`ready` is called, systemd hears of it) when every
    listener accepts. `stop` may be called from a signal handler.
Raises: SpoolError, OSError, SettingsError's relatives: what keeps the daemon from starting, with words.
Why: doors are the last to open and the first to close; the spool is the first and the last.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from mta.api.admin import Admin
from mta.api.control import Control, ControlError
from mta.clock import Clock, Every
from mta.config.policy import Current, Policy, PolicyError, fixed
from mta.config.settings import DAY, Endpoint, ListenerSettings, Settings
from mta.core.check import At, Check
from mta.core.event import Event, Type, rfc3339
from mta.core.limits.sparing import PERIOD, Sparing
from mta.core.queue.last import read
from mta.core.queueid import text
from mta.core.returns.verp import LIFETIME, WEEK, Verp
from mta.delivery.connect import Connector
from mta.delivery.hosts import Hosts
from mta.delivery.pool import Pool
from mta.delivery.router import Router
from mta.dns.authority import Authority
from mta.dns.resolver import Resolver
from mta.events.log import EventLog
from mta.guard.checks import Checks
from mta.guard.identity import Identity, is_no_list, is_nobodys, is_sender, one_click, stream
from mta.guard.proximity import Proximity
from mta.guard.records import Records
from mta.intake.admission import Admission
from mta.intake.authentication import Authenticator
from mta.intake.capacity import Capacity
from mta.intake.submission import Intake, Submission
from mta.metrics import ListenerName, Metrics, Room
from mta.ops import descriptors, logs, memory
from mta.ops.addresses import local_addresses
from mta.ops.certificate import Watch
from mta.ops.notify import Notify
from mta.outbound.explanation import author_of, explain, explain_checks
from mta.outbound.outcome import Settler
from mta.outbound.scheduler import Scheduler
from mta.sandbox.mx import SandboxMX
from mta.signing import secret
from mta.signing.keys import KeyFolder
from mta.signing.plans import Plans
from mta.signing.rotation import Rotation
from mta.signing.signer import Signer
from mta.smtp.connection import ClientTerms
from mta.smtp.listener import Listener
from mta.smtp.rests import Rests
from mta.spool.queue import Spool
from mta.store.credentials import CredentialStore
from mta.store.database import FILE, Database
from mta.store.domains import DomainStore
from mta.store.hosts import HostStore
from mta.store.volumes import VolumeStore

MAX_LISTED = 10_000  # recipients that `queue list` shows

log = logging.getLogger(__name__)


class Daemon:
    """One mail transfer agent."""

    def __init__(self, policy: Policy, clock: Clock, environment: Mapping[str, str]) -> None:
        self.current = Current(policy)
        settings = policy.settings
        self.clock = clock
        directory = settings.spool.path
        self.metrics = Metrics()
        self.notify = Notify(environment, clock)
        self.event_log = EventLog(settings.event_log, settings.events.retention, clock)
        self.credentials = CredentialStore(directory / "credentials.db")
        self.database = Database(directory / FILE)
        self.database.on_new = self._store_is_new
        mode = "sandbox" if settings.sandbox else "live"
        self.spool = Spool(
            directory, mode, settings.spool.memory, self.event_log.publish, clock, self.metrics,
            settings.instance,
        )  # fmt: skip
        self.keys = KeyFolder(directory)
        self.plans = Plans(DomainStore(directory), self.keys, self.current, clock)
        self.signer = Signer(self.plans, self.keys, settings.hostname, clock, self.metrics)
        self.capacity = Capacity(self.current, self.spool, clock)
        self.authenticator = Authenticator(self.credentials, clock)
        self.resolver = Resolver(settings.dns, clock, self.metrics.dns_ignored.inc)
        self.records = Records(self.resolver, clock, self.metrics)
        self.identity = Identity(self.records)
        self.proximity = Proximity(VolumeStore(self.database), self.records.organisation, clock, self.metrics)
        self.checks = Checks(
            (
                Check("alignment", At.ACCEPT, self.identity.alignment, is_sender),
                Check("key", At.ACCEPT, self.identity.key, is_nobodys),
                Check("stream", At.ACCEPT, stream, is_nobodys),
                Check("one-click", At.ACCEPT, one_click, is_no_list),
                Check("proximity", At.ATTEMPT, self.proximity.ask),
            ),
            self.plans,
            self.current,
            self.spool,
            clock,
            self.metrics,
        )
        self.proximity.on_near = self.checks.near
        self.admin = Admin(settings.admin.bind, self.metrics, self._not_ready, clock, settings.hostname)
        self.control = Control(
            settings.control_socket,
            {"queue": self._queue, "status": self._status, "explain": self._explain},
        )
        certificate = settings.tls.certificate
        self.certificate = Watch(certificate, clock, self.metrics) if certificate else None
        self.listeners: list[Listener] = []
        # Where what comes back for a message is taken: nowhere, as long as nobody listens there.
        self._rests = Rests()
        self._stray = Sparing()
        self._stopping = asyncio.Event()
        self._watching: list[asyncio.Task[None]] = []
        tide = memory.Tide(lambda: self.intake.connections + self.pool.connections)
        self._tides = Every(
            clock, memory.LOOK, tide.look, partial(self.metrics.bug, "ops", "a bug in the tides")
        )
        bug = partial(self.metrics.bug, "loop", "a bug in what is told of stray errors")
        self._strays = Every(clock, PERIOD, self._tell_strays, bug)

    @property
    def settings(self) -> Settings:
        """Those of the policy that holds."""
        return self.current.policy.settings

    def stop(self) -> None:
        """Begin the drain."""
        self._stopping.set()

    def adopt(self, policy: Policy) -> None:
        """From the next message on this is what holds; to be called while we serve.

        Raises: PolicyError where it is another one in what a running daemon cannot change. Then nothing is.
        """
        old = self.current.policy
        keys = fixed(old.settings, policy.settings)
        if keys:
            raise PolicyError(f"only a restart changes {', '.join(keys)}")
        follow: tuple[tuple[Room, Callable[[Policy, Policy], None]], ...] = (
            ("events", self.event_log.adopted),
            ("dns", self.resolver.adopted),
            ("signing", self.plans.adopted),
            ("delivery", self.router.adopted),
            ("delivery", self.pool.adopted),
            ("delivery", lambda old, new: self.pool.out.become(self._outgoing())),
            ("intake", self.capacity.adopted),
            ("guard", self.checks.adopted),
            ("intake", self._doors_adopted),
        )
        self.current.policy = policy
        for room, adopted in follow:
            try:
                adopted(old, policy)
            except Exception as error:  # a bug of one service: the others are not to stay behind for it
                self.metrics.bug(room, "not all of the new policy holds", error)

    def _doors_adopted(self, old: Policy, new: Policy) -> None:
        self.intake.adopted(self._places())
        for listener in (*self.listeners, self.sandbox):
            if listener is not None:
                listener.terms = self._client_terms()

    async def run(self, ready: Callable[[Daemon], None] = lambda daemon: None) -> None:
        """Serve until `stop`."""
        with logs.aside():
            await self._run(ready)

    def _stray_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What ends nowhere else: a callback of the loop, a task that nobody waits for."""
        message, error = str(context.get("message", "")), context.get("exception")
        if self._stray.may_tell(type(error).__name__, self.clock.monotonic()):
            log.error("%s", message, exc_info=error)
        if error is not None and not isinstance(error, OSError):
            self.metrics.bugs["loop"].inc()

    def _store_is_new(self, words: str) -> None:
        self._tell_state(words)
        self.plans.open()

    def _tell_state(self, words: str) -> None:
        log.error("%s", words)
        self.spool.report([Event(time=rfc3339(self.clock.now()), type=Type.STATE, reason=words)])

    def _tell_strays(self) -> None:
        """How many more there were of what was told often; the next ones are told again."""
        for name, count in self._stray.rest(self.clock.monotonic()):
            log.error("errors that end nowhere else, %s: %d more in the last minute", name, count)

    async def _run(self, ready: Callable[[Daemon], None]) -> None:
        asyncio.get_running_loop().set_exception_handler(self._stray_error)
        self.notify.starting()
        self._tls = _server_context(self.settings)
        first_retry = max(schedule.first for schedule in self.current.policy.schedules.values())
        try:
            await self.spool.open(first_retry)
        except BaseException:
            self.notify.close()
            raise
        try:
            secrets = await self._secrets()
            self.event_log.open()
            self.credentials.open()
            await self.database.open()
            self.plans.open()
            self.signer.start()
            await self.authenticator.open()
            async with asyncio.TaskGroup() as tasks:
                committing = tasks.create_task(self.spool.run())
                try:
                    await self._open_doors(tasks, secrets)
                    ready(self)
                    self.notify.ready()
                    await self._stopping.wait()
                finally:
                    await self._drain()
                    self.spool.stop()
                    await committing
        finally:
            self.authenticator.close()
            self.credentials.close()
            self.signer.stop()
            self.plans.close()
            await self.database.close()
            await self.spool.close()
            self.event_log.close()
            self.notify.close()

    async def _secrets(self) -> tuple[bytes, ...]:
        """What tokens are made and read with. Others than before are never taken without a word."""
        path = self.settings.secret
        found = await asyncio.to_thread(secret.obtain, path)
        known = [secret.fingerprint(each) for each in found]
        former = await self.spool.stamp("secret", known[0])
        if former is not None and former not in known:
            self._tell_state(
                f"{path} no longer has the secret of the last start: what comes back for mail that was sent "
                f"with it is not known as ours, for up to {(LIFETIME + WEEK) / DAY:.0f} days; take it from a "
                "backup, put it in a line behind the new one, and start again"
            )
        return found

    async def _open_doors(self, tasks: asyncio.TaskGroup, secrets: tuple[bytes, ...]) -> None:
        """Outbound first, then intake, then the operator's doors."""
        await self._open_outbound(tasks, secrets)
        self._open_intake(tasks)
        await self.capacity.measure()
        self._watching.append(tasks.create_task(self.capacity.watch()))
        self._watch()
        self._tides.start()
        if self.certificate is not None:
            self.certificate.start()
        self._strays.start()
        await self.admin.start()
        await self.control.start()
        for n, door in enumerate(self.settings.listeners):
            listener = self._made_for(door, tasks)
            await _started(listener, f"listeners[{n}].bind")
            self.listeners.append(listener)

    async def _open_outbound(self, tasks: asyncio.TaskGroup, secrets: tuple[bytes, ...]) -> None:
        """The way out of the spool, and what it is told and learns."""
        sandbox = await self._open_sandbox(tasks)
        current = self.current
        self.router = Router(current, self.resolver, self.clock, local_addresses(), sandbox)
        self.hosts = Hosts(HostStore(self.database), self.spool, self.clock, self.metrics)
        await self.hosts.start(tasks)
        self.records.start(tasks)
        await self.proximity.start(tasks)
        self.checks.start()
        connector = Connector(self.router, self.hosts, self.clock)
        settler = Settler(self.spool, current, self.clock, self.metrics)
        settler.on_delivered = self.proximity.delivered
        self.pool = Pool(
            connector,
            current,
            settler,
            self.spool,
            Verp(secrets),
            self._outgoing(),
            self.signer.own,
            self.clock,
            self.metrics,
        )
        self.scheduler = Scheduler(
            self.router, self.pool, current, settler, self.spool, self.clock, self.metrics
        )
        await self.pool.start(tasks)
        await self.scheduler.start(tasks)

    def _open_intake(self, tasks: asyncio.TaskGroup) -> None:
        """The way into the spool, and the keys that it signs with."""
        current = self.current
        admission = Admission(
            current, self.checks, self.plans, self.signer, self.spool, self.clock, self.scheduler.accepted
        )
        self.intake = Intake(
            current,
            self.authenticator,
            admission,
            self.capacity,
            self.spool,
            self.clock,
            self.metrics,
            self._places(),
        )
        self.intake.strangers.start()
        self.rotation = Rotation(
            self.database,
            self.keys,
            current,
            Authority(self.resolver, self.clock),
            self.spool.reader.oldest,
            self.spool.report,
            self.clock,
            self.metrics,
        )
        self.rotation.start(tasks)

    def _places(self) -> int:
        """Connections that clients may hold."""
        asked, granted = self.settings.limits.connections, descriptors.places(descriptors.raise_limit())
        if asked > granted:
            words = "limits.connections is %d; the system's files are enough for %d: raise LimitNOFILE="
            log.warning(words, asked, granted)
        return min(asked, granted)

    def _outgoing(self) -> int:
        """Connections to peers."""
        files = descriptors.outgoing(descriptors.raise_limit(), self._places())
        if self.settings.sandbox is not None:
            files = (files + 1) // 2  # each has its other end here
        asked = self.settings.limits.connections_out
        if asked is None:
            return min(files, memory.outgoing())
        if asked > files:
            words = "limits.connections_out is %d; the system's files are enough for %d: raise LimitNOFILE="
            log.warning(words, asked, files)
        return min(asked, files)

    async def _open_sandbox(self, tasks: asyncio.TaskGroup) -> Endpoint | None:
        self.sandbox: Listener | None = None
        if self.settings.sandbox is None:
            return None
        directory = self.settings.sandbox.path
        directory.mkdir(parents=True, exist_ok=True)
        sandbox = self._listener(
            self.settings.sandbox.bind,
            tasks,
            hostname=f"sandbox.{self.settings.hostname}",
            bug=partial(self.metrics.bug, "sandbox", "a bug in the sandbox's server"),
            connect=lambda listener: SandboxMX.listening(listener, directory),
        )
        await _started(sandbox, "sandbox.bind")
        self.sandbox = sandbox
        return Endpoint(sandbox.host, sandbox.port)

    def _made_for(self, door: ListenerSettings, tasks: asyncio.TaskGroup) -> Listener:
        name: ListenerName = "submissions" if door.tls == "implicit" else "submission"
        if door.auth == "network":
            name = "network"
        return self._listener(
            door.bind,
            tasks,
            hostname=self.settings.hostname,
            implicit_tls=door.tls == "implicit",
            offers_auth=door.auth == "password",
            use_tls=door.tls != "none",
            bug=partial(self.metrics.bug, "intake", "a bug in an SMTP connection"),
            handshake_failed=self.intake.strangers.handshake_failed,
            connect=lambda listener: Submission.listening(listener, self.intake, name),
        )

    def _listener(
        self, bind: Endpoint, tasks: asyncio.TaskGroup, *, use_tls: bool = True, **terms: Any
    ) -> Listener:
        return Listener(
            host=bind.host,
            port=bind.port,
            clock=self.clock,
            terms=self._client_terms(),
            memory=self.capacity.memory,
            rests=self._rests,
            tls_context=self._tls if use_tls else None,
            spawn=lambda work: tasks.create_task(self._guarded(work)),
            **terms,
        )

    def _client_terms(self) -> ClientTerms:
        limits = self.settings.limits
        normalise = self.settings.bare_newlines == "normalise"
        times = limits.command_timeout, limits.data_timeout, limits.session_timeout
        return ClientTerms(self.capacity.largest, *times, normalise)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """One connection's work; what it raises ends here."""
        try:
            await work
        except Exception as error:
            self.metrics.bug("smtp", "a bug in a connection's task", error)

    async def _drain(self) -> None:
        """Doors, then mail under way, then the rest; what waits stays on disk."""
        self.notify.stopping()
        grace: float = self.settings.limits.drain  # seconds, for all of them together
        over = self.clock.monotonic() + grace
        await asyncio.gather(*(listener.drain(grace) for listener in self.listeners))
        grace = max(over - self.clock.monotonic(), 1.0)
        if hasattr(self, "scheduler"):
            self.scheduler.stop()
            await self.pool.drain(grace)
        if hasattr(self, "hosts"):
            await self.hosts.stop()
            await self.proximity.stop()
            self.checks.stop()
        if self.sandbox is not None:
            await self.sandbox.drain(grace)
        self._tides.stop()
        if self.certificate is not None:
            self.certificate.stop()
        self._strays.stop()
        for task in self._watching:
            task.cancel()
        if hasattr(self, "intake"):
            self.intake.strangers.stop()
        if hasattr(self, "rotation"):
            self.rotation.stop()
        await self.control.stop()
        self.records.stop()
        await self.admin.stop()

    # What operators ask

    def _not_ready(self) -> list[str]:
        reasons = []
        if self._stopping.is_set():
            reasons.append("the daemon is going down")
        reasons += self.spool.complaints
        reasons += self.capacity.short
        reasons += self.plans.complaints
        reasons += self.signer.complaints
        if self.certificate is not None and self.certificate.complaint:
            reasons.append(self.certificate.complaint)
        return reasons

    async def _explain(self, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            destination = str(parameters.get("destination", ""))
            sources = self.current.policy.sources
            answer = await explain(self.router, sources, destination, self.pool.state, self.hosts.shown)
            if author := author_of(str(parameters.get("from") or "")):
                provider, streams = answer.get("provider") or "", self.settings.streams
                answer["checks"] = await explain_checks(self.checks, self.identity, author, provider, streams)
            return answer
        except ValueError as error:
            raise ControlError(str(error)) from None

    async def _status(self, parameters: dict[str, Any]) -> dict[str, Any]:
        tally = self.spool.tally
        return {
            "queue": {"fresh": tally.fresh, "deferred": tally.deferred},
            "lanes": self.pool.lanes,
            "connections": {"in": self.intake.connections, "out": self.pool.connections},
            "not_ready": self._not_ready(),
        }

    async def _queue(self, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        limit = parameters.get("limit", 1000)
        if not isinstance(limit, int) or limit < 1:
            raise ControlError(f"limit is a whole number from 1 on, not {limit!r}")
        limit = min(limit, MAX_LISTED)
        return [
            {
                "queue_id": text(message.id),
                "sender": message.sender,
                "recipient": message.recipients[0].address,
                "tenant": message.tenant,
                "stream": message.stream,
                "size": message.size,
                "tags": message.tags,
                "score": message.score,
                "attempts": message.recipients[0].attempts,
                "state": "fresh" if due is None else "deferred",
                "due": None if due is None else rfc3339(due),
                "expires": rfc3339(message.expires),
                "last": None if (last := read(message.recipients[0].last)) is None else last.shown,
            }
            for message, due in await self.spool.reader.queue(limit)
        ]

    def _watch(self) -> None:
        metrics = self.metrics
        metrics.lanes.set_function(lambda: self.pool.lanes)
        metrics.hosts.set_function(lambda: len(self.hosts))
        places = self.intake.places
        metrics.connections_in.set_function(lambda: len(places))
        metrics.places_stranger.set_function(lambda: places.strangers)
        metrics.places_client.set_function(lambda: len(places) - places.strangers)
        metrics.dns_questions.set_function(lambda: self.resolver.questions)
        metrics.dns_cache_bytes.set_function(lambda: self.resolver.cache_octets)
        metrics.connections_out.set_function(lambda: self.pool.out.held)
        metrics.connections_out_waiting.set_function(lambda: len(self.pool.queue))
        metrics.branches_learned.set_function(lambda: self.pool.learned)
        metrics.signers_known.set_function(lambda: self.plans.known)
        metrics.check_records.set_function(lambda: len(self.records))
        metrics.check_volumes.set_function(lambda: len(self.proximity))
        metrics.routes_known.set_function(lambda: self.router.known)
        metrics.threads.set_function(threading.active_count)
        metrics.memory_receiving_bytes.set_function(lambda: self.capacity.memory.used)
        metrics.memory_sending_bytes.set_function(lambda: self.pool.contents.octets)
        metrics.disk_free_bytes.set_function(lambda: self.capacity.free)
        metrics.memory_bodies_bytes.set_function(lambda: self.spool.memory_used)
        metrics.queue_fresh.set_function(lambda: self.spool.tally.fresh)
        metrics.queue_deferred.set_function(lambda: self.spool.tally.deferred)


async def _started(listener: Listener, key: str) -> None:
    """Bound; what the machine has against it is told with the setting to change."""
    try:
        await listener.start()
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({key})") from error


def _server_context(settings: Settings) -> ssl.SSLContext | None:
    """The context for clients; one for all connections."""
    if settings.tls.certificate is None or settings.tls.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        for file in (settings.tls.certificate, settings.tls.key):
            file.open("rb").close()  # which one it is that cannot be read the next line does not say
        context.load_cert_chain(settings.tls.certificate, settings.tls.key, _no_passphrase)
    except OSError as error:  # ssl.SSLError is one too
        files = f"the certificate {settings.tls.certificate} with the key {settings.tls.key}"
        raise OSError(f"cannot use {files}: {error}") from error
    return context


def _no_passphrase() -> str:
    """Without it OpenSSL asks at the terminal, and waits."""
    raise OSError("the key is encrypted: write it without a passphrase")
