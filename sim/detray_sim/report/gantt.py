"""Who ran what when: nodes and their slots from top to bottom, time from left to right.

Few tasks are drawn one by one, with the transfers between them as thin lines. Too many for the eye
become density: a cell of a row and a short time is coloured by the name that took most of it, the
paler the more of it was idle; below, how many transfers were under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from detray_sim.report import density
from detray_sim.report.canvas import (
    FAILED,
    FAINT,
    INK,
    OTHER,
    PALETTE,
    Chart,
    colours,
    drawn,
    empty,
    ink_on,
    legend,
    new_figure,
    shortened,
    style,
    title,
)
from detray_sim.report.layout import Ends, Layout, blocks, layout_of
from detray_sim.report.rows import has_run
from detray_sim.report.tables import cluster_label, name_table
from detray_sim.report.text import format_bytes, format_count, format_time, time_unit
from detray_sim.result import RunResult
from detray_sim.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS_MAX = 2_500
"""More tasks than this are drawn as density: bars would be narrower than a pixel."""
ROWS_MAX = 140
"""More slots than this become one row per node, and more nodes one row per group of nodes."""
LINES_MAX = 400
"""More transfers than this hide the tasks: they are drawn as a curve below."""
LABELS_MAX = 120
"""More tasks than this carry no labels."""

WIDTH = 11.0


class Limits(NamedTuple):
    """When a chart becomes an aggregate."""

    bars: int = BARS_MAX
    rows: int = ROWS_MAX
    lines: int = LINES_MAX
    labels: int = LABELS_MAX


def gantt(
    result: RunResult, workload: Workload | None = None, limits: Limits | None = None
) -> Chart:
    """The chart of a run. With the workload, tasks are as high as they have cores.

    Raises ReportError if matplotlib is not installed.
    """
    limits = limits or Limits()
    plan = layout_of(result, workload, limits.rows)
    ran = sum(map(has_run, result.tasks))
    dense = ran > limits.bars or plan.merged
    below = bool(result.transfers) and (dense or len(result.transfers) > limits.lines)
    with style():
        height = min(16.0, max(2.1, 1.3 + _row_inches(plan.rows) * plan.rows))
        figure = new_figure(WIDTH, height + (1.1 if below else 0))
        ratios = [height, 1.1] if below else [1]
        grid = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)
        axes: Axes = grid[0][0]
        title(axes, _headline(result, plan, dense), _circumstances(result, ran, dense))
        if not ran:
            empty(axes, "no task ran")
            return drawn(figure)
        named = _named(result)
        _frame(axes, plan, result, dense)
        if dense:
            density.draw(axes, result, plan, named)
        else:
            _bars(axes, result, plan, named)
            _labels(axes, result, plan, named, limits.labels)
        if below:
            density.draw_transfers(grid[1][0], result)
        elif result.transfers:
            _lines(axes, result, Ends(result, workload, plan))
        _time_axis(grid[-1][0], result)
        legend(figure, _entries(result, named, dense or below))
        return drawn(figure)


def _row_inches(rows: int) -> float:
    """Height of a row: easy to read for few, at least two pixels for many."""
    return 0.3 if rows <= 24 else max(0.045, 7.2 / rows)


def _headline(result: RunResult, plan: Layout, dense: bool) -> str:
    what = "Busy time of" if dense else "Tasks on"
    return f"{what} {plan.subject}: {shortened(result.workload, 44)}"


def _circumstances(result: RunResult, ran: int, dense: bool) -> str:
    parts = [
        f"{cluster_label(result)}, policy {result.policy}, network {result.network},"
        f" seed {result.seed}",
        f"{format_count(ran, 'task')}, makespan {format_time(result.makespan_ns)}",
    ]
    if result.transfers:
        moved = format_bytes(sum(moved.size_bytes for moved in result.transfers))
        parts.append(f"{moved} in {format_count(len(result.transfers), 'transfer')}")
    if dense:
        parts.append("the paler, the more idle")
    return " · ".join(parts)


def _named(result: RunResult) -> dict[str, str]:
    """Colour by task name; the names that took longest first."""
    return colours([row[0] for row in name_table(result)])


def _entries(
    result: RunResult, named: dict[str, str], aggregate: bool
) -> list[tuple[str, str, str]]:
    entries = [(name, colour, "") for name, colour in named.items() if colour != OTHER]
    rest = len(named) - len(entries)
    if rest:
        entries.append((format_count(rest, "other name"), OTHER, ""))
    if any(task.failed for task in result.tasks if has_run(task)) and not aggregate:
        entries.append(("failed (framed)", FAILED, ""))
    return entries


def _frame(axes: Axes, plan: Layout, result: RunResult, dense: bool) -> None:
    """Bands and labels of nodes, thin lines between them."""
    axes.set_ylim(plan.rows, 0)
    axes.set_xlim(0, max(1, result.makespan_ns))
    if len(plan.bands) <= 60:
        for band in plan.bands[1:]:
            # White over the strips of a dense chart, where grey would be one colour more.
            axes.axhline(band.first, color="white" if dense else FAINT, linewidth=0.8, zorder=1.5)
    shown = plan.bands[:: -(-len(plan.bands) // 30)]
    axes.set_yticks([band.first + band.count / 2 for band in shown], [band.name for band in shown])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", zorder=0)


def _bars(axes: Axes, result: RunResult, plan: Layout, named: dict[str, str]) -> None:
    """One rectangle per task and block of rows, all of one colour as one object."""
    from matplotlib.collections import PolyCollection

    boxes: dict[str, list[list[tuple[float, float]]]] = {}
    framed: list[list[tuple[float, float]]] = []
    for place, rows in plan.tasks.items():
        task = result.tasks[place]
        for first, count in blocks(rows):
            box = _box(task.started_ns, task.finished_ns, first + 0.06, first + count - 0.06)
            boxes.setdefault(named[task.name], []).append(box)
            if task.failed:
                framed.append(box)
    edge = 0.6 if len(plan.tasks) <= 600 else 0.15
    for colour in (*PALETTE, OTHER):
        if colour in boxes:
            axes.add_collection(
                PolyCollection(
                    boxes[colour], facecolors=colour, edgecolors="white", linewidths=edge, zorder=2
                )
            )
    if framed:
        axes.add_collection(
            PolyCollection(framed, facecolors="none", edgecolors=FAILED, linewidths=1.6, zorder=3)
        )


def _box(left: float, right: float, top: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _labels(axes: Axes, result: RunResult, plan: Layout, named: dict[str, str], most: int) -> None:
    """The task's id in its bar, where it fits: a letter is about 0.075 inches wide at 8 points."""
    if len(plan.tasks) > most or plan.rows > 60:
        return
    per_letter = 0.075 * result.makespan_ns / (WIDTH - 1.6)
    for place, rows in plan.tasks.items():
        task = result.tasks[place]
        letters = int((task.finished_ns - task.started_ns) / per_letter) - 1
        if letters < min(3, len(task.id)):
            continue
        first, count = max(blocks(rows), key=lambda block: block[1])
        axes.text(
            (task.started_ns + task.finished_ns) / 2,
            first + count / 2,
            shortened(task.id, letters),
            ha="center",
            va="center_baseline",
            fontsize=8,
            color=ink_on(named[task.name]),
            clip_on=True,
            zorder=4,
        )


def _lines(axes: Axes, result: RunResult, ends: Ends) -> None:
    """From the producing task's row, or its node, to the node or row that receives."""
    from matplotlib.collections import LineCollection

    lines = [
        [(moved.started_ns, ends.leaves(place)), (moved.finished_ns, ends.arrives(place))]
        for place, moved in enumerate(result.transfers)
    ]
    many = len(lines) > 60
    axes.add_collection(
        LineCollection(
            lines,
            colors=INK,
            linewidths=0.5 if many else 0.8,
            alpha=0.35 if many else 0.75,
            zorder=3,
        )
    )
    if not many:
        axes.scatter(
            [line[1][0] for line in lines],
            [line[1][1] for line in lines],
            s=7,
            color=INK,
            zorder=3.5,
            clip_on=False,
        )


def _time_axis(axes: Axes, result: RunResult) -> None:
    from matplotlib.ticker import FuncFormatter

    factor, unit = time_unit(result.makespan_ns)
    axes.set_xlim(0, max(1, result.makespan_ns))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ns, _: f"{ns / factor:,.10g}"))
    axes.set_xlabel(f"virtual time [{unit}]")
