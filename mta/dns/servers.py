"""The name servers: a question -> the first good answer of any of them, or why there is none.

Between: `resolver` asks; sockets are `udp`'s and `tcp`'s, octets are `wire`'s.
Contract: seconds. The servers are asked in their order: the next one after `STEP` of silence (twice that when
    all have been asked, and so on), at once when one fails. An answer is used when it comes, however late,
    until the question's time is over. A server that missed `AILING` questions, and has answered none since,
    is asked behind the others; every `PROBE` one question goes to it besides. Who refuses EDNS is asked
    without for `PLAIN`. `AT_ONCE` questions are under way, the others wait for their turn; their time begins
    with it. What a truncated answer holds is not used: the question goes to that server again over TCP,
    `STREAMS` at once.
Raises: nothing; `deliver` is called once for each question, with an answer or with words.
Standards: RFC 1035 4.2.1, 7.2, 7.3, RFC 2181 9 (truncation), RFC 6891 6.2.2, 7 (no EDNS), RFC 7766 5 (TCP).
Why: one timer and one heap serve all questions: a timer of its own costs as much as a packet. A broken server
    must cost the first questions some seconds, and not each.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count

from dns import rcode as rcodes

from mta.clock import Clock, Timer
from mta.config import units
from mta.config.settings import Endpoint
from mta.dns import tcp, wire
from mta.dns.udp import Port, Ports

AT_ONCE = 1024  # questions
STEP = 2.0  # seconds of silence, until the next server is asked too; twice that when all have been asked
AILING = 3  # questions
PROBE = 30.0  # seconds
PLAIN = 3600.0  # seconds
STREAMS = 16  # connections
STALE = 64  # entries of the heap that nobody needs, before it is tidied

Deliver = Callable[["wire.Answer | str"], None]


class NameServer:
    """One name server, and how it does."""

    def __init__(self, endpoint: Endpoint, ignored: Callable[[], object]) -> None:
        self.endpoint = endpoint
        self.ports = Ports(endpoint, ignored)
        self.heard_at = -math.inf
        self.plain_until = -math.inf
        self.probe_at = -math.inf
        self.missed = 0

    def __str__(self) -> str:
        return str(self.endpoint)


class Question:
    """What somebody wants to know, and whom we have asked."""

    __slots__ = (
        "asked",
        "deliver",
        "good",
        "kind",
        "last",
        "octets",
        "over",
        "problems",
        "sent_at",
        "streams",
        "tries",
        "turn",
    )

    def __init__(self, octets: bytes, kind: int, deliver: Deliver, over: float) -> None:
        self.octets = octets
        self.kind = kind
        self.deliver: Deliver | None = deliver  # None when it is answered, or given up
        self.over = over
        self.good: list[NameServer] = []  # that have not failed
        self.tries = 0
        self.turn = 0  # of its entries in the heap only that of the last turn counts
        self.last: NameServer | None = None
        self.sent_at = -math.inf
        self.asked: list[_Datagram] = []  # to which an answer may still come
        self.streams: dict[NameServer, asyncio.Task[None]] = {}
        self.problems: dict[NameServer, str] = {}


class _Datagram:
    """A question that one server was sent."""

    __slots__ = ("id", "is_plain", "port", "question", "server", "servers")
    port: Port
    id: bytes

    def __init__(self, servers: Servers, question: Question, server: NameServer, is_plain: bool) -> None:
        self.servers = servers
        self.question = question
        self.server = server
        self.is_plain = is_plain

    def received(self, packet: bytes) -> bool:
        """Is it an answer? Then we are done."""
        return self.servers.received(self, packet)

    def broken(self, error: OSError) -> None:
        """The socket is of no use any more."""
        if self in self.question.asked:  # else another datagram of the same question was on it, and has told
            self.servers.failed(self.question, self.server, f"cannot be asked: {error.strerror or error}")


class Servers:
    """All that are asked, in their order."""

    def __init__(self, clock: Clock, ignored: Callable[[], object]) -> None:
        self.timeout = 0.0  # seconds, for one question
        self.heard_at = -math.inf  # monotonic; when any of them said anything, the last time
        self.under_way = 0
        self._clock = clock
        self._ignored = ignored
        self._servers: list[NameServer] = []
        self._waiting: deque[Question] = deque()
        self._streams = asyncio.Semaphore(STREAMS)
        self._due: list[tuple[float, int, Question, int]] = []  # a heap
        self._order = count()
        self._timer: Timer | None = None
        self._timer_at = math.inf

    def __str__(self) -> str:
        return ", ".join(map(str, self._servers))

    def __len__(self) -> int:
        return len(self._servers)

    def use(self, endpoints: Sequence[Endpoint]) -> None:
        """These, from the next question on; what is known of those that stay is not lost."""
        known = {server.endpoint: server for server in self._servers}
        self._servers = [
            known.pop(each) if each in known else NameServer(each, self._ignored) for each in endpoints
        ]

    def ask(self, octets: bytes, kind: int, deliver: Deliver, over: float = math.inf) -> Question:
        """What comes of it is delivered, at once if nobody can be asked; `over` if its time runs already."""
        question = Question(octets, kind, deliver, over)
        if self.under_way >= AT_ONCE or self._waiting:
            self._waiting.append(question)
        else:
            self._start(question)
        return question

    def _start(self, question: Question) -> None:
        self.under_way += 1
        now = self._clock.monotonic()
        question.over = min(question.over, now + self.timeout)
        well = [server for server in self._servers if server.missed < AILING]
        ailing = [each for each in self._servers if each not in well] if len(well) < len(self) else []
        question.good = [*well, *ailing]
        if not question.good:
            self._finish(question, "there is no name server to ask")
            return
        self._ask_next(question)
        for server in ailing if well else ():
            if server.probe_at <= now and question.deliver is not None:
                server.probe_at = now + PROBE
                self._send(question, server)

    def _ask_next(self, question: Question) -> None:
        """The next of its servers."""
        now, good = self._clock.monotonic(), question.good
        server, pause = good[question.tries % len(good)], STEP * 2 ** (question.tries // len(good))
        question.tries += 1
        question.turn += 1
        question.last, question.sent_at = server, now
        self._wake(min(now + pause, question.over), question)
        if server not in question.streams:
            self._send(question, server)

    def _send(self, question: Question, server: NameServer, is_plain: bool = False) -> None:
        is_plain = is_plain or server.plain_until > self._clock.monotonic()
        datagram = _Datagram(self, question, server, is_plain)
        question.asked.append(datagram)
        try:
            server.ports.send(datagram, wire.query(question.octets, is_plain))
        except OSError as error:
            question.asked.remove(datagram)
            self.failed(question, server, f"cannot be asked: {error.strerror or error}")

    # what comes back

    def received(self, datagram: _Datagram, packet: bytes) -> bool:
        """Is it an answer to this datagram?"""
        question, server = datagram.question, datagram.server
        if not wire.fits(packet, question.octets):
            return False
        if wire.is_truncated(packet):
            self._heard(server)
            self._forget(question, server)
            if server not in question.streams:
                streaming = self._stream(question, server, datagram.is_plain)
                question.streams[server] = asyncio.get_running_loop().create_task(streaming)
            return True
        self._judge(question, server, packet, datagram.is_plain)
        return True

    async def _stream(self, question: Question, server: NameServer, is_plain: bool) -> None:
        """The same question over TCP."""
        query = server.ports.id() + wire.query(question.octets, is_plain)
        try:
            async with self._streams:
                packet = await tcp.ask(server.endpoint, query)
        except (OSError, EOFError) as error:
            problem = f"does not answer by TCP: {error}"
        else:
            problem = "answered another question by TCP"
            if packet[:2] == query[:2] and wire.fits(packet, question.octets):
                problem = ""
        del question.streams[server]  # we end by ourselves now
        if problem:
            self.failed(question, server, problem)
        else:
            self._judge(question, server, packet, is_plain)

    def _judge(self, question: Question, server: NameServer, packet: bytes, is_plain: bool) -> None:
        """A response to the question, from the server that was asked."""
        now = self._heard(server)
        try:
            answer = wire.parse(packet, question.octets, question.kind)
        except wire.BadPacket as error:
            self.failed(question, server, f"answered what cannot be read: {error}")
            return
        rcode = answer.rcode
        if rcode in (wire.FORMERR, wire.NOTIMP, wire.BADVERS) and not is_plain:
            self._forget(question, server)
            self._send(question, server, is_plain=True)
        elif rcode not in (wire.NOERROR, wire.NXDOMAIN):
            if rcode == wire.SERVFAIL:  # which is about the name
                server.missed = 0
            self.failed(question, server, f"answered {rcodes.to_text(rcodes.Rcode.make(rcode))}")
        elif answer.is_referral:
            self.failed(question, server, "answered that others are to be asked: it does not do it for us")
        else:
            server.missed = 0
            if is_plain and server.plain_until <= now:
                server.plain_until = now + PLAIN
            if answer.is_authentic and not server.endpoint.is_loopback:
                answer = answer._replace(is_authentic=False)  # RFC 4035 4.9.3: who knows who sent it?
            self._finish(question, answer)

    def _heard(self, server: NameServer) -> float:
        self.heard_at = server.heard_at = now = self._clock.monotonic()
        return now

    def failed(self, question: Question, server: NameServer, problem: str) -> None:
        """This server will not answer the question: the next one is asked."""
        if question.deliver is None:
            return
        server.missed += 1
        question.problems[server] = f"{server} {problem}"
        self._forget(question, server)
        question.good = [each for each in question.good if each is not server]
        if not question.good:
            self._finish(question, "; ".join(question.problems.values()))
        elif server is question.last:
            self._ask_next(question)

    def _forget(self, question: Question, server: NameServer) -> None:
        """No datagram to this server is waited for any more."""
        for datagram in question.asked[:]:
            if datagram.server is server:
                question.asked.remove(datagram)
                datagram.port.forget(datagram.id)

    def _finish(self, question: Question, result: wire.Answer | str) -> None:
        deliver, question.deliver = question.deliver, None
        for datagram in question.asked:
            datagram.port.forget(datagram.id)
        question.asked.clear()
        for task in question.streams.values():
            task.cancel()
        self.under_way -= 1
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._let_in)
        if len(self._due) > 2 * self.under_way + STALE:
            self._due = [entry for entry in self._due if _counts(entry)]
            heapq.heapify(self._due)
        if deliver is not None:
            deliver(result)

    def _let_in(self) -> None:
        while self._waiting and self.under_way < AT_ONCE:
            self._start(self._waiting.popleft())

    # time

    def _wake(self, at: float, question: Question) -> None:
        heapq.heappush(self._due, (at, next(self._order), question, question.turn))
        if at < self._timer_at:
            self._set_timer(at)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._clock.call_later(at - self._clock.monotonic(), self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = self._clock.monotonic()
        try:
            while self._due and self._due[0][0] <= now:
                entry = heapq.heappop(self._due)
                if _counts(entry):
                    self._is_silent(entry[2], now)
        finally:
            if self._due and self._due[0][0] < self._timer_at:
                self._set_timer(self._due[0][0])

    def _is_silent(self, question: Question, now: float) -> None:
        """The server that was asked last has had its time."""
        last = question.last
        if last is not None and last.heard_at < question.sent_at:
            last.missed += 1
        if now < question.over:
            self._ask_next(question)
            return
        silent = dict.fromkeys([*(str(each.server) for each in question.asked), *map(str, question.streams)])
        words = f"{', '.join(silent)} said nothing: timed out after {units.about_duration(self.timeout)}"
        self._finish(question, "; ".join([*question.problems.values(), words]))


def _counts(entry: tuple[float, int, Question, int]) -> bool:
    """Is it for a question that is open, and the last of it?"""
    return entry[2].deliver is not None and entry[2].turn == entry[3]
