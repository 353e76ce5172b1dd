"""Workloads from networkx graphs, and back: an edge leads from who makes something to who takes it.

===========  ===============================================================================
attribute    meaning
===========  ===============================================================================
duration_s   of a node: seconds on a machine of speed 1 (required)
name         of a node: its kind (default: "task")
cpus         of a node: what it asks for (default: 1)
size_bytes   of a node: what it makes, one value that all its successors take (default: 0)
size_bytes   of an edge: instead, a value of its own for this successor
===========  ===============================================================================

`to_graph` also writes what does not fit there: `duration_ns`, `demand`, `outputs`, `submit_ns`,
`expected_ns` and `files_bytes` of nodes, `outputs` and their `positions` among the inputs of edges.
`from_graph` prefers those where they
are, so that the way there and back changes nothing. Attributes are numbers and texts only: every
exporter of networkx takes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from detray_sim.workload import UNIT, TaskSpec, Workload, WorkloadError
from detray_sim.workloads.assembly import (
    Draft,
    assemble,
    cpu_demand,
    ns_to_seconds,
    seconds_to_ns,
)

if TYPE_CHECKING:
    import networkx

Attributes = Mapping[str, Any]  # Any: whatever the user hung on the node


def from_graph(graph: networkx.DiGraph, name: str = "") -> Workload:
    """The workload of a directed graph. Nodes keep their order where dependencies let them.

    Raises WorkloadError: a cycle (named), a node without duration, values of a wrong type or sign.
    """
    title = name or str(graph.graph.get("name") or "graph")
    if not graph.is_directed():
        raise WorkloadError(f"{title}: the graph is not directed: who takes from whom is not known")
    drafts = [_draft(title, node, data) for node, data in graph.nodes(data=True)]
    _connect(title, graph, drafts)
    for draft, data in zip(drafts, graph.nodes.values(), strict=True):
        if not draft.outputs and "outputs" not in data:
            draft.outputs.append(0)
    return assemble(title, drafts, source=str(graph.graph.get("source", "")))


def _connect(title: str, graph: networkx.DiGraph, drafts: Sequence[Draft]) -> None:
    """Inputs from edges. They come by their source: positions, where given, restore the order."""
    places = {node: place for place, node in enumerate(graph.nodes)}
    inputs: list[list[tuple[int, tuple[int, int]]]] = [[] for _ in drafts]
    for source, target, data in graph.edges(data=True):
        producer = drafts[places[source]]
        where = f"{title}: edge {producer.id!r} -> {drafts[places[target]].id!r}"
        outputs = _taken(where, producer, graph.nodes[source], data)
        positions = _numbers(where, data.get("positions", ""))
        for at, output in enumerate(outputs):
            position = positions[at] if at < len(positions) else 0
            inputs[places[target]].append((position, (places[source], output)))
    for draft, found in zip(drafts, inputs, strict=True):
        found.sort(key=lambda item: item[0])
        draft.inputs = [taken for _, taken in found]


def _draft(title: str, node: object, data: Attributes) -> Draft:
    where = f"{title}: node {node!r}"
    if "duration_ns" in data:
        duration_ns = _whole(title, node, data, "duration_ns", 0)
    elif "duration_s" in data:
        duration_ns = seconds_to_ns(_number(where, data, "duration_s", 0.0), where)
    else:
        raise WorkloadError(f"{where} has no attribute duration_s")
    demand = cpu_demand(_number(where, data, "cpus", 1.0), where)
    outputs = [_whole(title, node, data, "size_bytes", 0)] if "size_bytes" in data else []
    return Draft(
        id=str(node),
        name=str(data.get("name", "task")),
        duration_ns=duration_ns,
        demand=_demand(where, str(data["demand"])) if "demand" in data else demand,
        outputs=_numbers(where, data["outputs"]) if "outputs" in data else outputs,
        files_bytes=_whole(title, node, data, "files_bytes", 0),
        submit_ns=_whole(title, node, data, "submit_ns", 0),
        expected_ns=_whole(title, node, data, "expected_ns", -1),
    )


def _taken(where: str, producer: Draft, node: Attributes, edge: Attributes) -> list[int]:
    """Numbers of the outputs that travel along an edge; makes those that are for it alone."""
    if "outputs" in edge:
        return _numbers(where, edge["outputs"])
    if "size_bytes" in edge and "outputs" not in node:
        producer.outputs.append(round(_number(where, edge, "size_bytes", 0.0)))
        return [len(producer.outputs) - 1]
    if not producer.outputs:
        producer.outputs.append(0)
    return [0]


def _number(where: str, data: Attributes, key: str, default: float) -> float:
    value = data.get(key, default)
    # numpy's numbers, and what GraphML reads back, are numbers too.
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise WorkloadError(f"{where}: {key} is a number, not {value!r}") from None
    if not abs(number) < float("inf"):
        raise WorkloadError(f"{where}: {key} is finite, not {value!r}")
    return number


def _whole(title: str, node: object, data: Attributes, key: str, default: int) -> int:
    value = data.get(key, default)
    if isinstance(value, int):
        return int(value)
    return round(_number(f"{title}: node {node!r}", data, key, default))


def _numbers(where: str, text: object) -> list[int]:
    try:
        return [int(part) for part in str(text).split(",") if part]
    except ValueError:
        raise WorkloadError(f"{where}: outputs are like '1,2', not {text!r}") from None


def _demand(where: str, text: str) -> tuple[tuple[str, int], ...]:
    pairs = [part.partition("=") for part in text.split(",") if part]
    try:
        return tuple(sorted((name, int(amount)) for name, _, amount in pairs))
    except ValueError:
        raise WorkloadError(f"{where}: a demand is like 'CPU=10000', not {text!r}") from None


def to_graph(workload: Workload) -> networkx.DiGraph:
    """The workload as a graph, its nodes named by task ids, in topological order.

    Raises ImportError without networkx.
    """
    import networkx

    graph = networkx.DiGraph(name=workload.name, source=workload.source)
    for task in workload.tasks:
        graph.add_node(task.id, **_attributes(task))
        taken: dict[int, list[tuple[int, int]]] = {}
        for position, (producer, output) in enumerate(task.inputs):
            taken.setdefault(producer, []).append((position, output))
        for producer, pairs in taken.items():
            maker = workload.tasks[producer]
            graph.add_edge(
                maker.id,
                task.id,
                outputs=",".join(str(output) for _, output in pairs),
                positions=",".join(str(position) for position, _ in pairs),
                size_bytes=sum(maker.outputs[output] for _, output in pairs),
            )
    return graph


def _attributes(task: TaskSpec) -> dict[str, Any]:  # Any: numbers and texts, as networkx has it
    return {
        "name": task.name,
        "duration_s": ns_to_seconds(task.duration_ns),
        "duration_ns": task.duration_ns,
        "cpus": dict(task.demand).get("CPU", 0) / UNIT,
        "demand": ",".join(f"{name}={amount}" for name, amount in task.demand),
        "size_bytes": sum(task.outputs),
        "outputs": ",".join(map(str, task.outputs)),
        "files_bytes": task.files_bytes,
        "submit_ns": task.submit_ns,
        "expected_ns": task.expected_ns,
    }
