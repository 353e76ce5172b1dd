"""`get(refs, progress=True)`: values as they arrive, and how many have.

On a terminal a bar that rewrites itself; elsewhere a line every ten seconds. Both on standard
error.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, TextIO

from detray.ids import ObjectID

_STEP_S = 0.2
_LINE_EVERY_S = 10.0
_BAR_WIDTH = 30


class Getter(Protocol):
    """What this needs of a client."""

    def get_many(self, items: list[ObjectID], timeout: float | None, /) -> list[Any]:
        """Values; raises the first failure."""

    def wait(
        self, items: list[ObjectID], num_returns: int, timeout: float | None, fetch_local: bool, /
    ) -> set[ObjectID]:
        """Which are available."""


def get_with_progress(client: Getter, items: list[ObjectID], timeout: float | None) -> list[Any]:
    """The values of `items`, in order; shows progress meanwhile.

    Raises like `get`: the exception of the first that failed, GetTimeoutError.
    """
    waiting = list(dict.fromkeys(items))
    values: dict[ObjectID, Any] = {}
    deadline = None if timeout is None else time.monotonic() + timeout
    bar = Bar(len(waiting), sys.stderr)
    try:
        while waiting:
            step = _STEP_S if deadline is None else min(_STEP_S, deadline - time.monotonic())
            if step <= 0:
                client.get_many(waiting, 0)  # Raises GetTimeoutError, unless all just came.
            done = client.wait(waiting, len(waiting), max(step, 0), True)
            arrived = [item for item in waiting if item in done]
            # Fetched at once: a failure is raised when it happens, as without progress.
            values.update(zip(arrived, client.get_many(arrived, None), strict=True))
            waiting = [item for item in waiting if item not in done]
            bar.show(len(values))
    finally:
        bar.end(len(values))
    return [values[item] for item in items]


class Bar:
    """How much of something is done: a bar on a terminal, else now and then a line."""

    def __init__(self, total: int, out: TextIO) -> None:
        self._total = total
        self._out = out
        self._is_terminal = out.isatty()
        self._start = self._last = time.monotonic()
        self._shown = -1

    def show(self, done: int) -> None:
        """Say that `done` are done, if it is time to."""
        now = time.monotonic()
        if self._is_terminal:
            if done != self._shown or now - self._last >= 1:
                self._shown, self._last = done, now
                self._write(f"\r\x1b[K{self._bar(done)} {self._text(done, now)}")
        elif now - self._last >= _LINE_EVERY_S and done < self._total:
            self._shown, self._last = done, now
            self._write(f"detray: {self._text(done, now)}\n")

    def end(self, done: int) -> None:
        """Finish the bar's line; elsewhere one last line, if there was one before."""
        if self._is_terminal:
            self._shown = -1
            self.show(done)
            self._write("\n")
        elif self._shown >= 0:
            self._write(f"detray: {self._text(done, time.monotonic())}\n")

    def _bar(self, done: int) -> str:
        full = _BAR_WIDTH * done // self._total if self._total else _BAR_WIDTH
        return "[" + "#" * full + "." * (_BAR_WIDTH - full) + "]"

    def _text(self, done: int, now: float) -> str:
        elapsed = now - self._start
        left = f", about {elapsed / done * (self._total - done):.0f} s left" if done else ""
        if done == self._total:
            left = ""
        return f"{done} of {self._total} in {elapsed:.1f} s{left}"

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):
            pass
