"""The trace that a command is about: how it is named, and opened."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detray.trace.reading import Trace


def add_trace(parser: argparse.ArgumentParser) -> None:
    """Add what names a trace to a command: TRACE and `--salvage`."""
    parser.add_argument("trace", metavar="TRACE", help="a trace file")
    parser.add_argument(
        "--salvage", action="store_true", help="read a damaged trace up to the damage"
    )


def open_named(options: argparse.Namespace) -> Trace:
    """The trace that `options` name; what it lacks is said on stderr. Raises TraceError."""
    from detray.trace.reading import open_trace  # late: --help does without

    trace = open_trace(options.trace, salvage=options.salvage)
    if not trace.complete:
        print(f"detray: {trace.name}: {trace.note}", file=sys.stderr)
    return trace


def check_output(output: str, *read: str) -> None:
    """Refuse to write over what is read, before anything is. Raises ValueError."""
    for path in read:
        if os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            raise ValueError(f"{output} is the trace itself: name another file with -o")
