"""Payload files: what was recorded is read, what was damaged is refused, memory is bounded."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import msgspec
import pytest

from detray.core.stimuli import (
    BlockRequested,
    BlockSealed,
    ClientStimulus,
    FunctionExported,
    RefsDropped,
    Return,
    RunFinished,
    TaskSubmitted,
    TemplateDefined,
)
from detray.ids import (
    NO_TASK,
    ClientID,
    FunctionID,
    ObjectID,
    TaskID,
    TemplateID,
    put_object,
    return_object,
)
from detray.trace.format import FRAME_HEAD, FrameWriter, Header, ProcessInfo, TraceError
from detray.trace.payloads.collecting import collect_payloads
from detray.trace.payloads.format import (
    END_FRAME,
    PAYLOAD_VERSION,
    PIECE_BYTES,
    PREAMBLE,
    PayloadEnd,
    PayloadHeader,
    PayloadProcess,
)
from detray.trace.payloads.reading import KeptMessage, Payloads, open_payloads
from detray.trace.payloads.recorder import (
    CHUNK_BYTES,
    REQUESTED_MAX,
    TASK_BLOCK_BYTES_MAX,
    PayloadRecorder,
    PayloadRing,
    opening,
)

DRIVER, WORKER = ClientID(-1), ClientID(1)
PREFIX = b"\x00\x00\x00\x01abcdefgh"
HEADER = PayloadHeader(
    detray_version="0",
    processes=(PayloadProcess(life="1f" * 16, wall_ns=5, cwd="/here", sys_path=("/here",)),),
)


def task(number: int) -> TaskID:
    return TaskID(PREFIX + number.to_bytes(4, "big"))


def submitted(number: int, size: int) -> TaskSubmitted:
    return TaskSubmitted(DRIVER, task(number), TemplateID(0), NO_TASK, 1, size)


def finished(number: int, *sizes: int, in_block: bool = False) -> RunFinished:
    returns = tuple(Return(size, in_block) for size in sizes)
    return RunFinished(WORKER, task(number), 0, 1, 2, returns)


FUNCTION = FunctionExported(DRIVER, FunctionID(PREFIX + b"\x80\0\0\0"), "f", 3)
TEMPLATE = TemplateDefined(DRIVER, TemplateID(0), FUNCTION.function, "f", 1, (), 3, False, 0)
PUT = put_object(PREFIX, 7)
MANY = 80


class Session:
    """A recorder, and the large values that it may look at."""

    def __init__(self, path: Path | None = None, ring_bytes: int = 1 << 20) -> None:
        self.blocks: dict[ObjectID, bytes] = {}
        self.recorder = PayloadRecorder(HEADER, self.find, path, ring_bytes)

    def request(self, client: ClientID, *items: ObjectID) -> None:
        self.hear(b"", *(BlockRequested(client, item, len(self.blocks[item])) for item in items))

    def find(self, client: ClientID, item: ObjectID) -> memoryview | None:
        block = self.blocks.get(item)
        return memoryview(block) if block is not None else None

    def hear(self, payload: bytes, *messages: ClientStimulus) -> None:
        self.recorder.take(msgspec.msgpack.encode(messages), list(messages), payload)


def play(session: Session) -> None:
    """Definitions, calls, results inline and in blocks, a put, and what nobody needs."""
    session.blocks = {PUT: b"put" * 30_000, return_object(task(1), 0): b"kept" * 1000}
    session.blocks[return_object(task(2), 0)] = bytes(TASK_BLOCK_BYTES_MAX + 1)
    session.hear(b"def", FUNCTION, TEMPLATE)
    for number in range(MANY):
        session.hear(b"a" * number, submitted(number, number))
    session.request(WORKER, *session.blocks)
    session.hear(b"onetwo", finished(0, 3, 3))
    session.hear(b"", finished(1, 4000, in_block=True), finished(2, 9, in_block=True))
    session.request(DRIVER, PUT)
    session.hear(b"", BlockSealed(DRIVER, PUT))
    session.hear(b"", RefsDropped(DRIVER, (PUT,), (1,)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("payloads") / "run.trace.payloads"
    session = Session(path)
    play(session)
    session.recorder.close("it is over")
    return path.read_bytes()


def said(payloads: Payloads) -> list[tuple[object, list[bytes]]]:
    return [(s.message, [bytes(data) for _, data in s.payload]) for s in payloads.said()]


def told(payloads: Payloads) -> object:
    """All that can be read of a file."""
    blocks = {key: payloads.block(*key) for key in payloads.blocks}
    return said(payloads), blocks


def test_what_was_recorded_is_read(whole: bytes) -> None:
    """Messages with their payload, in order; blocks of drivers, and small ones of tasks."""
    payloads = Payloads(whole)
    heard = said(payloads)
    assert (payloads.complete, payloads.reason) == (True, "it is over")
    assert payloads.header == HEADER
    assert heard[:2] == [(FUNCTION, [b"def"]), (TEMPLATE, [])]
    assert heard[2:5] == [(submitted(n, n), [b"a" * n] if n else []) for n in range(3)]
    assert heard[2 + MANY + 3] == (finished(0, 3, 3), [b"one", b"two"])
    assert RefsDropped not in [type(message) for message, _ in heard]
    assert payloads.blocks == {(return_object(task(1), 0), 0): 4000, (PUT, 0): 90_000}
    assert payloads.block(PUT, 0) == b"put" * 30_000


def test_a_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """Also one that was there before, with another mode."""
    path = tmp_path / "p"
    path.write_bytes(b"old")
    path.chmod(0o666)
    session = Session(path)
    session.recorder.close("")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_large_value_is_cut_into_pieces(tmp_path: Path) -> None:
    """And put together again."""
    session = Session(tmp_path / "p")
    value = random.Random(1).randbytes(PIECE_BYTES) + b"more"
    session.blocks[PUT] = value
    session.request(DRIVER, PUT)
    session.hear(b"", BlockSealed(DRIVER, PUT))
    session.recorder.close("")
    payloads = open_payloads(tmp_path / "p")
    assert [piece.start for piece in payloads.pieces()] == [0, PIECE_BYTES]
    assert payloads.block(PUT, 0) == value


def test_a_file_that_was_cut_reads_up_to_the_cut(whole: bytes) -> None:
    """Wherever a crash cuts it: what is read is a beginning of the whole, and it is said so."""
    full = said(Payloads(whole))
    header = len(opening(FrameWriter(), HEADER))
    sizes = random.Random(3).sample(range(header, len(whole)), 200)
    for size in [header, len(whole) - 1, *sizes]:
        payloads = Payloads(whole[:size])
        assert not payloads.complete
        assert payloads.note.startswith("cut off")
        heard = said(payloads)
        assert heard == full[: len(heard)]
        for key in payloads.blocks:
            assert payloads.block(*key) == Payloads(whole).block(*key)


def test_a_cut_within_the_header_leaves_nothing_to_read(whole: bytes) -> None:
    """Refused with a reason, at every length."""
    for size in range(len(opening(FrameWriter(), HEADER))):
        with pytest.raises(TraceError, match=r"cut off|empty|header"):
            Payloads(whole[:size])


def test_foreign_and_newer_files_are_refused(whole: bytes) -> None:
    """A trace is no payload file; a newer one says what to do."""
    with pytest.raises(TraceError, match="not a detray payload file"):
        Payloads(b"\x89detray\n" + whole[8:])
    newer = PREAMBLE.pack(whole[:8], PAYLOAD_VERSION + 1) + whole[PREAMBLE.size :]
    with pytest.raises(TraceError, match="Read it with the detray that wrote it"):
        Payloads(newer)


def frames_of(whole: bytes) -> list[bytes]:
    at, found = PREAMBLE.size, []
    while at < len(whole):
        size = FRAME_HEAD.unpack_from(whole, at)[1] + FRAME_HEAD.size
        found.append(whole[at : at + size])
        at += size
    return found


def attempt(data: bytes, salvage: bool = False) -> Payloads | None:
    """None if it is refused; anything but a refusal is a failure."""
    try:
        payloads = Payloads(data, salvage=salvage)
        told(payloads)
    except TraceError:
        return None
    return payloads


def test_no_change_by_chance_is_believed(whole: bytes) -> None:
    """Flipped bits, frames doubled, exchanged or left out: refused, or noticed as a cut."""
    full = said(Payloads(whole))
    frames = frames_of(whole)
    start = whole[: PREAMBLE.size]
    assert len(frames) >= 4
    for seed in range(150):
        chance = random.Random(seed)
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        a, b = chance.sample(range(len(frames)), 2)
        swapped = frames.copy()
        swapped[a], swapped[b] = swapped[b], swapped[a]
        doubled = start + b"".join([*frames[: a + 1], *frames[a:]])
        missing = start + b"".join([*frames[:a], *frames[a + 1 :]])
        for data in (bytes(flipped), start + b"".join(swapped), doubled, missing):
            for salvage in (False, True):
                payloads = attempt(data, salvage)
                if payloads is not None:
                    assert not payloads.complete
                    heard = said(payloads)
                    assert heard == full[: len(heard)]


def test_lies_in_whole_frames_are_refused() -> None:
    """A program of ours would not write them; a stranger may."""
    lies = [
        (2, b""),
        (2, b"\x07\x00\x01\x00\x00\x00"),
        (2, b"\x00\x00\xff\xff\xff\xff"),
        (2, b"\x00\x00\x01\x00\x00\x00" + b"\xff" * 8),
        (2, b"\x00\x00\x01\x00\x00\x00" + b"\x01\x00\x00\x00\x00\x00\x00\x00" + b"\x91"),
        (2, b"\x00\x00\x00\x00\x00\x00" + b"left over"),
        (3, b"short"),
        (3, bytes(2) + PUT + bytes(4) + (5).to_bytes(8, "little") + bytes(8) + b"too long"),
        (3, bytes(2) + PUT + bytes(4) + bytes(8) + bytes(8) + b"x"),
        (4, b"\xc1"),
        (9, b"unknown"),
    ]
    for kind, payload in lies:
        writer = FrameWriter()
        data = opening(writer, HEADER) + writer.frame(kind, payload)
        assert attempt(data) is None, (kind, payload)
    for announced, came in ((3, b"ab"), (3, b"abcd"), (-1, b"")):
        session = Session(ring_bytes=1000)
        session.hear(came, submitted(0, announced))
        assert attempt(b"".join(session.recorder.freeze("").pieces())) is None


def test_frames_of_later_versions_may_be_passed_over() -> None:
    """Those that say so by their number."""
    writer = FrameWriter()
    data = opening(writer, HEADER) + writer.frame(200, b"new")
    data += writer.frame(END_FRAME, b"\x81\xa6reason\xa4done")
    assert Payloads(data).reason == "done"


def test_a_ring_lets_the_oldest_go_and_keeps_all_definitions() -> None:
    """Whatever comes after them, and it says what is missing."""
    session = Session(ring_bytes=200_000)
    session.hear(b"def", FUNCTION, TEMPLATE)
    for number in range(2000):
        session.hear(bytes(1000), submitted(number, 1000))
    payloads = Payloads(b"".join(session.recorder.freeze("a worker crashed").pieces()))
    heard = said(payloads)
    assert heard[:2] == [(FUNCTION, [b"def"]), (TEMPLATE, [])]
    assert heard[-1] == (submitted(1999, 1000), [bytes(1000)])
    assert 100 < len(heard) < 300
    assert (payloads.reason, payloads.lacks) == (
        "a worker crashed",
        "the oldest payloads were let go",
    )


def test_a_ring_does_not_give_all_its_room_to_one_value() -> None:
    """Too large a one is left out; one that fits is there in full, or not at all."""
    session = Session(ring_bytes=400_000)
    session.blocks = {PUT: bytes(100_001), return_object(task(1), 0): bytes(90_000)}
    session.request(WORKER, *session.blocks)
    session.hear(b"", BlockSealed(DRIVER, PUT))
    session.hear(b"", finished(1, 90_000, in_block=True))
    payloads = Payloads(b"".join(session.recorder.freeze("").pieces()))
    assert payloads.blocks == {(return_object(task(1), 0), 0): 90_000}
    assert payloads.lacks == "1 large values did not fit"


def test_the_bound_of_a_ring_holds() -> None:
    """For frames, and as much again for definitions."""
    ring = PayloadRing(10_000)
    for number in range(100):
        ring.add(2, bytes(1_000))
        ring.define([bytes(700)])
        assert ring.size_bytes <= 20_000, number
    _, frames, note = ring.freeze()
    assert len(frames) == 10
    assert "definitions of functions were let go" in note


def test_the_memory_of_a_ring_is_bounded_whatever_arrives() -> None:
    """Calls, definitions and values of any size, and wishes for blocks that nobody ever writes."""
    bound = 400_000
    session = Session(ring_bytes=bound)
    sizes = [3, 900, 70_000, 100_001, 3_000_000]
    chance = random.Random(7)
    for number in range(400):
        size = chance.choice(sizes)
        function = FunctionExported(DRIVER, FUNCTION.function, "f", size)
        session.hear(bytes(size), chance.choice([submitted(number, size), function]))
        session.blocks = {return_object(task(number), 0): bytes(size)}
        session.request(WORKER, *session.blocks)
        if number % 3:
            session.hear(b"", finished(number, size, in_block=True))
        assert session.recorder.size_bytes <= 2 * bound + CHUNK_BYTES, number
    for number in range(2 * REQUESTED_MAX):
        session.blocks = {return_object(task(number), 1): b"never written"}
        session.request(WORKER, *session.blocks)
    assert len(session.recorder._requested) <= REQUESTED_MAX
    flight = session.recorder.freeze("")
    data = b"".join(flight.pieces())
    assert len(data) <= 2 * bound + 2 * CHUNK_BYTES
    payloads = Payloads(data)
    assert len(list(payloads.said())) > 3
    assert "large values did not fit" in payloads.lacks
    assert "definitions of functions were let go" in payloads.lacks


def test_a_full_disk_ends_the_recording_and_nothing_else() -> None:
    """What was being written is told; all that follows is passed over."""
    session = Session(Path("/dev/full"))
    play(session)
    session.recorder.flush()
    problem = session.recorder.problem
    assert problem is not None and "No space left" in problem
    play(session)
    session.recorder.close("over")
    assert session.recorder.path is None


def test_the_file_of_a_process_that_was_killed_is_whole_up_to_its_last_flush(
    tmp_path: Path,
) -> None:
    """Nothing that was flushed is lost."""
    path = tmp_path / "p"
    pid = os.fork()
    if not pid:
        session = Session(path)
        play(session)
        session.recorder.flush()
        session.hear(b"later", submitted(9999, 5))
        os._exit(9)
    os.waitpid(pid, 0)
    payloads = open_payloads(path)
    assert not payloads.complete and "cut off" in payloads.note
    heard: list[KeptMessage] = list(payloads.said())
    assert len(heard) == MANY + 2 + 3 + 1 + 2 + 1 + 1


def test_what_several_recordings_lack_is_said_once(tmp_path: Path) -> None:
    """Of how many, as it is not the collected file that lacks it."""
    lives = [digit * 32 for digit in "123"]
    files = []
    for life in lives:
        process = msgspec.structs.replace(HEADER.processes[0], life=life)
        header = msgspec.structs.replace(HEADER, processes=(process,))
        files.append(Payloads(opening(FrameWriter(), header), life[0]))
    whole = msgspec.structs.replace(HEADER.processes[0], life="4" * 32)
    start = FrameWriter()
    data = opening(start, msgspec.structs.replace(HEADER, processes=(whole,)))
    end = start.frame(END_FRAME, msgspec.msgpack.encode(PayloadEnd(reason="done")))
    files.append(Payloads(data + end, "4"))
    trace = Header(
        core_revision=1,
        detray_version="0",
        entrypoint="",
        processes=tuple(
            ProcessInfo(wall_ns=1, monotonic_ns=1, life=life) for life in (*lives, "4" * 32)
        ),
        cores=(),
    )
    notes = collect_payloads(files, trace, tmp_path / "all")
    assert [note[:10] for note in notes] == [f"{digit}: cut off" for digit in "123"]
    payloads = open_payloads(tmp_path / "all")
    assert payloads.complete and len(payloads.header.processes) == 4
    assert payloads.lacks.startswith("3 of its 4 recordings: cut off") and ";" not in payloads.lacks
