"""Values survive the way through bytes, and arrays come back read-only."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detray import util
from detray.object_ref import ObjectRef
from detray.serialization.values import deserialize, is_plain, serialize
from tests.surface.conftest import QuietClient, ref_id

atoms = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats()
values = st.recursive(
    atoms,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


def back(value: object) -> object:
    """Through bytes, both ways of making them, and back."""
    whole = serialize(value)
    data = whole.to_bytes()
    assert len(data) == whole.size_bytes
    block = bytearray(b"\xaa" * (whole.size_bytes + 7))
    whole.write_into(memoryview(block))
    assert bytes(block[: whole.size_bytes]) == data
    return deserialize(memoryview(block)[: whole.size_bytes])


def same(a: object, b: object) -> bool:
    return repr(a) == repr(b)  # NaN is not equal to itself, but looks alike.


@given(values)
def test_any_nesting_of_builtin_values_comes_back(value: object) -> None:
    """Whatever way the pickler chose."""
    assert same(back(value), value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(10),
        np.arange(10)[::2],
        np.arange(12.0).reshape(3, 4).T,
        np.arange(24).reshape(2, 3, 4)[:, :, 1:3],
        np.zeros(0),
        np.array(5.0),
        np.arange(3).astype(">i4"),
        np.array(["2020-01-01"], dtype="M8[s]"),
        np.array(["abc", "d"]),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([True, False]),
        np.array([1 + 2j]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_of_any_size_and_layout_comes_back_read_only(array: np.ndarray) -> None:
    """Equal in type, shape and content, and nobody can write to it."""
    result = back(array)
    assert isinstance(result, np.ndarray)
    assert (result.dtype, result.shape) == (array.dtype, array.shape)
    assert (result == array).all()
    assert not result.flags.writeable


def test_an_array_is_a_view_of_the_bytes_aligned_to_64() -> None:
    """Zero-copy: what is read is the block itself."""
    whole = serialize({"x": np.arange(1000), "y": np.arange(5)})
    block = np.zeros(whole.size_bytes + 64, dtype="u1")
    start = -block.ctypes.data % 64
    view = memoryview(block)[start : start + whole.size_bytes]
    whole.write_into(view)
    value = deserialize(view)
    for array in value.values():  # type: ignore[attr-defined]  # a dict
        assert np.shares_memory(array, block)
        assert array.ctypes.data % 64 == 0


def test_large_bytes_travel_as_a_buffer() -> None:
    """One copy less on either side, and still bytes at the end."""
    value = b"x" * 100_000
    whole = serialize(value)
    assert whole.to_bytes()[0] == 0
    assert back(value) == value


def test_functions_and_local_classes_go_by_value() -> None:
    """What cannot be imported elsewhere travels whole."""

    @dataclass
    class Point:
        x: int

    offset = 3
    function, point = back((lambda x: x + offset, Point(4)))  # type: ignore[misc]  # a tuple
    assert function(4) == 7
    assert point.x == 4


def test_references_are_listed_once_in_the_order_they_are_met(client: QuietClient) -> None:
    """So that the message that carries the bytes can grant them."""
    a, b = ObjectRef(ref_id(1)), ObjectRef(ref_id(2))
    whole = serialize([{"x": b}, a, (b, a)])
    assert whole.refs == (ref_id(2), ref_id(1))
    assert deserialize(whole.to_bytes()) == [{"x": b}, a, (b, a)]
    assert client.pinned == client.claimed == []


def test_references_in_a_closure_are_listed(client: QuietClient) -> None:
    """A definition holds what its function captured."""
    ref = ObjectRef(ref_id(1))
    assert serialize(lambda: ref).refs == (ref_id(1),)


@pytest.mark.parametrize("value", [1, "x", (1, [2, {"a": None}]), {1, 2}, [math.pi] * 32])
def test_small_builtin_values_are_plain(value: object) -> None:
    """They need no more than the C pickler."""
    assert is_plain(value)


@pytest.mark.parametrize("value", [object(), [object()], {"a": [len]}, [0] * 33, [[[[[1]]]]]])
def test_others_are_not(value: object) -> None:
    """Foreign types, and what is too large to look through."""
    assert not is_plain(value)


def test_instances_with_slots_come_back_to_their_class(tmp_path: Path) -> None:
    """A class of `__main__` with slots: there, and back from the process that got a copy."""
    script = tmp_path / "program.py"
    script.write_text(_SLOTS)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(Path(util.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True True 2 3\n"), done.stderr


_SLOTS = """
import dataclasses
from typing import NamedTuple

import detray

@dataclasses.dataclass(slots=True)
class Point:
    x: int

class Named(NamedTuple):
    name: str

class Private(Point):
    __slots__ = ("__own",)

    def __init__(self, own):
        super().__init__(2)
        self.__own = own

    def own(self):
        return self.__own

@detray.remote
def moved(point):
    assert not hasattr(point, "__dict__")
    return Point(point.x + 1), Private(3), Named("n")

detray.init(num_cpus=1)
point, private, named = detray.get(moved.remote(Point(1)))
print(point == Point(2), type(named) is Named, private.x, private.own())
"""


def test_a_subclass_of_a_builtin_is_not_plain() -> None:
    """It may pickle itself as it likes."""

    class MyInt(int):
        pass

    assert not is_plain(MyInt(3))
    assert type(back(MyInt(3))).__name__ == "MyInt"


def test_a_registered_serializer_is_used_and_its_reader_needs_nothing() -> None:
    """The deserializer travels with the value."""
    util.register_serializer(
        threading.Semaphore,
        serializer=lambda value: value._value,
        deserializer=threading.Semaphore,
    )
    try:
        data = serialize([threading.Semaphore(5)]).to_bytes()
    finally:
        util.deregister_serializer(threading.Semaphore)
    assert deserialize(data)[0]._value == 5  # type: ignore[index]  # a list
    with pytest.raises(TypeError):
        serialize([threading.Semaphore(5)])
