"""A chart of predicted against measured times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from detray_sim.report.canvas import INK, MARKERS, PALETTE, Chart, drawn, new_figure, style, title


class Series(NamedTuple):
    """Points of one kind: (measured, predicted), in the chart's unit."""

    name: str
    points: Sequence[tuple[float, float]]


def scatter_chart(text: str, unit: str, series: Sequence[Series], below: str = "") -> Chart:
    """Points around the diagonal, both axes logarithmic. Raises ReportError without matplotlib."""
    values = [value for kind in series for point in kind.points for value in point]
    low, high = min(values) / 1.2, max(values) * 1.2
    with style():
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        figure = new_figure(5.6, 5.4)
        axes = figure.subplots()
        title(axes, text, below or "line: as measured; grey: within 10 %")
        axes.fill_between([low, high], [0.9 * low, 0.9 * high], [1.1 * low, 1.1 * high],
                          color="#EEEEEE", linewidth=0)  # fmt: skip
        axes.plot([low, high], [low, high], color=INK, linewidth=0.8)
        for index, kind in enumerate(series):
            axes.scatter(
                [measured for measured, _ in kind.points],
                [predicted for _, predicted in kind.points],
                label=kind.name,
                color=PALETTE[index % len(PALETTE)],
                marker=MARKERS[index % len(MARKERS)],
                s=26,
                zorder=3,
            )
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
            axis.set_minor_locator(NullLocator())
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        axes.set_xlabel(f"measured [{unit}]")
        axes.set_ylabel(f"predicted [{unit}]")
        axes.legend(loc="upper left")
        return drawn(figure)
