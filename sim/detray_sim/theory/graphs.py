"""A workload as scheduling theory sees it: durations, who comes before whom, levels.

All times are integers in one unit, nanoseconds where the graph came from a workload.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from detray_sim.workload import Workload


class TaskGraph(NamedTuple):
    """Tasks in topological order: a parent's number is smaller than its child's."""

    durations: tuple[int, ...]
    parents: tuple[tuple[int, ...], ...]
    releases: tuple[int, ...]
    """Nothing begins before; 0 where a task may begin at once."""


def graph_of(workload: Workload, speed_permille: int = 1000) -> TaskGraph:
    """The graph of a workload, every task on a core of the given speed (rounded down, ns).

    Rounded down because bounds are made from it: a simulator that rounds up stays above them.
    """
    return TaskGraph(
        durations=tuple(task.duration_ns * 1000 // speed_permille for task in workload.tasks),
        parents=tuple(
            tuple(sorted({producer for producer, _ in task.inputs})) for task in workload.tasks
        ),
        releases=tuple(task.submit_ns for task in workload.tasks),
    )


def plain_graph(durations: Sequence[int], parents: Sequence[Sequence[int]]) -> TaskGraph:
    """A graph from plain lists, everything released at 0."""
    return TaskGraph(tuple(durations), tuple(map(tuple, parents)), (0,) * len(durations))


def children_of(graph: TaskGraph) -> list[list[int]]:
    """For each task, the tasks that wait for it, in order."""
    children: list[list[int]] = [[] for _ in graph.durations]
    for number, parents in enumerate(graph.parents):
        for parent in parents:
            children[parent].append(number)
    return children


def bottom_levels(graph: TaskGraph) -> list[int]:
    """Each task's b-level: the longest way from its beginning to the end of the graph."""
    levels = list(graph.durations)
    for number in reversed(range(len(levels))):
        # All children are numbered above, so levels[number] is final when its parents see it.
        for parent in graph.parents[number]:
            levels[parent] = max(levels[parent], graph.durations[parent] + levels[number])
    return levels


def top_levels(graph: TaskGraph) -> list[int]:
    """Each task's t-level: the earliest time at which it can begin, on however many cores."""
    levels = list(graph.releases)
    for number, parents in enumerate(graph.parents):
        for parent in parents:
            levels[number] = max(levels[number], levels[parent] + graph.durations[parent])
    return levels


def critical_path_ns(graph: TaskGraph) -> int:
    """The length of the longest chain of tasks. Releases do not count; 0 for no tasks."""
    return max(bottom_levels(graph), default=0)


def critical_tasks(graph: TaskGraph) -> list[int]:
    """The tasks of one longest chain, first to last; of equals the smallest number."""
    levels = bottom_levels(graph)
    children = children_of(graph)
    path: list[int] = []
    choice: Sequence[int] = range(len(levels))
    while choice:
        path.append(max(choice, key=lambda number: (levels[number], -number)))
        choice = children[path[-1]]
    return path
