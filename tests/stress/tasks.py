"""The tasks of a stress run: pure functions, so that the serial model is to call them."""

from __future__ import annotations

import os
import signal
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import detray


def mix(*values: object) -> int:
    """A number that any change of an argument changes."""
    return zlib.crc32(repr(values).encode())


def pause_and_mix(seconds: float, *values: object) -> int:
    """The same, later."""
    time.sleep(seconds)
    return mix(*values)


def make_array(seed: int, size: int) -> np.ndarray[Any, Any]:
    """An array that `seed` and `size` determine."""
    return (np.arange(size, dtype=np.uint64) * (2 * seed + 1)).view(np.uint8)


def checksum(*arrays: np.ndarray[Any, Any]) -> int:
    """What all bytes of some arrays amount to."""
    total = 0
    for array in arrays:
        total = zlib.crc32(array, total)
    return total


def split(count: int, seed: int) -> list[int]:
    """Several results from one task."""
    return [mix(seed, index) for index in range(count)]


def tree_size(depth: int, width: int) -> int:
    """How many tasks `tree` runs in all."""
    return 1 + (width * tree_size(depth - 1, width) if depth else 0)


@detray.remote(max_retries=-1)
def tree(depth: int, width: int) -> int:
    """Tasks that submit tasks and get their results, `depth` levels of them."""
    if depth == 0:
        return 1
    return 1 + sum(detray.get([tree.remote(depth - 1, width) for _ in range(width)]))


@detray.remote(max_retries=-1)
def relay(boxed: list[Any], depth: int) -> Any:
    """Pass a reference down inside a list, through tasks that do not read it."""
    if depth == 0:
        return detray.get(boxed[0])
    return detray.get(relay.remote(boxed, depth - 1))


@detray.remote(max_retries=-1)
def put_inside(seed: int, size: int) -> list[Any]:
    """Return a reference to something that the task itself put."""
    return [detray.put(make_array(seed, size))]


def fail_until(marker: str, times: int, value: int) -> int:
    """Raise in the first `times` attempts, counted by files."""
    _count_attempt(marker, times, lambda: _raise(ValueError("not yet")))
    return value


def die_until(marker: str, times: int, value: int) -> int:
    """Have the process killed in the first `times` attempts."""
    _count_attempt(marker, times, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return value


def _count_attempt(marker: str, times: int, act: Any) -> None:
    for attempt in range(times):
        try:
            Path(f"{marker}.{attempt}").touch(exist_ok=False)
        except FileExistsError:
            continue
        act()
        return


def _raise(error: Exception) -> None:
    raise error


def fail(text: str) -> None:
    """Raise."""
    raise LookupError(text)
