"""Directives that feed nothing: `config`, and looking at the tables between two steps."""

from __future__ import annotations

from collections.abc import Callable

from detray.core.states import Failed, Inline, Pending, Stored
from detray.core.tables import Object
from detray.core.tasks import format_demand
from detray.errors import Failure
from detray.ids import ClientID
from detray.trace.names import short
from tests.golden.script import Words
from tests.golden.speech import spot
from tests.golden.stage import Stage


def _config(s: Stage, w: Words) -> list[str]:
    s.configure(w)
    return [f"node with {format_demand(s.world.config.totals)}"]


def _ids(s: Stage, w: Words) -> list[str]:
    """The short names that traces and messages use."""
    known = s.cast.tasks | s.cast.objects | s.cast.tasks
    return [f"{name}: {short(known[name])}" for name in w.names]


def _show(s: Stage, w: Words) -> list[str]:
    """`show objects workers free store counts`"""
    return [line for topic in w.names for line in _TOPICS[topic](s)] or ["nothing"]


def _objects(s: Stage) -> list[str]:
    return [f"{s.cast.name(row.id)}: {_object(s, row)}" for row in s.tables.objects.values()]


def _object(s: Stage, row: Object) -> str:
    match row.state:
        case Pending():
            text = "pending"
        case Inline(size):
            text = f"inline {size}"
        case Stored(segment, offset, size):
            text = f"at {spot(segment, offset)} {size}"
        case Failed(failure, _, size):
            text = f"failed {Failure(failure).name}"
    holders: dict[ClientID, int] = {row.holder: row.granted} if row.granted else {}
    holders |= row.others or {}
    text += "".join(f", granted {s.cast.client_name(c)} {n}" for c, n in holders.items())
    for word, count in (("tasks", row.uses), ("containers", row.containers), ("pins", row.pins)):
        text += f", {word} {count}" if count else ""
    return text + (", moving" if row.moving else "")


def _workers(s: Stage) -> list[str]:
    lines = []
    for row in s.tables.workers.values():
        runs = ", ".join(s.cast.name(run.task) for run in row.runs)
        marks = [m for m in ("ready", "leaving", "blocked", "retracting") if getattr(row, m)]
        lines.append(f"w{row.id} {' '.join(marks) or 'starting'}: {runs or 'nothing'}")
    return lines


def _free(s: Stage) -> list[str]:
    pool = s.tables.pool
    free = tuple(zip(pool.names[1:], pool.available[1:], strict=True))
    return [f"free {format_demand(free)}"]


def _store(s: Stage) -> list[str]:
    arena = s.tables.arena
    lines = [f"arena: {arena.used} of {arena.size_bytes} used"]
    for row in s.tables.segments.values():
        lines.append(f"segment {row.number}: {row.live} of {row.size_bytes} used")
    return [*lines, f"inline: {s.tables.inline_bytes}"]


def _counts(s: Stage) -> list[str]:
    counts = {"finished": s.tables.finished, **s.tables.counts}
    return [", ".join(f"{name} {count}" for name, count in counts.items())]


def _ready(s: Stage) -> list[str]:
    lines = []
    for shape in s.tables.shapes:
        names = [
            s.cast.name(item)
            for depth in sorted(shape.ready, reverse=True)
            for item in shape.ready[depth][shape.heads[depth] :]
            if item in s.tables.tasks
        ]
        if shape.count:
            lines.append(f"ready for {format_demand(shape.demand)}: {', '.join(names)}")
    return lines


def _deadline(s: Stage) -> list[str]:
    due = s.world.local.next_deadline_ns
    return ["no deadline" if due is None else f"deadline in {due - s.world.now_ns} ns"]


_TOPICS: dict[str, Callable[[Stage], list[str]]] = {
    "objects": _objects, "workers": _workers, "free": _free, "store": _store, "counts": _counts,
    "ready": _ready, "deadline": _deadline,
}  # fmt: skip
SHOWS: dict[str, Callable[[Stage, Words], list[str]]] = {
    "config": _config,
    "show": _show,
    "ids": _ids,
}
