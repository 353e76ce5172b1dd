"""Rows of a core's tables as people read them: those of one id, or a whole table in short.

Fields that are as in a new row are left out; long lists are cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple, get_args, get_origin

import msgspec

from detray.core.states import Assigned, Delivered
from detray.core.tables import Tables
from detray.ids import (
    OBJECT_ID_BYTES,
    TASK_ID_BYTES,
    ClientID,
    FunctionID,
    NodeID,
    ObjectID,
    TaskID,
    is_put,
    return_object,
)
from detray.trace.names import short
from detray.trace.telling.story import StorySubject

ITEMS_MAX = 6
"""Of a list or dict inside a row."""
TEXT_MAX = 120
RETURNS_MAX = 8


class ShownRow(NamedTuple):
    """A row of a table: `row` is None in a table that only lists keys."""

    table: str
    key: Any  # Any: an id or a number
    row: Any  # Any: of whatever class

    @property
    def name(self) -> str:
        """`tasks[1.9f3a12.3]`."""
        return f"{self.table}[{brief(self.key)}]" if self.key != "" else self.table

    @property
    def text(self) -> str:
        """The row alone."""
        return "there" if self.row is None else brief(self.row)

    def __str__(self) -> str:
        return self.name if self.row is None else f"{self.name} = {self.text}"

    def lines(self) -> list[str]:
        """The row with one field a line."""
        if not isinstance(self.row, msgspec.Struct):
            return [str(self)]
        fields = list(_told(self.row))
        width = max([len(name) for name, _ in fields], default=0)
        return [f"{self.name}  {type(self.row).__name__}"] + [
            f"    {name:{width}}  {brief(value)}" for name, value in fields
        ]


def rows_about(tables: msgspec.Struct, subject: StorySubject) -> list[ShownRow]:
    """The rows of a task, object, function, client or node in the tables of one core.

    With a task come its returns and the worker or node that has it; with an object its producer.
    """
    keys: list[tuple[Any, Any]] = []  # Any: (class of id, id)
    if subject.item:
        keys = _keys_of(tables, subject.item)
    elif subject.client:
        keys = [(ClientID, subject.client)]
    elif subject.node >= 0:
        keys = [(NodeID, subject.node)]
    return [row for kind, key in keys for row in _find(tables, kind, key)]


def _keys_of(tables: msgspec.Struct, item: bytes) -> list[tuple[Any, Any]]:  # Any: as above
    if len(item) == OBJECT_ID_BYTES:
        keys: list[tuple[Any, Any]] = [(ObjectID, item)]
        if not is_put(ObjectID(item)):
            keys.append((TaskID, item[:TASK_ID_BYTES]))
        return keys
    task = TaskID(item)
    keys = [(TaskID, item), (FunctionID, item)]
    keys += [(ObjectID, return_object(task, index)) for index in range(RETURNS_MAX)]
    row = tables.tasks.get(task) if isinstance(tables, Tables) else None
    if row is not None and isinstance(row.state, Assigned):
        keys.append((ClientID, row.state.worker))
    if row is not None and isinstance(row.state, Delivered):
        keys.append((NodeID, row.state.node))
    return keys


def _find(tables: msgspec.Struct, kind: Any, key: Any) -> Iterator[ShownRow]:  # Any: as above
    for name, key_kind in _keyed(type(tables)):
        table = getattr(tables, name)
        if key_kind is kind and key in table:
            yield ShownRow(name, key, table[key])


@lru_cache
def _keyed(kind: Any) -> tuple[tuple[str, Any], ...]:  # Any: a class of tables; classes of ids
    """The tables that are dicts, and by what."""
    return tuple(
        (field.encode_name, get_args(field.type)[0])
        for field in msgspec.structs.fields(kind)
        if get_origin(field.type) is dict
    )


def summary(tables: msgspec.Struct) -> list[tuple[str, str]]:
    """The fields of the tables that are not as in new ones: how many rows, or the value."""
    found = []
    for name, value in _told(tables):
        if name == "config":
            continue
        if isinstance(value, Mapping | list):
            found.append((name, f"{len(value):,} {'row' if len(value) == 1 else 'rows'}"))
        else:
            found.append((name, brief(value)))
    return found


def rows_in(tables: msgspec.Struct, table: str, limit: int) -> tuple[list[ShownRow], int]:
    """The first rows of a table, and how many there are. Raises KeyError."""
    if table not in tables.__struct_fields__:
        raise KeyError(table)
    value = getattr(tables, table)
    if isinstance(value, Mapping):
        rows = [ShownRow(table, key, value[key]) for key in islice(value, limit)]
        return rows, len(value)
    if isinstance(value, list):
        rows = [ShownRow(table, place, row) for place, row in enumerate(value[:limit])]
        return rows, len(value)
    return [ShownRow(table, "", value)], 1


def brief(value: Any) -> str:  # Any: whatever a row may hold
    """A value on one line: short names for ids, no fields that are as in a new row, lists cut."""
    if isinstance(value, msgspec.Struct):
        inside = ", ".join(f"{name}={brief(part)}" for name, part in _told(value))
        return f"{type(value).__name__}({inside})"
    if isinstance(value, bytes):
        return short(value) if value else "none"
    if isinstance(value, str):
        return repr(value if len(value) <= TEXT_MAX else value[:TEXT_MAX] + "...")
    if isinstance(value, Mapping):
        parts = [
            brief(key) if value[key] is None else f"{brief(key)}: {brief(value[key])}"
            for key in islice(value, ITEMS_MAX)
        ]
        return "{" + ", ".join([*parts, *_more(len(value))]) + "}"
    if isinstance(value, tuple | list):
        parts = [brief(part) for part in value[:ITEMS_MAX]]
        return "(" + ", ".join([*parts, *_more(len(value))]) + ")"
    return repr(value)


def _more(count: int) -> list[str]:
    return [f"... {count - ITEMS_MAX:,} more"] if count > ITEMS_MAX else []


def _told(row: msgspec.Struct) -> Iterator[tuple[str, Any]]:  # Any: values of fields
    """The fields that are not as in a new row."""
    for name, default in _defaults(type(row)):
        value = getattr(row, name)
        if isinstance(value, Mapping) and not value and default == {}:
            continue
        if default is msgspec.NODEFAULT or isinstance(value, Mapping) or value != default:
            yield name, value


@lru_cache(maxsize=256)
def _defaults(kind: Any) -> tuple[tuple[str, Any], ...]:  # Any: a class of Structs; values
    found = []
    for field in msgspec.structs.fields(kind):
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        found.append((field.encode_name, default))
    return tuple(found)
