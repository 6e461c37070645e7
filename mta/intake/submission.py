"""The submission listener: who may send what, from which address, how much.

Between: `smtp.server` speaks; the authenticator knows clients; admission takes complete messages.
Contract: a client needs a credential before MAIL: by AUTH under TLS, or by its address on a listener
    with `auth: network`. It is looked at again at MAIL and when a message is complete: a session whose
    credential was removed, re-keyed or narrowed ends with 421, at most a tenth of a second later; other
    terms hold from the next MAIL on. A client that goes on guessing where it is limited hears 421 as well.
    An over-limit client gets 4yz with the seconds to wait, never 5yz. Refusals are counted; an event tells
    of a refused login, sender or message, and of a limit once a transaction.
Raises: nothing to the loop.
Standards: RFC 6409 (submission), RFC 8314 (implicit TLS), RFC 4954 (AUTH), RFC 5321 4.5.3.1.10 (452),
    RFC 6710 (MT-PRIORITY), RFC 4865 (FUTURERELEASE).
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Hashable
from datetime import UTC, datetime
from functools import partial

from aiosmtpd.smtp import MISSING, AuthResult

from mta.clock import Clock
from mta.config.policy import Current
from mta.core.credential import Credential
from mta.core.limits.places import Places
from mta.core.limits.room import Share
from mta.core.limits.throttle import RateLimit
from mta.core.mail import options
from mta.core.mail.address import EnvelopePath, PathError
from mta.core.mail.text import fit
from mta.core.model import Option, Reply, Wait
from mta.core.networks import client_network
from mta.intake import admission
from mta.intake.admission import Admission, Answered
from mta.intake.authentication import Authenticator, Denial
from mta.intake.capacity import Capacity
from mta.intake.strangers import MAX_NAME, Strangers
from mta.metrics import ListenerName, Metrics
from mta.smtp.listener import Listener
from mta.smtp.parser import CROWDED, SMALL
from mta.smtp.server import Server
from mta.spool.queue import Spool

MAX_RATES = 10_000  # credentials whose rate is remembered

AUTH_REQUIRED = Reply(530, "5.7.0", "Authentication required")
TLS_REQUIRED = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
NO_NETWORK = Reply(554, "5.7.1", "No credential is bound to your address")
NOT_YOURS = Denial(Reply(535, "5.7.8", "You may act as nobody else: leave the identity empty"), "other")
ENDED = Reply(421, "4.7.0", "Your credential was removed or changed; connect again and log in anew")
TOO_MANY = Reply(421, "4.7.0", "Too many connections; close some and try again in 5 seconds")
NO_PLACE = Reply(421, "4.7.0", "Others wait for your place; log in sooner, or try again in 5 seconds")


class Intake:
    """What all submission listeners share: the handler that aiosmtpd asks for AUTH mechanisms."""

    def __init__(
        self,
        current: Current,
        authenticator: Authenticator,
        admission: Admission,
        capacity: Capacity,
        spool: Spool,
        clock: Clock,
        metrics: Metrics,
        places: int,
    ) -> None:
        self.current = current
        self.authenticator = authenticator
        self.admission = admission
        self.capacity = capacity
        self.spool = spool
        self.clock = clock
        self.metrics = metrics
        self.places: Places[Submission] = Places(
            places, current.policy.settings.limits.connections_per_client
        )
        self.strangers = Strangers(spool, clock, metrics)
        self._rates: dict[str, RateLimit] = {}

    @property
    def connections(self) -> int:
        """Clients that hold a place."""
        return len(self.places)

    def adopted(self, places: int) -> None:
        """So many places there are from now on; who has one keeps it."""
        self.places.most = places
        self.places.each = self.current.policy.settings.limits.connections_per_client

    def rate(self, credential: Credential) -> RateLimit:
        """How much the credential has sent lately."""
        known = self._rates.get(credential.login)
        if known is None or known.rate != credential.rate:
            if len(self._rates) >= MAX_RATES:
                self._rates.clear()
            known = self._rates[credential.login] = RateLimit(credential.rate)
        return known

    # AUTH mechanisms, found by the base by their names

    async def auth_PLAIN(self, connection: Submission, words: list[str]) -> AuthResult:
        """RFC 4616."""
        response = await _initial(connection, words, "")
        if response is None:
            return AuthResult(success=False, handled=True)
        identity, _, rest = response.partition(b"\0")
        login, found, secret = rest.partition(b"\0")
        if not found:
            await connection.push("501 5.5.2 PLAIN is authorisation, login and password, parted by NUL")
            return AuthResult(success=False, handled=True)
        if identity not in (b"", login):  # RFC 4616 2: to act for somebody else
            return self._refuse(connection, login, NOT_YOURS)
        return await self._verify(connection, login, secret)

    async def auth_LOGIN(self, connection: Submission, words: list[str]) -> AuthResult:
        """draft-murchison-sasl-login."""
        login = await _initial(connection, words, "Username:")
        secret = await _initial(connection, [], "Password:") if login is not None else None
        if login is None or secret is None:
            return AuthResult(success=False, handled=True)
        return await self._verify(connection, login, secret)

    async def _verify(self, connection: Submission, login: bytes, secret: bytes) -> AuthResult:
        answer = await self.authenticator.verify(login, secret, connection.client)
        if isinstance(answer, Denial):
            return self._refuse(connection, login, answer)
        self.metrics.authenticated.inc()
        connection.credential, connection.verifier = answer
        connection.logged_in()
        return AuthResult(success=True, message="235 2.7.0 Authentication successful")

    def _refuse(self, connection: Submission, login: bytes, refusal: Denial) -> AuthResult:
        self.metrics.authentication_failed.inc()
        name = fit(login.decode("utf-8", "replace"), MAX_NAME)
        reply = connection.refuse_login(refusal)
        connection.note(reply, f"authentication: {refusal.reason}", login=name)
        if refusal.reason == "wrong":
            words = "%s: the login %r was refused"
            self.strangers.say("logins that were refused", words, connection.client, name)
        return AuthResult(success=False, handled=True)


async def _initial(connection: Submission, words: list[str], challenge: str) -> bytes | None:
    """The client's response, sent along with AUTH or asked for; None if it was no base64."""
    if len(words) < 2:
        response = await connection.challenge_auth(challenge)
        return None if response is MISSING else response
    try:
        return b"" if words[1] == "=" else base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        await connection.push("501 5.5.2 The response is not base64")
        return None


class Submission(Server):
    """One submitting client."""

    event_handler: Intake
    listener: Listener
    listener_name: ListenerName
    network_auth: bool
    credential: Credential | None
    verifier = ""  # what the credential was proved against
    revision = -1  # of the store, when the credential was last looked at; no answer of `look` is that
    was_limited = False  # AUTH
    limit_told: bool  # of this transaction

    @classmethod
    def listening(cls, listener: Listener, intake: Intake, name: ListenerName) -> Submission:
        """The connection that all of a listener are copied from."""
        made = cls.template(listener, intake)
        made.listener_name = name
        made.network_auth = name == "network"
        return made

    def on_connect(self) -> Reply | None:
        intake = self.event_handler
        self.credential = intake.authenticator.bound_to(self.client) if self.network_auth else None
        self.is_stranger = self.credential is None
        if self.network_auth and self.is_stranger:
            self.count(NO_NETWORK)
            self.note(NO_NETWORK, f"no credential is bound to {self.client}", cause="no credential")
            return NO_NETWORK
        if self.credential is not None:  # as it was at the look just now
            self.revision = intake.authenticator.revision
        known = not self.is_stranger or intake.authenticator.has_proved(self.client)
        arrival = intake.places.arrive(self, client_network(self.client), is_known=known)
        if arrival.is_refused:
            intake.metrics.places_refused.inc()
            self.count(TOO_MANY)
            return TOO_MANY
        if arrival.leaves is not None:
            intake.metrics.places_refused.inc()
            arrival.leaves.give_way()
        return None

    def give_way(self) -> None:
        """Somebody else gets its place, now."""
        self.event_handler.places.leave(self)
        self.hang_up(NO_PLACE)
        self.deadline = self.listener.clock.monotonic()  # there is no time to linger

    def get_on(self) -> None:
        super().get_on()
        self.event_handler.places.got_on(self)

    def logged_in(self) -> None:
        """It is no stranger any more."""
        self.is_stranger = False
        self.event_handler.places.logged_in(self)

    def on_disconnect(self) -> None:
        self.event_handler.places.leave(self)

    def on_mail(self, sender: EnvelopePath) -> Reply | None:
        credential = self.credential
        self.limit_told = False
        if credential is None:
            return AUTH_REQUIRED
        if self.revision != self.event_handler.authenticator.revision:
            credential = self._still(credential)
            if credential is None:
                self.note(ENDED, ENDED.text, sender=sender.address)
                return ENDED
            self.credential, self.revision = credential, self.event_handler.authenticator.revision
        if self.listener.tls_context is not None and not self._tls_protocol:
            return TLS_REQUIRED  # a client known by its address alone still may not send in the clear
        # The null sender is nobody's: a notice of the application's own says in From whose it is.
        if sender.address and not credential.allows(sender.address):
            forbidden = Reply(550, "5.7.1", f"You may not send from <{sender.address}>")
            self.note(forbidden, "sender not allowed", sender=sender.address)
            return forbidden
        refusal = self._judge_delay(credential) if self.delay else None
        refusal = refusal or self.event_handler.capacity.at_mail(credential.tenant, self.declared)
        if refusal is not None:
            self.note(refusal, refusal.text, sender=sender.address)
            return refusal
        return None if self.priority is None else self._lowered(credential, self.priority)

    def _still(self, credential: Credential) -> Credential | None:
        """The credential as it is by now; where it is no more the connection ends."""
        authenticator = self.event_handler.authenticator
        if authenticator.look() == self.revision:
            return credential
        still = authenticator.still(credential.login, self.verifier, self.client)
        if still is None:
            self.hang_up(ENDED)
        return still

    def extensions(self) -> list[str]:
        if self.credential is None:
            return []
        offers = ["MT-PRIORITY"]
        if self.credential.delay is not None:
            latest = datetime.fromtimestamp(self.listener.clock.now() + self.credential.delay, UTC)
            offers.append(f"FUTURERELEASE {self.credential.delay:.0f} {latest:%Y-%m-%dT%H:%M:%SZ}")
        return offers

    def on_parameter(self, name: str, value: str | None) -> bool:
        if name == "MT-PRIORITY":
            self.priority = options.priority(value)
        elif name in ("HOLDFOR", "HOLDUNTIL") and self.delay:
            raise PathError(501, "5.5.4", "HOLDFOR and HOLDUNTIL exclude each other")
        elif name == "HOLDFOR":
            self.delay = options.delay_for(value)
        elif name == "HOLDUNTIL":
            self.delay = options.delay_until(value, self.listener.clock.now())
        else:
            return False
        return True

    def _judge_delay(self, credential: Credential) -> Reply | None:
        """RFC 4865 5."""
        if credential.delay is None:
            return Reply(550, "5.7.1", "You may not ask for a later release")
        if self.delay > credential.delay:
            return Reply(501, "5.5.4", f"You may delay a message by {credential.delay:.0f} seconds at most")
        return None

    def _lowered(self, credential: Credential, asked: int) -> Reply | None:
        """RFC 6710 4.1: a priority that is not allowed becomes one that is, and the client is told."""
        highest = self.event_handler.admission.highest(credential)
        if asked <= highest:
            return None
        self.priority = highest
        return Reply(250, "2.3.6", f"Ok, at priority {highest}: you may not ask for {asked}")

    def on_rcpt(self, recipient: EnvelopePath) -> Reply | None:
        credential = self.credential
        assert credential is not None
        intake = self.event_handler
        limit = intake.current.policy.settings.limits.recipients
        if credential.recipients is not None:
            limit = min(limit, credential.recipients)
        if len(self.recipients) >= limit:
            return self._limited(Reply(452, "4.5.3", f"Too many recipients: at most {limit} a message"))
        if credential.rate is not None:
            now = self.listener.clock.monotonic()
            answer = intake.rate(credential).take(now)
            if isinstance(answer, Wait):
                seconds = math.ceil(answer.until - now)
                words = f"Your rate is used up; try again in {seconds} seconds"
                return self._limited(Reply(450, "4.7.1", words))
        return None

    def on_data(self) -> Reply | None:
        """Beside all others that are on their way in? What is small has its share when it comes in pieces."""
        if self.declared <= SMALL and self.event_handler.capacity.memory.has_room(16 * SMALL):
            return None
        self._share = self.open_share()
        if self._share.has_room(self.declared):
            return None
        self._let_go()
        return self._limited(CROWDED)

    @property
    def party(self) -> Hashable:
        return None if self.credential is None else self.credential.tenant

    def open_share(self) -> Share:
        assert self.credential is not None
        return self.event_handler.capacity.memory.open(self.credential.tenant, client_network(self.client))

    def _limited(self, reply: Reply) -> Reply:
        """Tell of a limit, but not again for each further recipient of this message."""
        if not self.limit_told:
            self.limit_told = True
            self.note(reply, reply.text, sender=self.sender.address if self.sender else None)
        return reply

    def on_message(self, pieces: list[bytes], dotted: bool) -> Answered:
        credential, sender = self.credential, self.sender
        assert credential is not None
        assert sender is not None
        if self.revision != self.event_handler.authenticator.revision and self._still(credential) is None:
            return ENDED
        return self.event_handler.admission.submit(
            admission.Submitted(
                credential, self._protocol(), sender, self.recipients, self.options, pieces, dotted,
                self.client, self.session.host_name or "", self.priority, self.delay,
            ),
            self.answer,
        )  # fmt: skip

    def answer(self, reply: Reply) -> None:
        if reply.code == 250:
            self.event_handler.metrics.receptions[self.listener_name].inc()
        elif reply.code:
            self.count(reply)
            self.note(reply, "message refused", sender=self.sender.address if self.sender else None)
        super().answer(reply)

    def refuse(self, reply: Reply) -> None:
        self.count(reply)
        super().refuse(reply)

    def refuse_login(self, refusal: Denial) -> Reply:
        """Tell why; who goes on guessing where it is limited is sent away with the same words."""
        reply = refusal.reply
        if refusal.reason == "limited" and self.was_limited:
            reply = reply._replace(code=421)
            self.count(reply)
            self.hang_up(reply)
            return reply
        self.refuse(reply)
        if refusal.reason == "limited":
            self.was_limited = True
            self._count_error()
        return reply

    def count(self, reply: Reply) -> None:
        """Count a refusal."""
        metrics = self.event_handler.metrics
        (metrics.rejected_5yz if reply.code >= 500 else metrics.rejected_4yz).inc()

    def note(
        self, reply: Reply, reason: str, sender: str | None = None, login: str = "", cause: str = ""
    ) -> None:
        """Report a refusal; `cause` where the reason of a stranger's is not always the same."""
        intake = self.event_handler
        login = login or (self.credential.login if self.credential else "")
        now = intake.clock.now()
        event = partial(admission.rejection, reply, reason, now, self.client, sender=sender, login=login)
        if self.credential is None:
            intake.strangers.refused(cause or reason, event)
        else:
            intake.spool.report([event()])

    def _protocol(self) -> str:
        """RFC 3848, RFC 6531 4.3."""
        if not self.session.extended_smtp:
            return "SMTP"  # the letters behind are registered for ESMTP only
        name = "UTF8SMTP" if self.options & Option.SMTPUTF8 else "ESMTP"
        secure = "S" if self._tls_protocol else ""
        return f"{name}{secure}{'' if self.network_auth else 'A'}"
