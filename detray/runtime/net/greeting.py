"""Connections that are not links yet: the proof, the greetings, and not a second too many.

Rules
-----
- Until the token is proved nothing that came is decoded, and the peer costs a descriptor, 64 KiB at
  most and one line of notes. It is turned away 5 s after it came, whatever it did meanwhile.
- Whoever is turned away for its token, its version, its cluster or its name is told so, once. A
  connection that just ends says nothing: the peer may be dying, or frozen, and is dialled again.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING

from detray.runtime.frames import UNDECODABLE
from detray.runtime.net.alarm import Alarm
from detray.runtime.net.handshake import Handshake, HandshakeError, pack_greeting
from detray.runtime.net.identity import (
    Acceptance,
    Greeting,
    Hello,
    Introduction,
    Reception,
    Refusal,
    decode_greeting,
    encode_greeting,
)
from detray.runtime.net.sockets import TlsSocket, wrap
from detray.runtime.wakeups import READ, WRITE

if TYPE_CHECKING:
    from detray.runtime.net.hub import Hub
    from detray.runtime.net.link import Link

GREETING_NS = 5_000_000_000
"""For all of it, TLS included."""
_READ_BYTES = 1 << 13


class HalfOpen:
    """A connection before it belongs to a link. Given a `link`, it was dialled for that one.

    `on_end` is called once, with the reason, or with "" when a link has taken the connection.
    """

    def __init__(
        self,
        hub: Hub,
        sock: socket.socket,
        host: str,
        on_end: Callable[[HalfOpen, str], None],
        link: Link | None = None,
    ) -> None:
        """Begin. Raises OSError."""
        self.host = host
        self._hub = hub
        self._link = link
        self._is_dialler = link is not None
        self._on_end: Callable[[HalfOpen, str], None] | None = on_end
        self._handshake = Handshake(hub.security.token, is_dialler=self._is_dialler)
        self._hello: Hello | None = None
        """The peer's."""
        self._told_session = -1
        self._unsent = b""
        self._sock = wrap(sock, hub.security.tls, is_dialler=self._is_dialler)
        self._alarm = Alarm(hub.wakeups, lambda: self._end("it took longer than 5 s to greet"))
        self._alarm.set(monotonic_ns() + GREETING_NS)
        hub.wakeups.watch(self._sock.fileno(), self._on_ready)
        self._queue(self._handshake.begin())

    def begin(self) -> None:
        """Do what can be done at once."""
        self._on_ready(READ | WRITE)

    def close(self) -> None:
        """Turn it away without a word, and tell nobody."""
        self._on_end = None
        self._end("")

    # ------------------------------------------------------------------------------ bytes

    def _on_ready(self, mask: int) -> None:
        sock = self._sock
        try:
            is_shaken = sock.shake()
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        if not is_shaken:
            wants_write = isinstance(sock, TlsSocket) and sock.wants_write
            self._hub.wakeups.change(sock.fileno(), WRITE if wants_write else READ)
            return
        self._flush()
        while self._on_end is not None and self._receive():
            self._flush()

    def _receive(self) -> bool:
        """Read once; False if nothing is there now."""
        room = memoryview(bytearray(_READ_BYTES))
        try:
            count = self._sock.receive_into(room)
        except OSError as error:
            self._end(error.strerror or str(error))
            return False
        if count is None:
            return False
        if count == 0:
            self._end("it closed the connection")
            return False
        handshake = self._handshake
        was_proven = handshake.is_proven
        try:
            answer = handshake.receive(bytes(room[:count]))
            if handshake.is_proven and not was_proven and self._is_dialler:
                answer += _pack(Introduction(self._hub.owner.hello()))
            self._queue(answer)
            while self._on_end is not None and (greeting := self._next_greeting()) is not None:
                self._on_greeting(greeting)
        except HandshakeError as error:
            self._on_failed_proof(error)
        return True

    def _next_greeting(self) -> Greeting | None:
        """Raises HandshakeError."""
        body = self._handshake.next_greeting()
        if body is None:
            return None
        try:
            greeting: Greeting = decode_greeting(body)
        except UNDECODABLE as error:
            raise HandshakeError(f"its greeting cannot be decoded: {error}") from None
        return greeting

    def _queue(self, data: bytes) -> None:
        self._unsent += data

    def _flush(self) -> None:
        """Send what the kernel takes; nobody sends us more than we answer."""
        while self._unsent:
            try:
                sent = self._sock.send(self._unsent)
            except OSError as error:
                self._end(error.strerror or str(error))
                return
            if not sent:
                break
            self._unsent = self._unsent[sent:]
        if self._on_end is not None:
            self._hub.wakeups.change(self._sock.fileno(), READ | WRITE if self._unsent else READ)

    # -------------------------------------------------------------------------- greetings

    def _on_greeting(self, greeting: Greeting) -> None:
        if isinstance(greeting, Refusal):
            self._on_refusal(greeting)
        elif self._is_dialler and isinstance(greeting, Reception):
            self._on_reception(greeting)
        elif not self._is_dialler and isinstance(greeting, Introduction) and self._hello is None:
            self._on_introduction(greeting.hello)
        elif not self._is_dialler and isinstance(greeting, Acceptance) and self._hello is not None:
            self._on_acceptance(self._hello, greeting)
        else:
            self._end("it greeted out of turn")

    def _on_introduction(self, hello: Hello) -> None:
        self._hello = hello
        choice = self._hub.receive(hello)
        if not isinstance(choice, Refusal) and not choice.may_go_on(hello.life):
            choice = Refusal(False, f"{hello.kind} {hello.node} is another process than before")
        if isinstance(choice, Refusal):
            self._refuse(choice)
            return
        self._link = choice
        self._told_session = choice.session_number
        self._queue(
            _pack(Reception(self._hub.owner.hello(), choice.session_number, choice.session.done))
        )

    def _on_acceptance(self, hello: Hello, said: Acceptance) -> None:
        link = self._link
        assert link is not None
        if link.is_closed or link.session_number != self._told_session:
            self._refuse(Refusal(False, "the link ended just now"))
        elif not link.may_go_on(hello.life, said.session):
            self._refuse(Refusal(False, "that session is over here"))
        else:
            self._hand_over(link, hello, said.session, said.handled)

    def _on_reception(self, said: Reception) -> None:
        link, hello = self._link, said.hello
        assert link is not None
        problem = self._hub.find_mismatch(hello)
        is_other = not link.may_go_on(hello.life, said.session)
        if not problem and is_other and not self._hub.begins_anew(link, hello):
            problem = f"{hello.kind} {hello.node} is another process, or began another session"
        if link.is_closed:
            problem = "the link was closed"
        if problem:
            self._refuse(Refusal(False, problem))
            return
        self._queue(_pack(Acceptance(link.session_number, link.session.done)))
        self._hand_over(link, hello, said.session, said.handled)

    def _on_failed_proof(self, error: HandshakeError) -> None:
        self._queue(error.answer)
        self._flush()
        self._sock.finish_sending()
        link = self._link
        self._end(str(error))
        if error.is_final and link is not None:
            link.on_turned_away(Refusal(False, str(error)))

    def _on_refusal(self, refusal: Refusal) -> None:
        link = self._link
        self._end(f"it refused: {ascii(refusal.reason[:200])[1:-1]}")
        if self._is_dialler and link is not None and not link.is_closed:
            link.on_turned_away(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        self._queue(_pack(Refusal(refusal.is_buried, refusal.reason[:1000])))
        self._flush()
        self._sock.finish_sending()
        self._end(f"refused: {ascii(refusal.reason[:200])[1:-1]}")

    # -------------------------------------------------------------------------------- end

    def _hand_over(self, link: Link, hello: Hello, session: int, handled: int) -> None:
        self._flush()
        if self._unsent or self._on_end is None:
            self._end("it did not read our greeting")
            return
        sock, rest = self._sock, self._handshake.take_rest()
        self._hub.wakeups.forget(sock.fileno())
        self._alarm.end()
        on_end, self._on_end = self._on_end, None
        on_end(self, "")
        self._hub.establish(link, sock, self.host, hello, session, handled, rest)

    def _end(self, reason: str) -> None:
        if self._sock.fileno() < 0:
            return
        self._alarm.end()
        self._hub.wakeups.forget(self._sock.fileno())
        self._sock.close()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self, reason)


def _pack(greeting: Greeting) -> bytes:
    return pack_greeting(encode_greeting(greeting))
