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


def map_fd(fd: int, offset: int, size_bytes: int) -> int:
    """Map part of a file, shared and read-only; the address. Raises OSError."""
    address = _libc.mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
    if address is None or address == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, f"mapping {size_bytes} bytes failed: {os.strerror(code)}")
    return int(address)


def exporter_class(
    size_bytes: int, dropped: Callable[[ObjectID], object], *, unmap: bool = False
) -> Any:
    """A class whose instances export `size_bytes` of memory, made with `from_address`.

    Set `item` on the instance: `dropped` is called with it when the last view is gone; with `unmap`
    the memory is unmapped then, too. (Any: no static type describes a ctypes class made here.)
    """
    munmap, address_of = _libc.munmap, ctypes.addressof

    class Exporter(ctypes.Array):  # type: ignore[type-arg]  # its item type is given below
        _type_ = ctypes.c_ubyte
        _length_ = size_bytes
        item: ObjectID

        def __del__(self) -> None:
            if unmap:
                munmap(address_of(self), size_bytes)
            dropped(self.item)

    return Exporter
