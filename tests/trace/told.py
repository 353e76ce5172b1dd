"""Traces of one core that was told what a test says: noise, and the trouble in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from detray.core.config import LocalConfig, Policy
from detray.core.effects import Effect
from detray.core.head_messages import JobAdmitted, NodeAdmitted, NodeAnnounced, Placed
from detray.core.local import LocalScheduler
from detray.core.outbox import Outbox
from detray.core.stimuli import (
    DriverConnected,
    FunctionExported,
    Return,
    RunFinished,
    TaskSubmitted,
    TemplateDefined,
    WorkerReady,
)
from detray.ids import ClientID, child_prefix, child_task, function_id, root_task
from detray.trace.format import LOCAL
from detray.trace.reading import Trace, open_trace
from detray.trace.recorder import Recorder, new_header

MS = 1_000_000
DRIVER = ClientID(-1)
PREFIX = child_prefix(root_task(1), 0, 0)


class ToldNode:
    """A node whose head and peers are the test; it records all that it is told."""

    def __init__(self, path: Path, policy: Policy | None = None, **options: Any) -> None:
        config = LocalConfig(
            node_name="here",
            totals=options.pop("totals", (("CPU", 20_000), ("camera", 10_000))),
            arena_bytes=8 << 20,
            stop_with_last_driver=False,
            policy=policy or Policy(),
            **options,
        )
        self.path = path
        self.core = LocalScheduler(config)
        self.now_ns = 1_000 * MS
        header = new_header(
            local=config, entrypoint="told.py", wall_ns=0, monotonic_ns=self.now_ns,
            detray_version="test",
        )  # fmt: skip
        self.recorder = Recorder(header, (self.core,), path)
        self.tasks = 0
        self._outbox = Outbox()
        self._head_seq = 0

    def run(self, task: Any, took_ms: float = 1) -> None:
        """It is at a worker, and finishes."""
        row = self.core.tables.tasks[task]
        worker = ClientID(row.state.worker)  # type: ignore[union-attr]  # it is assigned
        started = self.now_ns
        ended = started + round(took_ms * MS)
        done = RunFinished(worker, task, row.attempt, started, ended, (Return(50),))
        self.tell(done, after_ms=took_ms)

    def ready(self) -> None:
        """All workers that were ordered are up."""
        starting = list(self.core.tables.starting)
        if starting:
            self.tell(*[WorkerReady(client, 5_000 + client) for client in starting])

    def drain(self, took_ms: float = 1) -> None:
        """Run all that runs, one after the other."""
        self.ready()
        while runs := [w.runs[0].task for w in self.core.tables.workers.values() if w.runs]:
            self.run(runs[0], took_ms)
            self.ready()

    def tell(self, *stimuli: Any, after_ms: float = 0.01) -> list[Effect]:
        """One step."""
        self.now_ns += round(after_ms * MS)
        metas = [msgspec.msgpack.encode(list(stimuli))] if stimuli else []
        effects = self.core.handle(*stimuli, now_ns=self.now_ns)
        self.recorder.step(LOCAL, self.now_ns, metas, self._outbox.encode_effects(effects))
        return effects

    def head(self, kind: Any, *fields: Any) -> list[Effect]:
        """The head says something."""
        self._head_seq += 1
        return self.tell(kind(self._head_seq, *fields))

    def open(self, peers: Sequence[int] = ()) -> None:
        """A driver has its job, and a function with a template."""
        self.tell(DriverConnected(DRIVER, 4242, "", "/home/ada/told.py"))
        self.head(NodeAdmitted, 0, 1)
        for peer in peers:
            self.head(NodeAnnounced, peer, 1, f"peer{peer}", (("CPU", 40_000), ("far", 10_000)))
        self.head(JobAdmitted, DRIVER, 1)
        self.template(0, "load")

    def template(self, number: int, name: str, **demand: int) -> None:
        """A function, and how to run it."""
        function = function_id(PREFIX, number)
        self.tell(FunctionExported(DRIVER, function, name, 300))
        amounts = tuple(sorted({"CPU": 10_000, **demand}.items()))
        self.tell(TemplateDefined(DRIVER, number, function, name, 1, amounts, 3, False, 0))

    def submit(self, template: int = 0, *args: Any) -> Any:
        """A task; its id."""
        task = child_task(PREFIX, self.tasks)
        self.tasks += 1
        self.tell(TaskSubmitted(DRIVER, task, template, root_task(1), 1, 20, args))
        return task

    def place(self, task: Any, node: int) -> None:
        """The head names a place."""
        self.head(Placed, task, 0, node, 1)

    def close(self) -> Trace:
        """The trace."""
        self.recorder.close("done")
        return open_trace(self.path)
