"""Values to bytes and back; arrays come back as read-only views of the bytes.

Layout
------
Without out-of-band buffers, the bytes are a pickle stream (its first byte is 0x80). Otherwise:

=========  =====================================================================
bytes      content
=========  =====================================================================
0          0x00, then three zero bytes
4-7        u32 number of buffers
8-15       u64 length of the pickle stream
16-        (u64 offset from the start, u64 length) of each buffer
then       the pickle stream, then the buffers, each aligned to 64 bytes
=========  =====================================================================

Rules
-----
- Exact builtin values (numbers, strings, bytes, None and small containers of these) go through the
  C pickler alone (0.3 us); all else through `detray/serialization/pickling.py`, which knows
  references, arrays, functions and classes, and is imported at first need.
- Every buffer of an array goes out of band, however small: in band it would come back writable, and
  whether an array can be written to must not depend on its size.
- A large `bytes` value travels as a buffer too, which saves a copy of it on either side.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from pickle import PickleBuffer, dumps, loads
from typing import Any

from detray.ids import ObjectID

_COUNT = struct.Struct("<4xIQ")
_ENTRY = struct.Struct("<QQ")
_ALIGNMENT = 64
PROTOCOL = 5
_BYTES_OUT_OF_BAND = 1 << 16
_CONTAINER_MAX = 32
"""Longer containers gain nothing from the check that would save them the richer pickler."""
_NESTING_MAX = 4

ATOMS = frozenset((int, float, str, bytes, bool, type(None), complex))
_CONTAINERS = frozenset((tuple, list, dict, set, frozenset))

reducers: dict[type, Callable[[Any], Any]] = {}
"""How to pickle instances of exactly these types, in the form of `__reduce__`. (Any: theirs.)"""


class Serialized:
    """A value's bytes, and the references met inside.

    `size_bytes` is what `to_bytes` returns and `write_into` needs. `refs` are distinct, in the
    order in which the pickler met them. This class has neither references nor buffers: made for
    every call with simple arguments, it is as small as it can be.
    """

    __slots__ = ("_stream", "size_bytes")

    refs: tuple[ObjectID, ...] = ()

    def __init__(self, stream: bytes) -> None:
        self._stream = stream
        self.size_bytes = len(stream)

    def to_bytes(self) -> bytes:
        """The value's bytes in one piece."""
        return self._stream

    def write_into(self, view: memoryview) -> None:
        """Write the value's bytes to the start of `view` (format B, at least `size_bytes` long)."""
        view[: self.size_bytes] = self._stream


class SerializedParts(Serialized):
    """A value with references inside, or with buffers that are copied only once, to their place."""

    __slots__ = ("_buffers", "refs")

    def __init__(
        self, stream: bytes, buffers: Sequence[memoryview] = (), refs: tuple[ObjectID, ...] = ()
    ) -> None:
        super().__init__(stream)
        self._buffers = buffers
        self.refs = refs
        if buffers:
            self.size_bytes = _end_of_last(len(stream), buffers)

    def to_bytes(self) -> bytes:
        """The value's bytes in one piece."""
        if not self._buffers:
            return self._stream
        whole = bytearray(self.size_bytes)
        self.write_into(memoryview(whole))
        return bytes(whole)

    def write_into(self, view: memoryview) -> None:
        """Write the value's bytes to the start of `view` (format B, at least `size_bytes` long)."""
        stream = self._stream
        if not self._buffers:
            view[: len(stream)] = stream
            return
        _COUNT.pack_into(view, 0, len(self._buffers), len(stream))
        entry = _COUNT.size
        start = entry + _ENTRY.size * len(self._buffers)
        view[start : start + len(stream)] = stream
        end = start + len(stream)
        for buffer in self._buffers:
            start = _aligned(end)
            view[end:start] = bytes(start - end)  # Granted blocks are not zeroed.
            end = start + buffer.nbytes
            view[start:end] = buffer
            _ENTRY.pack_into(view, entry, start, buffer.nbytes)
            entry += _ENTRY.size


def serialize(value: Any) -> Serialized:
    """Take `value` as it is now. Raises what its pickling raises, unchanged.

    Buffers are not copied before `to_bytes` or `write_into`: call one of them before the caller can
    change the value.
    """
    kind = type(value)
    if kind in ATOMS:
        if kind is bytes and len(value) >= _BYTES_OUT_OF_BAND:
            return _serialize_bytes(value)
        return Serialized(dumps(value, PROTOCOL))
    if is_plain(value):
        return Serialized(dumps(value, PROTOCOL))
    from detray.serialization.pickling import dump_rich

    return SerializedParts(*dump_rich(value))


def deserialize(data: bytes | memoryview) -> object:
    """The value in `data`. Arrays in it are read-only views that keep `data` alive.

    Raises what unpickling raises: a class that cannot be imported here, for example.
    """
    if data[0]:
        return loads(data)
    view = memoryview(data).toreadonly()
    count, stream_bytes = _COUNT.unpack_from(view)
    start = _COUNT.size + _ENTRY.size * count
    buffers = [
        view[offset : offset + length]
        for offset, length in _ENTRY.iter_unpack(view[_COUNT.size : start])
    ]
    return loads(view[start : start + stream_bytes], buffers=buffers)


def is_plain(value: Any, nesting: int = _NESTING_MAX) -> bool:
    """True if `value` is a small structure of exact builtin types that any pickler treats alike."""
    kind = type(value)
    if kind in ATOMS:
        return True
    if nesting == 0 or kind not in _CONTAINERS or len(value) > _CONTAINER_MAX:
        return False
    if kind is dict and not _are_plain(value.values(), nesting - 1):
        return False
    return _are_plain(value, nesting - 1)


def _are_plain(values: Iterable[Any], nesting: int) -> bool:
    if ATOMS.issuperset(map(type, values)):
        return True
    return all(is_plain(value, nesting) for value in values)


class _AsBuffer:
    """Pickles `bytes` by reference to its memory."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __reduce__(self) -> tuple[type[bytes], tuple[PickleBuffer]]:
        return bytes, (PickleBuffer(self._value),)


def _serialize_bytes(value: bytes) -> Serialized:
    buffers: list[PickleBuffer] = []
    stream = dumps(_AsBuffer(value), PROTOCOL, buffer_callback=buffers.append)
    return SerializedParts(stream, [buffers[0].raw()])


def _aligned(offset: int) -> int:
    return (offset + _ALIGNMENT - 1) & -_ALIGNMENT


def _end_of_last(stream_bytes: int, buffers: Sequence[memoryview]) -> int:
    end = _COUNT.size + _ENTRY.size * len(buffers) + stream_bytes
    for buffer in buffers:
        end = _aligned(end) + buffer.nbytes
    return end
