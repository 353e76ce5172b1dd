"""How far a command is: a line on a terminal that is written over, and goes in the end."""

from __future__ import annotations

import sys
import time

from detray.trace.plain_text import one_line

SOON_S = 0.5
"""What takes no longer needs no line."""
EVERY_S = 0.1
WIDTH_MAX = 120


class ProgressLine:
    """A line on stderr, from `after_s` seconds on; nothing where that is no terminal."""

    def __init__(self, *, after_s: float = 0, is_quiet: bool = False) -> None:
        self._is_shown = sys.stderr.isatty() and not is_quiet
        self._is_open = False
        self._what = ""
        self._begin_s = time.monotonic() + after_s
        self._due_s = self._begin_s

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *end: object) -> None:
        self.clear()

    def show(self, what: str, done: int = 0, total: int = 0) -> None:
        """Show what is done, and how much of it if `total` is not 0.

        What is said again is shown ten times a second; a terminal need not keep up with more.
        """
        now_s = time.monotonic()
        is_due = now_s >= (self._due_s if what == self._what else self._begin_s)
        if not self._is_shown or not is_due:
            return
        self._what, self._due_s = what, now_s + EVERY_S
        far = f": {done:,} of {total:,}, {100 * done // total} %" if total else ""
        text = one_line(f"{what}{far}")[:WIDTH_MAX]
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
        self._is_open = True

    def clear(self) -> None:
        """Leave nothing of it."""
        if self._is_open:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._is_open = False
