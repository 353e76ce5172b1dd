"""Values as the simulator carries them, and a node's memory that notices what would corrupt them.

A payload is anything with a length: real `bytes`, or a `Blob` that claims a size and carries what
it stands for. The cores never look inside either; they are kept, copied and sent like bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from detray.core.effects import ARENA, INLINE, Place


class Blob:
    """`size_bytes` of pretended bytes that stand for `token`. (Any: whatever the program means.)

    Never empty: a payload of no bytes would not travel. Two readers saw the same value if and only
    if they have equal tokens.
    """

    __slots__ = ("size_bytes", "token")

    def __init__(self, size_bytes: int, token: Any = None) -> None:
        self.size_bytes = size_bytes or 1
        self.token = token

    def __len__(self) -> int:
        return self.size_bytes

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is Blob
            and other.size_bytes == self.size_bytes
            and bool(other.token == self.token)
        )

    def __hash__(self) -> int:
        return hash((self.size_bytes, self.token))

    def __repr__(self) -> str:
        return f"Blob({self.size_bytes}, {self.token!r})"


Value = bytes | Blob


def real_bytes(value: Value | None) -> bytes:
    """The bytes that a value is or stands for; b"" of one that is only pretended."""
    real = value.token if type(value) is Blob else value
    return real if isinstance(real, bytes) else b""


class Corruption(AssertionError):
    """Something that would have corrupted a program's data in the real world."""


class Pieces:
    """The payload of a frame as a list of values: as `detray.core.arrivals.Cutter` is for bytes."""

    __slots__ = ("_next", "_values")

    def __init__(self, values: Sequence[Value]) -> None:
        self._values = values
        self._next = 0

    def take(self, size_bytes: int) -> bytes:
        """The next value, which must be so long."""
        if not size_bytes:
            return b""
        value = self._values[self._next]
        self._next += 1
        if (value.size_bytes if type(value) is Blob else len(value)) != size_bytes:
            raise Corruption(f"a message promised {size_bytes} bytes, its payload is {value!r}")
        return value  # type: ignore[return-value]  # the books keep a Blob as they keep bytes

    def of(self, place: Place) -> bytes:
        """The bytes of a place, if they travel inline."""
        return self.take(place.size_bytes) if place.segment == INLINE else b""


class Cell:
    """A block that was given out; `value` is None until it is written. `users` write or read it."""

    __slots__ = ("is_corrupt", "offset", "segment", "size_bytes", "users", "value", "what")

    def __init__(self, segment: int, offset: int, size_bytes: int, what: bytes) -> None:
        self.segment = segment
        self.offset = offset
        self.size_bytes = size_bytes
        self.what = what
        self.users = 0
        self.is_corrupt = False
        self.value: Value | None = None

    def __repr__(self) -> str:
        return (
            f"block {self.segment}:{self.offset}+{self.size_bytes} of {self.what.hex()} with"
            f" {self.value!r} and {self.users} users"
        )


class BlockMemory:
    """The blocks of a node, in its arena and in files. Raises Corruption where data would be lost.

    A core gives a block out (`open`), somebody writes it, others read it, the core frees it. What
    it frees in the arena it tells nobody: such a block ends when the next one is given out on its
    place. Whoever still uses it then would have seen other bytes.
    """

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], Cell] = {}
        self._offsets: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def open(self, segment: int, offset: int, size_bytes: int, what: bytes) -> Cell:
        """A core gives out a block for the object `what`; older blocks in its place are over."""
        offsets = self._offsets.setdefault(segment, [])
        first = bisect_left(offsets, offset)
        if first:
            before = self._cells[segment, offsets[first - 1]]
            first -= before.offset + before.size_bytes > offset
        last = bisect_left(offsets, offset + size_bytes)
        for old in offsets[first:last]:
            cell = self._cells.pop((segment, old))
            # A transfer that came to nothing is asked for again, into the same block.
            again = cell.what == what and cell.offset == offset and cell.value is None
            if cell.users or (segment != ARENA and not again):
                raise Corruption(f"{what.hex()} gets {offset}+{size_bytes} on {cell!r}")
        offsets[first:last] = [offset]
        cell = self._cells[segment, offset] = Cell(segment, offset, size_bytes, what)
        return cell

    def find(self, segment: int, offset: int, what: bytes) -> Cell:
        """The block of the object `what`, for somebody who will write it."""
        cell = self._cells.get((segment, offset))
        if cell is None or cell.what != what:
            raise Corruption(f"{what.hex()} is looked for at {segment}:{offset}: {cell!r}")
        return cell

    def write(self, cell: Cell, value: Value) -> None:
        """Fill a block, once."""
        if self._cells.get((cell.segment, cell.offset)) is not cell:
            raise Corruption(f"{value!r} is written to {cell!r}, which was freed")
        if cell.value is not None or len(value) > cell.size_bytes:
            raise Corruption(f"{value!r} is written to {cell!r}")
        cell.value = value

    def read(self, segment: int, offset: int, what: bytes) -> Cell:
        """The written block of the object `what`."""
        cell = self.find(segment, offset, what)
        if cell.value is None:
            raise Corruption(f"{what.hex()} is read before it is written: {cell!r}")
        return cell

    def close(self, segment: int, offset: int) -> None:
        """The core frees a block of a file; one that nobody was told to write is unknown here."""
        cell = self._cells.pop((segment, offset), None)
        if cell is None:
            return
        if cell.users:
            raise Corruption(f"block {segment}:{offset} is freed: {cell!r}")
        offsets = self._offsets[segment]
        del offsets[bisect_left(offsets, offset)]

    def close_segment(self, segment: int) -> None:
        """The core removes a file."""
        for offset in self._offsets.pop(segment, ()):
            cell = self._cells.pop((segment, offset))
            if cell.users:
                raise Corruption(f"file {segment} is removed with {cell!r}")
