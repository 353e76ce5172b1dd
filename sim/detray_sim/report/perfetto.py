"""A run as Chrome trace events, for Perfetto (https://ui.perfetto.dev) or chrome://tracing.

A process is a node, a thread a slot of it; below the slots are rows of what the node receives. An
arrow goes from the task that made an object to its transfer and, if the workload is given, on to
the first task there that takes it. Times are microseconds of virtual time.

Source: "Trace Event Format", the document that Chrome's and Perfetto's importers follow.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec

from detray_sim.report.flows import Flows
from detray_sim.report.rows import task_rows, transfer_rows
from detray_sim.report.tables import cluster_label, queued_ns
from detray_sim.result import NodeShape, RunResult, TaskRecord, TransferRecord
from detray_sim.workload import Workload

RECEIVING = 1_000_000
"""Threads from here on hold transfers, so that viewers show them below the slots."""

Item = dict[str, Any]  # Any: one trace event is JSON


def perfetto_json(result: RunResult, workload: Workload | None = None) -> bytes:
    """The trace as JSON, identical for identical input."""
    trace = {
        "traceEvents": trace_items(result, workload),
        "displayTimeUnit": "ms",
        "otherData": {
            "workload": result.workload,
            "policy": result.policy,
            "seed": str(result.seed),
            "cluster": cluster_label(result),
            "network": result.network,
            "digest": result.digest,
        },
    }
    return msgspec.json.encode(trace) + b"\n"


def trace_items(result: RunResult, workload: Workload | None = None) -> list[Item]:
    """All events of the trace: names, tasks, transfers, arrows."""
    slots = {place: rows[0] for place, rows in task_rows(result).items()}
    lanes = transfer_rows(result)
    items = _names(result, slots, lanes)
    for place, row in sorted(slots.items()):
        items.append(_task(result.tasks[place], row))
    for place, row in sorted(lanes.items()):
        items.append(_transfer(result.transfers[place], row))
    return items + _arrows(result, slots, lanes, Flows(result, workload))


def _names(result: RunResult, slots: dict[int, int], lanes: dict[int, int]) -> list[Item]:
    threads: dict[int, set[int]] = defaultdict(set)
    for place, row in slots.items():
        threads[result.tasks[place].node].add(row + 1)
    for place, row in lanes.items():
        threads[result.transfers[place].target].add(RECEIVING + row + 1)
    items: list[Item] = []
    for node, shape in enumerate(result.nodes):
        items.append(_meta("process_name", node, 0, {"name": _node_name(node, shape)}))
        items.append(_meta("process_sort_index", node, 0, {"sort_index": node}))
        for tid in sorted(threads[node]):
            name = f"receiving {tid - RECEIVING}" if tid > RECEIVING else f"slot {tid}"
            items.append(_meta("thread_name", node, tid, {"name": name}))
            items.append(_meta("thread_sort_index", node, tid, {"sort_index": tid}))
    return items


def _node_name(node: int, shape: NodeShape) -> str:
    speed = f", speed {shape.speed_permille / 1000:g}" if shape.speed_permille != 1000 else ""
    return f"node {node} ({shape.cpus} CPU{speed})"


def _meta(kind: str, pid: int, tid: int, args: Item) -> Item:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": args}


def _micros(ns: int) -> float:
    return ns / 1000


def _task(task: TaskRecord, row: int) -> Item:
    item: Item = {
        "ph": "X",
        "name": task.name,
        "cat": "task",
        "pid": task.node,
        "tid": row + 1,
        "ts": _micros(task.started_ns),
        "dur": _micros(task.finished_ns - task.started_ns),
        "args": {"id": task.id, "number": task.number, "worker": task.worker},
    }
    if task.attempt:
        item["args"]["attempt"] = task.attempt
    if queued_ns(task) >= 0:
        item["args"]["queued_us"] = _micros(queued_ns(task))
    if task.failed:
        item["args"]["failed"] = task.failed
        item["cname"] = "terrible"
    return item


def _transfer(moved: TransferRecord, row: int) -> Item:
    return {
        "ph": "X",
        "name": f"from node {moved.source}",
        "cat": "transfer",
        "pid": moved.target,
        "tid": RECEIVING + row + 1,
        "ts": _micros(moved.started_ns),
        "dur": _micros(moved.finished_ns - moved.started_ns),
        "args": {"bytes": moved.size_bytes, "source": moved.source, "task": moved.task},
    }


def _arrows(
    result: RunResult, slots: dict[int, int], lanes: dict[int, int], flows: Flows
) -> list[Item]:
    """From producers to transfers to takers. A point of an arrow lies in the slice it is at."""
    items: list[Item] = []
    for place, moved in enumerate(result.transfers):
        lane = RECEIVING + lanes[place] + 1
        producer, taker = flows.producer(place), flows.taker(place)
        if producer >= 0:
            task = result.tasks[producer]
            begin = (task.node, slots[producer] + 1, min(task.finished_ns, moved.started_ns))
            items += _arrow(2 * place, begin, (moved.target, lane, moved.started_ns))
        if taker >= 0:
            task = result.tasks[taker]
            end = (task.node, slots[taker] + 1, task.started_ns)
            items += _arrow(2 * place + 1, (moved.target, lane, moved.finished_ns), end)
    return items


def _arrow(flow: int, begin: tuple[int, int, int], end: tuple[int, int, int]) -> list[Item]:
    """An arrow between two (process, thread, ns)."""
    shared: Item = {"name": "object", "cat": "transfer", "id": flow}
    points = (({"ph": "s"}, begin), ({"ph": "f", "bp": "e"}, end))
    return [
        {**shared, **kind, "pid": pid, "tid": tid, "ts": _micros(ns)}
        for kind, (pid, tid, ns) in points
    ]
