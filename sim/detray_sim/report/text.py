"""Numbers and tables as text: for terminals, captions and files that people read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


class ReportError(Exception):
    """A report that cannot be made: one line that says what is missing, and what to do."""


_TIMES = ((1, "ns"), (1000, "µs"), (1_000_000, "ms"), (1_000_000_000, "s"))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def time_unit(largest_ns: float) -> tuple[int, str]:
    """(nanoseconds, name) of the unit in which a chart up to `largest_ns` is easy to read.

    Seconds stay seconds however many: a reader compares them with the tables.
    """
    fitting = [unit for unit in _TIMES if largest_ns >= unit[0]]
    return fitting[-1] if fitting else _TIMES[-1]


def size_unit(largest_bytes: float) -> tuple[int, str]:
    """(bytes, name) of the binary unit in which a chart up to `largest_bytes` is easy to read."""
    power = 0
    while power + 1 < len(_SIZES) and largest_bytes >= 1 << (10 * (power + 1)):
        power += 1
    return 1 << (10 * power), _SIZES[power]


def format_time(ns: float) -> str:
    """`1.25 s`, `310 µs`: four significant digits."""
    factor, unit = time_unit(ns)
    return f"{_short(ns / factor)} {unit}"


def format_seconds(seconds: float) -> str:
    """As `format_time`, of seconds."""
    return format_time(seconds * 1_000_000_000)


def format_bytes(size: float) -> str:
    """`1.5 GiB`, `12 B`: four significant digits."""
    factor, unit = size_unit(size)
    return f"{_short(size / factor)} {unit}"


def format_count(number: int, one: str, many: str = "") -> str:
    """`1 task`, `12,345 tasks`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def cell(value: object) -> str:
    """One cell of a table: floats with six significant digits, what is not known as `-`."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return " ".join(cell(item) for item in value)
    return str(value)


def text_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain table with aligned columns; columns of numbers are aligned right."""
    cells = [[cell(value) for value in row] for row in rows]
    right = _numeric(columns, rows)
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = []
    for row in (list(columns), ["-" * width for width in widths], *cells):
        parts = zip(row, widths, right, strict=True)
        line = "  ".join(
            text.rjust(width) if at_right else text.ljust(width) for text, width, at_right in parts
        )
        lines.append(line.rstrip())
    return "\n".join(lines)


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> Table:
    """The same as a table of rich. Raises ReportError if rich is not installed."""
    try:
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape
        from rich.table import Table
    except ModuleNotFoundError as error:
        raise ReportError("tables in colour need rich: pip install 'detray[cli]'") from error
    table = Table(title=title or None, box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for name, at_right in zip(columns, _numeric(columns, rows), strict=True):
        table.add_column(name, justify="right" if at_right else "left")
    for row in rows:
        table.add_row(*(escape(cell(value)) for value in row))
    return table


def _numeric(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[bool]:
    """Of each column, whether it holds nothing but numbers."""
    return [
        bool(rows)
        and all(row[index] is None or isinstance(row[index], int | float) for row in rows)
        for index in range(len(columns))
    ]
