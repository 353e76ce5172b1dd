"""When the service wakes up: descriptors to watch, spinning before blocking, and timers of its own.

Theory of operation
-------------------
A process that blocks is woken through an interrupt to a halted core, which costs more than handling
a message. So after the queue ran dry we poll for up to 50 us, yielding the core between two looks,
and block only then (one task at a time: 5,800 a second without, 16,000 to 21,000 with).

A yield beside a busy process gives away a whole time slice of 3 ms, however. Whoever sees a look
take more than 0.4 ms does not spin for the next 50 ms, doubling up to 1 s while it stays like that.
Source: docs/performance.md.
"""

from __future__ import annotations

import heapq
import os
import select
from collections.abc import Callable
from time import monotonic_ns

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
Handler = Callable[[int], None]
"""Called with the mask of what is possible with the descriptor."""

_SPIN_NS = 50_000
_SLOW_LOOK_NS = 400_000
_REST_NS_MIN = 50_000_000
_REST_NS_MAX = 1_000_000_000


class SpinGuard:
    """Whether spinning is worth it just now."""

    __slots__ = ("_rest_ns", "_rest_until_ns")

    def __init__(self) -> None:
        self._rest_ns = _REST_NS_MIN
        self._rest_until_ns = 0

    def allows(self, now_ns: int) -> bool:
        """True unless a look was slow a short while ago."""
        return now_ns >= self._rest_until_ns

    def saw_slow_look(self, now_ns: int) -> None:
        """Somebody else wants the core: stand back."""
        # A rest that ended long ago says nothing about today's neighbours.
        if now_ns - self._rest_until_ns > 2 * _REST_NS_MAX:
            self._rest_ns = _REST_NS_MIN
        self._rest_until_ns = now_ns + self._rest_ns
        self._rest_ns = min(self._rest_ns * 2, _REST_NS_MAX)


class Wakeups:
    """The descriptors and timers that one thread waits for."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._guard = SpinGuard()
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._timer_count = 0

    def watch(self, fd: int, handler: Handler, mask: int = READ) -> None:
        """Call `handler` whenever `mask` or a hang-up is true of `fd`."""
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def change(self, fd: int, mask: int) -> None:
        """Wait for something else; 0 for the hang-up alone. Nothing if it is not watched."""
        if fd in self._handlers:
            self._epoll.modify(fd, mask)

    def forget(self, fd: int) -> None:
        """Stop watching; must come before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_at(self, when_ns: int, action: Callable[[], None]) -> None:
        """Run `action` in the first wake-up at or after `when_ns`."""
        self._timer_count += 1
        heapq.heappush(self._timers, (when_ns, self._timer_count, action))

    def dispatch(self, deadline_ns: int | None) -> bool:
        """Wait for something to happen and have it handled; False if the deadline came first."""
        timers = self._timers
        if timers and (deadline_ns is None or timers[0][0] < deadline_ns):
            deadline_ns = timers[0][0]
        events = self._epoll.poll(0) or self._wait(deadline_ns)
        self._handle(events)
        while timers and timers[0][0] <= monotonic_ns():
            heapq.heappop(timers)[2]()
        return bool(events)

    def dispatch_arrived(self) -> bool:
        """Have handled what has arrived by now; False if nothing had."""
        events = self._epoll.poll(0)
        self._handle(events)
        return bool(events)

    def _handle(self, events: list[tuple[int, int]]) -> None:
        handlers = self._handlers
        for fd, mask in events:
            handler = handlers.get(fd)
            # Missing: an earlier handler of this wake-up has closed it.
            if handler is not None:
                handler(mask)

    def _wait(self, deadline_ns: int | None) -> list[tuple[int, int]]:
        poll = self._epoll.poll
        now_ns = start_ns = monotonic_ns()
        if self._guard.allows(now_ns):
            while now_ns - start_ns < _SPIN_NS:
                os.sched_yield()
                events = poll(0)
                before_ns, now_ns = now_ns, monotonic_ns()
                if now_ns - before_ns > _SLOW_LOOK_NS:
                    self._guard.saw_slow_look(now_ns)
                    if not events:
                        break
                if events:
                    return events
        if deadline_ns is None:
            return poll()
        return poll(max(deadline_ns - now_ns, 0) / 1e9)
