"""Why a value cannot be pickled: which member of which member stands in the way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any, NamedTuple, TextIO

DEPTH_MAX = 10
_MEMBERS_MAX = 1000


class FailureTuple(NamedTuple):
    """A member that cannot be pickled, what it is called, and what it is a member of."""

    obj: object
    name: str
    parent: object

    def __hash__(self) -> int:
        return hash((id(self.obj), self.name, id(self.parent)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FailureTuple) and hash(self) == hash(other)


class Obstacle(NamedTuple):
    """One place in a value where pickling stops: `path` leads there, `reason` is the pickler's."""

    path: tuple[str, ...]
    obj: object
    parent: object
    reason: str


def inspect_serializability(
    base_obj: object, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Try to pickle `base_obj`, print what stands in the way as a tree, and return it.

    The result is (True, empty set) or (False, the innermost members that fail). Looks at most
    `depth` members deep: closures, globals and defaults of functions, attributes, items.
    """
    out = print_file or sys.stdout
    name = name or str(getattr(base_obj, "__qualname__", type(base_obj).__qualname__))
    obstacles = find_obstacles(base_obj, name, depth)
    print(f"Checking whether {name!r} can be pickled: {'no' if obstacles else 'yes'}", file=out)
    shown: set[tuple[str, ...]] = set()
    for obstacle in obstacles:
        for level in range(1, len(obstacle.path) + 1):
            if obstacle.path[:level] not in shown:
                shown.add(obstacle.path[:level])
                reason = f"   <- {obstacle.reason}" if level == len(obstacle.path) else ""
                print("    " * (level - 1) + f"  {obstacle.path[level - 1]}{reason}", file=out)
    return not obstacles, {FailureTuple(o.obj, o.path[-1], o.parent) for o in obstacles}


def offending_member(value: object, name: str | None = None) -> str:
    """The first obstacle as one line, "" if `value` can be pickled after all."""
    name = name or str(getattr(value, "__qualname__", type(value).__qualname__))
    for obstacle in find_obstacles(value, name, DEPTH_MAX):
        kind = type(obstacle.obj).__qualname__
        if len(obstacle.path) == 1:
            return f"{obstacle.path[0]} ({kind}): {obstacle.reason}"
        inside = " of ".join(reversed(obstacle.path[:-1]))
        return f"{obstacle.path[-1]} of {inside} is a {kind}: {obstacle.reason}"
    return ""


def find_obstacles(value: object, name: str, depth: int) -> list[Obstacle]:
    """The innermost members of `value` that cannot be pickled, in the order of its members."""
    found: list[Obstacle] = []
    reason = _refusal(value)
    if reason:
        _descend(value, (name,), None, reason, depth, {}, found)
    return found


def _descend(
    value: object,
    path: tuple[str, ...],
    parent: object,
    reason: str,
    depth: int,
    seen: dict[int, object],
    found: list[Obstacle],
) -> None:
    """Add the innermost failing members of `value`, which fails for `reason`, to `found`."""
    seen[id(value)] = value  # Keeps it alive, so that no other value can get its id.
    before = len(found)
    inner = False
    if depth > 0:
        for name, member in _members(value):
            if id(member) in seen:
                continue
            why = _refusal(member)
            if why:
                inner = True
                _descend(member, (*path, name), value, why, depth - 1, seen, found)
    if not inner and len(found) == before:
        found.append(Obstacle(path, value, parent, reason))


def _refusal(value: object) -> str:
    """Why the pickler refuses `value`, "" if it does not."""
    from detray.serialization.values import serialize

    try:
        serialize(value)
    except (Exception, RecursionError) as problem:
        return f"{type(problem).__name__}: {problem}"
    return ""


def _members(value: Any) -> Iterator[tuple[str, object]]:
    """What pickling `value` would pickle as well, with a name for each; bounded."""
    if isinstance(value, FunctionType):
        yield from _function_members(value)
    elif isinstance(value, MethodType):
        yield "the instance it is bound to", value.__self__
    elif isinstance(value, dict):
        for key, item in list(value.items())[:_MEMBERS_MAX]:
            yield f"key {key!r:.60}", key
            yield f"item [{key!r:.60}]", item
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(list(value)[:_MEMBERS_MAX]):
            yield f"item [{index}]", item
    elif isinstance(value, type):
        for name, item in list(vars(value).items())[:_MEMBERS_MAX]:
            if name not in ("__dict__", "__weakref__", "__doc__", "__module__"):
                yield f"attribute {name!r}", item
    else:
        yield from _instance_members(value)


def _pickles_by_state(value: Any) -> bool:
    kind: Any = type(value)
    return kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__


def _function_members(function: FunctionType) -> Iterator[tuple[str, object]]:
    wrapped = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, wrapped, strict=False):
        try:
            yield f"variable {name!r}", cell.cell_contents
        except ValueError:  # a cell that is still empty
            continue
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield f"global {name!r}", function.__globals__[name]
    for item in function.__defaults__ or ():
        yield "a default value", item
    for name, item in (function.__kwdefaults__ or {}).items():
        yield f"default of {name!r}", item


def _global_names(code: Any) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            yield from _global_names(constant)


def _instance_members(value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, BaseException):
        for index, item in enumerate(value.args):
            yield f"args[{index}]", item
    try:
        state = value.__getstate__() if _pickles_by_state(value) else None
    except Exception:
        state = None
    parts = state if isinstance(state, tuple) else (state, getattr(value, "__dict__", None))
    seen: set[str] = set()
    for part in parts:
        if not isinstance(part, dict):
            continue
        for name, item in list(part.items())[:_MEMBERS_MAX]:
            if name not in seen:
                seen.add(name)
                yield f"attribute {name!r}", item
    for name in ("func", "args", "keywords"):  # functools.partial
        if name not in seen and type(value).__name__ == "partial":
            yield f"its {name}", getattr(value, name)
