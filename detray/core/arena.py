"""Where blocks lie in the arena: a first-fit allocator of offsets, without the bytes.

Free ranges are kept sorted by offset and merged. The lowest range that fits is taken, so that pages
which were touched once are used again: the first touch of a page costs ten times the copy into it.
"""

from __future__ import annotations

from bisect import bisect_left

import msgspec

ALIGNMENT = 4096


class Arena(msgspec.Struct):
    """`starts` and `sizes` of the free ranges, by offset; `used` bytes are taken."""

    size_bytes: int
    starts: list[int]
    sizes: list[int]
    used: int = 0


def new_arena(size_bytes: int) -> Arena:
    """An empty arena, its size rounded down to whole pages."""
    size = size_bytes - size_bytes % ALIGNMENT
    return Arena(size, [0] if size else [], [size] if size else [])


def rounded(size_bytes: int) -> int:
    """What a block of this size really takes."""
    return max(ALIGNMENT, -(-size_bytes // ALIGNMENT) * ALIGNMENT)


def allocate(arena: Arena, size_bytes: int) -> int | None:
    """The offset of a new block, None if no free range is long enough."""
    size = rounded(size_bytes)
    for slot, free in enumerate(arena.sizes):
        if free >= size:
            offset = arena.starts[slot]
            if free == size:
                del arena.starts[slot], arena.sizes[slot]
            else:
                arena.starts[slot] += size
                arena.sizes[slot] -= size
            arena.used += size
            return offset
    return None


def release(arena: Arena, offset: int, size_bytes: int) -> None:
    """Free a block and merge it with its free neighbours."""
    size = rounded(size_bytes)
    arena.used -= size
    slot = bisect_left(arena.starts, offset)
    if slot < len(arena.starts) and offset + size == arena.starts[slot]:
        arena.starts[slot] = offset
        arena.sizes[slot] += size
    else:
        arena.starts.insert(slot, offset)
        arena.sizes.insert(slot, size)
    if slot and arena.starts[slot - 1] + arena.sizes[slot - 1] == arena.starts[slot]:
        arena.sizes[slot - 1] += arena.sizes[slot]
        del arena.starts[slot], arena.sizes[slot]
