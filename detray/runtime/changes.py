"""What changed in a node's tables since the head last heard: rows for the plain keys of a view.

Rules (PROTOCOL N19)
--------------------
- Nobody asks, nothing is looked at. A head that keeps a view asks each node about once a second;
  what was born and freed between two questions is never told.
- A question is cheap for the service, however large its tables are: at most `LOOK_MAX` rows of a
  table are looked at for one, and `SEND_MAX` told, the next ones with the next. A batch says how
  old its oldest look is.
- A batch names the one before (`seen`). If the head has not got that one, everything is told anew.
- Pure in the tables, the question and the time; it changes nothing that a core sees.

A row has two parts. What its owner knows are *facts*; *place* is what a node says about itself: it
runs this task, it has bytes of this object. Many nodes may have a place, one has the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import msgspec

from detray.core.states import Assigned, Delivered, Failed, Inline, Stored
from detray.core.tables import HERE, Function, Object, Tables, Task
from detray.errors import Failure
from detray.ids import ObjectID, TaskID, job_of, producer_of

LOOK_MAX = 2_000
"""Rows of one table that are looked at for one batch, 1 us each: a few ms of the service's time."""
SEND_MAX = 250
"""Rows of one table in one batch, 10 us each."""
SHOWN_MAX = 100_000
"""Rows of one table that the view has of one node: the oldest."""
IDS_MAX = 32
TEXT_MAX = 200
KINDS = ("tasks", "objects", "functions")

SOMETIMES = ("node", "primary", "error")
"""Facts that a row has at one time and not at another."""

Facts = dict[str, str | int]


class ViewRow(msgspec.Struct, frozen=True, array_like=True):
    """One row of a table. Without facts this node is not its owner; without `place` it has none."""

    id: bytes
    facts: Facts | None = None
    place: str = ""


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """An object of ours that failed: there will be no value."""

    object: bytes
    failure: str
    text: str


class RowBatch(msgspec.Struct, frozen=True, array_like=True):
    """Changes since batch `number` - 1; if `is_full` since the beginning, whatever was told before.

    `age_ns`: the oldest row that this node still has was looked at so long ago.
    """

    number: int
    is_full: bool
    age_ns: int
    rows: dict[str, list[ViewRow]] = {}
    removed: dict[str, list[bytes]] = {}
    faults: list[Fault] = []


class _Kind:
    """What was told of one table, and how far the look through it has come."""

    __slots__ = ("began_ns", "done_ns", "left", "name", "shown")

    def __init__(self, name: str) -> None:
        self.name = name
        self.shown: dict[bytes, int] = {}
        self.left: list[bytes] = []
        """Not looked at yet in this round, the next one last."""
        self.began_ns = self.done_ns = 0
        """When the round under way began, and the last one that was ended."""


class Changes:
    """A node's side of the view."""

    def __init__(self) -> None:
        self._number = 0
        self._kinds = [_Kind(name) for name in KINDS]

    def since(self, seen: int, tables: Tables, now_ns: int) -> RowBatch:
        """What is new since batch number `seen`; 0: everything."""
        is_full = not seen or seen != self._number
        if is_full:
            self._kinds = [_Kind(name) for name in KINDS]
        self._number += 1
        rows: dict[str, list[ViewRow]] = {}
        removed: dict[str, list[bytes]] = {}
        faults: list[Fault] = []
        for kind in self._kinds:
            # Any: rows of three types, each with its own describer
            table: dict[Any, Any] = getattr(tables, kind.name)
            if not kind.left and (gone := _begin_round(kind, table, now_ns)):
                removed[kind.name] = gone
            if found := _look(kind, tables, table, faults):
                rows[kind.name] = found
            if not kind.left:
                kind.done_ns = kind.began_ns
        age_ns = now_ns - min(kind.done_ns or now_ns for kind in self._kinds)
        return RowBatch(self._number, is_full, age_ns, rows, removed, faults)


# Any: see `since`
def _begin_round(kind: _Kind, table: dict[Any, Any], now_ns: int) -> list[bytes]:
    """List what is to be looked at; the ids of rows that are gone."""
    gone = [item for item in kind.shown if item not in table]
    for item in gone:
        del kind.shown[item]
    kind.left = list(islice(table, SHOWN_MAX))
    kind.left.reverse()
    kind.began_ns = now_ns
    return gone


def _look(
    kind: _Kind, tables: Tables, table: dict[Any, Any], faults: list[Fault]
) -> list[ViewRow]:  # Any: see `since`
    mark_of, describe = _VIEWS[kind.name]
    found: list[ViewRow] = []
    for _ in range(LOOK_MAX):
        if not kind.left or len(found) >= SEND_MAX:
            break
        item = kind.left.pop()
        record = table.get(item)
        if record is None:
            continue
        mark = hash(mark_of(tables, record))
        if kind.shown.get(item) == mark:
            continue
        facts, place = describe(tables, record)
        if kind.name == "objects" and facts is not None and item not in kind.shown:
            faults += _fault(record)
        kind.shown[item] = mark
        found.append(ViewRow(item, facts, place))
    return found


# ------------------------------------------------------------------ rows


def _task(t: Tables, task: Task) -> tuple[Facts | None, str]:
    stage = _stage(t, task)
    worker = task.state.worker if isinstance(task.state, Assigned) else 0
    if task.owner != HERE:
        return None, f"{stage}, attempt {task.attempt}" + (f", worker {worker}" if worker else "")
    template = t.templates[task.template]
    spec = task.spec
    facts: Facts = {
        "name": _short(template.name),
        "state": stage,
        "attempt": task.attempt,
        "retries_left": task.retries,
        "owner": t.node,
        "job": job_of(spec.task),
        "function": template.function.hex(),
        "demand": _short(
            ", ".join(f"{name} {units / 10_000:g}" for name, units in template.demand)
        ),
        "parent": spec.parent.hex(),
        "depth": spec.depth,
        "arguments": _ids(spec.args),
        "nested": _ids(spec.refs),
        "argument_bytes": spec.size_bytes,
        "returns": template.num_returns,
        "missing": task.missing,
    }
    if isinstance(task.state, Delivered):
        facts["node"] = task.state.node
        return facts, ""
    return facts, f"worker {worker}" if worker else ""


def _stage(t: Tables, task: Task) -> str:
    state = task.state
    if not isinstance(state, Assigned):
        return type(state).__name__.lower()
    worker = next((w for w in (t.workers.get(state.worker),) if w), None)  # type: ignore[call-overload]  # a ClientID
    if worker is None or not worker.runs or worker.runs[0].task != task.spec.task:
        return "sent"
    return "blocked" if worker.blocked else "running"


def _object(t: Tables, item: Object) -> tuple[Facts | None, str]:
    state, shared = item.state, item.shared
    size = state.size_bytes if isinstance(state, Inline | Stored | Failed) else 0
    place = ""
    if isinstance(state, Inline):
        place = f"inline, {size} bytes"
    elif isinstance(state, Stored):
        place = f"{'disk' if state.segment else 'memory'}, {size} bytes"
    if shared is not None and shared.home != HERE:
        return None, place
    producer = producer_of(item.id)
    facts: Facts = {
        "state": type(state).__name__.lower(),
        "size_bytes": getattr(state, "size_bytes", 0),
        "owner": t.node,
        "job": job_of(item.id),
        "task": producer.hex() if producer is not None else "put",
        "attempt": shared.attempt if shared is not None else 0,
        "held_by_clients": item.granted + sum((item.others or {}).values()),
        "held_by_tasks": item.uses,
        "held_by_values": item.containers,
        "held_by_nodes": ",".join(map(str, sorted(shared.lent))) if shared is not None else "",
        "refers_to": _ids(item.refs),
    }
    if isinstance(state, Failed):
        facts["error"] = f"{_failure(state)}: {_short(state.text)}"
    if shared is not None and shared.keeper != HERE:
        facts["primary"] = shared.keeper
    elif place:
        facts["primary"] = t.node
    return facts, place


def _function(t: Tables, function: Function) -> tuple[Facts | None, str]:
    place = f"{_short(function.name)}, {function.size_bytes} bytes"
    job = job_of(function.id)
    if job in t.jobs_elsewhere:
        return None, place
    facts: Facts = {
        "name": _short(function.name),
        "size_bytes": function.size_bytes,
        "job": job,
        "owner": t.node,
        "refers_to": _ids(function.refs),
    }
    return facts, place


# ------------------------------------------------------- what shows a change


def _mark_of_task(t: Tables, task: Task) -> tuple[object, ...]:
    """All of a row that may change and is told."""
    return (task.state, _stage(t, task), task.attempt, task.retries, task.missing)


def _mark_of_object(t: Tables, item: Object) -> tuple[object, ...]:
    shared = item.shared
    others = sum(item.others.values()) if item.others else 0
    held = (item.granted + others, item.uses, item.containers, item.refs)
    if shared is None:
        return (type(item.state), item.state, held)
    lent = tuple(sorted(shared.lent))
    return (type(item.state), item.state, held, shared.home, shared.keeper, shared.attempt, lent)


def _mark_of_function(t: Tables, function: Function) -> tuple[object, ...]:
    return (function.refs, job_of(function.id) in t.jobs_elsewhere)


# Any: the record that belongs to the key
_Mark = Callable[[Tables, Any], tuple[object, ...]]
_Describe = Callable[[Tables, Any], tuple[Facts | None, str]]
_VIEWS: dict[str, tuple[_Mark, _Describe]] = {
    "tasks": (_mark_of_task, _task),
    "objects": (_mark_of_object, _object),
    "functions": (_mark_of_function, _function),
}


def _fault(item: Object) -> Iterable[Fault]:
    if isinstance(item.state, Failed):
        yield Fault(item.id, _failure(item.state), _short(item.state.text))


def _failure(state: Failed) -> str:
    try:
        return Failure(state.failure).name.lower()
    except ValueError:
        return str(state.failure)


def _ids(items: tuple[ObjectID, ...] | tuple[TaskID, ...]) -> str:
    text = ",".join(item.hex() for item in items[:IDS_MAX])
    return text + f",and {len(items) - IDS_MAX} more" if len(items) > IDS_MAX else text


def _short(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"
