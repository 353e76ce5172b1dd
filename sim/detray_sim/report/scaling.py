"""How the makespan falls with the number of nodes, and where more of them stop paying."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from detray_sim.report.canvas import (
    INK,
    MARKERS,
    PALETTE,
    Chart,
    drawn,
    empty,
    new_figure,
    shortened,
    style,
    title,
)
from detray_sim.report.intervals import Estimate, estimate
from detray_sim.report.text import ReportError, time_unit
from detray_sim.result import NodeShape, RunResult
from detray_sim.theory import bounds
from detray_sim.workload import SECOND_NS, Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = dict[int, Estimate]
"""Makespan in seconds by number of nodes."""


class Point(NamedTuple):
    """A prediction for a plot: the makespan at x, the largest lower bound and its name; seconds."""

    x: int
    makespan_s: float
    bound_s: float
    bound: str


def knee(makespans: Mapping[int, float]) -> int:
    """The number of nodes with the most speedup per cost: where n * T(n)^2 is smallest.

    Of equals the fewest nodes. It depends neither on units nor on how far the measurement went.
    Source: Eager, Zahorjan and Lazowska 1989, "Speedup versus efficiency in parallel systems":
    the knee of the execution time-efficiency profile. Raises ValueError for no points.
    """
    if not makespans:
        raise ValueError("no points: there is no knee of nothing")
    return min(makespans, key=lambda nodes: (nodes * makespans[nodes] ** 2, nodes))


def curves(results: Iterable[RunResult]) -> dict[str, Curve]:
    """By policy: makespans over the seeds of each number of nodes, ascending.

    Raises ReportError if the results are of several workloads.
    """
    known = list(results)
    workloads = sorted({result.workload for result in known})
    if len(workloads) > 1:
        raise ReportError(f"one scaling chart shows one workload, not {', '.join(workloads)}")
    samples: dict[str, dict[int, list[float]]] = {}
    for result in known:
        by_nodes = samples.setdefault(result.policy, {})
        by_nodes.setdefault(len(result.nodes), []).append(result.makespan_ns / SECOND_NS)
    return {
        policy: {nodes: estimate(values) for nodes, values in sorted(by_nodes.items())}
        for policy, by_nodes in samples.items()
    }


def scaling_chart(results: Sequence[RunResult], workload: Workload | None = None) -> Chart:
    """Makespan against nodes, both logarithmic, a line per policy with its knee.

    With the workload, the lower bound of each cluster is a dashed line. Bars are 95 % confidence
    intervals over seeds. Raises ReportError for several workloads or without matplotlib.
    """
    lines = curves(results)
    with style():
        figure = new_figure(7.5, 4.8)
        axes = figure.subplots()
        name = shortened(results[0].workload, 44) if results else "no runs"
        title(axes, f"Makespan by number of nodes: {name}", _explained(results))
        # Virtual time may be zero, and a logarithm has no place for it.
        if not any(point.mean > 0 for line in lines.values() for point in line.values()):
            empty(axes, "nothing ran")
            return drawn(figure)
        factor, unit = time_unit(_largest(lines) * SECOND_NS)
        scale = SECOND_NS / factor
        if workload is not None:
            _bound(axes, results, workload, scale)
        for index, (policy, line) in enumerate(lines.items()):
            _line(axes, index, policy, line, scale)
        _axes(axes, sorted({nodes for line in lines.values() for nodes in line}), unit)
        return drawn(figure)


def whatif_chart(
    name: str, axis: str, lines: Mapping[str, Sequence[Point]], recorded_s: float
) -> Chart:
    """Predicted makespans of one recording, both axes logarithmic: a line for each label.

    Dotted in the same colour is what stops it, named where that changes; the dashed line is the
    recorded makespan, rings are knees. Points ascend in x. Raises ReportError without matplotlib.
    """
    with style():
        figure = new_figure(7.5, 4.8)
        axes = figure.subplots()
        below = "dotted: what stops it; ringed: knee, least n · T²"
        title(axes, f"{shortened(name, 44)} on other clusters", below)
        every = [point for line in lines.values() for point in line]
        if not any(point.makespan_s > 0 for point in every):
            empty(axes, "nothing ran")
            return drawn(figure)
        largest = max(recorded_s, *(point.makespan_s for point in every))
        factor, unit = time_unit(largest * SECOND_NS)
        scale = SECOND_NS / factor
        for index, (label, line) in enumerate(lines.items()):
            curve = {point.x: estimate([point.makespan_s]) for point in line}
            _line(axes, index, label, curve, scale)
            _limits(axes, PALETTE[index % len(PALETTE)], line, scale)
        axes.axhline(recorded_s * scale, color=INK, linestyle="--", linewidth=1, label="recorded")
        _axes(axes, sorted({point.x for point in every}), unit, axis)
        return drawn(figure)


def _limits(axes: Axes, colour: str, line: Sequence[Point], scale: float) -> None:
    """The largest lower bound along a line, with its name wherever that changes."""
    shown = [point for point in line if point.bound_s > 0]
    heights = [point.bound_s * scale for point in shown]
    axes.plot([point.x for point in shown], heights, color=colour, linestyle=":", linewidth=1.4)
    before = ""
    for point, height in zip(shown, heights, strict=True):
        if point.bound != before:
            is_last = point is shown[-1] and len(shown) > 1
            axes.annotate(
                shortened(point.bound, 32),
                (point.x, height),
                xytext=(-4 if is_last else 4, 3),
                textcoords="offset points",
                ha="right" if is_last else "left",
                va="bottom",
                fontsize=8,
                color=colour,
            )
        before = point.bound


def _explained(results: Sequence[RunResult]) -> str:
    seeds = len({result.seed for result in results})
    networks = ", ".join(sorted({result.network for result in results}))
    bars = ", bars: 95 % confidence" if seeds > 1 else ""
    count = "1 seed" if seeds == 1 else f"{seeds} seeds"
    return f"network {networks}, {count}{bars}; ringed: knee, least n · T²" if results else ""


def _largest(lines: dict[str, Curve]) -> float:
    return max(point.most for line in lines.values() for point in line.values())


def _line(axes: Axes, index: int, policy: str, line: Curve, scale: float) -> None:
    colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
    # A second round through the colours is dashed.
    dashes = "-" if index < len(PALETTE) else "--"
    nodes = [count for count, point in line.items() if point.mean > 0]
    means = [line[count].mean * scale for count in nodes]
    widths = [(line[count].half_width or 0.0) * scale for count in nodes]
    # Bars below zero cannot be drawn on a logarithm.
    below = [min(width, mean * 0.999) for width, mean in zip(widths, means, strict=True)]
    best = knee({count: line[count].mean for count in nodes}) if nodes else 0
    axes.errorbar(
        nodes,
        means,
        yerr=[below, widths],
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=1.6,
        linestyle=dashes,
        capsize=2.5,
        label=f"{shortened(policy)} (knee: {best})",
        zorder=3,
    )
    axes.plot(
        [best],
        [line[best].mean * scale] if nodes else [1.0],
        marker="o",
        markersize=12,
        markerfacecolor="none",
        markeredgecolor=colour,
        markeredgewidth=1.3,
        zorder=4,
    )


def _bound(axes: Axes, results: Sequence[RunResult], workload: Workload, scale: float) -> None:
    clusters: dict[int, tuple[NodeShape, ...]] = {
        len(result.nodes): result.nodes for result in results if result.nodes
    }
    least = {
        count: bounds(workload, clusters[count]).lower_bound_ns / SECOND_NS * scale
        for count in sorted(clusters)
    }
    axes.plot(list(least), list(least.values()), color=INK, linestyle=":", label="lower bound")


def _axes(axes: Axes, nodes: Sequence[int], unit: str, name: str = "nodes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    shown = nodes if len(nodes) <= 12 else nodes[:: -(-len(nodes) // 12)]
    axes.set_xticks(list(shown), [f"{count:,}" for count in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(name)
    axes.set_ylabel(f"makespan [{unit}]")
    axes.grid(axis="both")
    axes.legend(loc="best")
