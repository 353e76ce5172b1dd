"""Recordings handed out piece by piece: fixed when asked for, in bounded memory, for a while."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from xxhash import xxh3_64_hexdigest

from detray.runtime.copies import (
    COPIES_MAX,
    IDLE_NS,
    READERS_MAX,
    Copies,
    FileCopy,
    Readers,
    RingCopy,
)


class Timers:
    """Wake-ups and a clock that a test turns."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.timers: list[tuple[int, Callable[[], None]]] = []

    def call_at(self, when_ns: int, action: Callable[[], None]) -> None:
        self.timers.append((when_ns, action))

    def pass_time(self, length_ns: int) -> None:
        self.now_ns += length_ns
        due = [timer for timer in self.timers if timer[0] <= self.now_ns]
        self.timers = [timer for timer in self.timers if timer[0] > self.now_ns]
        for _, action in due:
            action()


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def copies(timers: Timers) -> Copies:
    return Copies(timers, lambda: timers.now_ns)  # type: ignore[arg-type]  # as much as is used


PARTS = [b"abc", b"", b"defgh", b"i", b"jklmnopq"]
WHOLE = b"".join(PARTS)


def fetch(copies: Copies, number: int, size: int, piece: int) -> bytes:
    data = b""
    while len(data) < size:
        data += copies.piece(number, len(data), piece)
    return data


@pytest.mark.parametrize("piece", [1, 3, 4, 100])
def test_a_ring_is_handed_out_in_pieces_of_any_size(copies: Copies, piece: int) -> None:
    """They are put together out of its frames, and the digest is of them all."""
    number, size = copies.begin(lambda: RingCopy(PARTS))
    assert fetch(copies, number, size, piece) == WHOLE
    assert copies.end(number) == xxh3_64_hexdigest(WHOLE)
    assert len(copies) == 0


def test_an_answer_that_was_lost_is_asked_for_again(copies: Copies) -> None:
    """The digest is that of the bytes, each once."""
    number, _ = copies.begin(lambda: RingCopy(PARTS))
    assert copies.piece(number, 0, 10) == copies.piece(number, 0, 10) == WHOLE[:10]
    assert copies.piece(number, 10, 10) == WHOLE[10:]
    assert copies.piece(number, 3, 4) == WHOLE[3:7]
    assert copies.end(number) == xxh3_64_hexdigest(WHOLE)


def test_what_is_written_later_is_not_in_the_copy_of_a_file(copies: Copies, tmp_path: Path) -> None:
    """The file grows on; its copy ends where the file ended."""
    path = tmp_path / "growing"
    path.write_bytes(WHOLE)
    number, size = copies.begin(lambda: FileCopy(str(path)))
    with path.open("ab") as file:
        file.write(b"later")
    assert fetch(copies, number, size, 5) == WHOLE
    assert FileCopy(str(path)).read(15, 100) == WHOLE[15:] + b"later"
    assert FileCopy(str(path)).read(1000, 100) == b""


@pytest.mark.parametrize("place", [(-5, 10), (-1, 1 << 80), (1 << 80, 5), (0, -5), (17, 1)])
def test_there_is_nothing_outside(place: tuple[int, int], tmp_path: Path) -> None:
    """Whoever asks for the places of a trace may ask for any."""
    path = tmp_path / "file"
    path.write_bytes(WHOLE)
    assert FileCopy(str(path)).read(*place) == RingCopy(PARTS).read(*place) == b""


def test_a_ring_is_shared_and_not_copied() -> None:
    """Its frames are the ones that the recorder holds."""
    frame = bytes(1 << 20)
    copy = RingCopy([frame])
    assert copy._pieces[0] is frame
    assert copy.read(5, 10) == frame[:10]


def test_what_makes_no_sense_is_answered_with_a_reason(copies: Copies, tmp_path: Path) -> None:
    """Numbers and places that there are not, a file that is gone, shorter, or a pipe."""
    path = tmp_path / "file"
    path.write_bytes(WHOLE)
    number, size = copies.begin(lambda: FileCopy(str(path)))
    for offset, piece in ((-1, 5), (size, 5), (1 << 80, 5), (0, 0), (0, -1)):
        with pytest.raises(OSError, match="has no piece"):
            copies.piece(number, offset, piece)
    with pytest.raises(OSError, match="there is no copy 77"):
        copies.piece(77, 0, 1)
    path.write_bytes(b"")
    with pytest.raises(OSError, match="became shorter"):
        copies.piece(number, 0, 1)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        copies.piece(number, 0, 1)
    os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file"):
        copies.begin(lambda: FileCopy(str(path)))
    assert len(copies) == 1


def test_copies_are_few_and_go_when_nobody_asks(copies: Copies, timers: Timers) -> None:
    """Whoever asks goes on; whoever went away costs nothing for long."""
    kept, _ = copies.begin(lambda: RingCopy(PARTS))
    for _ in range(COPIES_MAX - 1):
        left, _ = copies.begin(lambda: RingCopy(PARTS))
    with pytest.raises(OSError, match="others are fetching it already"):
        copies.begin(lambda: RingCopy(PARTS))
    timers.pass_time(IDLE_NS - 1)
    copies.piece(kept, 0, 1)
    timers.pass_time(1)
    assert len(copies) == 1
    copies.piece(kept, 1, 1)
    with pytest.raises(OSError, match="nobody asked for it"):
        copies.piece(left, 0, 1)
    copies.begin(lambda: RingCopy(PARTS))
    timers.pass_time(2 * IDLE_NS)
    assert (len(copies), timers.timers) == (0, [])


def test_readers_of_one_trace_do_not_disturb_each_other(timers: Timers) -> None:
    """Each has the trace as it was when it began, to its end, whoever begins or ends meanwhile."""
    parts = list(PARTS)
    readers = Readers(lambda: RingCopy(parts), timers, lambda: timers.now_ns)  # type: ignore[arg-type]
    first = readers.piece(1, 0, 5)
    parts[:] = [b"another ", b"ring"]
    second = readers.piece(2, 0, 3)
    first += readers.piece(1, 5, 5)
    second += readers.piece(2, 3, 100)
    assert readers.piece(2, len(second), 5) == b""
    first += readers.piece(1, 10, 100)
    assert readers.piece(1, len(first), 5) == b""
    assert (first, second, len(readers)) == (WHOLE, b"another ring", 0)


def test_readers_are_few_and_go_when_they_ask_no_more(timers: Timers) -> None:
    """Whoever asked longest ago makes room."""
    readers = Readers(lambda: RingCopy(PARTS), timers, lambda: timers.now_ns)  # type: ignore[arg-type]
    for reader in range(READERS_MAX):
        assert readers.piece(reader, 0, 5)
    assert readers.piece(0, 5, 1) == WHOLE[5:6]
    assert readers.piece(77, 0, 1) and len(readers) == READERS_MAX
    assert readers.piece(1, 5, 1) == b""
    assert readers.piece(0, 6, 1) == WHOLE[6:7]
    timers.pass_time(IDLE_NS)
    assert (len(readers), timers.timers) == (0, [])
