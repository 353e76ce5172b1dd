"""Which slot of its node a task occupies: rows for charts and threads for traces.

A record names the worker process, and a node may have more of those than cores. What a reader
wants are rows in which nothing overlaps, as few as possible.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from detray_sim.result import RunResult, TaskRecord


class Span(NamedTuple):
    """What occupies rows: from, to (ns), who, and how many rows."""

    started_ns: int
    finished_ns: int
    key: int
    width: int = 1


def has_run(task: TaskRecord) -> bool:
    """Whether the task was begun and ended, well or badly."""
    return task.started_ns >= 0 and task.finished_ns >= task.started_ns


def stack(spans: Iterable[Span]) -> dict[int, tuple[int, ...]]:
    """Rows from 0 by key, ascending, so that no two spans overlap; the fewest that suffice.

    A span takes the lowest free rows, and the earlier one first. Those of a wide span need not
    lie side by side.
    """
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    rows: dict[int, tuple[int, ...]] = {}
    opened = 0
    for span in sorted(spans):
        while busy and busy[0][0] <= span.started_ns:
            heappush(free, heappop(busy)[1])
        while len(free) < span.width:
            heappush(free, opened)
            opened += 1
        rows[span.key] = tuple(heappop(free) for _ in range(span.width))
        for row in rows[span.key]:
            heappush(busy, (span.finished_ns, row))
    return rows


def task_rows(
    result: RunResult, cores: Sequence[float] | None = None
) -> dict[int, tuple[int, ...]]:
    """The rows of each task that ran, within its node, by the task's place in `result.tasks`.

    A task of several `cores` takes as many rows, any other task one.
    """
    spans: dict[int, list[Span]] = defaultdict(list)
    for place, task in enumerate(result.tasks):
        if has_run(task):
            width = max(1, math.ceil(cores[place])) if cores else 1
            spans[task.node].append(Span(task.started_ns, task.finished_ns, place, width))
    return {place: rows for node in sorted(spans) for place, rows in stack(spans[node]).items()}


def transfer_rows(result: RunResult) -> dict[int, int]:
    """The row of each transfer at the node that receives it, by its place."""
    spans: dict[int, list[Span]] = defaultdict(list)
    for place, moved in enumerate(result.transfers):
        spans[moved.target].append(Span(moved.started_ns, moved.finished_ns, place))
    return {place: rows[0] for node in sorted(spans) for place, rows in stack(spans[node]).items()}
