"""Clusters for the head to talk about: tables, summaries, and reports made of both."""

from __future__ import annotations

from typing import Any

from detray.core.config import GlobalConfig
from detray.core.durable import Job
from detray.core.global_scheduler import GlobalScheduler
from detray.core.head_messages import PlacementRequested
from detray.core.head_tables import GlobalTables
from detray.core.placement import Node
from detray.ids import JobNumber, NodeID, TaskID
from detray.runtime.head.overview import HeadFacts, Overview

S = 1_000_000_000
FACTS = HeadFacts(
    cluster="c0ffee" + 26 * "0",
    version="0.1.0",
    pid=4711,
    address="10.0.0.1:7399",
    epoch=3,
    started_ns=10 * S,
    store="file:/var/lib/detray",
    web="http://127.0.0.1:8265",
)


def node(number: int, **changes: Any) -> Node:  # Any: fields of a Node
    """A member as the head knows it."""
    fields: dict[str, Any] = {
        "totals": {"CPU": 80_000, "GPU": 20_000},
        "free": {"CPU": 60_000, "GPU": 20_000},
        "heard_ns": 99 * S,
        "address": f"10.0.0.{number + 1}:7399",
    }
    return Node(NodeID(number), 1, f"machine-{number}", **{**fields, **changes})


def tables(*nodes: Node, jobs: int = 0, unplaced: int = 0) -> GlobalTables:
    """The head's tables."""
    t = GlobalScheduler(GlobalConfig()).tables
    t.nodes.update((row.id, row) for row in nodes)
    for number in range(1, jobs + 1):
        t.jobs[JobNumber(number)] = Job(JobNumber(number), NodeID(0), f"program-{number}.py", "")
    for index in range(unplaced):
        task = TaskID(index.to_bytes(16, "big"))
        request = PlacementRequested(1, NodeID(0), task, 0, "huge", demand=(("TPU", 80_000),))
        t.unplaced[task] = request
    return t


def summary(number: int = 0, **changes: Any) -> dict[str, Any]:  # Any: what a node says
    """A node's answer to "status", as it comes over the wire."""
    said: dict[str, Any] = {
        "node": number,
        "incarnation": 1,
        "name": f"machine-{number}",
        "total": {"CPU": 80_000, "GPU": 20_000, "memory": 64_000_000_000 * 10_000},
        "available": {"CPU": 20_000, "GPU": 10_000, "memory": 64_000_000_000 * 10_000},
        "tasks": {"running": 6, "ready": 40, "waiting": 12, "fetching": 2},
        "totals": {"finished": 12_345 + number, "failed": 0, "retried": 2, "spilled bytes": 7},
        "objects": {"inline": 120, "stored": 31, "elsewhere": 4},
        "store": {
            "size_bytes": 2_000_000_000,
            "used_bytes": 750_000_000,
            "inline_bytes": 40_000,
            "segments": 1,
            "segment_bytes": 9_000_000,
        },
        "workers": [
            *({"id": i, "pid": 100 + i, "state": "busy", "task": "count_words"} for i in range(5)),
            {"id": 6, "pid": 106, "state": "blocked", "task": "merge"},
            {"id": 7, "pid": 107, "state": "idle", "task": ""},
        ],
        "drivers": [{"client": -1, "pid": 900, "job": 1, "entrypoint": "program-1.py"}],
        "pid": 5_000 + number,
        "head": number == 0,
        "transfers": {
            "incoming": 2, "outgoing": 1, "received": 30, "sent": 15,
            "received_bytes": 1_000_000_000, "sent_bytes": 500_000_000,
        },
        "links": {"up": 2, "down": 0, "resent_messages": 3, "reconnects": 1},
    }  # fmt: skip
    return {**said, **changes}


def overview(count: int, now_ns: int = 100 * S) -> tuple[Overview, GlobalTables]:
    """`count` nodes that were all heard just now, and one job."""
    view = Overview(FACTS)
    t = tables(*(node(number) for number in range(count)), jobs=1)
    view.report(t, now_ns)
    for number in range(count):
        view.heard(number, summary(number), now_ns)
    return view, t
