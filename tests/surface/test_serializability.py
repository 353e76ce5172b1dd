"""What stands in the way of pickling is named."""

from __future__ import annotations

import io
import threading
from functools import partial

import pytest

from detray.serializability import FailureTuple, inspect_serializability, offending_member

lock = threading.Lock()


class Holder:
    def __init__(self, what: object) -> None:
        self.what = what

    def method(self) -> None:
        pass


class Slots:
    __slots__ = ("a",)

    def __init__(self, a: object) -> None:
        self.a = a


def in_closure(what: object) -> object:
    return lambda: what


def with_default(x: object = lock) -> object:
    return x


def in_global() -> object:
    return lock


@pytest.mark.parametrize(
    "value, text",
    [
        (lock, "v (lock): TypeError: cannot pickle '_thread.lock' object"),
        ({"a": [1, lock]}, "item [1] of item ['a'] of v is a lock"),
        ({lock}, "item [0] of v is a lock"),
        (Holder(Holder(lock)), "attribute 'what' of attribute 'what' of v is a lock"),
        (Slots(lock), "attribute 'a' of v is a lock"),
        (in_closure(lock), "variable 'what' of v is a lock"),
        (Holder(lock).method, "attribute 'what' of the instance it is bound to of v is a lock"),
        (partial(print, lock), "item [0] of its args of v is a lock"),
        (ValueError(lock), "args[0] of v is a lock"),
    ],
)
def test_the_offending_member_is_named_with_the_way_to_it(value: object, text: str) -> None:
    """And what the pickler says of it."""
    assert offending_member(value, "v").startswith(text)


def test_functions_of_a_script_show_globals_and_defaults() -> None:
    """They travel by value, so what they use travels too."""
    for function in (with_default, in_global):
        function.__module__ = "__main__"
    assert offending_member(in_global, "f").startswith("global 'lock' of f is a lock")
    assert offending_member(with_default, "f").startswith("a default value of f is a lock")


def test_nothing_stands_in_the_way_of_most_things() -> None:
    """Then there is nothing to say."""
    assert offending_member([1, Holder(3)]) == ""


def test_a_cycle_is_looked_through_once() -> None:
    """And the lock in it found."""
    a: list[object] = [lock]
    a.append(a)
    assert offending_member(a, "a").startswith("item [0] of a is a lock")


def test_the_tree_is_printed_and_the_failures_returned() -> None:
    """As Ray's tool does."""
    holder = Holder({"x": lock, "y": 3})
    out = io.StringIO()
    fine, found = inspect_serializability(holder, name="holder", print_file=out)
    assert not fine
    assert found == {FailureTuple(lock, "item ['x']", holder.what)}
    lines = out.getvalue().splitlines()
    assert lines[0] == "Checking whether 'holder' can be pickled: no"
    assert [line.split()[0] for line in lines[1:]] == ["holder", "attribute", "item"]
    assert inspect_serializability(3, print_file=out) == (True, set())
