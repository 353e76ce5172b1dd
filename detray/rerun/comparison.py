"""Whether two values are the same, and if not, where they differ first, in a few words.

Two runs may pickle equal values differently: a set of strings under another hash seed, a dict that
was filled in another order. So values are compared as a reader sees them: containers by what is in
them, arrays by shape, type and elements (not-a-number equals itself), objects by their own `==` or
else by their attributes. Only what cannot be looked into counts as different.
"""

from __future__ import annotations

import math
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from detray.object_ref import ObjectRef

_DEPTH_MAX = 200
_SHOWN = 60
_ATOMS = (int, str, bytes, bool, type(None), complex, bytearray, range)
Pair = tuple[int, int]


def difference(then: Any, now: Any, path: str = "the value") -> str:
    """Where two values differ first; "" if they are the same. (Any: the user's values.)"""
    try:
        return _compare(then, now, path, set(), 0)
    except RecursionError:
        return f"{path} is nested too deeply to be compared"


def shown(value: Any) -> str:
    """A value on less than a line. (Any: as above.)"""
    try:
        text = " ".join(repr(value).split())
    except Exception as problem:  # a user's __repr__
        text = f"<{type(value).__name__}, whose repr raises {type(problem).__name__}>"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _compare(then: Any, now: Any, path: str, seen: set[Pair], depth: int) -> str:
    if then is now:
        return ""
    if depth > _DEPTH_MAX:
        raise RecursionError
    kind, other = type(then), type(now)
    if (kind.__module__, kind.__qualname__) != (other.__module__, other.__qualname__):
        return (
            f"{path} was of type {kind.__qualname__} ({shown(then)}), "
            f"now {other.__qualname__} ({shown(now)})"
        )
    if kind is float:
        same = then == now or (math.isnan(then) and math.isnan(now))
        return "" if same else _were(path, then, now)
    if kind in _ATOMS or kind is ObjectRef:
        return "" if then == now else _were(path, then, now)
    pair = id(then), id(now)
    if pair in seen:
        return ""
    seen.add(pair)
    if kind in (list, tuple):
        return _compare_sequences(then, now, path, seen, depth)
    if kind is dict:
        return _compare_dicts(then, now, path, seen, depth)
    if kind in (set, frozenset):
        return _compare_sets(then, now, path)
    if kind.__module__ == "numpy":
        return _compare_numpy(then, now, path, seen, depth)
    return _compare_objects(then, now, path, seen, depth)


def _were(path: str, then: Any, now: Any) -> str:
    return f"{path} was {shown(then)}, now {shown(now)}"


def _compare_sequences(then: Any, now: Any, path: str, seen: set[Pair], depth: int) -> str:
    for index, (one, other) in enumerate(zip(then, now, strict=False)):
        found = _compare(one, other, f"{path}[{index}]", seen, depth + 1)
        if found:
            return found
    if len(then) != len(now):
        return f"{path} had {len(then):,} items, now {len(now):,}"
    return ""


def _compare_dicts(then: Any, now: Any, path: str, seen: set[Pair], depth: int) -> str:
    for key in then:
        if key not in now:
            return f"{path} had the key {shown(key)}, now it has not"
        found = _compare(then[key], now[key], f"{path}[{shown(key)}]", seen, depth + 1)
        if found:
            return found
    for key in now:
        if key not in then:
            return f"{path} has the key {shown(key)}, which it had not"
    return ""


def _compare_sets(then: Any, now: Any, path: str) -> str:
    if then == now:
        return ""
    gone, new = then - now, now - then
    parts = [f"{len(gone):,} elements then ({shown(next(iter(gone)))})"] if gone else []
    parts += [f"{len(new):,} elements now ({shown(next(iter(new)))})"] if new else []
    return f"{path} differs in {' and '.join(parts)}"


def _compare_numpy(then: Any, now: Any, path: str, seen: set[Pair], depth: int) -> str:
    import numpy

    if not isinstance(then, numpy.ndarray):
        same = bool(then == now) or bool(then != then and now != now)
        return "" if same else _were(path, then, now)
    if then.dtype != now.dtype or then.shape != now.shape:
        return (
            f"{path} was an array of {then.dtype}{list(then.shape)}, "
            f"now of {now.dtype}{list(now.shape)}"
        )
    if then.dtype.hasobject:
        flat, other = then.reshape(-1).tolist(), now.reshape(-1).tolist()
        return _compare_sequences(flat, other, path, seen, depth)
    same = (then == now) | ((then != then) & (now != now))
    wrong = numpy.argwhere(~numpy.asarray(same))
    if not len(wrong):
        return ""
    at = tuple(int(n) for n in wrong[0])
    inner = ", ".join(map(str, at))
    return (
        f"{path}[{inner}] was {shown(then[at])}, now {shown(now[at])}"
        f" ({len(wrong):,} of {then.size:,} elements differ)"
    )


def _compare_objects(then: Any, now: Any, path: str, seen: set[Pair], depth: int) -> str:
    if isinstance(then, type | ModuleType | BuiltinFunctionType):
        # Of the same name, or we would not be here: classes by value are made anew by each pickle.
        same = getattr(then, "__qualname__", then) == getattr(now, "__qualname__", now)
        return "" if same else _were(path, then, now)
    if isinstance(then, FunctionType):
        return _compare_functions(then, now, path, seen, depth)
    if isinstance(then, MethodType):
        return _compare(then.__self__, now.__self__, path, seen, depth + 1) or _compare(
            then.__func__, now.__func__, path, seen, depth + 1
        )
    equal = _equal(then, now)
    if equal:
        return ""
    if isinstance(then, BaseException):
        found = _compare(then.args, now.args, f"{path}.args", seen, depth + 1)
        if found:
            return found
    if isinstance(then, Enum):
        return "" if then.name == now.name else _were(path, then, now)
    if equal is False and not hasattr(then, "__dict__"):
        return _were(path, then, now)
    found = _compare_states(then, now, path, seen, depth)
    if found or equal is None:
        return found
    return f"{path} differs ({shown(then)}, now {shown(now)}), its == says"


def _compare_states(then: Any, now: Any, path: str, seen: set[Pair], depth: int) -> str:
    """Compare what a pickler would write of two objects of the same type."""
    one, other = _state(then), _state(now)
    if one is None or other is None:
        return f"{path} differs ({shown(then)}, now {shown(now)})"
    *rest, attributes, items = one
    *other_rest, other_attributes, other_items = other
    if isinstance(attributes, dict) and isinstance(other_attributes, dict):
        found = _compare_dicts(attributes, other_attributes, f"{path}'s attributes", seen, depth)
    else:
        found = _compare(attributes, other_attributes, f"{path}'s state", seen, depth + 1)
    return (
        found
        or _compare_sequences(items, other_items, path, seen, depth)
        or _compare_sequences(rest, other_rest, f"{path}'s making", seen, depth)
    )


def _equal(then: Any, now: Any) -> bool | None:
    """What the value's own `==` says; None if it has none, or it does not say."""
    if type(then) is not type(now):
        return None  # One class, made anew by two pickles: most == refuse that.
    equals = getattr(type(then), "equals", None)
    try:
        if equals is not None and type(then).__module__.split(".")[0] in ("pandas", "polars"):
            return bool(then.equals(now))
        kind: Any = type(then)  # Any: mypy compares the signatures
        if kind.__eq__ is object.__eq__:
            return None
        return bool(then == now)
    except Exception:  # the user's, or arrays inside
        return None


def _state(value: Any) -> list[Any] | None:
    """What `value` is made of, as a pickler sees it: maker, its arguments, attributes, items."""
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # a user's, or what only the richer pickler can do
        return None
    if isinstance(reduced, str):
        return [reduced, None, None, []]
    maker, arguments, attributes, elements, pairs = (*reduced, None, None, None)[:5]
    return [maker, arguments, attributes, [*(elements or ()), *(pairs or ())]]


def _body(code: CodeType) -> tuple[Any, ...]:
    """What a function does, without where it stands."""
    consts = [
        _body(part) if isinstance(part, CodeType) else (type(part), repr(part))
        for part in code.co_consts
    ]
    return code.co_code, code.co_names, code.co_varnames, tuple(consts)


def _compare_functions(then: Any, now: Any, path: str, seen: set[Pair], depth: int) -> str:
    if _body(then.__code__) != _body(now.__code__):
        return f"{path}, the function {then.__qualname__}, has another body"
    for name in ("__defaults__", "__kwdefaults__"):
        found = _compare(getattr(then, name), getattr(now, name), f"{path}.{name}", seen, depth + 1)
        if found:
            return found
    cells = [
        [cell.cell_contents for cell in function.__closure__ or ()] for function in (then, now)
    ]
    return _compare(cells[0], cells[1], f"{path}'s closure", seen, depth + 1)
