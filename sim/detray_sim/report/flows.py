"""Which tasks stand at the two ends of a transfer, as far as the records tell."""

from __future__ import annotations

from collections import defaultdict

from detray_sim.report.rows import has_run
from detray_sim.result import RunResult
from detray_sim.workload import Workload


class Flows:
    """Producers and takers of transfers, by the places of all three in the result."""

    def __init__(self, result: RunResult, workload: Workload | None) -> None:
        self._result = result
        self._place = {task.number: place for place, task in enumerate(result.tasks)}
        self._takers = _takers(result, workload) if workload else {}

    def producer(self, place: int) -> int:
        """The task that made the object, if it ran where the transfer begins; else -1.

        A copy of a copy comes from a node where the task did not run.
        """
        moved = self._result.transfers[place]
        producer = self._place.get(moved.task, -1)
        if producer < 0:
            return -1
        task = self._result.tasks[producer]
        return producer if has_run(task) and task.node == moved.source else -1

    def taker(self, place: int) -> int:
        """The first task at the target that takes it once it is there; -1: not known."""
        moved = self._result.transfers[place]
        for started_ns, taker in self._takers.get((moved.task, moved.target), ()):
            if started_ns >= moved.finished_ns:
                return taker
        return -1


def _takers(result: RunResult, workload: Workload) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """By (number of the producing task, node): (start, place) of who takes from it there."""
    takers: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for place, task in enumerate(result.tasks):
        if has_run(task):
            for producer in sorted({number for number, _ in workload.tasks[task.number].inputs}):
                takers[producer, task.node].append((task.started_ns, place))
    for known in takers.values():
        known.sort()
    return takers
