"""Virtual time: a simpy environment that counts integer nanoseconds, and what hangs on it.

Rules
-----
- What happens at the same nanosecond happens in the order (priority, order of scheduling). Nothing
  else decides, so equal runs are equal.
- Arrivals have the priority NORMAL, deadlines LATE: at the moment of a deadline everything that
  arrives at that moment is there already (PROTOCOL T4).
- Processes and events of plain simpy may join in. What simpy schedules is an entry (time, priority,
  number, event) of its heap; a call of ours is an entry (time, priority, number, function,
  arguments) of the same heap, because an event object for each costs more than all the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from simpy import Environment
from simpy.core import EmptySchedule

NORMAL, LATE, LAST = 1, 2, 3
NEVER = 1 << 62
_CALL = 5
"""The length of an entry that is a call."""
MILLION = 1_000_000


class Clock(Environment):  # type: ignore[misc]  # simpy is not typed for us
    """The clock of the world. `now_ns` only grows."""

    def __init__(self) -> None:
        super().__init__(0)
        self.now_ns = 0
        """Nanoseconds since the beginning; simpy's `now`, but cheaper to read."""
        self.calls = 0
        """Events processed so far."""
        self.halts = False
        """Set by whoever wants `run_until` to return after the current event."""

    def after(self, delay_ns: int, call: Callable[..., object], *args: Any) -> None:
        """Call a function in `delay_ns`. (Any: whatever it takes.)"""
        heappush(self._queue, (self.now_ns + delay_ns, NORMAL, next(self._eid), call, args))

    def late(self, at_ns: int, call: Callable[..., object], *args: Any) -> None:
        """Call a function at a moment, after all else that is planned for it. (Any: as above.)"""
        heappush(self._queue, (at_ns, LATE, next(self._eid), call, args))

    def last(self, call: Callable[..., object], *args: Any) -> None:
        """Call a function when nothing else is left to happen at this moment. (Any: as above.)"""
        heappush(self._queue, (self.now_ns, LAST, next(self._eid), call, args))

    def step(self) -> None:
        """Process the next event. Raises `simpy.core.EmptySchedule`."""
        queue = self._queue
        if not queue:
            raise EmptySchedule
        self._now = self.now_ns = queue[0][0]
        if len(queue[0]) == _CALL:
            _, _, _, call, args = heappop(queue)
            call(*args)
        else:
            super().step()

    def run_until(
        self, end_ns: int = NEVER, *, done: Callable[[], bool] | None = None, calls_max: int = 0
    ) -> bool:
        """Process events up to and including `end_ns`; True if `done` said so.

        Stops as soon as `done()` is true (it is asked after each event), when somebody sets
        `halts` (that is True, too), when nothing is left, or after `calls_max` events (0: any).
        """
        queue = self._queue
        self.halts = False
        left = calls_max or NEVER
        count = 0
        try:
            while queue and queue[0][0] <= end_ns and count < left:
                count += 1
                if len(queue[0]) == _CALL:
                    self._now, _, _, call, args = heappop(queue)
                    self.now_ns = self._now
                    call(*args)
                else:
                    self.step()
                if self.halts or (done is not None and done()):
                    return True
        finally:
            self.calls += count
        if end_ns < NEVER and self.now_ns < end_ns and count < left:
            self._now = self.now_ns = end_ns
        return False


class Timer:
    """Calls a function at a moment that may be moved, as often as it likes.

    What is in the queue is never taken out: an entry that comes too early looks when it is wanted.
    """

    __slots__ = ("_armed_ns", "_call", "_clock", "_wanted_ns")

    def __init__(self, clock: Clock, call: Callable[[], object]) -> None:
        self._clock = clock
        self._call = call
        self._armed_ns = NEVER
        """When the earliest of our entries in the queue comes."""
        self._wanted_ns = NEVER

    def set(self, at_ns: int) -> None:
        """Call at `at_ns` and at no other time; NEVER: not at all."""
        self._wanted_ns = at_ns
        if at_ns < self._armed_ns:
            self._armed_ns = at_ns
            self._clock.late(at_ns, self._fire, at_ns)

    def _fire(self, at_ns: int) -> None:
        if at_ns != self._armed_ns:
            return  # an earlier entry took our place
        self._armed_ns = NEVER
        wanted_ns = self._wanted_ns
        if wanted_ns <= at_ns:
            self._wanted_ns = NEVER
            self._call()
        elif wanted_ns < NEVER:
            self.set(wanted_ns)


class ClockView:
    """What one machine's own clock shows: the world's, shifted, and too fast or too slow.

    Integer arithmetic: the clock shows `shown + (now - since) * (1 + drift / 1,000,000)`.
    """

    __slots__ = ("_drift_ppm", "_shown_ns", "_since_ns")

    def __init__(self, base_ns: int = 0) -> None:
        self._since_ns = 0
        self._shown_ns = base_ns
        self._drift_ppm = 0

    def read(self, now_ns: int) -> int:
        """What it shows at the moment `now_ns` of the world."""
        passed_ns = now_ns - self._since_ns
        if self._drift_ppm:
            passed_ns += passed_ns * self._drift_ppm // MILLION
        return self._shown_ns + passed_ns

    def when(self, shown_ns: int, now_ns: int) -> int:
        """The first moment of the world, not before `now_ns`, at which it shows `shown_ns`."""
        missing_ns = shown_ns - self._shown_ns
        if self._drift_ppm:
            missing_ns = -(-missing_ns * MILLION // (MILLION + self._drift_ppm))
        return max(now_ns, self._since_ns + missing_ns)

    def set(self, now_ns: int, *, jump_ns: int = 0, drift_ppm: int | None = None) -> None:
        """Jump, or go at another pace (`drift_ppm` above -1,000,000), from `now_ns` on."""
        self._shown_ns = self.read(now_ns) + jump_ns
        self._since_ns = now_ns
        if drift_ppm is not None:
            self._drift_ppm = drift_ppm
