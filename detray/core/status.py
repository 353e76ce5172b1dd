"""What a node tells about itself when asked."""

from __future__ import annotations

import msgspec

from detray.core.effects import ReportStatus
from detray.core.resources import totals_of
from detray.core.states import Assigned, Failed, Inline, Stored
from detray.core.step import Step
from detray.core.stimuli import StatusRequested
from detray.core.tables import DRIVER, Object, Task, Worker

Description = dict[str, object]


def on_status_requested(s: Step, m: StatusRequested) -> None:
    """Describe the node, or list the rows of one table, at most `limit` of them."""
    body = msgspec.msgpack.encode(describe(s, m.topic, m.limit))
    s.out.append(ReportStatus(m.client, m.request, body))


def describe(s: Step, topic: str, limit: int) -> object:
    """Plain data about a topic: rows of one table, at most `limit`, or a page about the node."""
    limit = max(0, limit)
    if topic == "tasks":
        return [_task(s, row) for row in list(s.t.tasks.values())[:limit]]
    if topic == "objects":
        return [_object(row) for row in list(s.t.objects.values())[:limit]]
    if topic == "workers":
        return [_worker(s, row) for row in list(s.t.workers.values())[:limit]]
    return summary(s)


def summary(s: Step) -> Description:
    """One page about the node: resources in 1/10,000 units, sizes in bytes, rows by state."""
    t = s.t
    available = dict(zip(t.pool.names[1:], t.pool.available[1:], strict=True))
    tasks: dict[str, int] = {}
    for task in t.tasks.values():
        state = _stage(s, task)
        tasks[state] = tasks.get(state, 0) + 1
    kinds: dict[str, int] = {}
    for item in t.objects.values():
        kind = type(item.state).__name__.lower()
        kinds[kind] = kinds.get(kind, 0) + 1
    return {
        "node": t.node,
        "incarnation": t.incarnation,
        "name": t.config.node_name,
        "total": dict(totals_of(t.pool)),
        "available": available,
        "tasks": tasks,
        "totals": {"finished": t.finished, **t.counts},
        "objects": kinds,
        "store": {
            "size_bytes": t.arena.size_bytes,
            "used_bytes": t.arena.used,
            "inline_bytes": t.inline_bytes,
            "segments": len(t.segments),
            "segment_bytes": sum(segment.live for segment in t.segments.values()),
        },
        "workers": [_worker(s, row) for row in t.workers.values()],
        "drivers": [
            {"client": c.id, "pid": c.pid, "job": c.job, "entrypoint": c.entrypoint}
            for c in t.clients.values()
            if c.kind == DRIVER and c.connected
        ],
    }


def _stage(s: Step, task: Task) -> str:
    if type(task.state) is not Assigned:
        return type(task.state).__name__.lower()
    worker = next((w for w in [s.t.workers.get(task.state.worker)] if w), None)  # type: ignore[call-overload]
    if worker is None or not worker.runs or worker.runs[0].task != task.spec.task:
        return "sent"
    return "blocked" if worker.blocked else "running"


def _task(s: Step, task: Task) -> Description:
    template = s.t.templates[task.template]
    return {
        "id": task.spec.task.hex(),
        "name": template.name,
        "state": _stage(s, task),
        "attempt": task.attempt,
        "missing_arguments": task.missing,
        "demand": dict(template.demand),
        "parent": task.spec.parent.hex(),
        "depth": task.spec.depth,
        "worker": task.state.worker if type(task.state) is Assigned else None,
    }


def _object(item: Object) -> Description:
    state = item.state
    size = state.size_bytes if isinstance(state, Inline | Stored | Failed) else 0
    return {
        "id": item.id.hex(),
        "state": type(state).__name__.lower(),
        "size_bytes": size,
        "segment": state.segment if isinstance(state, Stored) else None,
        "grants": item.granted + sum((item.others or {}).values()),
        "tasks": item.uses,
        "containers": item.containers,
        "pins": item.pins,
    }


def _worker(s: Step, worker: Worker) -> Description:
    client = s.t.clients.get(worker.id)
    run = worker.runs[0] if worker.runs else None
    return {
        "id": worker.id,
        "pid": client.pid if client else 0,
        "state": (
            "starting" if not worker.ready
            else "leaving" if worker.leaving
            else "blocked" if worker.blocked
            else "busy" if worker.runs
            else "idle"
        ),
        "task": s.t.templates[run.template].name if run else "",
        "runs": len(worker.runs),
    }  # fmt: skip
