"""Directives that feed nothing: `config`, and looking at the tables between two steps."""

from __future__ import annotations

from collections.abc import Callable

from detray.core.states import Elsewhere, Failed, Gone, Inline, Pending, Stored
from detray.core.tables import HERE, Object, Shared
from detray.core.tasks import format_demand
from detray.errors import Failure
from detray.ids import ClientID
from detray.trace.names import short
from detray.trace.transcript.script import Words
from detray.trace.transcript.speech import spot
from tests.golden.stage import Stage


def _config(s: Stage, w: Words) -> list[str]:
    s.configure(w)
    return [f"node with {format_demand(s.world.config.totals)}"]


def _nodes(s: Stage, w: Words) -> list[str]:
    return s.assemble(w)


def _ids(s: Stage, w: Words) -> list[str]:
    """The short names that traces and messages use."""
    known = s.cast.tasks | s.cast.objects | s.cast.tasks
    return [f"{name}: {short(known[name])}" for name in w.names]


def _show(s: Stage, w: Words) -> list[str]:
    """`show objects workers free store counts`"""
    lines = [line for topic in w.names for line in _TOPICS[topic](s)] or ["nothing"]
    return [f"{s.seat.name}: {line}" for line in lines] if s.cluster is not None else lines


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
        case Elsewhere(size):
            text = f"elsewhere {size}"
        case Gone():
            text = "gone"
    holders: dict[ClientID, int] = {row.holder: row.granted} if row.granted else {}
    holders |= row.others or {}
    text += "".join(f", granted {s.cast.client_name(c)} {n}" for c, n in holders.items())
    for word, count in (("tasks", row.uses), ("containers", row.containers), ("pins", row.pins)):
        text += f", {word} {count}" if count else ""
    text += ", moving" if row.moving else ""
    return text + (_shared(s, row.shared) if row.shared is not None else "")


def _shared(s: Stage, shared: Shared) -> str:
    """What other nodes have to do with it."""
    parts = [] if shared.home == HERE else [f"of {s.cast.node_name(shared.home)}"]
    parts += [f"attempt {shared.attempt}"] if shared.attempt else []
    for word, counts in (("lent", shared.lent), ("in flight", shared.in_flight)):
        parts += [f"{word} {s.cast.node_name(node)} {n}" for node, n in counts.items()]
    parts += [f"kept by {s.cast.node_name(shared.keeper)}"] if shared.keeper != HERE else []
    if shared.copies:
        parts.append("copies at " + " ".join(map(s.cast.node_name, shared.copies)))
    if shared.watchers:
        parts.append("watched by " + " ".join(map(s.cast.node_name, shared.watchers)))
    parts += [f"received {shared.received}"] if shared.received else []
    parts += ["asked for"] if shared.claims == 1 else []
    for word, count in (("lineage", shared.lineage), ("needed", shared.needed)):
        parts += [f"{word} {count}"] if count else []
    parts += ["primary"] if shared.is_primary else []
    parts += ["wanted"] if shared.is_wanted else []
    parts += ["orphan"] if shared.orphan else []
    return "".join(f", {part}" for part in parts)


def _pulls(s: Stage) -> list[str]:
    lines = []
    for row in s.tables.pulls.values():
        source = "nobody yet" if row.source == HERE else s.cast.node_name(row.source)
        followers = "".join(f", for {s.cast.node_name(node)}" for node in row.followers)
        marks = ", aborted" if row.aborted else ""
        lines.append(f"pull {s.cast.name(row.object)} from {source}{followers}{marks}")
    return lines


def _tasks(s: Stage) -> list[str]:
    lines = []
    for name, row in s.tables.tasks.items():
        state = type(row.state).__name__.lower()
        mark = f", attempt {row.attempt}" if row.attempt else ""
        mark += f", retries {row.retries}" if row.retries else ""
        mark += f", of {s.cast.node_name(row.owner)}" if row.owner != HERE else ""
        lines.append(f"{s.cast.name(name)}: {state}{mark}")
    return lines


def _pasts(s: Stage) -> list[str]:
    return [
        f"past {s.cast.name(name)}: attempt {row.attempt}, retries {row.retries}"
        for name, row in s.tables.pasts.items()
    ]


def _peers(s: Stage) -> list[str]:
    return [
        f"peer {s.cast.node_name(row.id)}{' (silent)' if row.silent else ''}"
        for row in s.tables.peers.values()
    ]


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
    return ["no deadline" if due is None else f"deadline in {due - s.now_ns} ns"]


_TOPICS: dict[str, Callable[[Stage], list[str]]] = {
    "objects": _objects, "workers": _workers, "free": _free, "store": _store, "counts": _counts,
    "ready": _ready, "deadline": _deadline, "pulls": _pulls, "tasks": _tasks, "pasts": _pasts,
    "peers": _peers,
}  # fmt: skip
SHOWS: dict[str, Callable[[Stage, Words], list[str]]] = {
    "config": _config,
    "nodes": _nodes,
    "show": _show,
    "ids": _ids,
}
