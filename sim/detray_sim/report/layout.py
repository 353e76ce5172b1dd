"""Where things are in a Gantt chart: rows of slots, bands of nodes, ends of transfers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import msgspec

from detray_sim.report.flows import Flows
from detray_sim.report.rows import task_rows
from detray_sim.report.tables import core_demand
from detray_sim.report.text import format_count
from detray_sim.result import RunResult
from detray_sim.workload import Workload


class Band(msgspec.Struct, frozen=True):
    """The rows of one node or, in a large cluster, one row for several."""

    first: int
    count: int
    name: str


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Rows are numbered from the top, over all bands."""

    rows: int
    bands: tuple[Band, ...]
    band_of: tuple[int, ...]
    """By node."""
    row_slots: tuple[int, ...]
    """How many slots each row stands for."""
    tasks: dict[int, tuple[int, ...]]
    """The rows of each task that ran, by its place in the result."""
    weights: tuple[float, ...]
    """By place: how many slots the task holds in each of its rows."""
    subject: str
    """What the rows are, for a title."""

    @property
    def merged(self) -> bool:
        """Whether a row is more than one slot."""
        return self.rows < len(self.band_of) or any(slots != 1 for slots in self.row_slots)


def layout_of(result: RunResult, workload: Workload | None, rows_max: int) -> Layout:
    """A row per slot if they fit, else one per node, else one per group of nodes."""
    cores = core_demand(result, workload)
    rows = task_rows(result, cores)
    slots = [node.cpus for node in result.nodes]
    for place, own in rows.items():
        # Tasks of less than a core, or of none, may be more at a time than there are cores.
        node = result.tasks[place].node
        slots[node] = max(slots[node], own[-1] + 1)
    if sum(slots) <= rows_max:
        return _by_slot(result, rows, slots)
    return _by_node(result, rows, cores, rows_max)


def _by_slot(result: RunResult, rows: dict[int, tuple[int, ...]], slots: Sequence[int]) -> Layout:
    firsts = [0, *accumulate(slots)]
    return Layout(
        rows=firsts[-1],
        bands=tuple(Band(firsts[node], count, f"node {node}") for node, count in enumerate(slots)),
        band_of=tuple(range(len(slots))),
        row_slots=(1,) * firsts[-1],
        tasks={
            place: tuple(firsts[result.tasks[place].node] + row for row in own)
            for place, own in rows.items()
        },
        weights=(1.0,) * len(result.tasks),
        subject=_subject(result),
    )


def _by_node(
    result: RunResult, rows: dict[int, tuple[int, ...]], cores: Sequence[float], rows_max: int
) -> Layout:
    nodes = len(result.nodes)
    each = -(-nodes // rows_max)
    groups = [range(first, min(first + each, nodes)) for first in range(0, nodes, each)]
    per_row = "" if each == 1 else f", {each} to a row"
    return Layout(
        rows=len(groups),
        bands=tuple(Band(index, 1, _group_name(group)) for index, group in enumerate(groups)),
        band_of=tuple(node // each for node in range(nodes)),
        row_slots=tuple(sum(result.nodes[node].cpus for node in group) for group in groups),
        tasks={place: (result.tasks[place].node // each,) for place in rows},
        weights=tuple(cores),
        subject=_subject(result) + per_row,
    )


def _group_name(group: range) -> str:
    return f"node {group[0]}" if len(group) == 1 else f"nodes {group[0]}–{group[-1]}"


def _subject(result: RunResult) -> str:
    cores = sum(node.cpus for node in result.nodes)
    return f"{format_count(cores, 'core')} of {format_count(len(result.nodes), 'node')}"


class Ends:
    """The heights at which transfers leave and arrive."""

    def __init__(self, result: RunResult, workload: Workload | None, plan: Layout) -> None:
        self._result = result
        self._plan = plan
        self._flows = Flows(result, workload)

    def leaves(self, place: int) -> float:
        """The row of the task that made the object, else the middle of the source."""
        return self._height(self._flows.producer(place), self._result.transfers[place].source)

    def arrives(self, place: int) -> float:
        """The row of the task that takes the object first, else the middle of the target."""
        return self._height(self._flows.taker(place), self._result.transfers[place].target)

    def _height(self, task: int, node: int) -> float:
        own = self._plan.tasks.get(task)
        if own:
            return own[0] + 0.5
        band = self._plan.bands[self._plan.band_of[node]]
        return band.first + band.count / 2


def blocks(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending rows as (first, count) of neighbours."""
    found: list[tuple[int, int]] = []
    for row in rows:
        if found and sum(found[-1]) == row:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((row, 1))
    return found
