"""What was going on over time: sums of intervals as a curve, exact or in bins."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

Interval = tuple[int, int, float]
"""From, to (ns) and how much it counts while it lasts."""


class Bins:
    """The mean level of a sum of intervals in each of `count` equal parts of [0, end).

    An interval costs the same however many parts it covers, so a million of them are fine.
    """

    def __init__(self, end_ns: int, count: int) -> None:
        self.count = count
        self.width = max(1, end_ns) / count
        self._partial = [0.0] * (count + 1)
        self._steps = [0.0] * (count + 1)

    def add(self, started_ns: float, finished_ns: float, weight: float) -> None:
        """One interval; what lies outside of the range is cut off."""
        left = min(max(0.0, started_ns / self.width), self.count)
        right = min(max(0.0, finished_ns / self.width), self.count)
        first, last = int(left), int(right)
        if first == last:
            self._partial[first] += weight * (right - left)
            return
        self._partial[first] += weight * (first + 1 - left)
        self._partial[last] += weight * (right - last)
        self._steps[first + 1] += weight
        self._steps[last] -= weight

    def levels(self) -> list[float]:
        """The mean level of each part, in weights."""
        whole = accumulate(self._steps)
        sums = (part + level for part, level in zip(self._partial, whole, strict=True))
        # The last entry is the instant `end` itself, which has no length.
        return [max(0.0, level) for level in sums][: self.count]

    def edges_ns(self) -> list[float]:
        """Where the parts begin and end: one more than there are parts."""
        return [index * self.width for index in range(self.count + 1)]


def curve(
    intervals: Iterable[Interval], end_ns: int, points: int = 800
) -> tuple[list[float], list[float]]:
    """(edges, levels) of a sum of intervals, for a stepped line; one more edge than levels.

    Exact as long as few enough changes happen, else the means of `points` equal parts.
    """
    changes: dict[int, float] = {0: 0.0}
    known = list(intervals)
    for started, finished, weight in known:
        if finished > started:
            changes[started] = changes.get(started, 0.0) + weight
            changes[finished] = changes.get(finished, 0.0) - weight
    if len(changes) <= points:
        times = sorted(changes)
        levels = list(accumulate(changes[time] for time in times))
        return [*map(float, times), float(max(end_ns, times[-1], 1))], [max(0.0, x) for x in levels]
    bins = Bins(end_ns, points)
    for interval in known:
        bins.add(*interval)
    return bins.edges_ns(), bins.levels()
