"""The trace that a command is about: how it is named, opened and gathered."""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from detray.cli.terminal.saying import say

if TYPE_CHECKING:
    from detray.trace.reading import Trace

_ALLOCATIONS = 100_000


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
        say(f"{trace.name}: {trace.note}")
    return trace


def check_output(output: str, *read: str) -> None:
    """Refuse to write over what is read, before anything is. Raises ValueError."""
    for path in read:
        if os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            raise ValueError(f"{output} is the trace itself: name another file with -o")


@contextmanager
def rarely_collecting() -> Iterator[None]:
    """Look for garbage in cycles seldom. It decorates the functions that run commands.

    What they gather of a trace lives until they end, and is millions of rows: to look through all
    of them again and again took a sixth of the time.
    """
    before = gc.get_threshold()
    gc.set_threshold(_ALLOCATIONS, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
