"""Damaged traces in a replay: refused, or shown up to the damage; no crash, hang or wrong state."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from detray.trace.format import PREAMBLE, FrameWriter, TraceError
from detray.trace.reading import Trace
from detray.trace.travel.seeking import Replay
from tests.trace.machine import Machine
from tests.trace.programs import dots, many, recorded, troubles
from tests.trace.test_fuzz import FIXTURES, split
from tests.trace.test_seeking import states_of

SMALL_BYTES = 100_000
"""What can be replayed a hundred times."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "run.trace"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detray.trace.recorder.CHUNK_BYTES", 2_000)
        recorded(path, dots, troubles, lambda machine: many(machine, 15, 20))
    return path.read_bytes()


@pytest.fixture(scope="module")
def flight() -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detray.trace.recorder.CHUNK_BYTES", 2_000)
        machine = Machine(ring_bytes=100_000)
        many(machine)
    return machine.recorder.read_all()


def attempt(data: bytes, salvage: bool) -> Replay | None:
    """A replay, None if the trace is refused in order."""
    try:
        return Replay(Trace(data, salvage=salvage), spacing=50)
    except TraceError:
        return None


def damaged(data: bytes, seed: int) -> bytes:
    """A bit flipped, the end cut off, or pieces exchanged."""
    chance = random.Random(seed)
    a, b, c = sorted(chance.randrange(len(data)) for _ in range(3))
    flipped = bytearray(data)
    flipped[a] ^= 1 << chance.randrange(8)
    return chance.choice(
        (bytes(flipped), data[:a], data[:a] + data[b:], data[:a] + data[b:c] + data[a:b] + data[c:])
    )


@pytest.mark.parametrize("salvage", [False, True])
@pytest.mark.parametrize("name", ["whole", "flight"])
def test_what_can_be_replayed_of_a_damaged_trace_is_what_was(name, salvage, request):
    """Every state is that of the whole trace at the same step."""
    data: bytes = request.getfixturevalue(name)
    states = states_of(Trace(data))
    replayed = 0
    for seed in range(30):
        replay = attempt(damaged(data, seed), salvage)
        if replay is None:
            continue
        replayed += 1
        chance = random.Random(seed)
        for _ in range(4):
            replay.goto(chance.randint(replay.first, replay.end))
            if replay.at > replay.first:
                for number, core in replay.cores.items():
                    if number in states[replay.at]:
                        assert core.snapshot() == states[replay.at][number]
    assert replayed > 3


@settings(max_examples=100, deadline=None)
@given(
    path=some.sampled_from([path for path in FIXTURES if path.stat().st_size < SMALL_BYTES]),
    where=some.integers(min_value=0),
    what=some.binary(min_size=1, max_size=40),
)
def test_lies_behind_right_checks_are_shown_or_refused(path, where, what):
    """Even one who computes all checks again: a replay up to there, or an error in order."""
    data = path.read_bytes()
    frames = [(frame[0], frame[17:]) for frame in split(data[PREAMBLE.size :], 0)]
    number = where % len(frames)
    payload = bytearray(frames[number][1])
    at = where % max(1, len(payload))
    payload[at : at + len(what)] = what[: len(payload) - at]
    frames[number] = frames[number][0], bytes(payload)
    writer = FrameWriter()
    lie = data[: PREAMBLE.size] + b"".join(writer.frame(*frame) for frame in frames)
    replay = attempt(lie, salvage=False)
    if replay is not None:
        walk(replay)


def walk(replay: Replay) -> None:
    """All that a session does, at a few places; only errors that are meant for users."""
    for at in sorted({replay.first, (replay.first + replay.end) // 2, replay.end}):
        try:
            replay.goto(at)
            assert replay.at == at
            for core in replay.cores:
                replay.state(core)
            replay.until("task failed")
            replay.until("effect RunTask", backwards=True)
        except TraceError:
            pass


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: Path(path).stem)
def test_every_fixture_can_be_walked(path):
    """Of every format version that there was."""
    replay = Replay(Trace(path.read_bytes(), str(path)), spacing=30)
    states = states_of(replay.trace)
    chance = random.Random(7)
    for _ in range(20):
        replay.goto(chance.randint(replay.first + 1, replay.end))
        for number, state in states[replay.at].items():
            assert replay.cores[number].snapshot() == state
    walk(replay)
