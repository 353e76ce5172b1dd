"""The arena's allocator against a deliberately dumb one: a byte for each page."""

from __future__ import annotations

import random

import pytest

from detray.core.arena import ALIGNMENT, Arena, allocate, new_arena, release, rounded

PAGES = 24


class DumbArena:
    """First fit by looking at every page."""

    def __init__(self) -> None:
        self.pages = bytearray(PAGES)

    def allocate(self, count: int) -> int | None:
        """The first run of free pages that is long enough."""
        start = self.pages.find(bytes(count))
        if start < 0:
            return None
        self.pages[start : start + count] = b"\1" * count
        return start

    def release(self, start: int, count: int) -> None:
        """Free pages that are taken."""
        assert all(self.pages[start : start + count])
        self.pages[start : start + count] = bytes(count)


@pytest.mark.parametrize("seed", range(30))
def test_it_places_blocks_where_a_look_at_every_page_would(seed: int) -> None:
    generator = random.Random(seed)
    arena, dumb = new_arena(PAGES * ALIGNMENT), DumbArena()
    blocks: list[tuple[int, int]] = []
    for _ in range(400):
        if blocks and generator.random() < 0.5:
            offset, size = blocks.pop(generator.randrange(len(blocks)))
            release(arena, offset, size)
            dumb.release(offset // ALIGNMENT, rounded(size) // ALIGNMENT)
        else:
            size = generator.choice([0, 1, ALIGNMENT, ALIGNMENT + 1, generator.randrange(40_000)])
            offset_or_none = allocate(arena, size)
            start = dumb.allocate(rounded(size) // ALIGNMENT)
            assert offset_or_none == (None if start is None else start * ALIGNMENT)
            if offset_or_none is not None:
                blocks.append((offset_or_none, size))
        check(arena, dumb)


def check(arena: Arena, dumb: DumbArena) -> None:
    """Free ranges are sorted, apart from each other, and cover what is free."""
    free = bytearray(b"\1" * PAGES)
    end = -1
    for start, size in zip(arena.starts, arena.sizes, strict=True):
        assert start > end, "ranges that touch are one range"
        end = start + size
        free[start // ALIGNMENT : end // ALIGNMENT] = bytes(size // ALIGNMENT)
    assert free == dumb.pages
    assert arena.used == sum(dumb.pages) * ALIGNMENT


def test_a_size_is_rounded_down_to_pages_and_a_block_up() -> None:
    arena = new_arena(3 * ALIGNMENT + 5)
    assert arena.size_bytes == 3 * ALIGNMENT
    assert [rounded(n) for n in (0, 1, ALIGNMENT, ALIGNMENT + 1)] == [
        ALIGNMENT, ALIGNMENT, ALIGNMENT, 2 * ALIGNMENT
    ]  # fmt: skip


def test_an_arena_without_bytes_has_no_room() -> None:
    assert allocate(new_arena(100), 1) is None
