"""The functions that the measured tasks run: as little as possible, so that the engine shows."""

from __future__ import annotations


def nothing() -> None:
    """The empty task."""


def echo(value: object) -> object:
    """Return the argument: a link of a chain, a small result."""
    return value


def count(*values: object) -> int:
    """Take many results, as the last task of a fan-in does."""
    return len(values)


def count_list(values: list[object]) -> int:
    """The same for engines that resolve references inside a list."""
    return len(values)


def busy() -> int:
    """Compute for about a millisecond."""
    return sum(range(60_000))


def array_of(size_bytes: int) -> object:
    """Make an array of bytes."""
    import numpy as np

    return np.ones(size_bytes, dtype=np.uint8)


def size_of(value: object) -> int:
    """Take an array and look at the end of it."""
    return len(value) * int(value[-1])  # type: ignore[arg-type,index]  # an array
