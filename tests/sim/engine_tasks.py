"""Remote functions that the tests of simulated sessions call."""

from __future__ import annotations

from typing import Any

import detray


@detray.remote
def add(a: Any, b: Any = 0) -> Any:
    return a + b


@detray.remote
def fail(error: Exception) -> None:
    raise error


@detray.remote
def fibonacci(n: int) -> int:
    if n < 2:
        return n
    return sum(detray.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))


@detray.remote
def pause(seconds: float, value: Any = None) -> Any:
    detray.sleep(seconds)
    return value
