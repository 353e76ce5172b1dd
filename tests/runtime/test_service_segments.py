"""File segments: reserved space, copies off the loop, holes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from detray.core.effects import ARENA, INLINE, MoveObject
from detray.core.stimuli import (
    LocalStimulus,
    ObjectMoved,
    ObjectMoveFailed,
    SegmentFailed,
    SegmentOpened,
)
from detray.ids import ObjectID
from detray.runtime.connections import Inbox
from detray.runtime.segments import Segments
from detray.runtime.service import make_arena
from detray.runtime.wakeups import Wakeups

ITEM = ObjectID(bytes(20))
SIZE = 1 << 20


class Bench:
    def __init__(self, directory: Path) -> None:
        self.wakeups = Wakeups()
        self.arena_fd = make_arena(SIZE)
        self.inbox = Inbox()
        self.segments = Segments(str(directory), self.arena_fd, self.wakeups, self.inbox)
        self.file = directory / "segment-1"

    def answer(self) -> LocalStimulus:
        while not self.inbox.facts:
            self.wakeups.dispatch(None)
        _, _, [fact] = self.inbox.take()
        return fact

    def do(self, order: Callable[[], None]) -> LocalStimulus:
        order()
        return self.answer()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def move(segment: int, offset: int, size_bytes: int, to_offset: int, to: int = 1) -> MoveObject:
    return MoveObject(ITEM, size_bytes, segment, offset, to, to_offset)


def test_a_segment_has_its_space_reserved(bench: Bench) -> None:
    assert bench.do(lambda: bench.segments.open(1, SIZE)) == SegmentOpened(1)
    assert bench.file.stat().st_size == SIZE
    assert bench.file.stat().st_blocks * 512 >= SIZE


def test_bytes_move_from_the_arena_from_memory_and_between_files(bench: Bench) -> None:
    segments = bench.segments
    os.pwrite(bench.arena_fd, b"arena", 100)
    bench.do(lambda: segments.open(1, SIZE))
    bench.do(lambda: segments.open(2, SIZE))
    moved = bench.do(lambda: segments.move(move(ARENA, 100, 5, 64), None))
    assert moved == ObjectMoved(ITEM, 1, 64)
    assert bench.do(lambda: segments.move(move(INLINE, 0, 6, 128), b"inline")) == ObjectMoved(
        ITEM, 1, 128
    )
    bench.do(lambda: segments.move(move(1, 64, 70, 0, to=2), None))
    data = (bench.file.parent / "segment-2").read_bytes()
    assert (data[:5], data[64:70]) == (b"arena", b"inline")


def test_a_full_disk_is_an_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    answer = bench.do(lambda: bench.segments.open(1, SIZE))
    assert isinstance(answer, SegmentFailed)
    assert "No space left" in answer.reason
    assert answer.free_bytes > 0
    assert not bench.file.exists()


def test_a_failed_copy_is_an_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.do(lambda: bench.segments.open(1, SIZE))
    beyond = bench.do(lambda: bench.segments.move(move(ARENA, SIZE, 10, 0), None))
    assert beyond == ObjectMoveFailed(ITEM, 1, 0, "the block ends early")


def test_a_freed_block_gives_its_space_back(bench: Bench) -> None:
    bench.do(lambda: bench.segments.open(1, SIZE))
    before = bench.file.stat().st_blocks
    bench.segments.free(1, 0, SIZE // 2)
    bench.do(lambda: bench.segments.open(2, SIZE))
    assert bench.file.stat().st_size == SIZE
    assert bench.file.stat().st_blocks < before
    bench.segments.free(ARENA, 0, 10)


def test_a_closed_segment_is_gone(bench: Bench) -> None:
    bench.do(lambda: bench.segments.open(1, SIZE))
    bench.segments.close(1)
    assert bench.do(lambda: bench.segments.open(2, SIZE)) == SegmentOpened(2)
    assert not bench.file.exists()


def test_a_bug_in_the_helper_reaches_the_loop(bench: Bench) -> None:
    bench.segments.move(move(7, 0, 10, 0, to=8), None)
    with pytest.raises(KeyError):
        bench.answer()
