"""What a node had in use over time: memory and tasks, read from its tables while a trace is played.

Each node has a series of at most `POINTS_MAX` spans of equal length. A span keeps the *highest*
value of each quantity that was there at any moment of it, so a peak of a microsecond is not lost;
when there are too many spans, two become one. A span in which nothing happened is left out: its
values are those with which the one before ended.
"""

from __future__ import annotations

import msgspec

from detray.core.tables import Tables

POINTS_MAX = 2000
QUANTITIES = (
    "arena_bytes",
    "spilled_bytes",
    "inline_bytes",
    "unfinished",
    "ready",
    "running",
    "blocked",
    "workers",
)
"""Bytes in the shared memory arena, in files, and kept by the service itself; tasks that the node
knows and that have not ended, those of them that wait for nothing but a CPU, that run, and whose
run waits in a `get`; worker processes."""
_WORKERS_EACH_STEP = 64
"""With more workers they are counted once in so many steps each: counting is not free."""


class Usage(msgspec.Struct):
    """One node's series. `starts_ns` are of its own clock; `values[q]` belong to `QUANTITIES[q]`.

    Values hold from the start given until the next one. `ended_ns` is the last moment known.
    """

    starts_ns: list[int]
    values: list[list[int]]
    ended_ns: int


class UsageSampler:
    """Takes one look at the tables of one local scheduler after each of its steps."""

    def __init__(self, points_max: int = POINTS_MAX) -> None:
        self._points_max = points_max
        self._first_ns = -1
        self._now_ns = -1
        self._span_ns = 1000
        self._spans: list[int] = []
        self._highest: list[list[int]] = []
        self._last = [0] * len(QUANTITIES)
        self._until_count = 0

    def look(self, t: Tables, now_ns: int) -> None:
        """What the node has now."""
        if self._first_ns < 0:
            self._first_ns = now_ns
        self._now_ns = now_ns = max(now_ns, self._now_ns)
        values = self._values(t)
        span = (now_ns - self._first_ns) // self._span_ns
        if self._spans and self._spans[-1] == span:
            highest = self._highest[-1]
            if values != self._last:
                self._highest[-1] = [max(pair) for pair in zip(highest, values, strict=True)]
        elif values != self._last or not self._spans or self._highest[-1] != values:
            if self._spans and self._spans[-1] + 1 < span and self._highest[-1] != self._last:
                self._add(self._spans[-1] + 1, self._last)
            # What was there as the span began is a part of it.
            self._add(span, [max(pair) for pair in zip(self._last, values, strict=True)])
        self._last = values
        while len(self._spans) > self._points_max:
            self._halve()

    def usage(self) -> Usage:
        """The series so far."""
        starts = [self._first_ns + span * self._span_ns for span in self._spans]
        rows = [list(column) for column in zip(*self._highest, strict=True)]
        if starts and self._highest[-1] != self._last and self._now_ns > starts[-1]:
            starts.append(self._now_ns)
            rows = [[*row, last] for row, last in zip(rows, self._last, strict=True)]
        return Usage(starts, rows or [[] for _ in QUANTITIES], self._now_ns)

    def _values(self, t: Tables) -> list[int]:
        busy = self._last[5] + self._last[6]
        if self._until_count <= 0:
            busy = sum(1 for worker in t.workers.values() if worker.runs)
            self._until_count = len(t.workers) // _WORKERS_EACH_STEP
        self._until_count -= 1
        return [
            t.arena.used,
            sum(segment.live for segment in t.segments.values()) if t.segments else 0,
            t.inline_bytes,
            len(t.tasks),
            sum([shape.count for shape in t.shapes]),
            max(0, busy - t.blocked_count),
            t.blocked_count,
            len(t.workers),
        ]

    def _add(self, span: int, values: list[int]) -> None:
        self._spans.append(span)
        self._highest.append(values)

    def _halve(self) -> None:
        """Two spans become one."""
        spans, rows = self._spans, self._highest
        self._span_ns *= 2
        self._spans, self._highest = [], []
        for span, values in zip(spans, rows, strict=True):
            half = span // 2
            if self._spans and self._spans[-1] == half:
                before = self._highest[-1]
                self._highest[-1] = [max(pair) for pair in zip(before, values, strict=True)]
            else:
                self._add(half, values)
