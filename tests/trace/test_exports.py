"""What is written for other programs reads back as it was."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml
from datetime import datetime
from pathlib import Path

import networkx
import pytest

from detray.trace import draw
from detray.trace.drawings.drawing import FORMATS, text_of
from detray.trace.graphs.critical import critical_path
from detray.trace.graphs.graph import build
from detray.trace.reading import Trace
from detray_sim.workloads.wfformat import load_wfformat
from tests.trace.graphs import Sketch
from tests.trace.machine import Machine
from tests.trace.programs import dots, experiments, many, recorded, troubles
from tests.trace.simulated import parts_of, run_cluster

ALL = ("svg", "dot", "json", "graphml", "wfformat")


def strange() -> networkx.MultiDiGraph:
    """A graph whose names and errors hold what XML and DOT do not like."""
    machine = Machine(entrypoint='/home/a&b/<"x">.py')
    bad = 'ValueError: \x1b[31mno\x1b[0m \x00 \\ "quoted" \ufffe <&> ]]>'
    wrong = machine.define('<lambda> & "more"\\', lambda machine, run: bad)
    machine.submit(machine.define("after"), machine.submit(wrong))
    machine.work()
    return build(Trace(machine.recorder.read_all()))


def test_node_link_data_reads_back_whole(tmp_path):
    """Nodes, edges, keys, attributes and their types."""
    for graph in (strange(), build(recorded(tmp_path / "run.trace", troubles, experiments))):
        path = draw(graph, tmp_path / "graph.json")
        back = networkx.node_link_graph(json.loads(path.read_text()), edges="edges")
        assert networkx.utils.graphs_equal(back, graph)
        assert back.graph == graph.graph


def test_graphml_reads_back_whole(tmp_path):
    """All of it, but for empty texts and characters that XML has no way to write."""
    graph = build(recorded(tmp_path / "run.trace", troubles, experiments))
    path = draw(graph, tmp_path / "graph.graphml")
    back = networkx.read_graphml(path, force_multigraph=True)
    for name in ("node_default", "edge_default"):
        del back.graph[name]  # the reader's own
    for attributes in (
        *dict(graph.nodes(data=True)).values(),
        *(d for *_, d in graph.edges.data()),
    ):
        for name in [name for name, value in attributes.items() if value == ""]:
            del attributes[name]
    assert networkx.utils.graphs_equal(back, graph)
    for node, data in graph.nodes(data=True):
        assert list(map(type, back.nodes[node].values())) == list(map(type, data.values()))
    draw(strange(), path)
    back = networkx.read_graphml(path, force_multigraph=True)
    (error,) = [e for _, e in back.nodes(data="error") if e and e.startswith("ValueError")]
    assert error == 'ValueError: \ufffd[31mno\ufffd[0m \ufffd \\ "quoted" \ufffd <&> ]]>'


def test_graphml_refuses_what_it_cannot_say(tmp_path):
    """Nothing that detray makes; somebody may have hung a list on a node."""
    graph = networkx.MultiDiGraph()
    graph.add_node("a", things=[1])
    with pytest.raises(ValueError, match="no place for a list: attribute 'things'"):
        text_of(graph, "graphml")


@pytest.mark.parametrize("program", [troubles, experiments, many])
def test_dot_is_dot(tmp_path, program):
    """By the grammar of the language; by Graphviz itself where it is there."""
    for graph in (strange(), build(recorded(tmp_path / "run.trace", program))):
        text = text_of(graph, "dot", critical_path(graph))
        assert_dot(text)
        if shutil.which("dot"):
            subprocess.run(["dot", "-Tsvg"], input=text, text=True, check=True, timeout=60)


def assert_dot(text: str) -> None:
    """Statements of nodes and edges; quoted strings end where they should."""
    string = r'"(?:[^"\\\n]|\\.)*"'
    value = rf"(?:{string}|[A-Za-z_][A-Za-z_0-9]*|-?[0-9.]+)"
    attributes = rf"\[[a-z]+={value}(?:, [a-z]+={value})*\]"
    statement = re.compile(rf"  (?:node|n[0-9]+(?: -> n[0-9]+)?) {attributes};")
    first, *lines, last, end = text.split("\n")
    assert (first, last, end) == ("digraph detray {", "}", "")
    assert [line for line in lines if not statement.fullmatch(line)] == []


def test_svg_is_xml_whatever_the_names():
    """A message with the colours of a terminal in it does not spoil the picture."""
    graph = strange()
    xml.fromstring(text_of(graph, "svg", critical_path(graph)))
    sketch = Sketch()
    for number in range(100):
        sketch.task(f"t{number}", 0, 0, 1, 2, function="\x1b[1mbold", state="failed")
    xml.fromstring(text_of(sketch.graph, "svg"))


# ------------------------------------------------------------------ WfFormat


def test_wfformat_reads_back_in_the_simulator(tmp_path):
    """Tasks in their order, durations, who takes what from whom, sizes, cores, makespan."""
    trace = recorded(tmp_path / "run.trace", dots)
    graph = build(trace)
    workload = load_wfformat(draw(graph, tmp_path / "run.wf.json"))
    names = [task.name for task in workload.tasks]
    assert names == ["zeros", "zeros", "dot"]
    assert [task.id for task in workload.tasks] == [
        node for node, data in graph.nodes(data=True) if data.get("name") in ("zeros", "dot")
    ]
    ran_ns = [
        data["ended_ns"] - data["started_ns"]
        for _, data in graph.nodes(data=True)
        if data.get("name") in ("zeros", "dot")
    ]
    assert [task.duration_ns for task in workload.tasks] == ran_ns
    assert workload.tasks[2].inputs == ((0, 0), (1, 0))
    assert [task.outputs for task in workload.tasks] == [(100,)] * 3
    assert workload.recorded_nodes == (4,)
    ended_ns = max(data.get("ended_ns", -1) for _, data in graph.nodes(data=True))
    began_ns = min(data["submitted_ns"] for _, data in graph.nodes(data=True) if "demand" in data)
    assert abs(workload.recorded_makespan_ns - (ended_ns - began_ns)) <= 1000


def test_wfformat_leaves_out_what_did_not_finish(tmp_path):
    """What failed made nothing; what was put is a file that no task writes."""
    workload = load_wfformat(
        draw(build(recorded(tmp_path / "run.trace", troubles)), tmp_path / "run.wf.json")
    )
    assert [task.name for task in workload.tasks] == ["fine", "shaky"]
    assert [task.files_bytes for task in workload.tasks] == [20, 0]


def test_wfformat_of_several_nodes_names_their_machines(tmp_path):
    """Each task says where it ran."""
    parts = parts_of(run_cluster(2), tmp_path / "parts")
    from detray.trace.collecting import collect

    collect(parts, str(tmp_path / "cluster.trace"))
    graph = build(Trace((tmp_path / "cluster.trace").read_bytes()))
    document = json.loads(text_of(graph, "wfformat"))
    assert_valid(document)
    execution = document["workflow"]["execution"]
    assert execution["machines"] == [
        {"nodeName": "node-0", "cpu": {"coreCount": 2}},
        {"nodeName": "node-1", "cpu": {"coreCount": 2}},
    ]
    assert {task["machine"] for task in execution["tasks"]} == {"node-0", "node-1"}
    path = tmp_path / "cluster.wf.json"
    path.write_text(json.dumps(document))
    assert load_wfformat(path).recorded_nodes == (2, 2)


def test_wfformat_keeps_to_its_schema(tmp_path):
    """What schema 1.5 demands, said again here."""
    for program in (dots, troubles, experiments, many):
        graph = build(recorded(tmp_path / f"{program.__name__}.trace", program))
        assert_valid(json.loads(text_of(graph, "wfformat")))


def test_wfformat_of_nothing_is_refused():
    """The schema has no workflow without tasks."""
    with pytest.raises(ValueError, match="no task finished"):
        text_of(build(Trace(Machine().recorder.read_all())), "wfformat")


def assert_valid(document: dict) -> None:
    assert document["schemaVersion"] == "1.5"
    assert document["name"] and document["description"]
    assert document["runtimeSystem"]["name"] and document["runtimeSystem"]["version"]
    datetime.fromisoformat(document["createdAt"])
    specification = document["workflow"]["specification"]
    execution = document["workflow"]["execution"]
    sizes = {file["id"]: file["sizeInBytes"] for file in specification["files"]}
    assert all(type(size) is int and size >= 0 for size in sizes.values())
    ids = [task["id"] for task in specification["tasks"]]
    assert ids and len(set(ids)) == len(ids)
    tasks = {task["id"]: task for task in specification["tasks"]}
    for task in tasks.values():
        assert task["name"]
        names = [task["id"], *task["parents"], *task["children"]]
        names += [*task["inputFiles"], *task["outputFiles"]]
        assert all(re.fullmatch("[0-9a-zA-Z-_.]+", name) for name in names)
        assert {*task["inputFiles"], *task["outputFiles"]} <= set(sizes)
        assert all(task["id"] in tasks[parent]["children"] for parent in task["parents"])
        assert all(task["id"] in tasks[child]["parents"] for child in task["children"])
    assert [task["id"] for task in execution["tasks"]] == ids
    assert all(task["runtimeInSeconds"] >= 0 for task in execution["tasks"])
    assert all(task.get("coreCount", 1) >= 1 for task in execution["tasks"])
    assert execution["makespanInSeconds"] > 0
    datetime.fromisoformat(execution["executedAt"])
    for machine in execution["machines"]:
        assert re.fullmatch("[0-9a-zA-Z.-]+", machine["nodeName"])
        assert machine.get("cpu", {}).get("coreCount", 1) >= 1


# ------------------------------------------------------------------ all of them


def test_the_same_trace_gives_the_same_bytes(tmp_path):
    """Whatever the hash seed: sets order nothing."""
    trace = recorded(tmp_path / "run.trace", troubles, experiments, many)
    code = (
        "import sys; from detray.trace.graphs.graph import build;"
        "from detray.trace.drawings.drawing import text_of;"
        "from detray.trace.graphs.critical import critical_path; import detray.trace;"
        "graph = build(detray.trace.open(sys.argv[1])); path = critical_path(graph);"
        "sys.stdout.write(chr(0).join(text_of(graph, form, path) for form in sys.argv[2:]))"
    )
    seen = set()
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(trace.name), *ALL],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=60,
        )
        seen.add(done.stdout)
    (texts,) = seen
    graph = build(trace)
    path = critical_path(graph)
    assert texts.decode().split("\0") == [text_of(graph, form, path) for form in ALL]


def test_endings_choose_the_format(tmp_path):
    """The longest that fits: .wf.json is not .json; a format that is given goes before."""
    graph = build(recorded(tmp_path / "run.trace", dots))
    for ending, form in FORMATS.items():
        path = draw(graph, tmp_path / f"GRAPH{ending.upper()}")
        assert path.read_text() == text_of(graph, form)
    assert draw(graph, Path(tmp_path / "x.txt"), "dot").read_text().startswith("digraph")
    with pytest.raises(ValueError, match=r"no format 'png': use svg, dot, json, graphml, wfformat"):
        text_of(graph, "png")
