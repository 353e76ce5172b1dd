"""What a policy may know of a workload: durations as its imode allows, levels, sizes.

Sizes are those of the workload: an output's is asked for only when it is made, so by then it is no
secret. Times in nanoseconds on a core of speed 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from detray.ids import TaskID
from detray_sim.theory import bottom_levels, top_levels
from detray_sim.theory.graphs import TaskGraph
from detray_sim.workload import SECOND_NS, Workload

Output = tuple[int, int]
"""(number of a task, number of its output)."""


class Knowledge:
    """A workload through the eyes of a policy. `order`: task numbers as they are submitted."""

    def __init__(
        self,
        workload: Workload,
        order: Sequence[int],
        imode: str,
        bytes_per_s: int,
        latency_ns: int,
    ) -> None:
        self.tasks = workload.tasks
        self.order = order
        self.bytes_per_s = bytes_per_s
        """Of one transfer that has the network for itself; 0: transfers take no time."""
        self.latency_ns = latency_ns
        self.durations = believed_durations(workload, imode)
        self.units = [dict(task.demand).get("CPU", 0) for task in workload.tasks]
        """CPU that each task asks for, in 1/10,000."""

    def number_of(self, task: TaskID) -> int:
        """The number of the task of that name."""
        return self.order[int.from_bytes(task[12:16], "big")]

    def transfer_ns(self, size_bytes: int) -> int:
        """How long so many bytes travel between two nodes."""
        if not size_bytes or not self.bytes_per_s:
            return 0
        return size_bytes * SECOND_NS // self.bytes_per_s + self.latency_ns

    def graph(self) -> TaskGraph:
        """The workload as a graph with the believed durations."""
        return TaskGraph(
            durations=tuple(self.durations),
            parents=tuple(tuple(sorted({p for p, _ in task.inputs})) for task in self.tasks),
            releases=tuple(task.submit_ns for task in self.tasks),
        )

    def b_levels(self) -> list[int]:
        """The longest way from each task's beginning to the end; transfers do not count."""
        return bottom_levels(self.graph())

    def t_levels(self) -> list[int]:
        """When each task could begin at the earliest, on however many cores."""
        return top_levels(self.graph())

    def upward_ranks(self) -> list[int]:
        """b-levels in which every edge takes as long as its transfer: HEFT's, MCP's."""
        ranks = list(self.durations)
        for number in reversed(range(len(ranks))):
            # All consumers are numbered above, so ranks[number] is final here.
            for producer, output in self.tasks[number].inputs:
                edge_ns = self.transfer_ns(self.tasks[producer].outputs[output])
                through = self.durations[producer] + edge_ns + ranks[number]
                ranks[producer] = max(ranks[producer], through)
        return ranks


def believed_durations(workload: Workload, imode: str) -> list[int]:
    """What a policy believes of each task's duration.

    exact: the truth. mean: the mean of all. user: what the workload says that a user would expect,
    where it says it, else the mean. blind: every task takes a second.
    """
    tasks = workload.tasks
    if imode == "exact":
        return [task.duration_ns for task in tasks]
    if imode == "blind":
        return [SECOND_NS] * len(tasks)
    mean = sum(task.duration_ns for task in tasks) // max(1, len(tasks))
    if imode == "mean":
        return [mean] * len(tasks)
    return [task.expected_ns if task.expected_ns >= 0 else mean for task in tasks]
