"""The garbage collector, while a command gathers a trace to answer one question."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_ALLOCATIONS = 100_000


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
