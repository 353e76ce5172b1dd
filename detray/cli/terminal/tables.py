"""Tables and counts for the terminal: with rich where it is installed and somebody looks."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def counts_text(counts: dict[str, int]) -> str:
    """`3 ready, 12 running`; what is zero is left out."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()) if count)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """With rich on a terminal, plain otherwise."""
    if sys.stdout.isatty():
        try:
            return _rich_table(columns, rows)
        except ModuleNotFoundError:
            pass
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    )


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    found = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        found.add_row(*map(escape, row))
    console = Console()
    with console.capture() as capture:
        console.print(found)
    return capture.get().rstrip()
