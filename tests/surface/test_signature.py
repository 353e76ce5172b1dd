"""A call is refused exactly when the function itself would refuse it."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detray.signature import Signature

FUNCTIONS: list[FunctionType] = [
    lambda: 0,
    lambda a: 0,
    lambda a, b=1: 0,
    lambda *args: 0,
    lambda a, *args: 0,
    lambda **kwargs: 0,
    lambda a, /, b: 0,
    lambda a, /, **kwargs: 0,
    lambda a=1, /, b=2: 0,
    lambda *, a: 0,
    lambda *, a=1, b: 0,
    lambda a, *args, b, c=1, **kwargs: 0,
]  # type: ignore[assignment]  # lambdas are functions


@given(
    st.sampled_from(FUNCTIONS),
    st.lists(st.just(0), max_size=4),
    st.dictionaries(st.sampled_from("abcd"), st.just(0), max_size=3),
)
def test_a_call_fits_if_and_only_if_python_takes_it(
    function: FunctionType, args: list[Any], kwargs: dict[str, Any]
) -> None:
    """Every kind of parameter, every kind of mistake."""
    try:
        function(*args, **kwargs)
        expected = ""
    except TypeError as error:
        expected = str(error)
    signature = Signature.of(function)
    if not kwargs:
        assert (signature.least <= len(args) <= signature.most) == (not expected)
    try:
        signature.check(tuple(args), kwargs)
        found = ""
    except TypeError as error:
        found = str(error)
    assert bool(found) == bool(expected), (found, expected)


def test_the_error_reads_like_pythons() -> None:
    """Name, number and names."""

    def f(a, b, c=1):  # type: ignore[no-untyped-def]  # as users write them
        pass

    signature = Signature.of(f)
    with pytest.raises(TypeError, match=r"f\(\) missing 2 required .* 'a' and 'b'"):
        signature.check((), {})
    with pytest.raises(TypeError, match=r"f\(\) takes from 2 to 3 positional arguments but 4 were"):
        signature.check((1, 2, 3, 4), {})
    with pytest.raises(TypeError, match=r"f\(\) got multiple values for argument 'a'"):
        signature.check((1, 2), {"a": 3})
    with pytest.raises(TypeError, match=r"f\(\) got an unexpected keyword argument 'd'"):
        signature.check((1, 2), {"d": 3})
