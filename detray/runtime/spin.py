"""Spinning: look for an answer for some microseconds before blocking for it.

With an idle second core every hop between processes costs a wake-up of a halted CPU, more than the
work itself; spinning for 50 us triples the rate of one-at-a-time calls. But beside busy processes a
yield may give away a whole time slice (3 ms), and naive spinning drops to a hundredth. So one slow
iteration stops all spinning for a while, twice as long each time (docs/performance.md).
"""

from __future__ import annotations

import select
from os import sched_yield
from time import perf_counter_ns

SPIN_NS = 50_000
SLOW_NS = 400_000
PAUSE_NS_MIN = 50_000_000
PAUSE_NS_MAX = 1_000_000_000


class Spinner:
    """Polls descriptors for input, for SPIN_NS at most."""

    __slots__ = ("_pause_ns", "_poll", "_resume_ns")

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll.poll
        self._resume_ns = 0
        self._pause_ns = PAUSE_NS_MIN

    def find_input(self) -> bool:
        """True as soon as something is readable, False if spinning did not help."""
        poll = self._poll
        if poll(0):
            return True
        before = start = perf_counter_ns()
        if start < self._resume_ns:
            return False
        while before - start < SPIN_NS:
            sched_yield()
            found = poll(0)
            now = perf_counter_ns()
            if now - before > SLOW_NS:
                self._resume_ns = now + self._pause_ns
                self._pause_ns = min(self._pause_ns * 2, PAUSE_NS_MAX)
                return bool(found)
            if found:
                if self._pause_ns > PAUSE_NS_MIN and start - self._resume_ns > PAUSE_NS_MAX:
                    self._pause_ns = PAUSE_NS_MIN
                return True
            before = now
        return False
