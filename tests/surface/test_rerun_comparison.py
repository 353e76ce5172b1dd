"""Which values are the same to a reader, and how a difference is told."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, make_dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from detray.ids import ObjectID
from detray.object_ref import ObjectRef
from detray.rerun.comparison import difference, shown
from detray.serialization.values import deserialize, serialize

np = pytest.importorskip("numpy")


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x


class Plain:
    def __init__(self, x: Any) -> None:
        self.x = x


@dataclass
class Data:
    x: Any


class Sameless:
    """Its == is never true."""

    def __init__(self, x: Any) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]  # as Python does where there is an __eq__


class Angry:
    def __init__(self, x: Any) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not now")

    def __repr__(self) -> str:
        raise RuntimeError("not now")

    __hash__ = None  # type: ignore[assignment]  # as above


class Deque(deque[int]):
    """A subclass with state that is not in its attributes."""


class Color(Enum):
    RED = 1
    BLUE = 2


def ref(number: int) -> ObjectRef[Any]:
    return ObjectRef(ObjectID(bytes([number]) * 20))


CIRCLE: list[Any] = [1]
CIRCLE.append(CIRCLE)
OTHER_CIRCLE: list[Any] = [1]
OTHER_CIRCLE.append(OTHER_CIRCLE)
NAN = float("nan")

EQUAL: list[tuple[Any, Any]] = [
    (1, 1),
    (math.nan, NAN),
    ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
    ({1, 2, 3}, {3, 2, 1}),
    ([NAN, {"x": NAN}], [math.nan, {"x": math.nan}]),
    (np.array([1.0, NAN]), np.array([1.0, NAN])),
    (np.array(["a", None], dtype=object), np.array(["a", None], dtype=object)),
    (np.float64(NAN), np.float64(NAN)),
    (np.zeros((0, 3)), np.zeros((0, 3))),
    (Slotted(5), Slotted(5)),
    (Plain([1]), Plain([1])),
    (Data({"x": NAN}), Data({"x": NAN})),
    (Angry(3), Angry(3)),
    (ValueError("x", 1), ValueError("x", 1)),
    (ref(1), ref(1)),
    (Decimal("1.50"), Decimal("1.5")),
    (Fraction(1, 2), Fraction(2, 4)),
    (datetime(2020, 1, 1), datetime(2020, 1, 1)),
    (Color.RED, Color.RED),
    (CIRCLE, OTHER_CIRCLE),
    (OrderedDict(a=1), OrderedDict(a=1)),
    (defaultdict(int, a=1), defaultdict(int, a=1)),
    (Deque([1, 2]), Deque([1, 2])),
    (lambda x: x + 1, lambda x: x + 1),
    (b"x", b"x"),
]

DIFFERENT: list[tuple[Any, Any, str]] = [
    (1, 2, "the value was 1, now 2"),
    (1, 1.0, "the value was of type int (1), now float (1.0)"),
    (1, True, "the value was of type int (1), now bool (True)"),
    ([1, [2, 3]], [1, [2, 4]], "the value[1][1] was 3, now 4"),
    ([1, 2], [1], "the value had 2 items, now 1"),
    ({"a": 1}, {"b": 1}, "the value had the key 'a', now it has not"),
    ({"a": 1}, {"a": 1, "b": 1}, "the value has the key 'b', which it had not"),
    ({"a": {"b": 0.1}}, {"a": {"b": 0.2}}, "the value['a']['b'] was 0.1, now 0.2"),
    ({1, 2}, {2, 3}, "the value differs in 1 elements then (1) and 1 elements now (3)"),
    (np.arange(4), np.array([0, 1, 9, 9]), "the value[2] was np.int64(2), now np.int64(9) (2 of 4"),
    (np.zeros(2), np.zeros(3), "an array of float64[2], now of float64[3]"),
    (np.zeros(2), np.zeros(2, dtype="f4"), "an array of float64[2], now of float32[2]"),
    (Plain(1), Plain(2), "the value's attributes['x'] was 1, now 2"),
    (Data([1]), Data([2]), "the value's attributes['x'][0] was 1, now 2"),
    (Sameless(1), Sameless(1), "its == says"),
    (Angry(1), Angry(2), "was 1, now 2"),
    (Plain(1), Data(1), "was of type Plain"),
    (ValueError("x"), ValueError("y"), "the value.args[0] was 'x', now 'y'"),
    (ref(1), ref(2), "was ObjectRef("),
    (Decimal("1.5"), Decimal("1.6"), "was Decimal('1.5'), now Decimal('1.6')"),
    (datetime(2020, 1, 1), datetime(2021, 1, 1), "datetime.datetime(2020, 1, 1"),
    (Color.RED, Color.BLUE, "was <Color.RED: 1>, now <Color.BLUE: 2>"),
    (Deque([1, 2]), Deque([1, 3]), "was 2, now 3"),
    (lambda x: x + 1, lambda x: x + 2, "body"),
    (Plain, Data, "was of type"),
]


@pytest.mark.parametrize(("then", "now"), EQUAL, ids=lambda value: shown(value)[:30])
def test_equal_values_are_the_same(then: Any, now: Any) -> None:
    """Containers in any order, not-a-number, objects without an ==, circles."""
    assert difference(then, now) == ""
    assert difference([then], [now]) == ""


@pytest.mark.parametrize(("then", "now", "text"), DIFFERENT, ids=lambda value: shown(value)[:30])
def test_a_difference_is_told_where_it_is(then: Any, now: Any, text: str) -> None:
    """With the way to it, and both sides; and the other way round there is one, too."""
    if isinstance(then, type):
        assert difference(then, now) != ""
    else:
        assert text in difference(then, now)
    assert difference(now, then) != ""


def test_what_is_nested_too_deeply_is_not_taken_for_the_same() -> None:
    """It says so."""
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    other: list[Any] = [1]
    for _ in range(5000):
        other = [other]
    assert "too deeply" in difference(deep, other)


def test_classes_that_pickling_made_anew_do_not_matter() -> None:
    """A dataclass of the user's script, loaded twice, is two classes of one name."""
    rows: list[Any] = [make_dataclass("Row", [("x", int)])(x) for x in (1, 1, 2)]
    assert rows[0] != rows[1]
    assert difference(rows[0], rows[1]) == ""
    assert difference(rows[0], rows[2]) == "the value's attributes['x'] was 1, now 2"


_VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text() | some.binary(),
    lambda inner: (
        some.lists(inner)
        | some.dictionaries(some.text(), inner)
        | some.tuples(inner, inner)
        | some.sets(some.integers())
    ),
    max_leaves=20,
)


@given(_VALUES)
def test_what_comes_back_from_its_bytes_is_the_same(value: Any) -> None:
    """Whatever the value."""
    assert difference(value, deserialize(serialize(value).to_bytes())) == ""


@given(_VALUES, _VALUES)
def test_what_is_called_the_same_is_equal(one: Any, other: Any) -> None:
    """Python's own == agrees, but for not-a-number."""
    if not difference(one, other) and "nan" not in repr(one):
        assert one == other
