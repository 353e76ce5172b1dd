"""The store as one process sees it: blocks to write, and read-only views of blocks.

The arena (segment 0) is mapped twice: writable for the serializer alone, read-only for views, so
that no stray write of user code reaches a sealed value (PROTOCOL T19). File segments are mapped
block by block, for as long as somebody looks.

A view is exported by an object whose finalizer returns the pin: every memoryview, array or slice
made from it keeps it alive, whoever holds them. Python 3.11 lets only C types export a buffer, so
it is an instance of a ctypes array laid over the block (1 us). ctypes is imported with the first
block.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from detray.core.effects import ARENA
from detray.ids import ObjectID

if TYPE_CHECKING:
    from detray.runtime.readonly import ReadOnlyMapping

_PAGE = mmap.PAGESIZE


class Store:
    """Maps blocks. `dropped` is told an object's id once per `view` whose last user is gone.

    It is called from `__del__`, at any moment, in any thread.
    """

    def __init__(
        self,
        arena_fd: int,
        arena_bytes: int,
        session_dir: str,
        dropped: Callable[[ObjectID], object],
    ) -> None:
        self._arena_fd = arena_fd
        self._arena_bytes = arena_bytes
        self._session_dir = session_dir
        self._dropped = dropped
        self._writable: memoryview | None = None
        self._arena: ReadOnlyMapping | None = None

    def block(self, segment: int, offset: int, size_bytes: int) -> memoryview:
        """A block to write: it was granted to us and nobody else can see it yet.

        Release the view when it is written.
        """
        if segment == ARENA:
            if self._writable is None:
                self._writable = memoryview(mmap.mmap(self._arena_fd, self._arena_bytes))
            return self._writable[offset : offset + size_bytes]
        fd = os.open(self._path(segment), os.O_RDWR)
        try:
            start = offset & -_PAGE
            mapped = mmap.mmap(fd, offset + size_bytes - start, offset=start)
        finally:
            os.close(fd)
        return memoryview(mapped)[offset - start :]

    def view(self, item: ObjectID, segment: int, offset: int, size_bytes: int) -> memoryview:
        """A sealed value's bytes, read-only. Takes over one pin of `item`.

        Raises OSError if it cannot be mapped; the pin is returned then, too.
        """
        try:
            if segment == ARENA:
                if self._arena is None:
                    self._arena = self._map(self._arena_fd, 0, self._arena_bytes)
                return self._arena.export(item)[offset : offset + size_bytes]
            start = offset & -_PAGE
            fd = os.open(self._path(segment), os.O_RDONLY)
            try:
                mapped = self._map(fd, start, offset + size_bytes - start)
            finally:
                os.close(fd)
        except OSError:
            self._dropped(item)
            raise
        return mapped.export(item)[offset - start :]

    def close(self) -> None:
        """Let go of the arena. Views that the program still has keep its memory until they die."""
        self._arena = self._writable = None
        os.close(self._arena_fd)

    def _map(self, fd: int, start: int, size_bytes: int) -> ReadOnlyMapping:
        from detray.runtime.readonly import ReadOnlyMapping

        return ReadOnlyMapping(fd, start, size_bytes, self._dropped)

    def _path(self, segment: int) -> str:
        return os.path.join(self._session_dir, f"segment-{segment}")
