"""The server's side of SMTP: what each command is answered with.

Between: `smtp.parser` hands in commands; a subclass decides (submission, the sandbox's MX).
Contract: `on_mail`, `on_rcpt` and `on_data` answer with a Reply that refuses, or None; `on_mail` may also
    accept in words of its own. `open_share` gives a message that is not small its share of
    memory. Every reply has an enhanced code.
Raises: PathError, which `smtp.parser` turns into its reply.
Standards: RFC 5321 3.3, 4.1.1 (commands), RFC 1870 (SIZE), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8),
    RFC 2034 (ENHANCEDSTATUSCODES), RFC 3207 (STARTTLS), RFC 4954 (AUTH).
Why: the verbs of the hot path are our own; the exchange of AUTH, NOOP and RSET are the library's.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import ClassVar, cast

from aiosmtpd.smtp import SMTP

from mta.core.mail import address
from mta.core.mail.address import EnvelopePath, PathError
from mta.core.mail.text import fit
from mta.core.model import Option, Reply
from mta.smtp.connection import ACCEPTED
from mta.smtp.parser import Parser

HANDSHAKE_TIMEOUT = 30.0  # seconds
MECHANISMS = ("PLAIN", "LOGIN")
IN_TRANSACTION = Reply(503, "5.5.1", "A transaction is open; send RSET to give it up")
NOT_HTTP = Reply(421, "4.7.0", "This is SMTP, not HTTP")
# What a browser says that a page has sent here: what stands behind it may be a dialogue of an attacker's.
_HTTP = re.compile(rb"GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE|CONNECT|PRI|[!-9;-~]++:.*+", re.S)
_NAME = re.compile(rb"[!-~]{1,255}")
_DIGITS = re.compile("[0-9]+")
_BODY = re.compile("7BIT|(8BITMIME)", re.I | re.A)


class Server(Parser):
    """The server's end of one connection."""

    def on_command(self, verb: bytes, argument: bytes) -> None:
        handler = self._VERBS.get(verb)
        if handler is not None:
            handler(self, argument)
        else:
            self._base_verb(verb, argument)

    def _base_verb(self, verb: bytes, argument: bytes) -> None:
        """Verbs that are the library's own."""
        if verb not in (b"NOOP", b"RSET"):
            if _HTTP.fullmatch(verb):
                self.refuse(NOT_HTTP)
                self._close()
                return
            name = fit(verb.decode("utf-8", "replace"), 20)
            self.refuse(Reply(500, "5.5.1", f"The command is not known: {name}"))
            return
        method = getattr(SMTP, f"smtp_{verb.decode()}")
        try:
            # These never wait: `push` only notes the reply.
            method(self, argument.decode("utf-8", "replace") or None).send(None)
        except StopIteration:
            return
        raise RuntimeError(f"{verb!r} waited")

    def _ehlo(self, argument: bytes) -> None:
        if not _NAME.fullmatch(argument):
            self.refuse(Reply(501, "5.5.4", "Syntax: EHLO name"))
            return
        self._set_rset_state()
        self._introduced()
        self.session.extended_smtp = True
        self.session.host_name = argument.decode()
        listener = self.listener
        self.terms = listener.terms
        lines = [listener.hostname, "PIPELINING", f"SIZE {self.terms.message_size}", "8BITMIME", "SMTPUTF8"]
        if listener.tls_context is not None and not self._tls_protocol:
            lines.append("STARTTLS")
        if listener.offers_auth and self._tls_protocol:
            lines.append(f"AUTH {' '.join(MECHANISMS)}")
        lines += ["ENHANCEDSTATUSCODES", *self.extensions()]
        self._out.append(
            "".join(f"250-{line}\r\n" for line in lines[:-1]).encode() + f"250 {lines[-1]}\r\n".encode()
        )

    def _helo(self, argument: bytes) -> None:
        if not _NAME.fullmatch(argument):
            self.refuse(Reply(501, "5.5.4", "Syntax: HELO name"))
            return
        self._set_rset_state()
        self._introduced()
        self.session.extended_smtp = False
        self.session.host_name = argument.decode()
        self._out.append(f"250 {self.listener.hostname}\r\n".encode())

    def _introduced(self) -> None:
        if not self.session.host_name:  # to say it again is no step
            self.get_on()

    def _mail(self, argument: bytes) -> None:
        if not self.session.host_name:
            self.refuse(Reply(503, "5.5.1", "Send EHLO first"))
            return
        if self.sender is not None:
            self.refuse(IN_TRANSACTION)
            return
        path, parameters = address.parse(b"FROM", argument)
        self.terms = self.listener.terms
        self.declared, self.priority, self.delay = 0, None, 0.0  # a MAIL that was refused has left its own
        options = 0
        if parameters:
            options = self._mail_options(parameters)
        if not path.address.isascii() and not options & Option.SMTPUTF8:
            raise PathError(553, "5.6.7", "The address needs the SMTPUTF8 parameter")
        answer = self.on_mail(path)
        if answer is not None and answer.code >= 300:
            self.refuse(answer)
            return
        self.sender, self.options = path, options
        if answer is None:
            self._out.append(b"250 2.1.0 Ok\r\n")
        else:
            self.reply(answer)

    def _mail_options(self, parameters: address.Parameters) -> int:
        options = 0
        for name, value in parameters.items():
            if name == "SIZE" and value is not None and _DIGITS.fullmatch(value):
                self.declared = int(value)
                if self.declared > self.terms.message_size:
                    limit = self.terms.message_size
                    raise PathError(552, "5.3.4", f"The message is larger than {limit} octets")
            elif name == "BODY" and value is not None and (body := _BODY.fullmatch(value)):
                if body[1]:
                    options |= Option.EIGHTBIT
            elif name == "SMTPUTF8" and value is None:
                options |= Option.SMTPUTF8
            elif name == "AUTH" and value is not None:
                pass  # RFC 4954 5: accepted and not passed on; we are the ones who authenticated
            elif name in ("SIZE", "BODY", "SMTPUTF8", "AUTH"):
                raise PathError(501, "5.5.4", f"{name} has no such value")
            elif not self.on_parameter(name, value):
                raise PathError(555, "5.5.4", f"The parameter is not known: {name[:40]}")
        return options

    def _rcpt(self, argument: bytes) -> None:
        if self.sender is None:
            self.refuse(Reply(503, "5.5.1", "Send MAIL first"))
            return
        path, parameters = address.parse(b"TO", argument)
        if parameters:
            name = next(iter(parameters))
            raise PathError(555, "5.5.4", f"The parameter is not known: {name[:40]}")
        if not path.address.isascii() and not self.options & Option.SMTPUTF8:
            raise PathError(553, "5.6.7", "The address needs the SMTPUTF8 parameter of MAIL")
        if self.recipients and self._has(path):
            self._out.append(b"250 2.1.5 Ok\r\n")
            return
        refusal = self.on_rcpt(path)
        if refusal is not None:
            self.refuse(refusal)
            return
        self.recipients.append(path)
        if self._errors:
            self.forgive(ACCEPTED)
        self._out.append(b"250 2.1.5 Ok\r\n")

    def _has(self, path: EnvelopePath) -> bool:
        """Is it a recipient already? Compared as it is delivered: the domain by what is looked up."""
        self._known.update(map(_key, self.recipients[len(self._known) :]))
        return _key(path) in self._known

    def _data_verb(self, argument: bytes) -> None:
        if argument:
            self.refuse(Reply(501, "5.5.4", "Syntax: DATA"))
        elif self.sender is None:
            self.refuse(Reply(503, "5.5.1", "Send MAIL first"))
        elif not self.recipients:
            self.refuse(Reply(554, "5.5.1", "No valid recipients"))
        elif (refusal := self.on_data()) is not None:
            self.refuse(refusal)
        else:
            self._out.append(b"354 End with <CR><LF>.<CR><LF>\r\n")
            self._await_message()

    def _auth(self, argument: bytes) -> None:
        words = argument.decode("ascii", "replace").split()
        if not self.listener.offers_auth:
            self.refuse(Reply(502, "5.5.1", "AUTH is not offered here"))
        elif not self._tls_protocol:  # a client that has not asked what is offered; RFC 3207 4
            self.refuse(Reply(530, "5.7.0", "Must issue a STARTTLS command first"))
        elif not self.session.extended_smtp:
            self.refuse(Reply(503, "5.5.1", "Send EHLO first"))
        elif not 1 <= len(words) <= 2:
            self.refuse(Reply(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]"))
        elif words[0].upper() not in MECHANISMS:
            self.refuse(Reply(504, "5.5.4", f"The mechanism is not known; use {' or '.join(MECHANISMS)}"))
        else:
            self.get_on()
            # The base compares mechanisms by case; RFC 4954 3 does not.
            self._start(SMTP.smtp_AUTH(self, " ".join([words[0].upper(), *words[1:]])))

    def _help(self, argument: bytes) -> None:
        known = " ".join(sorted(verb.decode() for verb in self._VERBS))
        self._out.append(f"214 2.0.0 Commands (RFC 5321): {known} NOOP RSET\r\n".encode())

    def _vrfy(self, argument: bytes) -> None:
        # The base has the address parsed by the email package, which a line of brackets can break.
        if argument:
            self._out.append(b"252 2.5.0 Send mail to find out (RFC 5321 3.5.3)\r\n")
        else:
            self.refuse(Reply(501, "5.5.4", "Syntax: VRFY address"))

    def _quit(self, argument: bytes) -> None:
        self.hang_up(Reply(221, "2.0.0", "Bye"))

    def _starttls(self, argument: bytes) -> None:
        if argument:
            self.refuse(Reply(501, "5.5.4", "Syntax: STARTTLS"))
        elif self._tls_protocol:
            self.refuse(Reply(503, "5.5.1", "TLS is active"))
        elif self.sender is not None:
            self.refuse(IN_TRANSACTION)
        elif self.listener.tls_context is None:
            self.refuse(Reply(502, "5.5.1", "TLS is not offered here"))
        elif self._position < len(self._in):
            # What stands behind STARTTLS in the clear may be an attacker's (RFC 3207 4.2).
            self.hang_up(Reply(554, "5.5.1", "Nothing may follow STARTTLS before the handshake"))
        else:
            self.get_on()
            self.is_shaking = True
            self._out.append(b"220 2.0.0 Ready to start TLS\r\n")
            # Cleared before the handshake: on asyncio what the client says first under TLS can
            # arrive before `start_tls` returns.
            self._in, self._position = b"", 0
            self._pause_reading()  # until the octets go to the handshake, not one more to us
            self._start(self._handshake(self.listener.tls_context))

    def secure(self, context: ssl.SSLContext) -> None:
        self._start(self._handshake(context, greets=True))

    async def _handshake(self, context: ssl.SSLContext, *, greets: bool = False) -> None:
        if self._in:
            # uvloop reads what is there before anybody can ask it not to.
            self.loop.call_soon(_hand_over, self.transport, self._in)
            self._in = b""
        try:
            upgraded = await self.loop.start_tls(
                self.transport, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
            )
        except OSError as error:  # ssl.SSLError is one
            self.listener.handshake_failed(self.client, error)
            error.__traceback__ = None  # asyncio keeps the error, and by its frames it would keep us
            self._vanish()
            return
        finally:
            self.is_shaking = False
        if upgraded is None or upgraded.is_closing():
            self._vanish()
            return
        self.transport = upgraded
        self._tls_protocol = upgraded.get_extra_info("sslcontext")
        self.session.host_name = None  # RFC 3207 4.2: forget what was said in the clear
        self.session.extended_smtp = False
        self.session.authenticated = None
        self._set_rset_state()
        self.get_on()
        if greets:
            self.greet()

    def _vanish(self) -> None:
        """Both loops keep it to themselves if the connection is lost during the handshake."""
        self.transport.abort()
        self.loop.call_soon(self.connection_lost, None)

    # What a subclass decides

    def extensions(self) -> list[str]:
        """What it offers besides, in the words of EHLO."""
        return []

    def on_parameter(self, name: str, value: str | None) -> bool:
        """Is this parameter of MAIL known? The transaction may yet be refused."""
        return False

    def on_mail(self, sender: EnvelopePath) -> Reply | None:
        """May it send from here?"""
        raise NotImplementedError

    def on_rcpt(self, recipient: EnvelopePath) -> Reply | None:
        """May it send there?"""
        raise NotImplementedError

    def on_data(self) -> Reply | None:
        """May it send now?"""
        raise NotImplementedError

    _VERBS: ClassVar[dict[bytes, Callable[[Server, bytes], None]]] = {
        b"EHLO": _ehlo,
        b"HELO": _helo,
        b"MAIL": _mail,
        b"RCPT": _rcpt,
        b"DATA": _data_verb,
        b"AUTH": _auth,
        b"HELP": _help,
        b"VRFY": _vrfy,
        b"QUIT": _quit,
        b"STARTTLS": _starttls,
    }


def _key(path: EnvelopePath) -> tuple[str, str]:
    return path.address.rpartition("@")[0], path.domain


def _hand_over(transport: asyncio.Transport, octets: bytes) -> None:
    """What came before the handshake began is the handshake's."""
    protocol = cast(asyncio.BufferedProtocol, transport.get_protocol())
    while octets:
        buffer = memoryview(protocol.get_buffer(len(octets)))
        count = min(len(buffer), len(octets))
        buffer[:count] = octets[:count]
        protocol.buffer_updated(count)
        octets = octets[count:]
