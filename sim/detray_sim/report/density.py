"""Gantt charts of too many tasks: each row becomes a strip of busy time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detray_sim.report.canvas import INK
from detray_sim.report.layout import Layout
from detray_sim.report.series import Bins, curve
from detray_sim.result import RunResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 640
"""Cells of a row: about two pixels each."""

Colour = tuple[float, float, float]


def draw(axes: Axes, result: RunResult, plan: Layout, named: dict[str, str]) -> None:
    """A picture of cells: the hue of who was busiest there, the paler the more was idle."""
    bins: dict[tuple[int, str], Bins] = {}
    for place, rows in sorted(plan.tasks.items()):
        task = result.tasks[place]
        for row in rows:
            key = (row, named[task.name])
            if key not in bins:
                bins[key] = Bins(result.makespan_ns, COLUMNS)
            bins[key].add(task.started_ns, task.finished_ns, plan.weights[place])
    axes.imshow(
        _cells(bins, plan),
        extent=(0, max(1, result.makespan_ns), plan.rows, 0),
        aspect="auto",
        interpolation="nearest",
        zorder=1,
    )


def _cells(bins: dict[tuple[int, str], Bins], plan: Layout) -> list[list[Colour]]:
    levels: list[list[tuple[Colour, list[float]]]] = [[] for _ in range(plan.rows)]
    for (row, colour), own in sorted(bins.items()):
        levels[row].append((_rgb(colour), own.levels()))
    return [
        [_cell(levels[row], column, slots) for column in range(COLUMNS)]
        for row, slots in enumerate(plan.row_slots)
    ]


def _cell(levels: list[tuple[Colour, list[float]]], column: int, slots: int) -> Colour:
    busy = sum(own[column] for _, own in levels)
    if busy <= 0 or not slots:
        return (1.0, 1.0, 1.0)
    hue = max(levels, key=lambda item: item[1][column])[0]
    share = min(1.0, busy / slots)
    # What ran at all stays visible: a tenth of a colour can be told from white.
    strength = 0.12 + 0.88 * share
    return (_fade(hue[0], strength), _fade(hue[1], strength), _fade(hue[2], strength))


def _fade(channel: float, strength: float) -> float:
    return 1 - strength * (1 - channel)


def _rgb(colour: str) -> Colour:
    red, green, blue = (int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5))
    return (red, green, blue)


def draw_transfers(axes: Axes, result: RunResult) -> None:
    """How many transfers were under way, as a stepped area."""
    spans = ((moved.started_ns, moved.finished_ns, 1.0) for moved in result.transfers)
    edges, levels = curve(spans, result.makespan_ns)
    axes.stairs(levels, edges, fill=True, color=INK, alpha=0.55, linewidth=0)
    axes.set_ylim(0, max(1.0, *levels) * 1.08)
    axes.set_ylabel("transfers\nunder way")
    axes.grid(axis="both")
