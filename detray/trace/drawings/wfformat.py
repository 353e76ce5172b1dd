"""The computation graph as WfFormat 1.5 (WfCommons), for simulators of workflows.

A task of a workflow runs when its parents have ended. So it is told what WfFormat can say:

- the tasks that finished, with the time that they computed (standing still in `get` left out);
- values as files: what a task returned it writes, its top-level arguments it reads; its parents are
  those who made them. A value that somebody put is a file that no task writes;
- nodes as machines, with their whole CPUs.

Who submitted whom, gets inside tasks, and demands below one CPU have no place there: the parts of a
nested program stand beside each other. (The simulator reads traces themselves, which have it all.)

**Source**: wfcommons.org/format, schema 1.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from detray.trace.gathering.lives import FINISHED
from detray.trace.names import program_name

if TYPE_CHECKING:
    import networkx

VERSION = "1.5"
_SECOND_NS = 1_000_000_000
_UNIT = 10_000
Json = dict[str, Any]  # Any: JSON
Attributes = Mapping[str, Any]  # Any: strings, integers and booleans


def to_wfformat(graph: networkx.MultiDiGraph) -> str:
    """The document. Raises ValueError if no task finished: a workflow has at least one."""
    tasks = {node: data for node, data in graph.nodes(data=True) if _is_told(data)}
    if not tasks:
        raise ValueError("no task finished: WfFormat has no workflow without tasks")
    outputs = {task: _neighbours(graph.succ[task], "produces") for task in tasks}
    inputs = {task: _neighbours(graph.pred[task], "consumes") for task in tasks}
    makers = {item: task for task, items in outputs.items() for item in items}
    parents = {
        task: list(dict.fromkeys(makers[item] for item in items if item in makers))
        for task, items in inputs.items()
    }
    children: dict[str, list[str]] = {task: [] for task in tasks}
    for task, above in parents.items():
        for parent in above:
            children[parent].append(task)
    specified = [
        {
            "name": data["name"],
            "id": task,
            "parents": parents[task],
            "children": children[task],
            "inputFiles": inputs[task],
            "outputFiles": outputs[task],
        }
        for task, data in tasks.items()
    ]
    files = dict.fromkeys(item for task in tasks for item in (*inputs[task], *outputs[task]))
    sizes = [
        {"id": item, "sizeInBytes": max(0, graph.nodes[item].get("size_bytes", 0))}
        for item in files
    ]
    began_ns = min(_began_ns(data) for data in tasks.values())
    date = datetime.fromtimestamp(began_ns // _SECOND_NS, UTC).isoformat()
    document = {
        "name": program_name(str(graph.graph.get("entrypoint", ""))),
        "description": "recorded by detray",
        "createdAt": date,
        "schemaVersion": VERSION,
        "runtimeSystem": {
            "name": "detray",
            "version": str(graph.graph.get("detray_version") or "unknown"),
        },
        "workflow": {
            "specification": {"tasks": specified, "files": sizes},
            "execution": _execution(graph, tasks, date, began_ns),
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n"


def _is_told(data: Attributes) -> bool:
    if data.get("kind") != "task" or data.get("is_root") or data.get("state") != FINISHED:
        return False
    return bool(0 <= data.get("started_ns", -1) <= data.get("ended_ns", -1))


def _began_ns(data: Attributes) -> int:
    """When a task was submitted, or began if that is not known."""
    return int(data["submitted_ns"] if data["submitted_ns"] >= 0 else data["started_ns"])


def _neighbours(links: Mapping[str, Mapping[str, object]], kind: str) -> list[str]:
    return [node for node, kinds in links.items() if kind in kinds]


def _execution(
    graph: networkx.MultiDiGraph, tasks: Mapping[str, Attributes], date: str, began_ns: int
) -> Json:
    ended_ns = max(data["ended_ns"] for data in tasks.values())
    nodes = dict.fromkeys(data["node"] for data in tasks.values())
    found: Json = {
        "makespanInSeconds": (ended_ns - began_ns) / _SECOND_NS,
        "executedAt": date,
        "tasks": [_executed(task, data) for task, data in tasks.items()],
    }
    machines = list(_machines(str(graph.graph.get("machines", "")), nodes))
    return {**found, "machines": machines} if machines else found


def _executed(task: str, data: Attributes) -> Json:
    ran_ns = data["ended_ns"] - data["started_ns"] - data.get("blocked_ns", 0)
    found: Json = {"id": task, "runtimeInSeconds": max(0, ran_ns) / _SECOND_NS}
    cpus = _cpus(str(data.get("demand", "")))
    if cpus >= _UNIT:  # the schema knows no part of a core
        found["coreCount"] = cpus // _UNIT if cpus % _UNIT == 0 else cpus / _UNIT
    if data["node"]:
        found["machine"] = _host(data["node"])
    return found


def _machines(totals: str, nodes: Iterable[str]) -> Iterable[Json]:
    """Nodes that ran something, or that the trace tells of."""
    known = dict(part.split(": ", 1) for part in totals.split("; ") if ": " in part)
    for node in dict.fromkeys([*known, *nodes]):
        if not node:
            continue
        cores = _cpus(known.get(node, "")) // _UNIT
        cpu: Json = {"cpu": {"coreCount": cores}} if cores else {}
        yield {"nodeName": _host(node), **cpu}


def _cpus(demand: str) -> int:
    """CPUs in 1/10,000 of "CPU=10000,GPU=5000"."""
    amounts = dict(part.split("=", 1) for part in demand.split(",") if "=" in part)
    return int(amounts.get("CPU", 0))


def _host(node: str) -> str:
    """A node's name as a host may be called: "node-1"."""
    return re.sub("[^A-Za-z0-9.-]+", "-", node).strip("-.") or "node"
