"""Results in the order in which they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, TypeVar, overload

from detray.api import get, wait
from detray.object_ref import ObjectRef
from detray.remote_function import RemoteFunction

R = TypeVar("R")


@overload
def as_completed(
    refs: Sequence[ObjectRef[R]], *, chunk_size: int = ..., yield_obj_refs: Literal[False] = ...
) -> Iterator[R]:
    """Values."""


@overload
def as_completed(
    refs: Sequence[ObjectRef[R]], *, chunk_size: int = ..., yield_obj_refs: Literal[True]
) -> Iterator[ObjectRef[R]]:
    """References."""


def as_completed(
    refs: Sequence[ObjectRef[Any]], *, chunk_size: int = 10, yield_obj_refs: bool = False
) -> Iterator[Any]:
    """Yield the values of `refs`, or the references, as they become available.

    At most `chunk_size` are asked for at once. Raises a task's exception when its turn comes.
    """
    _check_positive("chunk_size", chunk_size)
    waiting = list(refs)
    while waiting:
        # One that is ready ends the wait; what else is ready by then comes along.
        ready, waiting = wait(waiting, num_returns=1)
        if waiting and chunk_size > 1:
            more = min(chunk_size - 1, len(waiting))
            also, waiting = wait(waiting, num_returns=more, timeout=0)
            ready += also
        yield from ready if yield_obj_refs else get(ready)


def map_unordered(
    fn: RemoteFunction[Any, R],
    items: Iterable[Any],
    *,
    backpressure_size: int | None = 100,
    chunk_size: int = 10,
    yield_obj_refs: bool = False,
) -> Iterator[Any]:
    """Call `fn.remote` on each item and yield the results as they become available.

    At most `backpressure_size` calls (None: any number) are under way at a time. Raises a task's
    exception when its turn comes.
    """
    _check_positive("chunk_size", chunk_size)
    if backpressure_size is not None:
        _check_positive("backpressure_size", backpressure_size)
    rest = iter(items)
    waiting = [fn.remote(item) for item in islice(rest, backpressure_size)]
    while waiting:
        ready, waiting = wait(waiting, num_returns=1)
        if waiting and chunk_size > 1:
            more = min(chunk_size - 1, len(waiting))
            also, waiting = wait(waiting, num_returns=more, timeout=0)
            ready += also
        waiting += [fn.remote(item) for item in islice(rest, len(ready))]
        yield from ready if yield_obj_refs else get(ready)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
