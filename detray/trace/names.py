"""Short names for ids and cores, and finding what a user means by one.

A task is shown as `job.parent.index` (`1.9f3a12.3`: child 3 of one stream of one parent), the
program itself as `1.root`; a return adds its index (`1.9f3a12.3/0`), a put says `1.9f3a12.3/put`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from detray.core.resources import UNIT
from detray.ids import OBJECT_ID_BYTES, TASK_ID_BYTES, NodeID, ObjectID, is_put
from detray.trace.format import Header, LocalCore
from detray.trace.plain_text import one_line
from detray.trace.quantities import size_text

HASH_HEX = 6
"""Hexadecimal digits of a parent's hash that are shown."""


def short(item: bytes) -> str:
    """The short name of a task, function or object id; other bytes by their hex or length."""
    if len(item) == TASK_ID_BYTES:
        return _task(item)
    if len(item) == OBJECT_ID_BYTES:
        if is_a_put(item):
            return f"{_task(item)}/put"
        return f"{_task(item)}/{int.from_bytes(item[16:20], 'big')}"
    return item.hex() if len(item) <= 2 * OBJECT_ID_BYTES else f"<{len(item)} bytes>"


def is_a_put(item: bytes) -> bool:
    """True for the id of a put; False for other ids, and for bytes that are no id at all."""
    return len(item) == OBJECT_ID_BYTES and is_put(ObjectID(item))


def _task(item: bytes) -> str:
    job = int.from_bytes(item[:4], "big")
    if not any(item[4:16]):
        return f"{job}.root"
    return f"{job}.{item[4:12].hex()[:HASH_HEX]}.{int.from_bytes(item[12:16], 'big')}"


def attempt_text(number: int) -> str:
    """ ", attempt 2"; nothing for the first, which is number 0."""
    return f", attempt {number}" if number else ""


def items_text(items: Sequence[bytes]) -> str:
    """The first few ids of many."""
    shown = ", ".join(map(short, items[:4]))
    return f"{shown} and {len(items) - 4} more" if len(items) > 4 else shown


def amounts_text(amounts: Sequence[tuple[str, int]]) -> str:
    """Resources in words: "CPU 1, GPU 0.5, memory 2 GB"."""
    return ", ".join(f"{name} {_amount(name, amount)}" for name, amount in amounts) or "nothing"


def _amount(name: str, amount: int) -> str:
    return size_text(amount // UNIT) if name == "memory" else f"{amount / UNIT:g}"


def why_stopped(reason: str) -> str:
    """Why a node is told to stop, behind a colon; nothing if the reason says only that it was."""
    return "" if reason == "it was told to stop" else f": {reason}"


def describe(value: Any) -> str:  # Any: whatever a message's field may be
    """A message, or a part of one, on one line with short names for its ids."""
    if isinstance(value, msgspec.Struct):
        fields = value.__struct_fields__
        inside = ", ".join(f"{name}={describe(getattr(value, name))}" for name in fields)
        return f"{type(value).__name__}({inside})"
    if isinstance(value, bytes):
        return short(value) if value else "none"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(describe, value))})"
    return repr(value)


def first_line(text: str) -> str:
    """An error in a sentence: what follows its first line is the stack of a crash."""
    return text.partition("\n")[0]


def ids_in(value: Any) -> set[bytes]:  # Any: as above
    """All task, function and object ids in a message or a part of one."""
    if isinstance(value, bytes):
        return {value} if len(value) in (TASK_ID_BYTES, OBJECT_ID_BYTES) else set()
    if isinstance(value, msgspec.Struct):
        value = [getattr(value, name) for name in value.__struct_fields__]
    if isinstance(value, tuple | list):
        return {item for part in value for item in ids_in(part)}
    return set()


def matches(item: bytes, wanted: str) -> bool:
    """True if a user who types `wanted` may mean this id: its short name, or a start of its hex."""
    text = wanted.strip().lower()
    return short(item) == text or (len(text) >= 8 and item.hex().startswith(text))


def core_names(header: Header, nodes: Sequence[NodeID]) -> list[str]:
    """What the cores of a trace are called; `nodes` are their nodes by core number (-1: unknown).

    In a private session they go by what they are, in a cluster by the node; a head is told from
    its earlier lives by its epoch.
    """
    heads = header.head_cores()
    if len(header.processes) == 1 and len(header.cores) == 2 and len(heads) == 1:
        return ["local scheduler", "global scheduler"]
    names = []
    for core, node in zip(header.cores, nodes, strict=True):
        if isinstance(core, LocalCore):
            names.append(
                f"node {node}" if node >= 0 else f"node without a number ({one_line(core.name)})"
            )
        else:
            names.append(f"head of epoch {core.epoch}" if len(heads) > 1 else "head")
    return names


def program_name(entrypoint: str) -> str:
    """The name of a program's file, of what its process was started with (words and spaces)."""
    found = re.match(r".*?\.py(?= |$)|\S+", entrypoint)
    return (os.path.basename(found.group()) if found else "") or "program"
