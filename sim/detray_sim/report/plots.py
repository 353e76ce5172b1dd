"""A run over time, and policies beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from detray_sim.report.canvas import (
    INK,
    OTHER,
    PALETTE,
    Chart,
    drawn,
    empty,
    legend,
    new_figure,
    shortened,
    style,
    title,
)
from detray_sim.report.compare import Compared, Comparison
from detray_sim.report.rows import has_run
from detray_sim.report.series import Bins, curve
from detray_sim.report.tables import cluster_label, core_demand
from detray_sim.report.text import format_bytes, format_count, size_unit, time_unit
from detray_sim.result import RunResult
from detray_sim.workload import SECOND_NS, Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HATCHES = ("", "///", "...", "xxx")
"""From the eighth policy on, the colours come again with a pattern."""
BARS_PER_ROW = 50
"""Bars and gaps side by side."""
BARS_LEAST = 14
"""A chart is as wide as if it had so many, or its title would not fit."""
GROUPS_MAX = 60
"""More groups than this are a book of bars that nobody reads."""
CELLS = 400
"""Rates are means over as many equal parts: what arrives at once has no rate of its own."""


# --------------------------------------------------------------------------- over time


def utilisation_chart(result: RunResult, workload: Workload | None = None) -> Chart:
    """Cores held by tasks, in percent, above how many tasks were ready and waited.

    Raises ReportError if matplotlib is not installed.
    """
    total = sum(node.cpus for node in result.nodes)
    with style():
        from matplotlib.ticker import MaxNLocator

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
        lower.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
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
        edges, rates = _rates(result, end)
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


def _rates(result: RunResult, end_ns: int) -> tuple[list[float], list[float]]:
    """(edges, bytes per second between them)."""
    bins = Bins(end_ns, CELLS)
    for moved in result.transfers:
        took = moved.finished_ns - moved.started_ns
        if took >= bins.width:
            bins.add(moved.started_ns, moved.finished_ns, moved.size_bytes / took)
        else:
            # Shorter than a part: all of it in the part where it began.
            first = min(int(moved.started_ns / bins.width), CELLS - 1) * bins.width
            bins.add(first, first + bins.width, moved.size_bytes / bins.width)
    return bins.edges_ns(), [level * SECOND_NS for level in bins.levels()]


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
    the best of the group. More than `GROUPS_MAX` groups become one box per policy.
    Raises ReportError if matplotlib is not installed.
    """
    groups = list(comparison.groups.values())
    if len(groups) > GROUPS_MAX:
        return _box_chart(comparison, len(groups))
    ratios = len({row.workload for row in comparison.rows}) > 1
    lines = _wrapped(groups, len(comparison.policies))
    with style():
        longest = max((_width(line) for line in lines), default=0)
        widest = max(BARS_LEAST, longest)
        width = min(16.0, 1.8 + 0.3 * widest)
        figure = new_figure(width, 1.2 + 2.9 * max(1, len(lines)))
        grid = figure.subplots(max(1, len(lines)), 1, squeeze=False, sharex=True, sharey=ratios)
        what = "Makespan over the best policy's" if ratios else "Makespan by policy"
        name = "" if ratios or not groups else f": {shortened(groups[0][0].workload, 44)}"
        title(grid[0][0], what + name, _seeds(comparison))
        if not groups:
            empty(grid[0][0], "nothing to compare")
            return drawn(figure)
        largest = max(row.mean_s for row in comparison.rows) * SECOND_NS
        factor, unit = (1, "") if ratios else time_unit(largest)
        # In the middle, if there are fewer bars than the chart has room for.
        first = -1 - (widest - longest) / 2
        grid[0][0].set_xlim(first, first + widest)
        letters = int((width - 1) / widest / 0.085)
        for (axes,), line in zip(grid, lines, strict=True):
            _bars(axes, line, comparison.policies, ratios, SECOND_NS / factor)
            _names(axes, line, _parts(comparison), letters)
            axes.set_ylabel("ratio to the best" if ratios else f"makespan [{unit}]")
        legend(figure, _policies(comparison.policies))
        return drawn(figure)


def _box_chart(comparison: Comparison, groups: int) -> Chart:
    """How far each policy is from the best, over all groups; policies by their median."""
    ratios: dict[str, list[float]] = {policy: [] for policy in comparison.policies}
    for row in comparison.rows:
        ratios[row.policy].append(row.ratio)
    order = sorted(ratios, key=lambda policy: (median(ratios[policy]), policy))
    with style():
        figure = new_figure(8.5, 1.4 + 0.34 * len(order))
        axes = figure.subplots()
        below = (
            f"{groups:,} workloads on clusters; box: quartiles, line: median, whiskers: 5 to 95 %"
        )
        title(axes, "Makespan over the best policy's", below)
        axes.boxplot(
            [ratios[policy] for policy in order],
            orientation="horizontal",
            whis=(5, 95),
            widths=0.62,
            patch_artist=True,
            boxprops={"facecolor": PALETTE[4], "edgecolor": INK, "linewidth": 0.8},
            medianprops={"color": INK, "linewidth": 1.6},
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": OTHER},
        )
        axes.set_yticks(range(1, len(order) + 1), [shortened(policy) for policy in order])
        axes.invert_yaxis()
        axes.set_xscale("log")
        _ratio_axis(axes, max(max(values) for values in ratios.values()))
        return drawn(figure)


def _ratio_axis(axes: Axes, largest: float) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    steps = (1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 1000, 10_000, 100_000)
    end = max(1.02, largest * 1.03)
    # Steps of a tenth would touch each other where the scale reaches far.
    shown = [step for step in steps if step <= end and (end < 6 or step not in (1.1, 1.2, 1.5))]
    axes.set_xlim(1 / end**0.02, end)
    axes.set_xticks(shown)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("makespan, as a multiple of the best policy's")
    axes.grid(axis="x")


def _wrapped(groups: list[list[Compared]], policies: int) -> list[list[list[Compared]]]:
    """Groups in as few lines as hold them, equally many in each."""
    most = max(1, BARS_PER_ROW // (policies + 1))
    lines = -(-len(groups) // most)
    each = -(-len(groups) // max(1, lines))
    return [groups[first : first + each] for first in range(0, len(groups), max(1, each))]


def _width(line: list[list[Compared]]) -> int:
    return sum(len(group) + 1 for group in line)


def _seeds(comparison: Comparison) -> str:
    counts = sorted({row.n for row in comparison.rows})
    networks = sorted({row.network for row in comparison.rows})
    if not counts:
        return ""
    network = f"network {shortened(networks[0])}, " if len(networks) == 1 else ""
    if counts[-1] == 1:
        return f"{network}one seed each; on each bar: times the best"
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{network}mean of {seeds} seeds with 95 % confidence; on each bar: times the best"


def _bars(
    axes: Axes, line: list[list[Compared]], policies: Sequence[str], ratios: bool, scale: float
) -> None:
    position = 0
    for group in line:
        best = min(row.mean_s for row in group) or 1.0
        unit = 1 / best if ratios else scale
        for offset, row in enumerate(group):
            _bar(axes, position + offset, row, policies.index(row.policy), unit)
        position += len(group) + 1
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    axes.grid(axis="y")
    if ratios:
        axes.axhline(1, color=INK, linewidth=0.8)


def _bar(axes: Axes, at: float, row: Compared, index: int, unit: float) -> None:
    height = row.mean_s * unit
    colour, hatch = _look(index)
    axes.bar(
        at,
        height,
        width=0.86,
        color=colour,
        hatch=hatch,
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


def _parts(comparison: Comparison) -> list[str]:
    """What a group's name says: what differs between groups, and the cluster always."""
    differs = {"cluster"}
    for field in ("workload", "network"):
        if len({getattr(row, field) for row in comparison.rows}) > 1:
            differs.add(field)
    return [field for field in ("workload", "cluster", "network") if field in differs]


def _names(axes: Axes, line: list[list[Compared]], parts: list[str], per_bar: int) -> None:
    """Names of groups below them, cut to the `per_bar` letters that a bar's width has room for."""
    position = 0
    for group in line:
        letters = max(6, (len(group) + 1) * per_bar - 1)
        name = "\n".join(shortened(str(getattr(group[0], part)), letters) for part in parts)
        axes.annotate(
            name,
            xy=(position + (len(group) - 1) / 2, 0),
            xytext=(0, -5),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="top",
        )
        position += len(group) + 1
    axes.set_xticks([])


def _policies(policies: Sequence[str]) -> list[tuple[str, str, str]]:
    return [(policy, *_look(index)) for index, policy in enumerate(policies)]


def _look(index: int) -> tuple[str, str]:
    """Colour and pattern of a policy."""
    return PALETTE[index % len(PALETTE)], HATCHES[index // len(PALETTE) % len(HATCHES)]
