"""A run over time, and policies beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detray_sim.report.canvas import (
    INK,
    PALETTE,
    Chart,
    drawn,
    empty,
    new_figure,
    shortened,
    style,
    title,
)
from detray_sim.report.compare import Compared, Comparison
from detray_sim.report.rows import has_run
from detray_sim.report.series import curve
from detray_sim.report.tables import cluster_label, core_demand
from detray_sim.report.text import format_bytes, format_count, size_unit, time_unit
from detray_sim.result import RunResult, TransferRecord
from detray_sim.workload import SECOND_NS, Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HATCHES = ("", "///", "...", "xxx")
"""From the eighth policy on, the colours come again with a pattern."""
BARS_PER_ROW = 48


# --------------------------------------------------------------------------- over time


def utilisation_chart(result: RunResult, workload: Workload | None = None) -> Chart:
    """Cores held by tasks, in percent, above how many tasks were ready and waited.

    Raises ReportError if matplotlib is not installed.
    """
    total = sum(node.cpus for node in result.nodes)
    with style():
        figure = new_figure(8.5, 4.4)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
        title(upper, f"Utilisation: {shortened(result.workload, 44)}", _circumstances(result))
        if not total or not any(map(has_run, result.tasks)):
            empty(upper, "no task ran")
            empty(lower, "")
            return drawn(figure)
        held = [
            (task.started_ns, task.finished_ns, 100 * cores / total)
            for task, cores in zip(result.tasks, core_demand(result, workload), strict=True)
            if has_run(task)
        ]
        _area(upper, *curve(held, result.makespan_ns), PALETTE[0])
        _mean(upper, held, result.makespan_ns)
        upper.set_ylim(0, 105)
        upper.set_ylabel("cores busy [%]")
        waits = [
            (task.ready_ns, task.started_ns, 1.0)
            for task in result.tasks
            if 0 <= task.ready_ns <= task.started_ns
        ]
        _area(lower, *curve(waits, result.makespan_ns), PALETTE[5])
        lower.set_ylabel("tasks ready,\nnot begun")
        _time_axis(lower, result.makespan_ns)
        return drawn(figure)


def bytes_chart(result: RunResult) -> Chart:
    """Bytes between nodes: the rate above, the sum below. A transfer's bytes flow evenly.

    Raises ReportError if matplotlib is not installed.
    """
    with style():
        figure = new_figure(8.5, 4.4)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
        title(upper, f"Bytes moved: {shortened(result.workload, 44)}", _circumstances(result))
        if not any(moved.size_bytes for moved in result.transfers):
            empty(upper, "nothing was moved between nodes")
            empty(lower, "")
            return drawn(figure)
        end = max(result.makespan_ns, *(moved.finished_ns for moved in result.transfers))
        edges, rates = curve(
            [
                # What arrives at once is drawn as if it had taken a nanosecond.
                (moved.started_ns, max(moved.finished_ns, moved.started_ns + 1), _rate(moved))
                for moved in result.transfers
            ],
            end,
        )
        factor, unit = size_unit(max(rates))
        _area(upper, edges, [rate / factor for rate in rates], PALETTE[2])
        upper.set_ylabel(f"rate [{unit}/s]")
        sums = [0.0]
        for left, right, rate in zip(edges[:-1], edges[1:], rates, strict=True):
            sums.append(sums[-1] + rate * (right - left) / SECOND_NS)
        factor, unit = size_unit(sums[-1])
        lower.plot(edges, [value / factor for value in sums], color=PALETTE[2], linewidth=1.6)
        lower.set_ylim(0, sums[-1] / factor * 1.06)
        lower.set_ylabel(f"sum [{unit}]")
        lower.grid(axis="both")
        _time_axis(lower, end)
        return drawn(figure)


def _rate(moved: TransferRecord) -> float:
    return moved.size_bytes * SECOND_NS / max(1, moved.finished_ns - moved.started_ns)


def _circumstances(result: RunResult) -> str:
    parts = [
        f"{cluster_label(result)}, policy {result.policy}, network {result.network},"
        f" seed {result.seed}",
        format_count(len(result.tasks), "task"),
    ]
    if result.transfers:
        moved = format_bytes(sum(moved.size_bytes for moved in result.transfers))
        parts.append(f"{moved} in {format_count(len(result.transfers), 'transfer')}")
    return " · ".join(parts)


def _area(axes: Axes, edges: list[float], levels: list[float], colour: str) -> None:
    axes.stairs(levels, edges, fill=True, color=colour, alpha=0.35, linewidth=0)
    axes.stairs(levels, edges, color=colour, linewidth=1.0, baseline=None)
    axes.set_ylim(0, max(1e-9, *levels) * 1.08 if any(levels) else 1)
    axes.grid(axis="both")


def _mean(axes: Axes, held: list[tuple[int, int, float]], end_ns: int) -> None:
    mean = sum((finished - started) * share for started, finished, share in held) / max(1, end_ns)
    axes.axhline(mean, color=INK, linewidth=1, linestyle="--")
    axes.annotate(
        f"mean {mean:.1f} %",
        xy=(1, mean),
        xytext=(-4, 3 if mean < 90 else -11),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        fontsize=8,
    )


def _time_axis(axes: Axes, end_ns: int) -> None:
    from matplotlib.ticker import FuncFormatter

    factor, unit = time_unit(end_ns)
    axes.set_xlim(0, max(1, end_ns))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ns, _: f"{ns / factor:,.10g}"))
    axes.set_xlabel(f"virtual time [{unit}]")


# ------------------------------------------------------------------------- comparisons


def comparison_chart(comparison: Comparison) -> Chart:
    """Bars with 95 % confidence intervals: a group per workload and cluster, a colour per policy.

    In seconds for one workload; for several, whose seconds have no common scale, as the ratio to
    the best of the group. Raises ReportError if matplotlib is not installed.
    """
    groups = list(comparison.groups.values())
    ratios = len({row.workload for row in comparison.rows}) > 1
    lines = _wrapped(groups, len(comparison.policies))
    with style():
        widest = max((_width(line) for line in lines), default=0)
        figure = new_figure(min(16.0, max(6.5, 1.8 + 0.3 * widest)), 1.2 + 2.9 * max(1, len(lines)))
        grid = figure.subplots(max(1, len(lines)), 1, squeeze=False)
        what = "Makespan over the best policy's" if ratios else "Makespan by policy"
        name = "" if ratios or not groups else f": {shortened(groups[0][0].workload, 44)}"
        title(grid[0][0], what + name, _seeds(comparison))
        if not groups:
            empty(grid[0][0], "nothing to compare")
            return drawn(figure)
        largest = max(row.mean_s for row in comparison.rows) * SECOND_NS
        factor, unit = (1, "") if ratios else time_unit(largest)
        for (axes,), line in zip(grid, lines, strict=True):
            _bars(axes, line, comparison.policies, ratios, SECOND_NS / factor)
            axes.set_ylabel("ratio to the best" if ratios else f"makespan [{unit}]")
        _policies(figure, comparison.policies)
        return drawn(figure)


def _wrapped(groups: list[list[Compared]], policies: int) -> list[list[list[Compared]]]:
    each = max(1, BARS_PER_ROW // max(1, policies))
    return [groups[first : first + each] for first in range(0, len(groups), each)]


def _width(line: list[list[Compared]]) -> int:
    return sum(len(group) + 1 for group in line)


def _seeds(comparison: Comparison) -> str:
    counts = sorted({row.n for row in comparison.rows})
    if not counts:
        return ""
    if counts[-1] == 1:
        return "one seed each"
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean of {seeds} seeds, bars: 95 % confidence (Student's t); on each: times the best"


def _bars(
    axes: Axes, line: list[list[Compared]], policies: Sequence[str], ratios: bool, scale: float
) -> None:
    position, ticks, names = 0.0, [], []
    for group in line:
        best = min(row.mean_s for row in group) or 1.0
        unit = 1 / best if ratios else scale
        for offset, row in enumerate(group):
            _bar(axes, position + offset, row, policies.index(row.policy), unit)
        ticks.append(position + (len(group) - 1) / 2)
        names.append(_group_name(group[0], ratios, len(group)))
        position += len(group) + 1
    axes.set_xticks(ticks, names)
    axes.set_xlim(-1, max(position - 1, 6))
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    if ratios:
        axes.axhline(1, color=INK, linewidth=0.8)


def _bar(axes: Axes, at: float, row: Compared, index: int, unit: float) -> None:
    height = row.mean_s * unit
    axes.bar(
        at,
        height,
        width=0.86,
        color=PALETTE[index % len(PALETTE)],
        hatch=HATCHES[index // len(PALETTE) % len(HATCHES)],
        edgecolor="white",
        linewidth=0.5,
    )
    half = row.ci95_s * unit if row.ci95_s else 0.0
    if half:
        low = min(half, height)
        axes.errorbar(
            at, height, yerr=[[low], [half]], color=INK, linewidth=1.0, capsize=2.5, capthick=1.0
        )
    axes.annotate(
        f"{row.ratio:.2f}",
        xy=(at, height + half),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=6.5,
    )


def _group_name(row: Compared, ratios: bool, bars: int) -> str:
    letters = max(10, bars * 4)
    cluster = shortened(row.cluster, letters)
    place = f"{cluster}\n{shortened(row.network, letters)}"
    return f"{shortened(row.workload, letters)}\n{place}" if ratios else place


def _policies(figure: Figure, policies: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    figure.legend(
        handles=[
            Patch(
                facecolor=PALETTE[index % len(PALETTE)],
                hatch=HATCHES[index // len(PALETTE) % len(HATCHES)],
                edgecolor="white",
                label=shortened(policy),
            )
            for index, policy in enumerate(policies)
        ],
        loc="outside lower left",
        ncols=min(6, max(1, len(policies))),
        handlelength=1.2,
        handleheight=1.2,
    )
