"""What a report says of a whole run: critical path, sums, statistics, the drawing of its graph.

The measures are those of `detray.trace.graphs.measures` and `critical`; here they only become JSON.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from detray.ids import TaskID
from detray.trace.drawings.collapse import Members, collapse_with_members
from detray.trace.drawings.layout import lay_out
from detray.trace.drawings.marking import Products
from detray.trace.graphs.computation import Computation
from detray.trace.graphs.critical import (
    ARGUMENTS,
    GET,
    LOST_RUN,
    NOTHING,
    PLACE,
    PROGRAM,
    QUEUE,
    RETRY,
    RUN,
    START,
    SUBMIT,
    UNKNOWN,
    WORKER,
    CriticalPath,
    critical_path,
)
from detray.trace.graphs.graph import state_of, tables_of_history
from detray.trace.graphs.measures import functions, mean_width, width
from detray.trace.graphs.span import span_ns, work_ns
from detray.trace.reporting.gathering import Gathered, Progress

if TYPE_CHECKING:
    import networkx

    from detray.trace.reporting.contents import ReportContents

Json = dict[str, Any]  # Any: what JSON can say
PATH_KINDS = (
    RUN, PROGRAM, LOST_RUN, UNKNOWN, GET, ARGUMENTS, PLACE, QUEUE, START,
)  # fmt: skip
PATH_TIES = (NOTHING, GET, ARGUMENTS, SUBMIT, RETRY, WORKER)
LINE_PX, CHAR_PX, PAD_PX = 16, 7.1, 22
LABEL_MAX = 34


class Analysis:
    """The graph of a run and what follows from it. To draw it needs networkx."""

    def __init__(self, gathered: Gathered, progress: Progress) -> None:
        header, history = gathered.trace.header, gathered.history
        names = {n: core.name for n, core in header.local_cores()}
        if history.names:
            names = {n: history.names[n] for n in names}
        progress("drawing the graph", 0, 3)
        self.tables = tables_of_history(history, header.entrypoint, names)
        progress("measuring", 1, 3)
        self.rows = Computation(self.tables)
        self.path: CriticalPath = critical_path(self.rows)
        self.on_path = {TaskID(bytes.fromhex(task)) for task in self.path.tasks}
        self._gathered = gathered

    def functions(self) -> list[Json]:
        """The table of functions; durations are microseconds."""
        return [
            {
                "name": row.name,
                "count": row.calls,
                "failed": row.failed,
                "cancelled": row.cancelled,
                "retries": row.retries,
                "total": round(row.total_ns / 1000),
                "mean": round(row.mean_ns / 1000),
                "median": round(row.median_ns / 1000),
                "p95": round(row.p95_ns / 1000),
                "max": round(row.max_ns / 1000),
                "waiting": round(row.waiting_ns / 1000),
                "blocked": round(row.blocked_ns / 1000),
                "bytes": row.returned_bytes,
            }
            for row in functions(self.rows)
        ]

    def summary(self) -> Json:
        """Numbers of the whole run; durations are microseconds."""
        history, rows = self._gathered.history, self.rows
        states: dict[str, int] = {}
        for life in history.tasks.values():
            states[life.state] = states.get(life.state, 0) + 1
        steps = width(rows)
        submitted = [task.submitted_ns for task in rows.tasks if task.submitted_ns >= 0]
        ended = [run.ended_ns for task in rows.tasks for run in task.runs if run.is_whole]
        first, last = min(submitted, default=0), max(ended, default=0)
        return {
            "tasks": len(history.tasks),
            "objects": rows.object_count,
            "bytes": rows.bytes_made,
            "states": dict(sorted(states.items())),
            "retries": sum(max(0, len(life.attempts) - 1) for life in history.tasks.values()),
            "workers": len(history.workers),
            "makespan": round(max(0, last - first) / 1000) if submitted and ended else 0,
            "work": round(work_ns(rows) / 1000),
            "bound": round(span_ns(rows) / 1000),
            "meanWidth": round(mean_width(steps), 3),
            "maxWidth": max((step.running for step in steps), default=0),
        }

    def write_path(self, contents: ReportContents) -> Json:
        """The critical path: its parts as columns, and what it is made of."""
        parts, add = self.path.parts, contents.columns.add
        place = contents.numbers.task
        add("c.task", [place(TaskID(bytes.fromhex(part.task))) for part in parts], delta=True)
        add("c.kind", [PATH_KINDS.index(part.kind) for part in parts])
        add("c.after", [PATH_TIES.index(part.after) for part in parts])
        times = [(contents.since(part.started_ns), contents.since(part.ended_ns)) for part in parts]
        add("c.from", [started or 0 for started, _ in times], delta=True)
        add("c.took", [(ended or 0) - (started or 0) for started, ended in times])
        return {
            "partKinds": PATH_KINDS,
            "ties": PATH_TIES,
            "length": round(self.path.length_ns / 1000),
            "kinds": {kind: round(ns / 1000) for kind, ns in self.path.by_kind().items()},
            "names": {name: round(ns / 1000) for name, ns in self.path.by_name().items()},
        }

    def drawing(self) -> tuple[Json, list[list[str]]]:
        """The collapsed graph laid out, and the names of what each box of it stands for."""
        shown, members = collapse_with_members(self.tables)
        sizes = {node: _size(shown, node) for node in shown}
        layout = lay_out(sizes, shown.edges())
        marked, lines = self._marked(members)
        places = {node: number for number, node in enumerate(shown)}
        boxes = [
            {
                "kind": "task" if _is_task(shown, node) else "object",
                "at": [round(layout.places[node][0], 1), round(layout.places[node][1], 1)],
                "size": [round(sizes[node][0], 1), round(sizes[node][1], 1)],
                "lines": _lines(shown, node),
                "state": state_of(shown, node),
                "states": str(shown.nodes[node].get("states", "")),
                "bytes": int(shown.nodes[node].get("size_bytes", -1)),
                "count": len(members[node]),
                "path": int(node in marked),
            }
            for node in shown
        ]
        edges = [
            {
                "from": places[source],
                "to": places[target],
                "kind": kind,
                "bends": [
                    [round(x, 1), round(y, 1)] for x, y in layout.bends.get((source, target), [])
                ],
                "count": data.get("count", 1),
                "bytes": data.get("size_bytes", -1),
                "path": int((source, target) in lines),
            }
            for source, target, kind, data in shown.edges(keys=True, data=True)
        ]
        drawing = {
            "width": round(layout.width),
            "height": round(layout.height),
            "isWhole": list(shown) == self.tables.names,
            "total": len(self.tables.nodes),
            "boxes": boxes,
            "edges": edges,
        }
        return drawing, [members[node] for node in shown]

    def _marked(self, members: Members) -> tuple[set[str], set[tuple[str, str]]]:
        """Boxes on the critical path, and the lines between them.

        (Those of its tasks, and of the objects that lead from one to the next.)
        """
        tables = self.tables
        box_of = [""] * len(tables.nodes)
        for box, names in members.items():
            for name in names:
                box_of[tables.named[name]] = box
        products = Products(tables, self.path)
        boxes = {box_of[tables.named[task]] for task in self.path.tasks}
        lines: set[tuple[str, str]] = set()
        way = [tables.named[part.task] for part in self.path.parts]
        for before, after in pairwise(way):
            if before == after:
                continue
            start, end = box_of[before], box_of[after]
            if (before, after) in tables.pairs:
                lines.add((start, end))
            for item in products.taken(before, after):
                boxes.add(box_of[item])
                lines |= {(start, box_of[item]), (box_of[item], end)}
        return boxes, lines


def _is_task(graph: networkx.MultiDiGraph, node: str) -> bool:
    return bool(graph.nodes[node].get("kind") != "object")


def _lines(graph: networkx.MultiDiGraph, node: str) -> list[str]:
    lines = str(graph.nodes[node].get("label", node)).replace(" x ", " × ").split("\n")[:3]
    return [line if len(line) <= LABEL_MAX else f"{line[: LABEL_MAX - 1]}…" for line in lines]


def _size(graph: networkx.MultiDiGraph, node: str) -> tuple[float, float]:
    lines = _lines(graph, node)
    wide = max(map(len, lines)) * CHAR_PX + PAD_PX
    high = len(lines) * LINE_PX + 12.0
    return (wide, high) if _is_task(graph, node) else (wide * 1.12 + 6, high)
