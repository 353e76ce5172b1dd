"""A tool's connection to a head or node: one question at a time, waiting for the answer."""

from __future__ import annotations

import os
import socket
from time import monotonic
from typing import Any

import msgspec

from detray import __version__
from detray.errors import EngineError
from detray.runtime.frames import UNDECODABLE
from detray.runtime.net.address import Address
from detray.runtime.net.framing import (
    ASIDE,
    CHUNK,
    GOODBYE,
    Intake,
    LinkGarbage,
    decode_aside,
    encode_aside,
)
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
from detray.runtime.net.security import Security

CONNECT_S = 5.0
"""For connecting and greeting together."""
ASK_S = 10.0
_decode_refusal = msgspec.msgpack.Decoder(Refusal).decode


class ToolConnection:
    """A blocking connection of kind "tool"; made by `connect_tool`."""

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self._sock = sock
        self._address = address
        self._intake = Intake()
        self._questions = 0
        self.peer: Hello | None = None
        """Who answers."""

    def ask(self, topic: str, *arguments: Any, timeout: float = ASK_S) -> Any:
        """The answer to a question; `timeout` in seconds (Any: plain data, both ways).

        Raises EngineError with the peer's reason if it has no answer, TimeoutError or another
        OSError if none comes.
        """
        self._questions += 1
        number = self._questions
        deadline = monotonic() + timeout
        try:
            self._set_timeout(deadline)
            self._sock.sendall(encode_aside(["ask", number, topic, *arguments]))
            while True:
                match self._next_aside(deadline):
                    case ["answer", int() as answered, body] if answered == number:
                        return body
                    case ["no", int() as answered, str() as reason] if answered == number:
                        raise EngineError(f"{self._address} cannot answer {topic!r}: {reason}")
        except TimeoutError:
            raise TimeoutError(
                f"{self._address} did not answer {topic!r} within {timeout:g} s"
            ) from None
        except LinkGarbage as error:
            raise ConnectionError(f"{self._address} sent garbage: {error}") from None

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    def __enter__(self) -> ToolConnection:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    # --------------------------------------------------------------------------- greeting

    def greet(self, security: Security, cluster: str, deadline: float) -> None:
        """Prove the token and say hello. Raises EngineError, OSError."""
        handshake = Handshake(security.token, is_dialler=True)
        life = os.urandom(16).hex()
        introduction = Introduction(Hello("tool", cluster, __version__, life, name="a tool"))
        try:
            self._sock.sendall(handshake.begin())
            while not handshake.is_proven:
                self._sock.sendall(handshake.receive(self._read(deadline)))
            self._sock.sendall(_pack(introduction))
            while (body := handshake.next_greeting()) is None:
                handshake.receive(self._read(deadline))
            greeting = decode_greeting(body)
        except HandshakeError as error:
            raise EngineError(f"{self._address} does not let us in: {error}") from None
        except UNDECODABLE as error:
            raise EngineError(f"{self._address} greets in an unknown way: {error}") from None
        if isinstance(greeting, Refusal):
            raise EngineError(f"{self._address} does not let us in: {greeting.reason}")
        if not isinstance(greeting, Reception):
            raise EngineError(f"{self._address} greets in an unknown way")
        self.peer = greeting.hello
        self._sock.sendall(_pack(Acceptance(1, 0)))
        rest = handshake.take_rest()
        if rest:
            self._intake.feed(rest)

    def _read(self, deadline: float) -> bytes:
        self._set_timeout(deadline)
        data = self._sock.recv(1 << 12)
        if not data:
            raise ConnectionError(f"{self._address} closed the connection")
        return data

    # ----------------------------------------------------------------------------- frames

    def _next_aside(self, deadline: float) -> list[Any]:
        while True:
            item = self._intake.next()
            if item is None:
                self._set_timeout(deadline)
                count = self._sock.recv_into(self._intake.room())
                if not count:
                    raise ConnectionError(f"{self._address} closed the connection")
                self._intake.took(count)
                continue
            kind, body = item
            if kind == ASIDE:
                return decode_aside(body)
            if kind == GOODBYE:
                raise EngineError(f"{self._address} ended the link: {_reason_of(body)}")
            if kind == CHUNK:
                raise LinkGarbage("part of a block, for a tool")

    def _set_timeout(self, deadline: float) -> None:
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)


def connect_tool(address: Address, security: Security, cluster: str = "") -> ToolConnection:
    """Connect to the head or node at `address`; `cluster` "" for whichever it is.

    Raises OSError if it cannot be reached, EngineError if it does not let us in.
    """
    deadline = monotonic() + CONNECT_S
    sock = socket.create_connection(address, timeout=CONNECT_S)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if security.tls is not None:
            sock = security.tls.client.wrap_socket(sock)
        connection = ToolConnection(sock, address)
        connection.greet(security, cluster, deadline)
    except TimeoutError:
        sock.close()
        raise TimeoutError(f"{address} did not greet within {CONNECT_S:g} s") from None
    except BaseException:
        sock.close()
        raise
    return connection


def _reason_of(body: memoryview) -> str:
    try:
        return _decode_refusal(body).reason
    except UNDECODABLE:
        return "it did not say why"


def _pack(greeting: Greeting) -> bytes:
    return pack_greeting(encode_greeting(greeting))
