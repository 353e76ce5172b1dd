"""Graphs of networkx become workloads and come back."""

from __future__ import annotations

import io
from typing import Any

import networkx
import pytest

from detray_sim.workload import SECOND_NS, WorkloadError
from detray_sim.workloads import GENERATORS, generate
from detray_sim.workloads.assembly import topological_order
from detray_sim.workloads.from_graph import from_graph, to_graph


def diamond(**edge: Any) -> networkx.DiGraph:  # Any: attributes of an edge
    """One task, two that take from it, one that takes from both."""
    graph = networkx.DiGraph(name="diamond")
    for node, seconds in (("a", 1), ("b", 2.5), ("c", 0), ("d", 1)):
        graph.add_node(node, duration_s=seconds, size_bytes=100, name="kind", cpus=0.5)
    graph.add_edge("a", "b", **edge)
    graph.add_edges_from([("a", "c"), ("b", "d"), ("c", "d")])
    return graph


def test_attributes_are_what_a_task_is() -> None:
    """Duration, size, CPUs and name; an edge may carry a value of its own."""
    workload = from_graph(diamond())
    a, b, _, d = workload.tasks
    assert (workload.name, a.name, b.duration_ns, b.demand) == (
        "diamond",
        "kind",
        2_500_000_000,
        (("CPU", 5_000),),
    )
    assert (a.outputs, b.inputs, d.inputs) == ((100,), ((0, 0),), ((1, 0), (2, 0)))
    a, b, c, _ = from_graph(diamond(size_bytes=7)).tasks
    assert (a.outputs, b.inputs, c.inputs) == ((100, 7), ((0, 1),), ((0, 0),))


def test_nodes_are_put_in_order() -> None:
    """What can stay stays: the smallest that is ready comes first."""
    graph = networkx.DiGraph()
    for node in (5, 4, 3, 2):
        graph.add_node(node, duration_s=node)
    graph.add_edge(2, 5)
    assert [task.id for task in from_graph(graph).tasks] == ["4", "3", "2", "5"]
    assert from_graph(graph).tasks[3].duration_ns == 5 * SECOND_NS


@pytest.mark.parametrize("kind", GENERATORS)
def test_there_and_back_changes_nothing(kind: str) -> None:
    """Through GraphML too, where every attribute is a number or a text."""
    workload = generate(kind, 1, duration_law="lognormal", size_law="exponential", cpus=0.25)
    graph = to_graph(workload)
    assert from_graph(graph).tasks == workload.tasks
    file = io.BytesIO()
    networkx.write_graphml(graph, file)
    file.seek(0)
    assert from_graph(networkx.read_graphml(file), workload.name).tasks == workload.tasks


def test_a_cycle_is_named() -> None:
    """In the direction of its edges, from the first node of the graph."""
    graph = diamond()
    graph.add_edge("d", "b")
    with pytest.raises(
        WorkloadError, match=r"^diamond: tasks wait for each other: 'b' -> 'd' -> 'b'$"
    ):
        from_graph(graph)
    graph.add_edge("a", "a")
    with pytest.raises(WorkloadError, match=r"'a' -> 'a'$"):
        from_graph(graph)


def test_a_long_cycle_is_shortened() -> None:
    """Ten thousand names are no help."""
    size = 10_000
    parents = [[(place - 1) % size] for place in range(size)]
    with pytest.raises(WorkloadError) as raised:
        topological_order("ring", [str(place) for place in range(size)], parents)
    text = str(raised.value)
    assert "'0' -> '1' -> " in text and "more" in text and text.endswith("'9999' -> '0'")
    assert len(text) < 200


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("duration_s", None, "node 'b': duration_s is a number, not None"),
        ("duration_s", -1, "node 'b': -1.0 s is no time"),
        ("duration_s", float("nan"), "node 'b': duration_s is finite"),
        ("duration_s", "long", "node 'b': duration_s is a number, not 'long'"),
        ("size_bytes", -1, "task 'b' has a negative size"),
        ("size_bytes", "big", "node 'b': size_bytes is a number"),
        ("cpus", -1, "node 'b': -1.0 is no number of CPUs"),
        ("outputs", "1;2", "node 'b': outputs are like '1,2', not '1;2'"),
        ("demand", "CPU", "node 'b': a demand is like 'CPU=10000', not 'CPU'"),
        ("submit_ns", -1, "task 'b' has a negative size or time"),
    ],
)
def test_senseless_attributes_are_one_line(attribute: str, value: object, message: str) -> None:
    """With the node."""
    graph = diamond()
    graph.nodes["b"][attribute] = value
    with pytest.raises(WorkloadError) as raised:
        from_graph(graph)
    assert message in str(raised.value)


def test_a_node_without_duration_is_refused() -> None:
    """As is a graph without direction."""
    graph = diamond()
    graph.add_edge("d", "e")
    with pytest.raises(WorkloadError, match="node 'e' has no attribute duration_s"):
        from_graph(graph)
    with pytest.raises(WorkloadError, match="not directed"):
        from_graph(networkx.Graph())
