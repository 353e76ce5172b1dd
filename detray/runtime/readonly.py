"""Read-only mappings and the objects that export them. Imports ctypes: load it at first need."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from typing import Any

from detray.ids import ObjectID

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value


class ReadOnlyMapping:
    """Part of a file, mapped shared and read-only until nobody refers to this object any more."""

    __slots__ = ("_unmap", "address", "exporter", "size_bytes")

    def __init__(
        self, fd: int, offset: int, size_bytes: int, dropped: Callable[[ObjectID], object]
    ) -> None:
        """Map. `dropped` is called as `exporter_class` says. Raises OSError."""
        address = _libc.mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
        if address is None or address == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, f"mapping {size_bytes} bytes failed: {os.strerror(code)}")
        self.address = int(address)
        self.size_bytes = size_bytes
        self.exporter = exporter_class(size_bytes, dropped)
        self._unmap = _libc.munmap  # The module's names may be gone when the interpreter ends.

    def __del__(self) -> None:
        if hasattr(self, "_unmap"):
            self._unmap(self.address, self.size_bytes)

    def export(self, item: ObjectID) -> memoryview:
        """A view of the whole. Its last user's end is reported once, as the end of `item`."""
        exporter = self.exporter.from_address(self.address)
        exporter.item = item
        exporter.mapping = self
        return memoryview(exporter).cast("B").toreadonly()


def exporter_class(size_bytes: int, dropped: Callable[[ObjectID], object]) -> Any:
    """A class whose instances, made with `from_address`, export `size_bytes` of memory.

    `dropped(instance.item)` is called when the last view of an instance is gone; the instance keeps
    its `mapping` until then. (Any: no static type describes a ctypes class made here.)
    """

    class Exporter(ctypes.Array):  # type: ignore[type-arg]  # its item type is given below
        _type_ = ctypes.c_ubyte
        _length_ = size_bytes
        item: ObjectID
        mapping: ReadOnlyMapping

        def __del__(self) -> None:
            dropped(self.item)

    return Exporter
