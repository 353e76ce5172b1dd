"""What was recorded so far, handed out piece by piece to somebody far away, in bounded memory.

Rules
-----
- A copy is fixed when it is made: what is recorded later is not in it.
- Of a file only its length is remembered; each piece is read when it is asked for. Of a ring the
  frames that it held then are, not copied: they go on to count until the copy is given up.
- A copy that nobody asked for in `IDLE_NS` is given up, and so are its bytes: whoever asked may be
  gone. There are at most `COPIES_MAX` of them.
- The same piece may be asked for again: an answer can be lost on its way.
- A trace is asked for by its places alone, so whoever asks has a number, and a copy of its own:
  pieces of two rings are no trace. The last `READERS_MAX` have theirs.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate
from time import monotonic_ns

from xxhash import xxh3_64

from detray.runtime.wakeups import Wakeups
from detray.trace.recorder import Recorder

COPIES_MAX = 2
READERS_MAX = 4
IDLE_NS = 20_000_000_000


class FileCopy:
    """The first bytes of a file that may go on to grow: those that are there now."""

    def __init__(self, path: str) -> None:
        """Raises OSError, too for what is no regular file: a pipe cannot be read again."""
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is no regular file and cannot be read again")
        self._path = path
        self.size_bytes = found.st_size

    def read(self, offset: int, size_bytes: int) -> bytes:
        """That part of it, less at its end, none outside. Raises OSError."""
        if not 0 <= offset < self.size_bytes:
            return b""
        with open(self._path, "rb", buffering=0) as file:
            file.seek(offset)
            return file.read(max(0, min(size_bytes, self.size_bytes - offset))) or b""


class RingCopy:
    """Pieces in memory, which are shared with whoever made them."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self._ends = list(accumulate(map(len, self._pieces)))
        self.size_bytes = self._ends[-1] if self._ends else 0

    def read(self, offset: int, size_bytes: int) -> bytes:
        """That part of it, less at its end, none outside."""
        if offset < 0:
            return b""
        number = bisect_right(self._ends, offset)
        parts: list[bytes | memoryview] = []
        end = min(offset + size_bytes, self.size_bytes)
        while offset < end:
            piece = self._pieces[number]
            start = offset - (self._ends[number] - len(piece))
            parts.append(memoryview(piece)[start : start + end - offset])
            offset += len(parts[-1])
            number += 1
        return b"".join(parts)


Copy = FileCopy | RingCopy


def copy_trace(recorder: Recorder) -> Copy:
    """What it recorded so far. Raises OSError."""
    recorder.flush()
    if recorder.path:
        return FileCopy(recorder.path)
    return RingCopy(recorder.freeze("asked for").pieces())


class _Lent:
    """A copy that somebody is fetching."""

    __slots__ = ("asked_ns", "copy", "digest", "told_bytes")

    def __init__(self, copy: Copy) -> None:
        self.copy = copy
        self.asked_ns = 0
        self.digest = xxh3_64()
        self.told_bytes = 0
        """So many bytes are in the digest."""


class _Shelf:
    """The copies that are being fetched, by number; the one that was asked for last is last."""

    def __init__(self, wakeups: Wakeups, now_ns: Callable[[], int]) -> None:
        self.lent: dict[int, _Lent] = {}
        self._wakeups = wakeups
        self._now_ns = now_ns
        self._has_timer = False

    def keep(self, number: int, lent: _Lent) -> None:
        """It is asked for now: it stays until nobody does in a while."""
        self.lent.pop(number, None)
        self.lent[number] = lent
        lent.asked_ns = self._now_ns()
        self._look_later()

    def _look_later(self) -> None:
        if self.lent and not self._has_timer:
            self._has_timer = True
            first = next(iter(self.lent.values()))
            self._wakeups.call_at(first.asked_ns + IDLE_NS, self._look)

    def _look(self) -> None:
        """Give up what nobody asked for."""
        self._has_timer = False
        before_ns = self._now_ns() - IDLE_NS
        for number, lent in list(self.lent.items()):
            if lent.asked_ns <= before_ns:
                del self.lent[number]
        self._look_later()


class Copies:
    """The copies that are being fetched, by a number that they are given."""

    def __init__(self, wakeups: Wakeups, now_ns: Callable[[], int] = monotonic_ns) -> None:
        self._shelf = _Shelf(wakeups, now_ns)
        self._last = 0

    def __len__(self) -> int:
        return len(self._shelf.lent)

    def begin(self, make: Callable[[], Copy]) -> tuple[int, int]:
        """Make a copy; its number and its bytes. Raises OSError, too if there are enough."""
        if len(self) == COPIES_MAX:
            raise OSError(
                f"{COPIES_MAX} others are fetching it already, or began and went away: try again "
                f"in {IDLE_NS // 1_000_000_000} s"
            )
        copy = make()
        self._last += 1
        self._shelf.keep(self._last, _Lent(copy))
        return self._last, copy.size_bytes

    def piece(self, number: int, offset: int, size_bytes: int) -> bytes:
        """A part of a copy. Raises OSError, too if there is no such copy or part."""
        lent = self._find(number)
        if not (0 <= offset < lent.copy.size_bytes and size_bytes > 0):
            raise OSError(f"a copy of {lent.copy.size_bytes:,} bytes has no piece at {offset:,}")
        piece = lent.copy.read(offset, size_bytes)
        if not piece:
            raise OSError(f"it became shorter than {lent.copy.size_bytes:,} bytes meanwhile")
        if offset == lent.told_bytes:
            lent.digest.update(piece)
            lent.told_bytes += len(piece)
        return piece

    def end(self, number: int) -> str:
        """Give a copy up; the xxh3 of what was handed out of it, in order. Raises OSError."""
        lent = self._find(number)
        del self._shelf.lent[number]
        return lent.digest.hexdigest()

    def _find(self, number: int) -> _Lent:
        lent = self._shelf.lent.get(number)
        if lent is None:
            raise OSError(f"there is no copy {number}, or nobody asked for it in a while")
        self._shelf.keep(number, lent)
        return lent


class Readers:
    """The copies of a trace that are being fetched, by who asks."""

    def __init__(
        self,
        make: Callable[[], Copy],
        wakeups: Wakeups,
        now_ns: Callable[[], int] = monotonic_ns,
    ) -> None:
        """`make` copies what is there; it may raise OSError."""
        self._make = make
        self._shelf = _Shelf(wakeups, now_ns)

    def __len__(self) -> int:
        return len(self._shelf.lent)

    def piece(self, reader: int, offset: int, size_bytes: int) -> bytes:
        """A part of the trace as it was when its first piece was asked for; b"" at its end.

        Raises OSError.
        """
        others = self._shelf.lent
        lent = others.pop(reader, None)
        if offset == 0:
            lent = _Lent(self._make())
        piece = lent.copy.read(offset, size_bytes) if lent is not None else b""
        if lent is not None and piece:
            while len(others) >= READERS_MAX:
                del others[next(iter(others))]
            self._shelf.keep(reader, lent)
        return piece
