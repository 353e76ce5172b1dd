"""Connecting to a peer, and connecting again, until the link is closed."""

from __future__ import annotations

import errno
import os
import random
import socket
from time import monotonic_ns
from typing import TYPE_CHECKING

from detray.core.session import NEVER
from detray.runtime.net.address import Address
from detray.runtime.net.alarm import Alarm
from detray.runtime.net.greeting import HalfOpen
from detray.runtime.net.resolver import Sockaddr
from detray.runtime.wakeups import WRITE

if TYPE_CHECKING:
    from detray.runtime.net.hub import Hub
    from detray.runtime.net.link import Link

_MS = 1_000_000
CONNECT_NS = 2_000 * _MS
_PAUSE_MIN_NS = 50 * _MS
_PAUSE_MAX_NS = 1_000 * _MS


class Dialler:
    """Dials one address for one link, one attempt at a time, pausing 50 ms to 1 s between them."""

    def __init__(self, hub: Hub, link: Link, address: Address) -> None:
        self.address = address
        self._hub = hub
        self._link = link
        self._pause_ns = _PAUSE_MIN_NS
        self._candidates: list[Sockaddr] = []
        self._sock: socket.socket | None = None
        self._half_open: HalfOpen | None = None
        self._is_busy = False
        self._has_complained = False
        self._is_closed = False
        self._attempt = 0
        self._alarm = Alarm(hub.wakeups, self._on_alarm)

    def redirect(self, address: Address) -> None:
        """Dial another address from the next attempt on, without waiting for it."""
        if address != self.address:
            self.address = address
            self._stop()
        self.retry()

    def retry(self, *, is_first: bool = True) -> None:
        """Dial unless that is going on already; not `is_first`: after the pause of a failure."""
        if self._is_busy or self._is_closed:
            return
        if is_first:
            self._pause_ns = _PAUSE_MIN_NS
            self._alarm.set(monotonic_ns())
        else:
            self._alarm.set(monotonic_ns() + self._next_pause_ns())

    def succeed(self) -> None:
        """The link is up, by this way or another."""
        self._has_complained = False
        self._stop()

    def close(self) -> None:
        """Dial no more."""
        self._is_closed = True
        self._stop()
        self._alarm.end()

    def _stop(self) -> None:
        self._is_busy = False
        self._attempt += 1
        self._alarm.set(NEVER)
        self._candidates = []
        self._drop_sock()
        half_open, self._half_open = self._half_open, None
        if half_open is not None:
            half_open.close()

    def _next_pause_ns(self) -> int:
        pause_ns, self._pause_ns = self._pause_ns, min(2 * self._pause_ns, _PAUSE_MAX_NS)
        # Two that dial each other must not go on in step.
        return pause_ns * random.randint(75, 125) // 100

    # --------------------------------------------------------------------------- attempts

    def _on_alarm(self) -> None:
        if self._sock is not None:
            self._drop_sock()
            self._try_next(f"no answer for {CONNECT_NS // _MS} ms")
        elif not self._is_busy and not self._link.is_up:
            self._is_busy = True
            self._attempt += 1
            attempt = self._attempt
            self._hub.resolver.resolve(
                self.address, lambda found, problem: self._on_resolved(attempt, found, problem)
            )

    def _on_resolved(self, attempt: int, found: list[Sockaddr], problem: str) -> None:
        if attempt == self._attempt and self._is_busy:
            self._candidates = found
            self._try_next(problem or "the name stands for nothing")

    def _try_next(self, problem: str) -> None:
        """Connect to the next candidate; `problem` is what the last one said."""
        while self._candidates:
            family, sockaddr = self._candidates.pop(0)
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                problem = error.strerror or str(error)
                continue
            sock.setblocking(False)
            code = sock.connect_ex(sockaddr)
            if code in (0, errno.EINPROGRESS):
                self._sock = sock
                self._hub.wakeups.watch(sock.fileno(), self._on_connected, WRITE)
                self._alarm.set(monotonic_ns() + CONNECT_NS)
                return
            sock.close()
            problem = os.strerror(code)
        self._fail(problem)

    def _on_connected(self, mask: int) -> None:
        sock = self._sock
        assert sock is not None
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            # Dialled from a port that the kernel picked for us, we may have reached ourselves.
            if code == 0 and sock.getsockname() == sock.getpeername():
                code = errno.ECONNREFUSED
        except OSError as error:
            code = error.errno or errno.ENOTCONN
        if code:
            self._drop_sock()
            self._try_next(os.strerror(code))
            return
        self._hub.wakeups.forget(sock.fileno())
        self._sock = None
        self._alarm.set(NEVER)
        try:
            self._half_open = HalfOpen(
                self._hub, sock, self.address.host, self._on_greeted, self._link
            )
        except OSError as error:
            sock.close()
            self._fail(error.strerror or str(error))
            return
        self._half_open.begin()

    def _on_greeted(self, half_open: HalfOpen, problem: str) -> None:
        self._half_open = None
        if problem:
            self._fail(problem)

    def _fail(self, problem: str) -> None:
        self._is_busy = False
        if not self._has_complained:
            self._has_complained = True
            text = f"cannot reach {self._link.name} at {self.address}: {problem}; trying again"
            self._hub.notes.say("warning", text)
        self.retry(is_first=False)

    def _drop_sock(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._hub.wakeups.forget(sock.fileno())
            sock.close()
