"""Computation graphs made by hand: a few tasks with times in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable

import networkx

MS = 1_000_000
ROOT = "root"


class Sketch:
    """A graph as `detray.trace.graphs.graph` makes them, in the order in which tasks are named."""

    def __init__(self) -> None:
        self.graph = networkx.MultiDiGraph(entrypoint="/home/ada/program.py")
        self.graph.add_node(
            ROOT,
            kind="task",
            label="root\nprogram.py",
            name="/home/ada/program.py",
            state="sent",
            is_root=True,
            attempts=1,
            node="here",
            started_ns=0,
            waits="",
        )

    def task(
        self,
        name: str,
        submitted: int,
        sent: int,
        started: int,
        ended: int,
        args: Iterable[str] = (),
        parent: str = ROOT,
        worker: int = 1,
        size_bytes: int = 100,
        state: str = "finished",
        earlier: str = "",
        function: str = "",
    ) -> None:
        """A task that returns one value, called `name` and "/0"."""
        self.graph.add_node(
            name,
            kind="task",
            label=function or name,
            name=function or name,
            state=state,
            is_root=False,
            attempts=1 + (earlier.count(";") + 1 if earlier else 0),
            worker=worker,
            node="here",
            nodes="here",
            owner="here",
            job=1,
            submitted_ns=submitted * MS,
            sent_ns=sent * MS,
            started_ns=started * MS,
            ended_ns=ended * MS,
            blocked_ns=0,
            waits="",
            earlier=earlier,
            error="",
        )
        self.graph.add_edge(parent, name, key="launched", kind="launched")
        item = f"{name}/0"
        created_ns = ended * MS if state == "finished" else -1
        self.graph.add_node(
            item,
            kind="object",
            label=f"{size_bytes} B",
            state="ready",
            is_put=False,
            size_bytes=size_bytes,
            created_ns=created_ns,
            awaited_by="",
        )
        self.graph.add_edge(name, item, key="produces", kind="produces", size_bytes=size_bytes)
        for arg in args:
            size = self.graph.nodes[f"{arg}/0"]["size_bytes"]
            self.graph.add_edge(f"{arg}/0", name, key="consumes", kind="consumes", size_bytes=size)

    def get(self, task: str, started: int, ended: int, *items: str) -> None:
        """A task, or the program, stands still for what these made; the last one ends it."""
        data = self.graph.nodes[task]
        before = f"{data['waits']}; " if data["waits"] else ""
        number = len(data["waits"].split("; ")) if before else 0
        last = f"{items[-1]}/0" if items else "-"
        data["waits"] = f"{before}{started * MS} {ended * MS} {last}"
        for item in items:
            known = self.graph.nodes[f"{item}/0"]
            others = f"{known['awaited_by']}, " if known["awaited_by"] else ""
            known["awaited_by"] = f"{others}{task}/{number}"
