"""Rows of status: which ones a person wants to see, and the rows of several nodes as one list.

    filters = read_filters(["state=running", "name~index", "size>10MB"])
    select(rows, filters)

Rules
-----
- A filter is COLUMN OPERATOR VALUE. Operators: = and != compare, < <= > >= compare numbers, ~ looks
  for a part of a text, or for an element of a list.
- A column may be shortened while that is clear ("size" for "size_bytes"); a part of one that has
  parts is named with a dot ("demand.GPU").
- The value of an id may be its beginning. Bytes take KB, MB, GB, TB, KiB, MiB, GiB, TiB; times take
  ns, us, ms, s, m, h; resources are counted in units, not in ten-thousandths.
- All filters must hold. "none", or nothing, is what nobody knows; it is neither less nor more than
  anything.
- What is no filter raises ValueError when it is read; a column that there is not, or a comparison
  that makes no sense, when rows are looked at. The message says what is possible.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from detray.core.resources import UNIT

Row = Mapping[str, Any]  # Any: plain data

OPERATORS = ("!=", "<=", ">=", "=", "<", ">", "~")
_SIZES = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip
_TIMES = {
    "": 1, "ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_AMOUNTS = {"": UNIT}
_PLAIN = {"": 1}
_WITH_AMOUNTS = ("demand", "total", "available")
_SHAPE = re.compile(r"([A-Za-z_][\w.:\-]*)\s*(!=|<=|>=|=|<|>|~)\s*(.*)", re.DOTALL)
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_UNKNOWN = ("none", "")
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


class Filter(NamedTuple):
    """What must hold of a row."""

    column: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.column}{self.operator}{self.value}"


def read_filters(texts: Iterable[str]) -> tuple[Filter, ...]:
    """Filters as people write them. Raises ValueError for what is none."""
    return tuple([_read(text) for text in texts])


def _read(text: str) -> Filter:
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is no filter: write COLUMN OPERATOR VALUE, such as state=running or "
            f"size>10MB; operators are {' '.join(OPERATORS)}"
        )
    return Filter(match[1], match[2], match[3].strip())


def select(rows: Iterable[Row], filters: Sequence[Filter]) -> list[Row]:
    """The rows of which all filters hold, in order.

    Raises ValueError if a filter names no column, or compares one with what it cannot be.
    """
    kept = list(rows)
    for each in filters:
        if kept:
            column = _resolve(each.column, kept)
            kept = [row for row in kept if _holds(each, column, _value(row, column))]
    return kept


# ------------------------------------------------------------------ columns


def _resolve(name: str, rows: Sequence[Row]) -> str:
    """The full name of a column, as a dotted path. Raises ValueError."""
    head, dot, rest = name.partition(".")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    found = [head] if head in columns else [c for c in columns if c.startswith(head)]
    if len(found) != 1:
        problem = f"may be {' or '.join(found)}" if found else "is no column"
        raise ValueError(f"{head!r} {problem}; columns are {', '.join(columns)}")
    return f"{found[0]}{dot}{rest}"


def _value(row: Row, column: str) -> Any:  # Any: plain data
    head, dot, rest = column.partition(".")
    value = row.get(head)
    if dot:
        return value.get(rest) if isinstance(value, Mapping) else None
    return value


def _is_id(column: str) -> bool:
    return column in ("id", "parent") or column.endswith("_id")


# ------------------------------------------------------------------ comparing


def _holds(each: Filter, column: str, value: Any) -> bool:  # Any: plain data
    match each.operator:
        case "=":
            return _is_equal(each, column, value)
        case "!=":
            return not _is_equal(each, column, value)
        case "~":
            return _has_part(each, value)
        case _:
            return _is_ordered(each, column, value)


def _is_equal(each: Filter, column: str, value: Any) -> bool:  # Any: as above
    wanted = each.value
    if value is None:
        return wanted.lower() in _UNKNOWN
    if isinstance(value, bool):
        if wanted.lower() not in _TRUTHS:
            raise ValueError(f"{column} is true or false, not {wanted!r} (filter {each})")
        return value is _TRUTHS[wanted.lower()]
    if isinstance(value, int | float):
        return wanted.lower() not in _UNKNOWN and bool(value == _number(each, column))
    if isinstance(value, str):
        if _is_id(column) and wanted:
            return value.startswith(wanted.lower())
        return value == wanted
    raise ValueError(f"{column} is a list or a table: use ~ or a part of it (filter {each})")


def _has_part(each: Filter, value: Any) -> bool:  # Any: as above
    if value is None:
        return False
    if isinstance(value, str):
        return each.value in value
    if isinstance(value, Mapping):
        return each.value in value
    if isinstance(value, Sequence):
        return any(str(part) == each.value for part in value)
    return each.value in str(value)


def _is_ordered(each: Filter, column: str, value: Any) -> bool:  # Any: as above
    wanted = _number(each, column)
    if value is None:
        return False
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{column} is no number: {each.operator} compares numbers (filter {each})")
    match each.operator:
        case "<":
            return bool(value < wanted)
        case "<=":
            return bool(value <= wanted)
        case ">":
            return bool(value > wanted)
        case _:
            return bool(value >= wanted)


def _number(each: Filter, column: str) -> Fraction:
    """The value of a filter in the unit of its column. Raises ValueError."""
    units = _units(column)
    match = _NUMBER.fullmatch(each.value)
    factor = units.get(match[2].lower()) if match is not None else None
    if match is None or factor is None:
        named = [unit for unit in units if unit]
        allowed = f", which may end in {', '.join(named)}" if named else ""
        raise ValueError(f"{column} is a number{allowed}; {each.value!r} is none (filter {each})")
    return Fraction(match[1]) * factor


def _units(column: str) -> Mapping[str, int]:
    if column.endswith("_bytes"):
        return _SIZES
    if column.endswith("_ns"):
        return _TIMES
    return _AMOUNTS if column.partition(".")[0] in _WITH_AMOUNTS else _PLAIN


# ------------------------------------------------------------------ several nodes


def join(kind: str, rows: Iterable[Row]) -> list[Row]:
    """Rows of several nodes, each with a column `node` that says whose it is, as one list.

    A task that was sent elsewhere is told of by the node that has it now; the owner's row only
    while that one says nothing. An object is told of by its owner, or by the first who knows it,
    with a column `known_at`: all nodes that have a row of it. Other rows stay as they are.
    """
    if kind == "tasks":
        return _join_tasks(rows)
    return _join_objects(rows) if kind == "objects" else list(rows)


def _join_tasks(rows: Iterable[Row]) -> list[Row]:
    found: dict[str, Row] = {}
    for row in rows:
        before = found.get(row["id"])
        if before is None or (before["state"] == "delivered" and row["state"] != "delivered"):
            found[row["id"]] = row
    return list(found.values())


def _join_objects(rows: Iterable[Row]) -> list[Row]:
    found: dict[str, Row] = {}
    known: dict[str, list[int]] = {}
    for row in rows:
        known.setdefault(row["id"], []).append(row["node"])
        before = found.get(row["id"])
        if before is None or row["owner"] == row["node"]:
            found[row["id"]] = row
    return [{**row, "known_at": known[name]} for name, row in found.items()]
