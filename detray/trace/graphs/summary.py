"""A run in numbers: counts, work and span, the critical path and what it is made of, width."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from detray.trace.graphs.computation import Computation, Source, computation
from detray.trace.graphs.critical import CriticalPath, critical_path
from detray.trace.graphs.measures import (
    FunctionStats,
    functions,
    levels,
    mean_width,
    parallelism_profile,
    width,
)
from detray.trace.graphs.span import span_ns, work_ns


class RunSummary(NamedTuple):
    """All that `detray graph` says; times in nanoseconds, sizes in bytes."""

    tasks: int
    """Without programs."""
    states: dict[str, int]
    """How many tasks are in each state, by its name."""
    retries: int
    """Attempts beyond the first of their task."""
    objects: int
    bytes_made: int
    """Sizes of all objects together."""
    bytes_taken: int
    """Sizes of objects times how often they were top-level arguments."""
    levels: int
    """Tasks on the longest way by arguments and submissions."""
    work_ns: int
    span_ns: int
    blocked_ns: int
    """How long last attempts stood still in `get`, together."""
    path: CriticalPath
    mean_width: float
    max_width: int
    profile: dict[int, int]
    """For each number of tasks at work, for how long it was that."""
    functions: list[FunctionStats]

    @property
    def parallelism(self) -> float:
        """Work by span: how many tasks could be at work on average; 0 if there is no span."""
        return self.work_ns / self.span_ns if self.span_ns else 0.0


def summary_of(source: Source) -> RunSummary:
    """The numbers of a graph."""
    rows: Computation = computation(source)
    tasks = [task for task in rows.tasks if not task.is_root]
    steps = width(rows)
    depth = levels(rows)
    return RunSummary(
        tasks=len(tasks),
        states=dict(sorted(Counter(task.state for task in tasks).items())),
        retries=sum(max(0, len(task.runs) - 1) for task in tasks),
        objects=rows.object_count,
        bytes_made=rows.bytes_made,
        bytes_taken=rows.bytes_moved,
        levels=max((depth[task.id] + 1 for task in tasks), default=0),
        work_ns=work_ns(rows),
        span_ns=span_ns(rows),
        blocked_ns=sum(task.blocked_ns(task.last) for task in tasks if task.last is not None),
        path=critical_path(rows),
        mean_width=mean_width(steps),
        max_width=max((step.running for step in steps), default=0),
        profile=parallelism_profile(steps),
        functions=functions(rows),
    )
