"""WfFormat documents, good and bad."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from detray_sim.workload import Workload, WorkloadError
from detray_sim.workloads import GENERATORS, generate, measure
from detray_sim.workloads.wfformat import load_wfformat, parse_wfformat, to_wfformat
from tests.sim.data import data_files

Document = dict[str, Any]  # Any: JSON

RECORDED = {
    "1000genome-chameleon-10ch-250k-001": (410, 5053, 4 * [48]),
    "1000genome-chameleon-2ch-100k-001": (52, 776, [48]),
    "airrflow-dirt02-001": (212, 4706, [1]),
    "atacseq-dirt02-001": (265, 8549, [1]),
    "bacass-dirt02-001": (11, 4243, [1]),
    "blast-chameleon-large-001": (103, 3908.44, 4 * [24]),
    "blast-chameleon-small-001": (43, 1279.3, 2 * [24]),
    "bwa-chameleon-medium-001": (1004, 4607.52, 4 * [24]),
    "bwa-chameleon-small-001": (104, 689.9, 4 * [24]),
    "cycles-chameleon-1l-1c-9p-001": (67, 454, [48]),
    "epigenomics-chameleon-ilmn-1seq-100k-001": (125, 653, [48]),
    "epigenomics-chameleon-ilmn-3seq-50k-001": (793, 1168, 5 * [48]),
    "helloworld-chain-5-chameleon": (5, 661, [64]),
    "helloworld-forkjoin-10-chameleon": (10, 437, [64]),
    "montage-chameleon-2mass-005d-001": (58, 1060, [48]),
    "montage-chameleon-dss-10d-001": (472, 2172, 4 * [48]),
    "rnaseq-dirt02-001": (197, 3131, [1]),
    "seismology-chameleon-300p-001": (301, 518, 6 * [48]),
    "soykb-chameleon-10fastq-10ch-001": (96, 9323, 2 * [48]),
    "srasearch-chameleon-20a-001": (42, 7576, 2 * [48]),
}
"""Tasks, makespan in seconds and cores of each machine, as the files say."""


def document() -> Document:
    """Three tasks: b takes a file of a and one from outside, c only waits for a."""
    specified: list[Document] = [
        {"id": "c_3", "name": "c_3", "parents": ["a_1"], "inputFiles": [], "outputFiles": []},
        {"id": "a_1", "name": "a_1", "children": ["b_2"], "outputFiles": ["x", "y"]},
        {"id": "b_2", "name": "b", "parents": ["a_1"], "inputFiles": ["y", "raw", "y"]},
    ]
    files = [{"id": "x", "sizeInBytes": 1}, {"id": "y", "sizeInBytes": 20}]
    files.append({"id": "raw", "sizeInBytes": 300})
    executed: list[Document] = [
        {"id": "a_1", "runtimeInSeconds": 1.5, "coreCount": 2},
        {"id": "b_2", "runtimeInSeconds": 0.25},
        {"id": "c_3", "runtimeInSeconds": 3},
    ]
    machines = [{"nodeName": "m", "cpu": {"coreCount": 4}}]
    return {
        "name": "tiny",
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {"tasks": specified, "files": files},
            "execution": {"makespanInSeconds": 5.5, "tasks": executed, "machines": machines},
        },
    }


def read(content: Document) -> Workload:
    """Through the reader."""
    return parse_wfformat(json.dumps(content).encode(), "tiny.json")


def test_files_are_outputs_and_inputs() -> None:
    """What a task takes of another, what from outside, and what it only waits for."""
    workload = read(document())
    a, b, c = sorted(workload.tasks, key=lambda task: task.id)
    assert [task.id for task in workload.tasks] == ["a_1", "c_3", "b_2"]
    assert (a.outputs, a.duration_ns, a.demand) == ((1, 20, 0), 1_500_000_000, (("CPU", 20_000),))
    assert (b.inputs, b.files_bytes, b.outputs, b.name) == (((0, 1),), 300, (), "b")
    assert (c.inputs, c.name, c.demand) == (((0, 2),), "c", (("CPU", 10_000),))
    assert (workload.recorded_makespan_ns, workload.recorded_nodes) == (5_500_000_000, (4,))


def test_a_file_of_two_producers_is_taken_from_the_parent() -> None:
    """Workflow systems let a task overwrite what another wrote."""
    content = document()
    tasks = content["workflow"]["specification"]["tasks"]
    tasks[0]["outputFiles"] = ["y"]
    assert [task.inputs for task in read(content).tasks if task.id == "b_2"] == [((0, 1),)]
    tasks[2]["inputFiles"], tasks[2]["outputFiles"] = ["z"], ["z"]
    content["workflow"]["specification"]["files"].append({"id": "z", "sizeInBytes": 7})
    (updated,) = [task for task in read(content).tasks if task.id == "b_2"]
    assert (updated.files_bytes, updated.outputs) == (7, (7,))


@pytest.mark.parametrize("kind", GENERATORS)
def test_what_is_written_reads_as_the_same(kind: str) -> None:
    """Tasks, sizes, durations and dependencies survive; expectations have no place there."""
    workload = generate(kind, 2, duration_law="lognormal", size_law="exponential")
    again = parse_wfformat(to_wfformat(workload), f"{kind}.json")
    for one, other in zip(again.tasks, workload.tasks, strict=True):
        assert (one.id, one.duration_ns, one.demand) == (other.id, other.duration_ns, other.demand)
        assert (one.inputs, one.outputs) == (other.inputs, other.outputs)


def _put(content: Document, path: str, value: object) -> None:
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = content
    for step in steps:
        place = place[step]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value


_TASKS = "workflow.specification.tasks"
_RUNS = "workflow.execution.tasks"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schemaVersion", "1.4", "$.schemaVersion is '1.4'; this reads WfFormat 1.5"),
        ("schemaVersion", KeyError, "$.schemaVersion is missing"),
        ("schemaVersion", 1.5, "`$.schemaVersion`"),
        ("workflow", KeyError, "`workflow`"),
        ("workflow.specification", [], "`$.workflow.specification`"),
        ("workflow.execution", KeyError, "$.workflow.execution is missing: no runtimes"),
        ("workflow.execution.makespanInSeconds", -1, "`$.workflow.execution.makespanInSeconds`"),
        (f"{_RUNS}.1", KeyError, f"$.{_TASKS}[2]: 'b_2' has no runtime"),
        (f"{_RUNS}.1.runtimeInSeconds", KeyError, f"$.{_RUNS}[1]: 'b_2' has no runtimeInSeconds"),
        (f"{_RUNS}.1.runtimeInSeconds", -2, f"`$.{_RUNS}[1].runtimeInSeconds`"),
        (f"{_RUNS}.1.runtimeInSeconds", 1e300, f"$.{_RUNS}[1]"),
        (f"{_RUNS}.1.runtimeInSeconds", "long", f"`$.{_RUNS}[1].runtimeInSeconds`"),
        (f"{_RUNS}.1.coreCount", 1e12, f"$.{_RUNS}[1]"),
        (f"{_TASKS}.1.id", "b_2", f"$.{_TASKS}[2]: 'b_2' is there twice"),
        (f"{_TASKS}.0.parents", ["nobody"], f"$.{_TASKS}[0].parents: no task has the id 'nobody'"),
        (f"{_TASKS}.1.children", ["x"], f"$.{_TASKS}[1].children: no task has the id 'x'"),
        (f"{_TASKS}.1.parents", ["b_2"], "wait for each other: 'a_1' -> 'b_2' -> 'a_1'"),
        (f"{_TASKS}.1.parents", ["a_1"], "wait for each other: 'a_1' -> 'a_1'"),
        (f"{_TASKS}.2.inputFiles", ["q"], f"$.{_TASKS}[2].inputFiles: 'q' has no size"),
        (f"{_TASKS}.2.outputFiles", ["q"], f"$.{_TASKS}[2].outputFiles: 'q' has no size"),
        ("workflow.specification.files.0.sizeInBytes", -1, "$.workflow.specification.files"),
        ("workflow.specification.files.0.id", "y", "'y' is there twice"),
    ],
)
def test_bad_documents_say_what_and_where(path: str, value: object, message: str) -> None:
    """One line, with the file and the place in it."""
    content = copy.deepcopy(document())
    _put(content, path, value)
    with pytest.raises(WorkloadError) as raised:
        read(content)
    text = str(raised.value)
    assert text.startswith("tiny.json: ") and message in text and "\n" not in text


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b'"x"', b"{" * 100_000])
def test_what_is_no_document_is_a_workload_error(content: bytes) -> None:
    """And nothing else."""
    with pytest.raises(WorkloadError, match="tiny"):
        parse_wfformat(content, "tiny")


def test_a_truncated_document_is_a_workload_error() -> None:
    """Wherever it ends."""
    content = json.dumps(document()).encode()
    for end in range(0, len(content), 37):
        with pytest.raises(WorkloadError, match="tiny"):
            parse_wfformat(content[:end], "tiny")


def test_recorded_workflows_load() -> None:
    """Tasks, makespan and machines are those of the files; a workload written loads again."""
    seen = {}
    for path in data_files("wfinstances", "*.json"):
        workload = load_wfformat(path)
        nodes = list(workload.recorded_nodes)
        seen[workload.name] = (len(workload.tasks), workload.recorded_makespan_ns / 1e9, nodes)
        assert parse_wfformat(to_wfformat(workload), str(path)).tasks == workload.tasks
    assert {name: facts for name, facts in seen.items() if name in RECORDED} == RECORDED


def test_a_deep_recorded_workflow_is_as_deep() -> None:
    """And no execution was shorter than its longest path, if it ran one task at a time."""
    for path in data_files("wfinstances", "airrflow-*.json"):
        found = measure(load_wfformat(path))
        assert (found.tasks, found.depth) == (212, 25)
