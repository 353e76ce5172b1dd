"""A head's loop, played: a thread that dispatches, so that pages can ask it for traces."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic_ns

from detray.runtime.head.web import TraceSource, WebPage
from detray.runtime.wakeups import Wakeups

_TICK_NS = 10_000_000


@contextmanager
def page_of(trace: TraceSource | None = None, *, is_running: bool = True) -> Iterator[WebPage]:
    """A page on a free port. Without `is_running` its loop is as good as frozen."""
    wakeups = Wakeups()
    web = WebPage(wakeups, trace)
    ending = threading.Event()

    def run() -> None:
        while not ending.is_set():
            wakeups.dispatch(monotonic_ns() + _TICK_NS)

    thread = threading.Thread(target=run)
    if is_running:
        thread.start()
    try:
        yield web
    finally:
        ending.set()
        if is_running:
            thread.join(5)
        web.close()
