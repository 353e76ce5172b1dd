"""The common frame of all charts: size, style, colours, and files that are equal byte for byte.

matplotlib is imported by the functions here, when something is drawn. Its stateful half (pyplot)
is never used: a chart is a Figure that nobody else knows.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detray_sim.report.text import ReportError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Seven colours that readers with any kind of colour vision tell apart.

Source: Okabe and Ito 2008, "Color Universal Design", without black.
"""
OTHER = "#9A9A9A"
"""For everything beyond the seven, and what has no name."""
INK = "#222222"
FAINT = "#D9D9D9"
FAILED = "#B00020"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""With a colour each, so that lines are told apart in black and white too."""

_STYLE: dict[str, object] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 9,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 100,
    "savefig.dpi": 144,
    "svg.hashsalt": "detray",  # otherwise identifiers are random
    "svg.fonttype": "path",  # the same picture wherever it is opened
    "path.simplify": True,
    "agg.path.chunksize": 20_000,
}


class Chart(NamedTuple):
    """A drawn chart, in both formats."""

    svg: bytes
    png: bytes

    def write(self, stem: Path) -> tuple[Path, Path]:
        """Write `<stem>.svg` and `<stem>.png`, and say where."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths = (stem.with_name(stem.name + ".svg"), stem.with_name(stem.name + ".png"))
        for path, data in zip(paths, self, strict=True):
            path.write_bytes(data)
        return paths


@contextmanager
def style() -> Iterator[None]:
    """What is drawn within looks alike. Raises ReportError if matplotlib is not installed."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ReportError("charts need matplotlib: pip install 'detray[sim]'") from error
    # The defaults first: a user's matplotlibrc must not change a report.
    with matplotlib.rc_context():
        matplotlib.rcParams.update(matplotlib.rcParamsDefault)
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, whose parts make room for each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    return figure


def drawn(figure: Figure) -> Chart:
    """Both formats of a figure; no date and no version in them."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "detray"})
    figure.savefig(png, format="png", metadata={"Software": None})
    return Chart(svg.getvalue(), png.getvalue())


def title(axes: Axes, text: str, below: str = "") -> None:
    """What the chart shows, and in grey below it the circumstances."""
    axes.set_title(text, pad=20 if below else 8)
    if below:
        axes.annotate(
            below,
            xy=(0, 1),
            xytext=(0, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=8,
            color="#666666",
        )


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour per name, in order of importance: beyond the seventh they share a grey.

    With eight names or more the grey is for the rest, so seven keep a colour.
    """
    return {
        name: PALETTE[index] if index < len(PALETTE) else OTHER for index, name in enumerate(names)
    }


def legend(figure: Figure, entries: Sequence[tuple[str, str, str]]) -> None:
    """(label, colour, pattern) below everything that is drawn; read line by line."""
    from matplotlib.patches import Patch

    letters = max((len(shortened(label)) for label, _, _ in entries), default=0)
    # In inches: a letter at 8 points, and the coloured box with its gaps.
    columns = max(1, min(8, int(figure.get_figwidth() / (0.5 + 0.072 * letters))))
    rows = -(-len(entries) // columns)
    # matplotlib fills column by column, a shorter last row leaves the last columns short.
    order = [line * columns + c for c in range(columns) for line in range(rows)]
    chosen = [entries[place] for place in order if place < len(entries)]
    if chosen:
        figure.legend(
            handles=[
                Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=shortened(label))
                for label, colour, hatch in chosen
            ],
            loc="outside lower left",
            ncols=min(columns, len(entries)),
            handlelength=1.2,
            handleheight=1.2,
            columnspacing=1.2,
        )


def shortened(text: str, most: int = 28) -> str:
    """The text, its middle left out if it is longer."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def ink_on(colour: str) -> str:
    """Black or white, whichever is read better on the colour (WCAG relative luminance)."""
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Where contrast with white, 1.05 / (L + 0.05), equals that with black, (L + 0.05) / 0.05.
    return "#000000" if light > 0.179 else "#FFFFFF"


def empty(axes: Axes, text: str) -> None:
    """Say why there is nothing to see."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#666666")
