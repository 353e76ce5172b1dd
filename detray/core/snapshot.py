"""The tables as bytes and back: msgpack in table order, so that what continues is what was.

Order that matters is kept because dicts are written and read in their order (PROTOCOL T13). States
without fields are shared instances; reading puts the shared ones back.
"""

from __future__ import annotations

import msgspec

from detray.core.states import (
    FETCHING,
    GONE,
    PENDING,
    READY,
    WAITING,
    Fetching,
    Gone,
    Pending,
    Ready,
    Waiting,
)
from detray.core.tables import Object, Tables, Task


def encode_tables(tables: Tables) -> bytes:
    """All rows, in table order."""
    return msgspec.msgpack.encode(tables)


def decode_tables(data: bytes) -> Tables:
    """The tables that `encode_tables` wrote. Raises msgspec.DecodeError on other bytes."""
    tables = msgspec.msgpack.decode(data, type=Tables)
    for task in tables.tasks.values():
        share_task_state(task)
    for item in tables.objects.values():
        share_object_state(item)
    return tables


def share_task_state(task: Task) -> None:
    """Put the shared instance back into a row that was read from bytes."""
    if type(task.state) is Waiting:
        task.state = WAITING
    elif type(task.state) is Ready:
        task.state = READY
    elif type(task.state) is Fetching:
        task.state = FETCHING


def share_object_state(item: Object) -> None:
    """The same for an object."""
    if type(item.state) is Pending:
        item.state = PENDING
    elif type(item.state) is Gone:
        item.state = GONE
