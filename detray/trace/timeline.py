"""A run as Chrome trace events, for Perfetto (https://ui.perfetto.dev) or chrome://tracing.

A process is a node, a thread a worker or driver. Times are microseconds since the trace began. Each
node's times come from its own clock, by way of the date that its machine knew when recording began:
machines whose clocks differ are shifted against each other by as much.

Source: "Trace Event Format", the document that Chrome's and Perfetto's importers follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detray.ids import ClientID
from detray.trace.gathering.history import Seat, history_of
from detray.trace.gathering.lives import Attempt, TaskLife
from detray.trace.names import short
from detray.trace.play import Makers, schedulers

if TYPE_CHECKING:
    from detray.trace.gathering.history import History
    from detray.trace.reading import Trace

NODE = 0
"""The process of a trace with one node."""
DRIVERS_TID = 1_000_000
"""Drivers are threads from here on, so that viewers show them apart from workers."""

Event = dict[str, Any]  # Any: an event is JSON


def chrome_events(trace: Trace, makers: Makers = schedulers) -> list[Event]:
    """All events of a trace. Raises TraceError."""
    history = history_of(trace, makers)
    view = _View(trace, history)
    events = view.names()
    for life in history.tasks.values():
        for run in life.attempts:
            if run.core >= 0 and (run.started_ns >= 0 or run.state == "lost"):
                events += view.run(life, run)
        events += view.flow(life)
    for wait in history.waits:
        seat = (wait.core, wait.client)
        events.append(view.complete("get", "get", seat, wait.started_ns, wait.ended_ns))
        events[-1]["args"] = {"objects": wait.count, "task": short(wait.task) if wait.task else ""}
    for worker in history.workers.values():
        if worker.reason:
            events.append(view.lost((worker.core, worker.id), worker.lost_ns, worker.reason))
    return events


class _View:
    """Where and when things are shown."""

    def __init__(self, trace: Trace, history: History) -> None:
        self._header = trace.header
        self._history = history
        firsts = history.first_ns or {0: trace.header.monotonic_ns}
        self._begin_ns = min(trace.header.date_ns(core, ns) for core, ns in firsts.items())

    def names(self) -> list[Event]:
        """What processes and threads are called."""
        history = self._history
        events = []
        for number, core in self._header.local_cores():
            name = history.names[number] if history.names else f"node {core.name or NODE}"
            if history.names and core.name not in ("", name):
                name = f"{name} ({core.name})"
            events.append(self._name("process_name", (number, ClientID(0)), name))
        for worker in history.workers.values():
            pid = f" pid={worker.pid}" if worker.pid else ""
            seat = (worker.core, worker.id)
            events.append(self._name("thread_name", seat, f"worker {worker.id}{pid}"))
        for program in history.programs.values():
            text = f"driver {program.entrypoint} pid={program.pid}"
            events.append(self._name("thread_name", (program.core, program.client), text))
        return events

    def complete(
        self, name: str, category: str, seat: Seat, started_ns: int, ended_ns: int
    ) -> Event:
        """Something that took its time."""
        return {
            "ph": "X",
            "name": name,
            "cat": category,
            **self._place(seat),
            "ts": self._micros(seat[0], started_ns),
            "dur": max(0, ended_ns - started_ns) / 1000,
        }

    def run(self, life: TaskLife, run: Attempt) -> list[Event]:
        """An attempt of a task."""
        started = run.started_ns if run.started_ns >= 0 else run.sent_ns
        if started < 0:
            return []
        seat = (run.core, run.worker)
        event = self.complete(life.name, "task", seat, started, run.ended_ns)
        event["args"] = {
            "id": life.id.hex(),
            "attempt": run.number,
            "status": run.state,
            "error": run.error,
        }
        if run.state != "finished":
            event["cname"] = "terrible"
        return [event]

    def flow(self, life: TaskLife) -> list[Event]:
        """An arrow from where a task was submitted to where it first ran."""
        runs = (run for run in life.attempts if run.started_ns >= 0 and run.core >= 0)
        first = next(runs, None)
        source = self._submitter(life)
        if first is None or source is None or life.submitted_ns < 0 or source[0] != life.core:
            return []
        flow = int.from_bytes(life.id[8:16], "big") & 0x7FFF_FFFF_FFFF
        shared = {"name": "submit", "cat": "submit", "id": flow}
        target = self._place((first.core, first.worker))
        begun_us = self._micros(first.core, first.started_ns)
        submitted_us = self._micros(source[0], life.submitted_ns)
        return [
            {**shared, "ph": "s", **self._place(source), "ts": submitted_us},
            {**shared, "ph": "f", "bp": "e", **target, "ts": begun_us},
        ]

    def lost(self, seat: Seat, at_ns: int, reason: str) -> Event:
        """A worker died."""
        return {
            "ph": "i",
            "s": "t",
            "name": f"worker lost: {reason}",
            "cat": "failure",
            **self._place(seat),
            "ts": self._micros(seat[0], at_ns),
        }

    def _submitter(self, life: TaskLife) -> Seat | None:
        history = self._history
        parent = history.tasks.get(life.parent)
        if parent is None:
            of_core = (seat for seat in history.programs if seat[0] == life.core)
            return next(of_core, None)
        return (parent.last.core, parent.last.worker) if parent.last else None

    def _name(self, kind: str, seat: Seat, text: str) -> Event:
        return {"ph": "M", "name": kind, **self._place(seat), "args": {"name": text}}

    def _place(self, seat: Seat) -> dict[str, int]:
        core, client = seat
        tid = client if client >= 0 else DRIVERS_TID - client
        return {"pid": self._pid(core), "tid": tid}

    def _pid(self, core: int) -> int:
        """A process group for each node: by its number, above them those without."""
        history = self._history
        if not history.names:
            return NODE
        node = history.node_of(core)
        return node if node >= 0 else DRIVERS_TID + core

    def _micros(self, core: int, ns: int) -> float:
        return (self._header.date_ns(core, ns) - self._begin_ns) / 1000
