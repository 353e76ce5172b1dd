"""The shape of every made-up workload, and that a seed is all there is to chance."""

from __future__ import annotations

import os
import subprocess
import sys
from math import comb

import pytest

from detray_sim.workload import Workload, WorkloadError, validate
from detray_sim.workloads import GENERATORS, b_levels, digest, generate, measure


def shape(workload: Workload) -> tuple[int, int, int]:
    """Tasks, edges, tasks on the longest path."""
    found = measure(validate(workload))
    return found.tasks, found.edges, found.depth


@pytest.mark.parametrize("tasks", [1, 17])
def test_a_bag_has_no_edges(tasks: int) -> None:
    """Only tasks."""
    assert shape(generate("bag", tasks=tasks)) == (tasks, 0, 1)


@pytest.mark.parametrize("length", [1, 2, 50])
def test_a_chain_is_as_deep_as_long(length: int) -> None:
    """Nothing runs at the same time."""
    assert shape(generate("chain", length=length)) == (length, length - 1, length)


@pytest.mark.parametrize(("width", "rounds"), [(1, 1), (10, 1), (4, 3)])
def test_fork_join_goes_out_and_comes_back(width: int, rounds: int) -> None:
    """A round adds its branches and one join."""
    workload = generate("fork_join", width=width, rounds=rounds)
    assert shape(workload) == (rounds * (width + 1) + 1, 2 * width * rounds, 2 * rounds + 1)


@pytest.mark.parametrize(("maps", "reduces"), [(1, 1), (160, 160), (3, 8)])
def test_map_reduce_is_all_to_all(maps: int, reduces: int) -> None:
    """Each pair shares one object of its own."""
    workload = generate("map_reduce", maps=maps, reduces=reduces)
    assert shape(workload) == (maps + reduces, maps * reduces, 2)
    assert measure(workload).objects == maps * reduces + reduces
    taken = [item for task in workload.tasks for item in task.inputs]
    assert len(set(taken)) == len(taken) == maps * reduces


@pytest.mark.parametrize(
    ("leaves", "arity", "expected"),
    [(1, 2, (1, 0, 1)), (8, 2, (15, 14, 4)), (9, 3, (13, 12, 3)), (5, 2, (9, 8, 4))],
)
def test_a_tree_reduces_to_one(leaves: int, arity: int, expected: tuple[int, int, int]) -> None:
    """Every task but the last is taken once; an odd one waits for the next level."""
    assert shape(generate("tree_reduce", leaves=leaves, arity=arity)) == expected


@pytest.mark.parametrize(
    ("width", "steps", "reach", "periodic", "edges"),
    [(10, 4, 1, False, 3 * 28), (10, 4, 1, True, 3 * 30), (5, 3, 0, False, 10), (3, 2, 9, True, 9)],
)
def test_a_stencil_looks_at_its_neighbours(
    width: int, steps: int, reach: int, periodic: bool, edges: int
) -> None:
    """Ends have fewer, unless they are neighbours; nobody is taken twice."""
    workload = generate("stencil", width=width, steps=steps, reach=reach, periodic=periodic)
    assert shape(workload) == (width * steps, edges, steps)


@pytest.mark.parametrize("tiles", [1, 2, 3, 8])
def test_cholesky_has_the_kernels_of_the_textbook(tiles: int) -> None:
    """n potrf, n(n-1)/2 trsm and syrk each, n over 3 gemm; the diagonal is the longest path."""
    workload = generate("cholesky", tiles=tiles)
    pairs = comb(tiles, 2)
    kinds = [task.name for task in workload.tasks]
    counts = [kinds.count(kind) for kind in ("potrf", "trsm", "syrk", "gemm")]
    assert counts == [tiles, pairs, pairs, comb(tiles, 3)]
    edges = tiles - 1 + 2 * (pairs + comb(tiles - 1, 2)) + 2 * comb(tiles, 3) + comb(tiles - 1, 3)
    assert shape(workload) == (comb(tiles + 2, 3), edges, 3 * tiles - 2)


def test_cholesky_weighs_what_it_computes() -> None:
    """The sum of the operations of n x n tiles is (n^3)/3 tile solves, to the leading order."""
    workload = generate("cholesky", tiles=30, duration_ns=3_000)
    work = measure(workload).work_ns
    assert work == pytest.approx(3_000 * 30**3 / 3, rel=0.06)


def test_a_pipeline_in_order_is_a_wavefront_of_items() -> None:
    """An item follows the stage before, and the item before it in its stage; that is free."""
    ordered = generate("pipeline", items=6, stages=4)
    assert shape(ordered) == (24, 6 * 3 + 5 * 4, 9)
    assert ordered.tasks[5].inputs == ((4, 0), (1, 1)) and ordered.tasks[1].outputs[1] == 0
    assert shape(generate("pipeline", items=6, stages=4, in_order=False)) == (24, 18, 4)


@pytest.mark.parametrize(
    ("fan_out", "depth", "expected"),
    [(4, 0, (1, 0, 1)), (3, 1, (5, 6, 3)), (2, 3, (22, 28, 7)), (1, 2, (5, 4, 5))],
)
def test_nested_tasks_go_out_and_come_back(
    fan_out: int, depth: int, expected: tuple[int, int, int]
) -> None:
    """Two tasks for each that launches others."""
    assert shape(generate("nested", fan_out=fan_out, depth=depth)) == expected


@pytest.mark.parametrize(("count", "edges"), [(1, 1), (2, 4), (107, 214)])
def test_neighbours_in_a_ring_are_merged(count: int, edges: int) -> None:
    """A ring of one has itself for a neighbour."""
    assert shape(generate("merge_neighbours", count=count)) == (2 * count, edges, 2)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (19, 19), (5, 2)])
def test_a_grid_is_a_wavefront(width: int, height: int) -> None:
    """Left and above."""
    edges = (width - 1) * height + width * (height - 1)
    workload = generate("grid", width=width, height=height)
    assert shape(workload) == (width * height, edges, width + height - 1)


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("skips", [0, 1, 3])
def test_a_layered_graph_has_its_layers(varied: bool, skips: int) -> None:
    """Every task follows one of the layer before, and at most `degree` of them."""
    workload = generate("layered", 5, layers=12, width=7, degree=3, varied=varied, skips=skips)
    layer = [int(task.id.removeprefix("task-").split(".")[0]) for task in workload.tasks]
    assert measure(validate(workload)).depth == 12
    assert varied or len(workload.tasks) == 84
    far = 0
    for number, task in enumerate(workload.tasks):
        near = [p for p, _ in task.inputs if layer[p] == layer[number] - 1]
        far += len(task.inputs) - len(near)
        assert (1 if layer[number] else 0) <= len(near) <= 3
    assert (far > 0) == (skips > 0)


# ----------------------------------------------------------------------- determinism

_SPREAD = {"duration_law": "lognormal", "size_law": "exponential"}


def test_the_same_seed_makes_the_same_workload() -> None:
    """And another seed another one, as far as chance goes."""
    for kind in GENERATORS:
        first = generate(kind, 3, **_SPREAD)
        assert digest(first) == digest(generate(kind, 3, **_SPREAD))
        assert digest(first) != digest(generate(kind, 4, **_SPREAD))


def test_without_spread_the_seed_does_not_matter() -> None:
    """Except for the graph that is random itself."""
    for kind in GENERATORS:
        same = generate(kind, 3).tasks == generate(kind, 4).tasks
        assert same == (kind != "layered")


def test_a_longer_chain_begins_with_the_shorter_one() -> None:
    """A draw belongs to one task, however many there are."""
    short, long = (generate("chain", 1, length=n, **_SPREAD) for n in (20, 200))
    assert short.tasks == long.tasks[:20]


_PROGRAM = """
from detray_sim.workloads import GENERATORS, digest, generate
for kind in GENERATORS:
    print(kind, digest(generate(kind, 3, duration_law="lognormal", size_law="exponential")))
"""


def test_workloads_do_not_depend_on_the_hash_seed() -> None:
    """Fresh processes with other hashes of strings make the same."""
    made = []
    for seed in ("0", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        made.append(done.stdout)
    here = [f"{kind} {digest(generate(kind, 3, **_SPREAD))}\n" for kind in GENERATORS]
    assert made == ["".join(here)] * 2


def test_a_workload_is_what_it_always_was() -> None:
    """A kept digest: results of different versions can be compared."""
    workload = generate("grid", 1, width=4, height=3, **_SPREAD)
    assert digest(workload) == KEPT_DIGEST


KEPT_DIGEST = "ff3f62d78e9377494b5f1cda2fdec053"

# ------------------------------------------------------------------------ parameters


def test_durations_and_sizes_are_those_asked_for() -> None:
    """Demand and expectation too."""
    workload = generate("bag", tasks=2, duration_ns=5_000, size_bytes=7, cpus=0.5)
    task = workload.tasks[1]
    assert (task.duration_ns, task.outputs, task.demand) == (5_000, (7,), (("CPU", 5_000),))
    assert task.expected_ns == 5_000
    assert generate("bag", tasks=1, cpus=0).tasks[0].demand == ()


def test_the_mean_is_kept_by_every_law() -> None:
    """What a user expects is the mean; what happens is around it."""
    for law in ("uniform", "exponential", "lognormal"):
        workload = generate("bag", 1, tasks=4_000, duration_ns=10**9, duration_law=law)
        mean = measure(workload).work_ns / 4_000
        assert mean == pytest.approx(10**9, rel=0.07)
        assert {task.expected_ns for task in workload.tasks} == {10**9}


def test_b_levels_of_a_chain_count_down() -> None:
    """The longest path to the end; a belief may replace the truth."""
    workload = generate("chain", length=4, duration_ns=10)
    assert b_levels(workload) == [40, 30, 20, 10]
    assert b_levels(workload, lambda task: 1) == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("ring", {}, "no generator is called 'ring'; there are bag, chain"),
        ("grid", {"depth": 3}, "grid has no parameter 'depth'; it has duration_ns"),
        ("grid", {"width": 0}, "grid: width is at least 1, not 0"),
        ("grid", {"width": "wide"}, "grid: Expected `int`, got `str`"),
        ("grid", {"width": True}, "grid: Expected `int`, got `bool`"),
        ("grid", {"height": -4}, "grid: height is at least 1, not -4"),
        ("tree_reduce", {"arity": 1}, "arity is at least 2"),
        ("nested", {"depth": -1}, "depth is at least 0"),
        ("bag", {"duration_ns": -1}, "negative"),
        ("bag", {"size_bytes": -1}, "negative"),
        ("bag", {"duration_law": "gauss"}, "duration_law is 'gauss'; there are constant"),
        ("bag", {"size_law": "uniform", "size_cv": 0.9}, "at most 0.577"),
        ("bag", {"duration_cv": float("nan")}, "from 0 to 100"),
        ("bag", {"cpus": -1.0}, "cpus is from 0"),
        ("bag", {"tasks": 10**9}, "more than 10000000 tasks"),
    ],
)
def test_senseless_parameters_are_one_line(
    kind: str, parameters: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who, what, and what would do."""
    if parameters.get("tasks"):
        monkeypatch.setattr("detray_sim.workloads.layout.TASKS_MAX", 1000)
        message = message.replace("10000000", "1000")
    with pytest.raises(WorkloadError) as raised:
        generate(kind, 0, **parameters)
    assert message in str(raised.value) and "\n" not in str(raised.value)
