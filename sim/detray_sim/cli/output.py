"""Folders that are there whole or not at all, and a line that shows how far a long run is."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

PATIENCE_S = 1.0
"""What takes less shows no progress."""


@contextmanager
def folder_for(path: str | None) -> Iterator[Path | None]:
    """A temporary folder beside `path` that gets its name if all went well, else goes away."""
    if path is None:
        yield None
        return
    wanted = Path(path)
    made = Path(tempfile.mkdtemp(prefix=f".{wanted.name}.", dir=wanted.resolve().parent))
    try:
        yield made
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    made.chmod(0o755)
    if wanted.is_dir():
        wanted.rmdir()
    made.rename(wanted)


class Ticker:
    """A line on stderr, if that is a terminal: how much is done, how fast, how long it takes."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._begun = self._shown = time.monotonic()
        self._is_shown = False

    def __enter__(self) -> Ticker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._is_shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def tell(self, done: int, total: int) -> None:
        """So many are done."""
        now = time.monotonic()
        if now - self._begun < PATIENCE_S or now - self._shown < 0.2 or not sys.stderr.isatty():
            return
        self._shown = now
        self._is_shown = True
        rate = done / (now - self._begun)
        left = (total - done) / rate if rate else 0.0
        line = f"{self._what}: {done:,} of {total:,}, {rate:,.0f}/s, {left:.0f} s left"
        sys.stderr.write(f"\r\033[K{line[:100]}")
        sys.stderr.flush()
