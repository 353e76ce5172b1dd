"""What no schedule can beat, and what every greedy one keeps.

The lower bounds hold for every policy: they forget transfers, or one of the other limits. Work is
measured in core-nanoseconds: duration on a core of speed 1, times the cores it holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from detray_sim.result import NodeShape, TransferRecord
from detray_sim.theory.graphs import TaskGraph, bottom_levels, critical_path_ns, graph_of
from detray_sim.theory.graphs import top_levels as _top_levels
from detray_sim.workload import SECOND_NS, UNIT, TaskSpec, Workload

_THRESHOLDS_MAX = 64
"""Distinct demands of one resource that are tried: each gives a bound by itself."""


class Bounds(NamedTuple):
    """Lower bounds of the makespan on one cluster, in nanoseconds."""

    critical_path_ns: int
    """The longest chain on the fastest cores."""
    release_ns: int
    """The earliest end of the task that can end last: chains from when they are submitted."""
    resource_ns: int
    """Work of one resource over all that the cluster has of it: the largest of them."""
    staged_ns: int
    """What cannot begin earlier, or must be followed by more, spread over all cores."""

    @property
    def lower_bound_ns(self) -> int:
        """The best of them."""
        return max(self)


def bounds(workload: Workload, nodes: Sequence[NodeShape]) -> Bounds:
    """Lower bounds for every schedule of the workload on these nodes, whatever the network.

    Source: critical path and area bounds, Graham 1969; the staged one is the usual strengthening
    of the area bound by heads and tails (Carlier 1982). Raises ValueError if there are no nodes.
    """
    if not nodes:
        raise ValueError("a cluster without nodes runs nothing: give at least one node")
    graph = graph_of(workload, max(node.speed_permille for node in nodes))
    ends = (top + length for top, length in zip(_top_levels(graph), graph.durations, strict=True))
    return Bounds(
        critical_path_ns=critical_path_ns(graph),
        release_ns=max(ends, default=0),
        resource_ns=resource_bound_ns(workload.tasks, nodes),
        staged_ns=_staged_bound(workload, graph, nodes),
    )


def work_ns(tasks: Iterable[TaskSpec]) -> int:
    """Core-nanoseconds of all tasks at speed 1, rounded down. What asks for no CPU has none."""
    return sum(task.duration_ns * cpu_units(task) for task in tasks) // UNIT


def cpu_units(task: TaskSpec) -> int:
    """What a task holds of CPU, in 1/10,000."""
    return dict(task.demand).get("CPU", 0)


def resource_bound_ns(tasks: Sequence[TaskSpec], nodes: Sequence[NodeShape]) -> int:
    """The largest area bound over all resources, in nanoseconds.

    For a threshold d, the tasks that ask for at least d need machines that have d, and at most
    floor(C / d) of them run at once where C is there. Demands that no node can satisfy are left
    out: whoever runs the workload refuses them.
    """
    shapes = Counter((node.cpus, node.speed_permille, node.resources) for node in nodes)
    best = 0
    for resource in sorted({name for task in tasks for name, _ in task.demand}):
        capacity = [
            (cpus * UNIT if resource == "CPU" else dict(others).get(resource, 0), speed * count)
            for (cpus, speed, others), count in sorted(shapes.items())
        ]
        largest = max(amount for amount, _ in capacity)
        durations: Counter[int] = Counter()
        for task in tasks:
            for name, amount in task.demand:
                if name == resource and amount <= largest:
                    durations[amount] += task.duration_ns
        best = max(best, _area_bound(durations, capacity))
    return best


def _area_bound(durations: Counter[int], capacity: list[tuple[int, int]]) -> int:
    """Over thresholds; `durations` summed by demand, `capacity` is (amount, permille speed)."""
    thresholds = sorted(durations)
    step = -(-len(thresholds) // _THRESHOLDS_MAX) or 1
    best = 0
    for least in thresholds[::step]:
        room = [(amount, speed) for amount, speed in capacity if amount >= least]
        many = sum((amount // least) * speed for amount, speed in room)
        much = sum(amount * speed for amount, speed in room)
        time = sum(length for amount, length in durations.items() if amount >= least)
        area = sum(amount * length for amount, length in durations.items() if amount >= least)
        best = max(best, -(-time * 1000 // many), -(-area * 1000 // much))
    return best


def _staged_bound(workload: Workload, graph: TaskGraph, nodes: Sequence[NodeShape]) -> int:
    """max over h of h + (CPU work of tasks with head >= h) / cores; the same with tails."""
    speed = sum(node.cpus * node.speed_permille for node in nodes) * UNIT
    if not speed:
        return 0
    largest = max(node.cpus for node in nodes) * UNIT
    work = [
        task.duration_ns * 1000 * (units if (units := cpu_units(task)) <= largest else 0)
        for task in workload.tasks
    ]
    tails = [
        level - length for level, length in zip(bottom_levels(graph), graph.durations, strict=True)
    ]
    best = 0
    for distances in (_top_levels(graph), tails):
        beyond = 0
        for distance, amount in sorted(zip(distances, work, strict=True), reverse=True):
            beyond += amount
            best = max(best, distance + -(-beyond // speed))
    return best


def transfer_bound_ns(
    transfers: Iterable[TransferRecord], bytes_per_second: int, base_ns: int = 0
) -> int:
    """What the busiest network card needs for what it sent or received, in nanoseconds.

    It bounds every schedule that moves these bytes between these nodes, full duplex; another
    placement moves others. `base_ns`: when the first byte can begin to flow.
    """
    moved: Counter[tuple[str, int]] = Counter()
    for transfer in transfers:
        moved["out", transfer.source] += transfer.size_bytes
        moved["in", transfer.target] += transfer.size_bytes
    busiest = max(moved.values(), default=0)
    return base_ns + -(-busiest * SECOND_NS // bytes_per_second) if busiest else 0


def graham_bound_ns(work: int, critical_path: int, slots: int) -> int:
    """What no work-conserving list schedule exceeds: W/P + (1 - 1/P) CP, rounded down.

    For one-core tasks released at 0, equal cores, no transfers; in the unit of the arguments.
    Source: Graham 1969, "Bounds on multiprocessing timing anomalies".
    """
    return (work + (slots - 1) * critical_path) // slots
