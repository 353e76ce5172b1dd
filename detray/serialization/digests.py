"""Digests of serialized values, for recordings: the same bytes in two runs are the same value.

A digest never decides anything: bytes that differ may stand for equal values (a set whose strings
hash differently pickles in another order), and 64 bits prove nothing to somebody who cheats.
"""

from __future__ import annotations

from xxhash import xxh3_64, xxh3_64_digest

WHOLE_BYTES_MAX = 64 << 20
"""Longer values are sampled: hashing every byte of a gigabyte takes as long as writing it did."""
_END_BYTES = 16 << 20
_PIECE_BYTES = 64 << 10
_PIECES = 512


def digest(data: bytes | memoryview) -> bytes:
    """The xxh3-64 of a value's serialized bytes, 8 bytes, big endian.

    Of a value longer than `WHOLE_BYTES_MAX` it covers the length, the first and the last 16 MiB,
    and 512 pieces of 64 KiB at equal distances in between.
    """
    size = len(data)
    if size <= WHOLE_BYTES_MAX:
        return xxh3_64_digest(data)
    view = memoryview(data)
    state = xxh3_64(size.to_bytes(8, "big"))
    state.update(view[:_END_BYTES])
    between = size - 2 * _END_BYTES - _PIECE_BYTES
    for number in range(_PIECES):
        start = _END_BYTES + between * number // (_PIECES - 1)
        state.update(view[start : start + _PIECE_BYTES])
    state.update(view[-_END_BYTES:])
    return state.digest()
