"""Digests of values in recordings: of what they are, when they are there, that they repeat."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash

import detray
from detray import object_ref, startup
from detray.core.stimuli import (
    BlockSealed,
    FunctionExported,
    ObjectPut,
    RunFinished,
    TaskSubmitted,
)
from detray.serialization.digests import WHOLE_BYTES_MAX, digest
from detray.serialization.values import serialize
from detray.trace.reading import open_trace

PROGRAM = """
import sys
import detray

@detray.remote
def add(a, b):
    return a + b

@detray.remote
def nothing():
    pass

@detray.remote
def long(size):
    return "x" * size

@detray.remote(num_returns=3)
def three():
    return None, 2, b"y" * 200_000

detray.init(num_cpus=2, **({"record": sys.argv[1]} if len(sys.argv) > 1 else {}))
small, large = detray.put(5), detray.put(b"z" * 300_000)
detray.get([add.remote(small, int(sys.argv[2])), nothing.remote(), long.remote(200_000)])
detray.get([add.remote(large, b"1" * 150_000), *three.remote()])
detray.shutdown()
"""


def recorded(tmp_path: Path, name: str, number: int) -> list[object]:
    """What the core was told in a run of the program, fields that vary left out."""
    path = tmp_path / f"{name}.trace"
    subprocess.run([sys.executable, "-c", PROGRAM, str(path), str(number)], check=True, timeout=60)
    return [item for step in open_trace(path).steps() for item in step.stimuli()]


def digests(told: list[object]) -> dict[bytes, tuple[bytes, ...]]:
    """Digests of all values in them by the id that they belong to."""
    found: dict[bytes, tuple[bytes, ...]] = {}
    for item in told:
        match item:
            case TaskSubmitted():
                found[item.task + b"arguments"] = (item.digest,)
            case RunFinished():
                found[item.task] = tuple(part.digest for part in item.returns)
            case ObjectPut() | BlockSealed():
                found[item.object] = (item.digest,)
            case FunctionExported():
                found[item.function] = (item.digest,)
    return found


def test_the_same_values_have_the_same_digests_in_two_runs(tmp_path: Path) -> None:
    """Inline and in blocks, several returns, arguments; another argument has another."""
    first, again, other = (
        digests(recorded(tmp_path, name, number)) for name, number in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again and first.keys() == other.keys()
    different = [key for key in first if first[key] != other[key]]
    (task,) = (key for key in different if not key.endswith(b"arguments"))
    assert sorted(different) == [task, task + b"arguments"]


def test_a_digest_is_of_the_value_as_it_is_stored(tmp_path: Path) -> None:
    """Also where nothing is pickled any more, as for None."""
    told = recorded(tmp_path, "run", 1)
    finished = [item for item in told if isinstance(item, RunFinished)]
    returned = {part.digest for item in finished for part in item.returns}
    for value in (6, None, "x" * 200_000, 2, b"y" * 200_000, b"z" * 300_000 + b"1" * 150_000):
        assert stored(value) in returned, value
    assert all(len(part.digest) == 8 for item in finished for part in item.returns)
    put = {item.digest for item in told if isinstance(item, ObjectPut | BlockSealed)}
    assert {stored(5), stored(b"z" * 300_000)} <= put


def stored(value: object) -> bytes:
    whole = serialize(value)
    block = bytearray(whole.size_bytes)
    whole.write_into(memoryview(block))
    return xxhash.xxh3_64_digest(block)


@pytest.mark.parametrize("is_recorded", [False, True])
def test_only_recorded_sessions_pay_for_digests(tmp_path: Path, is_recorded: bool) -> None:
    """Program and workers know from the beginning."""

    @detray.remote
    def has_digests() -> bool:
        return object_ref.bound().digest is not None

    detray.init(num_cpus=1, record=tmp_path / "run.trace" if is_recorded else None)
    try:
        assert (startup.running().session.client.digest is not None) == is_recorded
        assert detray.get(has_digests.remote()) == is_recorded
    finally:
        detray.shutdown()


@pytest.mark.parametrize("size", [0, 1, 1_000, WHOLE_BYTES_MAX])
def test_a_value_is_hashed_whole(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert digest(data) == digest(memoryview(data)) == xxhash.xxh3_64_digest(data)


def test_a_huge_value_is_sampled() -> None:
    """Length, both ends and many places between count."""
    data = bytearray(WHOLE_BYTES_MAX + 1)
    plain = digest(data)
    assert len(plain) == 8 and digest(bytes(data)) == plain != digest(data + b"\0")
    for place in (0, (16 << 20) - 1, len(data) // 2, len(data) - 1):
        start = max(0, place - (64 << 10))
        changed = bytearray(data)
        changed[start : place + 1] = b"\1" * (place + 1 - start)
        assert digest(changed) != plain, place
