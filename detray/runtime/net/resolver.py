"""From names to numbers without stopping the loop: a name server may be slow to say nothing."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable

from detray.runtime.net.address import Address
from detray.runtime.wakeups import Wakeups

Sockaddr = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]
"""What `socket` and `connect` need."""
_Answer = Callable[[list[Sockaddr], str], None]


def resolve_now(address: Address, flags: int = 0) -> list[Sockaddr]:
    """All that an address stands for, in the order in which to try. Raises OSError."""
    found: list[Sockaddr] = []
    for family, _, _, _, sockaddr in socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=flags
    ):
        if family in (socket.AF_INET, socket.AF_INET6) and not isinstance(sockaddr[0], int):
            found.append((family, sockaddr))
    return found


class Resolver:
    """Resolves names in threads of its own; the answers come in the loop."""

    def __init__(self, wakeups: Wakeups) -> None:
        self._wakeups = wakeups
        self._lock = threading.Lock()
        self._event_fd = -1
        self._answers: deque[tuple[_Answer, list[Sockaddr], str]] = deque()
        self._is_closed = False

    def resolve(self, address: Address, answer: _Answer) -> None:
        """Call `answer` with what the address stands for, or nothing and the reason.

        At once for numbers, else in a later wake-up.
        """
        try:
            answer(resolve_now(address, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV), "")
            return
        except OSError:
            pass
        if self._event_fd < 0:
            self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._wakeups.watch(self._event_fd, self._on_answers)
        thread = threading.Thread(
            target=self._ask, args=(address, answer), name=f"resolve {address.host}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            answer([], f"{address.host} cannot be resolved: {error}")

    def close(self) -> None:
        """No answer comes any more, though a thread may still be asking."""
        with self._lock:
            self._is_closed = True
            if self._event_fd >= 0:
                self._wakeups.forget(self._event_fd)
                os.close(self._event_fd)
                self._event_fd = -1

    def _ask(self, address: Address, answer: _Answer) -> None:
        found: list[Sockaddr] = []
        problem = ""
        try:
            found = resolve_now(address)
        except (OSError, UnicodeError) as error:
            problem = f"{address.host} cannot be resolved: {error}"
        with self._lock:
            if not self._is_closed:
                self._answers.append((answer, found, problem))
                os.eventfd_write(self._event_fd, 1)

    def _on_answers(self, mask: int) -> None:
        os.eventfd_read(self._event_fd)
        while self._answers:
            answer, found, problem = self._answers.popleft()
            answer(found, problem)
