"""A run as Chrome trace events, for Perfetto (https://ui.perfetto.dev) or chrome://tracing.

A process is a node, a thread a worker or driver. Times are microseconds since the trace began.

Source: "Trace Event Format", the document that Chrome's and Perfetto's importers follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detray.ids import ClientID
from detray.trace.history import history_of
from detray.trace.lives import Attempt, TaskLife
from detray.trace.names import short
from detray.trace.play import Makers, schedulers

if TYPE_CHECKING:
    from detray.trace.history import History
    from detray.trace.reading import Trace

NODE = 0
DRIVERS_TID = 1_000_000
"""Drivers are threads from here on, so that viewers show them apart from workers."""

Event = dict[str, Any]  # Any: an event is JSON


def chrome_events(trace: Trace, makers: Makers = schedulers) -> list[Event]:
    """All events of a trace. Raises TraceError."""
    history = history_of(trace, makers)
    begin = history.first_ns or trace.header.monotonic_ns
    events = _names(history, trace.header.local.node_name)
    for life in history.tasks.values():
        for run in life.attempts:
            if run.started_ns >= 0 or run.state == "lost":
                events += _run(life, run, begin)
        events += _flow(history, life, begin)
    for wait in history.waits:
        events.append(_complete("get", "get", wait.client, wait.started_ns, wait.ended_ns, begin))
        events[-1]["args"] = {"objects": wait.count, "task": short(wait.task) if wait.task else ""}
    for worker in history.workers.values():
        if worker.reason:
            events.append(_lost(worker.id, worker.lost_ns, worker.reason, begin))
    return events


def _thread(client: ClientID) -> int:
    return client if client > 0 else DRIVERS_TID - client


def _names(history: History, node: str) -> list[Event]:
    events = [_name("process_name", 0, f"node {node or NODE}")]
    for worker in history.workers.values():
        pid = f" pid={worker.pid}" if worker.pid else ""
        events.append(_name("thread_name", _thread(worker.id), f"worker {worker.id}{pid}"))
    for program in history.programs.values():
        text = f"driver {program.entrypoint} pid={program.pid}"
        events.append(_name("thread_name", _thread(program.client), text))
    return events


def _name(kind: str, tid: int, text: str) -> Event:
    return {"ph": "M", "name": kind, "pid": NODE, "tid": tid, "args": {"name": text}}


def _micros(ns: int, begin: int) -> float:
    return (ns - begin) / 1000


def _complete(
    name: str, category: str, client: ClientID, started_ns: int, ended_ns: int, begin: int
) -> Event:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "pid": NODE,
        "tid": _thread(client),
        "ts": _micros(started_ns, begin),
        "dur": max(0, ended_ns - started_ns) / 1000,
    }


def _run(life: TaskLife, run: Attempt, begin: int) -> list[Event]:
    started = run.started_ns if run.started_ns >= 0 else run.sent_ns
    if started < 0:
        return []
    event = _complete(life.name, "task", run.worker, started, run.ended_ns, begin)
    event["args"] = {
        "id": life.id.hex(),
        "attempt": run.number,
        "status": run.state,
        "error": run.error,
    }
    if run.state != "finished":
        event["cname"] = "terrible"
    return [event]


def _flow(history: History, life: TaskLife, begin: int) -> list[Event]:
    """An arrow from where a task was submitted to where it first ran."""
    first = next((run for run in life.attempts if run.started_ns >= 0), None)
    if first is None or life.submitted_ns < 0:
        return []
    source = _submitter(history, life)
    if source is None:
        return []
    flow = int.from_bytes(life.id[8:16], "big") & 0x7FFF_FFFF_FFFF
    shared = {"name": "submit", "cat": "submit", "id": flow, "pid": NODE}
    return [
        {**shared, "ph": "s", "tid": _thread(source), "ts": _micros(life.submitted_ns, begin)},
        {
            **shared,
            "ph": "f",
            "bp": "e",
            "tid": _thread(first.worker),
            "ts": _micros(first.started_ns, begin),
        },
    ]


def _submitter(history: History, life: TaskLife) -> ClientID | None:
    parent = history.tasks.get(life.parent)
    if parent is None:
        return next(iter(history.programs), None)
    return parent.last.worker if parent.last else None


def _lost(client: ClientID, at_ns: int, reason: str, begin: int) -> Event:
    return {
        "ph": "i",
        "s": "t",
        "name": f"worker lost: {reason}",
        "cat": "failure",
        "pid": NODE,
        "tid": _thread(client),
        "ts": _micros(at_ns, begin),
    }
