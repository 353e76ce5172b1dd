"""Where a job's modules are found: travels with its functions.

A node of a cluster was started by somebody else, somewhere else; what the driver's script imports
from its own directory is not on that node's module search path. So a function that a driver of a
cluster exports brings the driver's search path along, and a worker takes it on before the function
itself is read. Paths that do not exist there do no harm. (Ray does so by its job configuration.)

A private session has no need of it: its workers are started with the driver's search path.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

_paths: tuple[str, ...] = ()
"""What goes along with every function that this process exports; () for nothing."""


def travel_with(paths: Iterable[str]) -> None:
    """From now on functions bring these directories; none, and they bring nothing."""
    global _paths
    _paths = tuple(paths)


def wrapped(function: Any) -> Any:
    """What to pickle so that `function` comes out, its search path first. (Any: the user's.)"""
    return _Wrapped(function) if _paths else function


def take_on(paths: tuple[str, ...]) -> None:
    """Look there for modules, too, before anywhere else."""
    missing = [path for path in paths if path not in sys.path]
    sys.path[:0] = missing
    if missing:
        import importlib

        importlib.invalidate_caches()
    travel_with(paths)


class _Wrapped:
    """Pickles as a call whose first argument, when it is read, extends the search path."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return _second, (_Paths(_paths), self._function)


class _Paths:
    """Pickles as a call of `take_on`."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._paths = paths

    def __reduce__(self) -> tuple[Any, ...]:
        return take_on, (self._paths,)


def _second(_first: None, function: Any) -> Any:
    return function
