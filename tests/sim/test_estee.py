"""The graphs and published results of the scheduler study."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from detray_sim.workload import Workload, WorkloadError
from detray_sim.workloads import measure
from detray_sim.workloads.estee import (
    graph_names,
    load_all,
    load_estee,
    load_published,
    load_published_networks,
    load_published_scaling,
)
from detray_sim.workloads.from_graph import from_graph, to_graph
from tests.sim.data import data_folder

TABLE = {
    "plain1n": (380, 0, 0.0, 1),
    "plain1e": (380, 0, 0.0, 1),
    "plain1cpus": (380, 0, 0.0, 1),
    "triplets": (330, 220, 17.19, 3),
    "merge_neighbours": (214, 107, 10.36, 2),
    "merge_triplets": (148, 111, 10.77, 2),
    "merge_small_big": (240, 160, 7.74, 2),
    "fork1": (300, 100, 9.77, 2),
    "fork2": (300, 200, 19.53, 2),
    "bigmerge": (321, 320, 31.25, 2),
    "duration_stairs": (380, 0, 0.0, 1),
    "size_stairs": (191, 190, 17.53, 2),
    "splitters": (255, 255, 32.25, 8),
    "conflux": (255, 255, 31.88, 8),
    "grid": (361, 361, 45.12, 37),
    "fern": (401, 401, 11.11, 201),
    "gridcat": (401, 401, 115.71, 4),
    "crossv": (94, 90, 8.52, 5),
    "crossvx": (200, 200, 32.66, 5),
    "fastcrossv": (94, 90, 8.52, 5),
    "mapreduce": (321, 25760, 439.06, 3),
    "nestedcrossv": (266, 270, 28.41, 8),
    "montage": (77, 150, 0.21, 6),
    "cybershake": (104, 106, 0.84, 4),
    "epigenomics": (204, 305, 1.36, 8),
    "ligo": (186, 186, 0.11, 6),
    "sipht": (64, 136, 0.12, 5),
}
"""Tasks, objects, their sum in GiB, tasks on the longest path: table A of the study's thesis."""

TASK = {"d": 1.5, "e_d": None, "cpus": 2, "outputs": [{"s": 0.5}, {"s": 0}], "inputs": []}
USER = {"d": 0.25, "e_d": 3, "cpus": 1, "outputs": [], "inputs": [[0, 1], [0, 0], [0, 1]]}


def written(folder: Path, tasks: object, name: str = "tiny") -> Path:
    """A zip as the study ships them."""
    path = folder / "graphs.zip"
    table = {"graph_name": {"0": name}, "graph_id": {"0": "x"}, "graph": {"0": json.dumps(tasks)}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("graphs.zip", json.dumps(table))
    return path


def test_a_graph_keeps_all_that_it_says(tmp_path: Path) -> None:
    """Sizes are MiB, repeated inputs are one, an object of no size is one too."""
    path = written(tmp_path, [TASK, USER])
    first, second = load_estee(path, "tiny").tasks
    assert (first.duration_ns, first.expected_ns, first.outputs) == (
        1_500_000_000,
        -1,
        (1 << 19, 0),
    )
    assert (first.demand, second.demand) == ((("CPU", 20_000),), (("CPU", 10_000),))
    assert (second.expected_ns, second.outputs) == (3_000_000_000, ())
    assert second.inputs == ((0, 1), (0, 0))
    assert graph_names(path) == ("tiny",) and list(load_all(path)) == ["tiny"]


def test_tasks_may_refer_to_later_ones(tmp_path: Path) -> None:
    """The list is put in order; ids tell where a task stood."""
    later = {**USER, "inputs": [[1, 0]]}
    workload = load_estee(written(tmp_path, [later, TASK]), "tiny")
    assert [task.id for task in workload.tasks] == ["t1", "t0"]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([{**TASK, "d": -1}], "graphs.zip: tiny: Expected `float` >= 0.0 - at `$[0].d`"),
        ([{**TASK, "d": 1e300}], "graphs.zip: tiny[0]: 1e+300 s is no time"),
        ([{**TASK, "cpus": -1}], "at `$[0].cpus`"),
        ([{**TASK, "outputs": [{"s": -3}]}], "at `$[0].outputs[0].s`"),
        ([{**TASK, "outputs": [{"s": 1e300}]}], "tiny[0]: an output is too large"),
        ([{**TASK, "outputs": [{}]}], "missing required field `s`"),
        ([{**TASK, "inputs": [[7, 0]]}], "task 't0' takes from task number 7"),
        ([{**TASK, "inputs": [[-1, 0]]}], "at `$[0].inputs[0][0]`"),
        ([TASK, {**USER, "inputs": [[0, 2]]}], "takes output 2 of 't0', which has 2"),
        ([{**TASK, "inputs": [[0, 0]]}], "wait for each other: 't0' -> 't0'"),
        ({"no": "list"}, "Expected `array`, got `object`"),
    ],
)
def test_bad_graphs_say_what_and_where(tmp_path: Path, tasks: object, message: str) -> None:
    """One line, with file and graph."""
    path = written(tmp_path, tasks)
    with pytest.raises(WorkloadError) as raised:
        load_estee(path, "tiny")
    assert message in str(raised.value).replace(f"{tmp_path}/", "")


def test_what_is_no_zip_of_graphs_is_a_workload_error(tmp_path: Path) -> None:
    """Nor is a wrong name."""
    path = written(tmp_path, [TASK], name="gridcat")
    with pytest.raises(
        WorkloadError, match="no graph is called 'gridcatt'; did you mean 'gridcat'"
    ):
        load_estee(path, "gridcatt")
    whole = path.read_bytes()
    for end in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(WorkloadError, match="no readable zip archive"):
            load_estee(path, "gridcat")


@pytest.fixture(scope="module")
def shipped() -> dict[str, Workload]:
    """All graphs that the study ships."""
    found: dict[str, Workload] = {}
    for path in sorted(data_folder("estee").glob("*.zip")):
        found |= load_all(path)
    if not found:
        pytest.skip("no real inputs: estee/ holds no *.zip")
    return found


def test_the_shipped_graphs_are_those_of_the_thesis(shipped: dict[str, Workload]) -> None:
    """All 27 rows of its table."""
    facts = {}
    for name, workload in shipped.items():
        found = measure(workload)
        gib = round(found.objects_bytes / (1 << 30), 2)
        facts[name] = found.tasks, found.objects, gib, found.depth
    assert facts == TABLE


def test_the_longest_paths_are_those_measured(shipped: dict[str, Workload]) -> None:
    """In seconds; fastcrossv's is what its fastest schedules take."""
    path_s = {
        name: measure(shipped[name]).critical_path_ns / 1e9 for name in ("fastcrossv", "grid")
    }
    assert path_s == pytest.approx({"fastcrossv": 65.969, "grid": 774.957}, abs=1e-3)


def test_shipped_graphs_survive_networkx(shipped: dict[str, Workload]) -> None:
    """There and back, nothing changes."""
    for name, workload in shipped.items():
        assert from_graph(to_graph(workload), name).tasks == workload.tasks


def test_published_makespans_load() -> None:
    """72 series of the study, 18 pairs of networks, 10 of scaling."""
    folder = data_folder("estee")
    found = load_published(folder / "estee_published.json")
    assert len(found) == 72 * 5
    by_case = {(p.graph, p.nodes, p.cpus, p.scheduler, p.bandwidth_mib_s): p for p in found}
    assert by_case["gridcat", 8, 4, "blevel-gt", 8192].makespan_s == 14.68
    networks = load_published_networks(folder / "estee_netmodel_published.json")
    assert len(networks) == 18
    assert networks["mapreduce", "blevel-gt"] == (37.606, 16.998, 5.792, 2.19, 1.226)
    scaling = load_published_scaling(folder / "rsds_published.json")
    assert scaling.workers == (24, 168, 360, 552, 744, 1128, 1512)
    assert scaling.makespan_s["merge-100K|dask"][0] == 50.24


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "truncated"),
        ('{"gridcat|ws": [1, 2, 3, 4, 5]}', "not like 'gridcat|8x4|ws'"),
        ('{"gridcat|8x|ws": [1, 2, 3, 4, 5]}', "not like 'gridcat|8x4|ws'"),
        ('{"gridcat|8x4|ws": [1, 2]}', "has 2 values instead of 5"),
        ('{"gridcat|8x4|ws": "fast"}', "Expected `array`, got `str`"),
    ],
)
def test_bad_tables_of_results_are_one_line(tmp_path: Path, content: str, message: str) -> None:
    """With the file and the series."""
    path = tmp_path / "published.json"
    path.write_text(content)
    with pytest.raises(WorkloadError) as raised:
        load_published(path)
    assert message in str(raised.value) and "published.json" in str(raised.value)
