"""What a task returned or raised, taken apart for its report."""

from __future__ import annotations

import traceback
from typing import Any

from detray.errors import DetrayError
from detray.serialization.values import Serialized, serialize


def split_returns(value: Any, name: str, wanted: int) -> list[Any]:  # Any: the user's values
    """The value that the task `name` returned as the values of its returns. Raises ValueError."""
    if wanted == 0:
        return []
    try:
        parts = list(value)
    except TypeError:
        raise ValueError(
            f"task {name!r} has num_returns={wanted} and returned a "
            f"{type(value).__name__}, which cannot be split"
        ) from None
    if len(parts) != wanted:
        raise ValueError(f"task {name!r} has num_returns={wanted} and returned {len(parts)} values")
    return parts


def pickle_return(value: Any) -> Serialized:  # Any: the user's value
    """A returned value's bytes. Raises TypeError if there are none."""
    try:
        return serialize(value)
    except DetrayError:
        raise
    except Exception as problem:
        from detray.serializability import offending_member

        what = offending_member(value, "return value") or f"{type(problem).__name__}: {problem}"
        raise TypeError(f"Could not serialize the return value: {what}") from problem


def is_listed(error: BaseException, classes: tuple[type[BaseException], ...]) -> bool:
    """True if an exception, or the one that it stands for, is of one of these classes."""
    try:
        return isinstance(error, classes) or isinstance(getattr(error, "cause", None), classes)
    except Exception:  # a user's __instancecheck__, or a property named cause
        traceback.print_exc()
        return False


def forget_frames(error: BaseException | None) -> None:
    """Let go of what the frames of a traceback, and those of its causes, hold."""
    seen = 0
    while error is not None and seen < 100:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
        seen += 1
