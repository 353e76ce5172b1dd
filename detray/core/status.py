"""What a node tells about itself when asked: plain data for people, never read back by a core.

Rules
-----
- A topic is "summary", or a table: "tasks", "objects", "workers", "transfers". "tasks/1f3a" asks
  for the rows whose id begins with that; a full id costs no search.
- Sizes are bytes, resources 1/10,000 of a unit. What ends in `_ns` is for how long, by the clock of
  the node's last step. Nodes are numbers. Ids are hexadecimal digits; a worker's is a number.
- What nobody knows is None. A row has the same columns whatever its state.
- Each node tells of its own tables: a task that was sent elsewhere is told of by its owner and by
  the node that runs it, an object by every node that has to do with it (`runtime/rows.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, TypeVar

import msgspec

from detray.core import objects, resources
from detray.core.effects import ARENA, ReportStatus
from detray.core.pulls import ARGUMENT, GET, WAIT
from detray.core.resources import totals_of
from detray.core.states import (
    Assigned,
    Delivered,
    Elsewhere,
    Failed,
    Fetching,
    Inline,
    Placing,
    Ready,
    Stored,
    Waiting,
)
from detray.core.step import Step
from detray.core.stimuli import StatusRequested
from detray.core.tables import DRIVER, HERE, Get, Object, Pull, Tables, Task, Worker
from detray.errors import Failure
from detray.ids import NO_CLIENT, ClientID, NodeID, ObjectID, job_of, producer_of

Description = dict[str, object]
R = TypeVar("R")

TOPICS = ("summary", "tasks", "objects", "workers", "transfers")
NAMES_MAX = 10
"""Of a list of ids in a row, so many are told; a count beside it says how many there are."""
_URGENCY = {GET: "get", WAIT: "wait", ARGUMENT: "argument"}


def on_status_requested(s: Step, m: StatusRequested) -> None:
    """Describe the node, or list the rows of one table, at most `limit` of them."""
    body = msgspec.msgpack.encode(describe(s, m.topic, m.limit))
    s.out.append(ReportStatus(m.client, m.request, body))


def describe(s: Step, topic: str, limit: int) -> object:
    """Plain data about a topic: rows of one table, at most `limit`, or a page about the node."""
    t = s.t
    limit = max(0, limit)
    kind, _, prefix = topic.partition("/")
    if kind == "tasks":
        return [_task(s, row) for row in _rows(t.tasks, prefix, limit)]
    if kind == "objects":
        return [_object(s, row) for row in _rows(t.objects, prefix, limit)]
    if kind == "workers":
        return [_worker(s, row) for row in _rows(t.workers, prefix, limit)]
    if kind == "transfers":
        return _transfers(s, prefix, limit)
    return summary(s)


# Any: tables have ids of several kinds for keys.
def _rows(table: Mapping[Any, R], prefix: str, limit: int) -> list[R]:
    """The first rows, oldest first, of those whose id begins with `prefix`."""
    if not prefix:
        return list(islice(table.values(), limit))
    try:
        whole = table.get(bytes.fromhex(prefix))
    except ValueError:
        whole = None
    if whole is not None:
        return [whole][:limit]
    found = (row for key, row in table.items() if _begins(key, prefix.lower()))
    return list(islice(found, limit))


def _begins(key: bytes | int, prefix: str) -> bool:
    return key.hex().startswith(prefix) if isinstance(key, bytes) else str(key) == prefix


# ------------------------------------------------------------------ the whole node


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
        "totals": _totals(t),
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


# ------------------------------------------------------------------ tasks


def _totals(t: Tables) -> dict[str, int]:
    """What happened since the start; a run for another node is finished there, at its owner."""
    lent = {"ran for others": t.finished_for_others} if t.finished_for_others else {}
    return {"finished": t.finished - t.finished_for_others, **lent, **t.counts}


def _stage(s: Step, task: Task) -> str:
    if type(task.state) is not Assigned:
        return type(task.state).__name__.lower()
    worker = _worker_of(s, task)
    if worker is None or not worker.runs or worker.runs[0].task != task.spec.task:
        return "sent"
    return "blocked" if worker.blocked else "running"


def _worker_of(s: Step, task: Task) -> Worker | None:
    if type(task.state) is not Assigned:
        return None
    return s.t.workers.get(ClientID(task.state.worker))


def _task(s: Step, task: Task) -> Description:
    t = s.t
    template = t.templates[task.template]
    stage = _stage(s, task)
    worker = _worker_of(s, task)
    client = t.clients.get(worker.id) if worker is not None else None
    is_begun = worker is not None and stage in ("running", "blocked")
    waits_for = _missing(s, task, stage, worker)
    return {
        "id": task.spec.task.hex(),
        "name": template.name,
        "state": stage,
        "why": _why(s, task, stage, len(waits_for)),
        "waits_for": [item.hex() for item in waits_for[:NAMES_MAX]],
        "missing_arguments": task.missing,
        "job": job_of(task.spec.task),
        "attempt": task.attempt,
        "owner": task.owner if task.owner != HERE else t.node,
        "at": _place(s, task),
        "worker": worker.id if worker is not None else None,
        "pid": client.pid if client is not None else None,
        "demand": dict(template.demand),
        "parent": task.spec.parent.hex(),
        "depth": task.spec.depth,
        "cancelled": task.cancelled,
        "age_ns": t.now_ns - task.entered_ns,
        "running_ns": t.now_ns - worker.progress_ns if worker is not None and is_begun else None,
    }


def _place(s: Step, task: Task) -> NodeID | None:
    """The node that has the task's open attempt, once that is decided."""
    if type(task.state) is Delivered:
        return NodeID(task.state.node)
    is_here = isinstance(task.state, Assigned | Fetching | Ready)
    return s.t.node if is_here else None


def _missing(s: Step, task: Task, stage: str, worker: Worker | None) -> list[ObjectID]:
    """The objects that the task, or what it runs, cannot go on without."""
    if stage == "blocked" and worker is not None:
        get = s.t.clients[worker.id].gets.get(worker.blocked)
        return _absent(s, get.objects, local=get.fetch) if get is not None else []
    if isinstance(task.state, Waiting | Fetching):
        return _absent(s, task.spec.args, local=type(task.state) is Fetching)
    return []


def _absent(s: Step, items: Iterable[ObjectID], *, local: bool) -> list[ObjectID]:
    rows = s.t.objects
    return [item for item in items if item in rows and objects.is_absent(rows[item], local=local)]


def _why(s: Step, task: Task, stage: str, missing: int) -> str:
    """Why the task is not running, for a person; "" if it is."""
    state = task.state
    if type(state) is Waiting:
        return f"{missing} of {len(task.spec.args)} arguments not there yet"
    if type(state) is Fetching:
        return f"{missing} of {len(task.spec.args)} arguments on their way here"
    if type(state) is Ready:
        return _why_ready(s, task)
    if type(state) is Placing:
        if state.offers is not None:
            return "no node of the cluster can meet its demand now"
        return "the head has not named a node for it yet"
    if type(state) is Delivered:
        return f"it was sent to node {state.node}"
    if stage == "sent":
        return "it stands in its worker's queue"
    if stage == "blocked":
        return f"it waits for {missing} objects" if missing else "it waits for a CPU to go on"
    return ""


def _why_ready(s: Step, task: Task) -> str:
    shape = s.t.shapes[s.t.templates[task.template].shape]
    if not resources.has_room(s.t.pool, shape.amounts):
        return "what it asks for is in use"
    return "it waits for a worker process"


# ------------------------------------------------------------------ objects


def _object(s: Step, item: Object) -> Description:
    state = item.state
    shared = item.shared
    size = state.size_bytes if isinstance(state, Inline | Stored | Failed | Elsewhere) else 0
    owner = s.t.node if shared is None or shared.home == HERE else shared.home
    producer = producer_of(item.id)
    return {
        "id": item.id.hex(),
        "state": type(state).__name__.lower(),
        "size_bytes": size,
        "where": _where(item),
        "segment": state.segment if isinstance(state, Stored) else None,
        "error": _error(item),
        "job": job_of(item.id),
        "task_id": producer.hex() if producer is not None else None,
        "owner": owner,
        "attempt": shared.attempt if shared is not None else 0,
        "copies": _copies(s, item),
        "is_primary": _is_primary(item),
        "clients": bool(item.granted) + len(item.others or ()),
        "grants": item.granted + sum((item.others or {}).values()),
        "tasks": item.uses,
        "containers": item.containers,
        "jobs": sum(item.id in pinned for pinned in s.t.job_pins.values()),
        "borrowers": sorted(shared.lent) if shared is not None else [],
        "in_flight": sum(shared.in_flight.values()) if shared is not None else 0,
        "lineage": shared.lineage if shared is not None else 0,
        "pins": item.pins,
        "waiting": len(item.takers) + len(item.getters)
        + (len(shared.watchers) if shared is not None else 0),
    }  # fmt: skip


def _where(item: Object) -> str:
    """Where this node has the bytes: "inline", "arena", "file", "elsewhere", or "" for nowhere."""
    state = item.state
    if type(state) is Inline:
        return "inline"
    if type(state) is Stored:
        return "arena" if state.segment == ARENA else "file"
    return "elsewhere" if type(state) is Elsewhere else ""


def _error(item: Object) -> str:
    state = item.state
    if type(state) is Failed:
        # A worker may have reported any number.
        kind = next((k.name for k in Failure if k == state.failure), str(state.failure))
        text, _, _ = state.text.partition("\n")  # A crash's stack is for who gets the value.
        return f"{kind}: {text}"
    return f"{Failure.OWNER_DIED.name}: {objects.ORPHAN_TEXT}" if objects.is_orphan(item) else ""


def _copies(s: Step, item: Object) -> list[NodeID]:
    """Nodes that have the value in memory, as far as this one knows, the primary copy's first."""
    shared = item.shared
    here = [s.t.node] if isinstance(item.state, Inline | Stored) else []
    if shared is None:
        return here
    keeper = [shared.keeper] if shared.keeper != HERE else []
    return list(dict.fromkeys([*keeper, *here, *shared.copies]))


def _is_primary(item: Object) -> bool:
    """True if the copy here is the one that may not be lost."""
    if not isinstance(item.state, Inline | Stored):
        return False
    shared = item.shared
    if shared is None:
        return True
    return shared.is_primary if shared.home != HERE else shared.keeper == HERE


# ------------------------------------------------------------------ workers


def _worker(s: Step, worker: Worker) -> Description:
    t = s.t
    client = t.clients.get(worker.id)
    run = worker.runs[0] if worker.runs else None
    waits = _get_of(s, worker)
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
        "state_ns": t.now_ns - t.idle_since.get(worker.id, worker.progress_ns),
        "job": client.job if client else 0,
        "task": t.templates[run.template].name if run else "",
        "task_id": run.task.hex() if run else None,
        "attempt": run.attempt if run else None,
        "runs": len(worker.runs),
        "waits_for": [item.hex() for item in waits.objects[:NAMES_MAX]] if waits else [],
        "age_ns": t.now_ns - worker.started_ns,
    }  # fmt: skip


def _get_of(s: Step, worker: Worker) -> Get | None:
    client = s.t.clients.get(worker.id)
    return client.gets.get(worker.blocked) if client is not None and worker.blocked else None


# ------------------------------------------------------------------ transfers


def _transfers(s: Step, prefix: str, limit: int) -> list[Description]:
    """What is on its way here, and what is being read here for other nodes."""
    t = s.t
    rows = [_pull(s, pull) for pull in _rows(t.pulls, prefix, limit)]
    sender = t.clients.get(NO_CLIENT)
    sending = _rows({item: item for item in sender.pins}, prefix, limit) if sender else []
    for item in sending[: limit - len(rows)]:
        assert sender is not None
        rows.append(_sending(s, item, sender.pins[item]))
    return rows


def _pull(s: Step, pull: Pull) -> Description:
    is_asked = pull.source != HERE
    return {
        "id": pull.object.hex(),
        "direction": "in",
        "state": _pull_state(pull),
        "size_bytes": pull.size_bytes,
        "from": pull.source if is_asked else None,
        "to": s.t.node,
        "readers": 1 + len(pull.followers),
        "attempt": pull.attempt,
        "urgency": _URGENCY.get(pull.priority, ""),
        "tried": list(dict.fromkeys(pull.tried)),
    }


def _pull_state(pull: Pull) -> str:
    if pull.source != HERE:
        return "receiving"
    return "asking" if pull.has_room else "pausing" if pull.due_ns else "queued"


def _sending(s: Step, item: ObjectID, count: int) -> Description:
    row = s.t.objects.get(item)
    state = row.state if row is not None else None
    return {
        "id": item.hex(),
        "direction": "out",
        "state": "sending",
        "size_bytes": state.size_bytes if isinstance(state, Stored | Inline) else 0,
        "from": s.t.node,
        "to": None,
        "readers": count,
        "attempt": row.shared.attempt if row is not None and row.shared is not None else 0,
        "urgency": "",
        "tried": [],
    }
