"""A plain list scheduler: equal slots, an instant network, a fixed list of priorities.

It is the oracle beside which detray's own policies are put: short enough to be believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from detray_sim.result import NodeShape, RunResult, TaskRecord
from detray_sim.theory.graphs import TaskGraph, bottom_levels, children_of, graph_of
from detray_sim.workload import Workload


class ListSchedule(NamedTuple):
    """When and where each task runs; times in the graph's unit, slots from 0."""

    ready: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    slots: tuple[int, ...]

    @property
    def makespan(self) -> int:
        """The end of the last task; 0 for no tasks."""
        return max(self.ends, default=0)


def list_schedule(graph: TaskGraph, priorities: Sequence[int], slots: int) -> ListSchedule:
    """Graham's algorithm: a free slot takes the first ready task of the list.

    Larger priorities go first, of equals the smaller number; the smallest free slot is used. All
    that ends or is released at one time is known before anything begins at it.
    Raises ValueError without slots.
    """
    if slots < 1:
        raise ValueError(f"a schedule needs at least one slot, not {slots}")
    run = _Run(graph, priorities, slots)
    while run.coming:
        run.advance()
    return ListSchedule(tuple(run.ready_at), tuple(run.starts), tuple(run.ends), tuple(run.slots))


def hlfet(graph: TaskGraph, slots: int) -> ListSchedule:
    """Highest level first with estimated times: the list is sorted by b-level."""
    return list_schedule(graph, bottom_levels(graph), slots)


class _Run:
    """One pass of the algorithm. `coming`: (time, kind, task), kind 0 an end, 1 a release."""

    def __init__(self, graph: TaskGraph, priorities: Sequence[int], slots: int) -> None:
        count = len(graph.durations)
        self.graph = graph
        self.children = children_of(graph)
        self.missing = [len(parents) for parents in graph.parents]
        self.rank = [(-priorities[number], number) for number in range(count)]
        self.free = list(range(slots))
        self.waiting: list[tuple[int, int]] = []
        self.coming: list[tuple[int, int, int]] = []
        self.ready_at, self.starts, self.ends, self.slots = ([-1] * count for _ in range(4))
        for number in range(count):
            if not self.missing[number]:
                heappush(self.coming, (graph.releases[number], 1, number))

    def advance(self) -> None:
        """Everything that happens at the next time."""
        now = self.coming[0][0]
        while self.coming and self.coming[0][0] == now:
            _, kind, number = heappop(self.coming)
            if kind:
                self.ready_at[number] = now
                heappush(self.waiting, self.rank[number])
            else:
                self._finish(number, now)
        while self.free and self.waiting:
            _, number = heappop(self.waiting)
            self.starts[number] = now
            self.ends[number] = now + self.graph.durations[number]
            self.slots[number] = heappop(self.free)
            heappush(self.coming, (self.ends[number], 0, number))

    def _finish(self, number: int, now: int) -> None:
        heappush(self.free, self.slots[number])
        for child in self.children[number]:
            self.missing[child] -= 1
            if not self.missing[child]:
                heappush(self.coming, (max(now, self.graph.releases[child]), 1, child))


def result_of(
    workload: Workload,
    schedule: ListSchedule,
    nodes: Sequence[NodeShape],
    policy: str = "reference",
) -> RunResult:
    """A schedule of one-core tasks as the result of a run, its slots dealt to nodes in order."""
    places = [
        (node, worker) for node, shape in enumerate(nodes) for worker in range(1, shape.cpus + 1)
    ]
    tasks = tuple(
        TaskRecord(
            number=number,
            id=task.id,
            name=task.name,
            node=places[schedule.slots[number]][0],
            worker=places[schedule.slots[number]][1],
            submitted_ns=task.submit_ns,
            ready_ns=schedule.ready[number],
            started_ns=schedule.starts[number],
            finished_ns=schedule.ends[number],
        )
        for number, task in enumerate(workload.tasks)
    )
    return RunResult(
        workload=workload.name,
        policy=policy,
        seed=0,
        nodes=tuple(nodes),
        network="instant",
        makespan_ns=schedule.makespan,
        tasks=tasks,
        transfers=(),
        digest=hashlib.sha256(repr(schedule).encode()).hexdigest(),
    )


def reference_run(workload: Workload, nodes: Sequence[NodeShape]) -> RunResult:
    """HLFET of a workload of one-core tasks on equal nodes. Raises ValueError for other nodes."""
    if len({node.speed_permille for node in nodes}) > 1:
        raise ValueError("the reference scheduler knows equal cores only; these differ in speed")
    speed = nodes[0].speed_permille if nodes else 1000
    schedule = hlfet(graph_of(workload, speed), sum(node.cpus for node in nodes))
    return result_of(workload, schedule, nodes, "hlfet")
