"""The computation graph and its drawings."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as xml
from collections import Counter
from itertools import pairwise

import networkx
import pytest

from detray.trace import draw
from detray.trace.drawings.collapse import NODES_MAX, collapse
from detray.trace.drawings.dot import to_dot
from detray.trace.drawings.layout import lay_out, levels
from detray.trace.drawings.svg import to_svg
from detray.trace.graphs.graph import build
from detray.trace.names import program_name
from detray.trace.reading import Trace
from tests.trace.machine import Machine
from tests.trace.programs import dots, experiments, many, recorded, ten_sleeps, troubles

SVG = "{http://www.w3.org/2000/svg}"


def test_ten_sleeps_are_launched_by_the_program_and_produce_an_object_each(tmp_path):
    """The first picture of the mission: a root, ten boxes, ten ovals."""
    graph = build(recorded(tmp_path / "run.trace", ten_sleeps))
    assert kinds(graph) == {"task": 11, "object": 10}
    assert edges(graph) == {"launched": 10, "produces": 10}
    (root,) = [node for node, is_root in graph.nodes(data="is_root") if is_root]
    assert graph.nodes[root]["label"] == "root\nprogram.py"
    assert graph.out_degree(root) == 10


def test_a_product_consumes_what_two_tasks_produced(tmp_path):
    """The second picture: data flows from the zeros through their objects into the dot."""
    graph = build(recorded(tmp_path / "run.trace", dots))
    assert edges(graph) == {"launched": 3, "produces": 3, "consumes": 2}
    (dot,) = [node for node, label in graph.nodes(data="label") if label == "dot"]
    makers = {
        graph.nodes[maker]["label"]
        for item, _, kind in graph.in_edges(dot, keys=True)
        if kind == "consumes"
        for maker, _ in graph.in_edges(item)
    }
    assert makers == {"zeros"}
    assert networkx.is_directed_acyclic_graph(graph)


def test_nested_tasks_are_launched_by_their_parents(tmp_path):
    """The third picture: five tasks that launch ten each."""
    graph = build(recorded(tmp_path / "run.trace", experiments))
    launched = Counter(
        graph.nodes[source]["label"]
        for source, _, kind in graph.edges(keys=True)
        if kind == "launched"
    )
    assert launched == {"root\nprogram.py": 5, "run_experiment": 50}


def test_puts_nested_references_failures_and_retries_are_in_the_graph(tmp_path):
    """What went wrong is as visible as what went well."""
    graph = build(recorded(tmp_path / "run.trace", troubles))
    assert edges(graph)["nested"] == 1
    assert edges(graph)["contains"] == 1
    by_label = {data["label"]: data for _, data in graph.nodes(data=True)}
    assert by_label["wrong"]["state"] == "failed"
    assert by_label["wrong"]["error"] == "ValueError: no"
    assert (by_label["shaky"]["state"], by_label["shaky"]["attempts"]) == ("finished", 2)
    puts = [data for _, data in graph.nodes(data=True) if data.get("is_put")]
    assert sorted(data["size_bytes"] for data in puts) == [10, 20]
    unrun = [d for _, d in graph.nodes(data=True) if d.get("error") == "an argument failed"]
    assert [data["state"] for data in unrun] == ["failed"]


def test_the_ring_gives_the_same_graph_as_the_file(tmp_path):
    """Digests are enough: the effects come from playing."""
    machine = Machine()
    troubles(machine)
    ring = build(Trace(machine.recorder.read_all()))
    file = build(recorded(tmp_path / "run.trace", troubles))
    assert networkx.utils.graphs_equal(ring, file)


def test_a_trace_that_begins_in_the_middle_knows_names_from_its_snapshot():
    """Functions and waiting tasks from before the first step are known to the restored cores."""
    machine = Machine(ring_bytes=400_000)
    many(machine, rounds=200)
    trace = Trace(machine.recorder.read_all())
    assert trace.first_step > 0
    names = {data["name"] for _, data in build(trace).nodes(data=True) if data.get("name")}
    assert names == {"/home/ada/program.py", "work"}


@pytest.mark.parametrize("suffix", ["svg", "dot", "gv", "json", "graphml"])
def test_every_format_is_written(tmp_path, suffix):
    """The ending of the name chooses; what is exchanged with other programs reads back whole."""
    graph = build(recorded(tmp_path / "run.trace", troubles))
    path = draw(graph, tmp_path / f"graph.{suffix}")
    text = path.read_text()
    if suffix == "json":
        back = networkx.node_link_graph(json.loads(text), edges="edges")
        assert networkx.utils.graphs_equal(back, graph)
    elif suffix == "graphml":
        assert set(networkx.read_graphml(path, force_multigraph=True)) == set(graph)
    elif suffix == "svg":
        assert xml.fromstring(text).tag == f"{SVG}svg"
    else:
        assert text.startswith("digraph")


def test_an_unknown_ending_is_refused_with_the_list_of_known_ones(tmp_path):
    """Nothing is written."""
    graph = build(recorded(tmp_path / "run.trace", dots))
    with pytest.raises(ValueError, match=r"'\.pdf'.*\.svg"):
        draw(graph, tmp_path / "graph.pdf")
    assert not (tmp_path / "graph.pdf").exists()


def test_boxes_are_tasks_and_ovals_are_objects(tmp_path):
    """Dotted lines say who launched whom, solid ones where data goes: as in the mission."""
    graph = build(recorded(tmp_path / "run.trace", dots))
    svg = xml.fromstring(to_svg(graph))
    nodes = [g for g in svg.iter(f"{SVG}g") if g.find(f"{SVG}title") is not None]
    shapes = Counter(g[1].tag.removeprefix(SVG) for g in nodes)
    assert shapes == {"rect": 4, "ellipse": 3}
    lines = [p for p in svg.iter(f"{SVG}path") if p.find(f"{SVG}title") is not None]
    assert Counter(p.get("stroke-dasharray") for p in lines) == {"2 4": 3, None: 5}
    dot = to_dot(graph)
    assert (dot.count("shape=box"), dot.count("shape=ellipse")) == (4, 3)
    assert (dot.count("style=dotted"), dot.count("style=solid")) == (3, 5)


def test_names_with_markup_in_them_are_only_names(tmp_path):
    """A lambda or a strange name neither breaks the picture nor becomes a part of it."""
    machine = Machine(tmp_path / "run.trace", entrypoint='</svg>"<script>&')
    machine.submit(machine.define('<lambda> & "more"'))
    machine.work()
    graph = build(Trace(machine.recorder.read_all()))
    assert "<script>" not in to_svg(graph)
    labels = [text.text for text in xml.fromstring(to_svg(graph)).iter(f"{SVG}text")]
    assert '<lambda> & "more"' in labels


def test_programs_are_known_by_their_file():
    """What a process was started with has arguments, and these have slashes."""
    for entrypoint, name in (
        ("/home/ada/run.py", "run.py"),
        ("/home/ada/run.py --data /tmp/x.csv", "run.py"),
        ("/home/ada/my program.py -v", "my program.py"),
        ("/usr/bin/pytest tests/a", "pytest"),
        ("-c", "-c"),
        ("", "program"),
    ):
        assert program_name(entrypoint) == name


def test_a_large_graph_is_drawn_with_equals_as_one(tmp_path):
    """What is drawn stays small, and its counts add up to what is there."""
    graph = build(recorded(tmp_path / "run.trace", many))
    shown = collapse(graph)
    assert len(graph) > 1000 and len(shown) <= NODES_MAX
    counts = Counter[str]()
    for _, data in shown.nodes(data=True):
        counts[data["kind"]] += data["count"]
    assert counts == kinds(graph)
    assert sum(count for *_, count in shown.edges(data="count")) == graph.number_of_edges()


def test_families_stay_apart_if_there_is_room(tmp_path):
    """Ten tasks of one parent become one box, and five parents stay five."""
    shown = collapse(build(recorded(tmp_path / "run.trace", experiments)))
    labels = Counter(label for _, label in shown.nodes(data="label"))
    assert (labels["run_experiment"], labels["sub_experiment x 10"]) == (5, 5)


def test_a_long_chain_is_drawn_as_one_box_that_feeds_itself():
    """A cycle between groups is laid out like anything else."""
    machine = Machine()
    step = machine.define("step")
    ref = machine.submit(step)
    for _ in range(200):
        ref = machine.submit(step, ref)
    machine.work()
    graph = build(Trace(machine.recorder.read_all()))
    shown = collapse(graph)
    assert sorted(label.split("\n")[0] for _, label in shown.nodes(data="label")) == [
        "20.1 kB x 201",
        "root",
        "step x 201",
    ]
    xml.fromstring(to_svg(graph))


def test_edges_point_down_and_nodes_do_not_overlap(tmp_path):
    """A layer is the longest path to it; within a layer there is room for every node."""
    graph = build(recorded(tmp_path / "run.trace", dots, troubles))
    sizes = {node: (60.0 + 7 * (index % 5), 30.0) for index, node in enumerate(graph)}
    layout = lay_out(sizes, graph.edges())
    for source, target in graph.edges():
        assert layout.places[source][1] < layout.places[target][1]
    rows: dict[float, list[str]] = {}
    for node, (_, y) in layout.places.items():
        rows.setdefault(y, []).append(node)
    for row in rows.values():
        row.sort(key=lambda node: layout.places[node][0])
        for left, right in pairwise(row):
            gap = layout.places[right][0] - layout.places[left][0]
            assert gap >= (sizes[left][0] + sizes[right][0]) / 2
    assert all(0 < x < layout.width and 0 < y < layout.height for x, y in layout.places.values())


def test_levels_are_longest_paths():
    """Not shortest: a node stands below all that leads to it."""
    assert levels(["a", "b", "c"], [("a", "b"), ("b", "c"), ("a", "c")]) == {
        "a": 0,
        "b": 1,
        "c": 2,
    }


def test_nothing_at_all_can_be_drawn():
    """A session in which nothing was submitted has a picture with its program in it."""
    graph = build(Trace(Machine().recorder.read_all()))
    assert [label for _, label in graph.nodes(data="label")] == ["root\nprogram.py"]
    xml.fromstring(to_svg(graph))
    assert networkx.MultiDiGraph().number_of_nodes() == 0
    xml.fromstring(to_svg(networkx.MultiDiGraph()))


def test_reading_a_trace_does_not_load_networkx():
    """Only who asks for a graph pays for it."""
    import subprocess

    modules = "detray.trace.graphs.graph, detray.trace.drawings.svg"
    code = f"import sys, {modules}; sys.exit('networkx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def kinds(graph: networkx.MultiDiGraph) -> Counter[str]:
    return Counter(kind for _, kind in graph.nodes(data="kind"))


def edges(graph: networkx.MultiDiGraph) -> Counter[str]:
    return Counter(kind for *_, kind in graph.edges(keys=True))
