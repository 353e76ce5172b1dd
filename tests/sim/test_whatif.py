"""What-if answers that are known beforehand: makespans to the nanosecond, and what stops them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detray.core.strategy import AFFINITY, SPREAD, Strategy
from detray.ids import NodeID, ObjectID, node_name
from detray_sim import behaviour as do
from detray_sim.cli import main
from detray_sim.result import NodeShape
from detray_sim.scenario import NetworkChoice, PolicyChoice
from detray_sim.values import Blob
from detray_sim.whatif import CHAIN, DISK, NETWORK, OWN, WORK, Question, Row
from detray_sim.whatif_script import scaled
from detray_sim.whatif_text import answer, knees
from detray_sim.workload import WorkloadError
from tests.sim.data import ROOT
from tests.sim.recorded import (
    MB,
    MS,
    bag,
    chain,
    nested,
    question,
    record,
    remote,
    serial,
    shuffle,
    throttled,
)

INSTANT = NetworkChoice()
SLOW = NetworkChoice(model="maxmin", bandwidth_bytes_per_s=10 * MB, latency_ns=MS)


def on(
    asked: Question, nodes: int, cpus: int = 1, policy: str = "spread", **options: object
) -> Row:
    """The prediction for a cluster where nothing but computing takes time, unless it is said."""
    given = {"network": INSTANT, "costs": "free", **options}
    return asked.predict(
        asked.cluster(nodes, cpus, policy=PolicyChoice(name=policy), **given)  # type: ignore[arg-type]
    )


# ------------------------------------------------------------------ what stops it


def test_a_chain_gains_nothing_and_its_critical_path_is_why(tmp_path: Path) -> None:
    """Ten tasks of 10 ms that take each other."""
    asked = question(record(tmp_path / "a.trace", chain(10)))
    rows = [on(asked, nodes) for nodes in (1, 2, 4, 8)]
    assert [row.makespan_s for row in rows] == [0.1] * 4
    assert [row.bound.kind for row in rows[1:]] == [CHAIN] * 3
    assert rows[-1].bound.s == 0.1 and rows[-1].chain == (("link", 0.1),)
    assert "the critical path of 100 ms (100% of it link) is what stops it" in answer(rows, 0.1)


def test_a_bag_gains_linearly_and_the_work_is_why(tmp_path: Path) -> None:
    """Thirty-two equal tasks."""
    asked = question(record(tmp_path / "a.trace", bag(32)))
    rows = [on(asked, nodes) for nodes in (1, 2, 4, 8)]
    assert [row.makespan_s for row in rows] == [0.32, 0.16, 0.08, 0.04]
    assert [row.speedup for row in rows] == [1, 2, 4, 8]
    assert {row.bound.kind for row in rows} == {WORK}
    assert {(row.efficiency, row.utilisation) for row in rows} == {(1.0, 1.0)}
    assert "8 nodes of 1 CPU would take 40 ms instead of 320 ms" in answer(rows, 0.32)
    assert answer(rows, 0.32).endswith("more cores would help")
    assert knees(rows)[0]["nodes"] == 8


def test_more_cores_of_one_node_do_the_same(tmp_path: Path) -> None:
    """Without any other node there is nobody to ask."""
    asked = question(record(tmp_path / "a.trace", bag(32)))
    assert [on(asked, 1, cpus).makespan_s for cpus in (1, 2, 4, 8)] == [0.32, 0.16, 0.08, 0.04]


def test_a_shuffle_on_a_slow_network_is_bound_by_bytes(tmp_path: Path) -> None:
    """Eight maps make sixteen parts of a megabyte each; on a fast network work is the limit."""
    asked = question(record(tmp_path / "a.trace", shuffle(8, 16, MB)))
    slow, fast = on(asked, 4, network=SLOW), on(asked, 4)
    assert slow.bound.kind == NETWORK and slow.bytes_moved > 50 * MB
    assert fast.bound.kind in (WORK, CHAIN) and fast.makespan_s < slow.makespan_s / 10
    assert slow.makespan_s >= slow.bound.s >= slow.bytes_moved / 4 / (10 * MB)
    assert "busiest card" in answer([slow], 1.0)


def test_a_serial_driver_is_bound_by_itself(tmp_path: Path) -> None:
    """It computes 10 ms between two submissions of tasks of 1 ms."""
    asked = question(record(tmp_path / "a.trace", serial(20)))
    rows = [on(asked, nodes) for nodes in (1, 8)]
    assert [row.makespan_s for row in rows] == [0.191, 0.191]
    assert {row.bound.kind for row in rows} == {OWN}
    assert "the driver, which takes 190 ms for itself" in answer(rows, 0.191)


def test_a_small_store_is_bound_by_its_disk(tmp_path: Path) -> None:
    """Values that fit into the recorded store do not fit into one of 4 MB."""
    asked = question(record(tmp_path / "a.trace", bag(20, 1, size_bytes=MB)))
    assert on(asked, 1).bound.kind == WORK
    small = on(asked, 1, store_bytes=4 * MB, costs="measured")
    assert small.bound.kind == DISK and "spilled" in small.bound.short
    assert small.makespan_s >= small.bound.s


def test_what_no_limit_explains_is_said(tmp_path: Path) -> None:
    """Three tasks on two cores take two rounds; if workers must start, most of it is that."""
    asked = question(record(tmp_path / "a.trace", bag(3)))
    row = on(asked, 1, 2)
    assert (row.makespan_s, row.bound.s) == (0.02, 0.015)
    assert answer([row], 0.03).endswith("more cores would help")
    wide = on(asked, 1, 2, costs="measured")
    assert wide.makespan_s > 1.5 * wide.bound.s
    assert "the rest is waiting" in answer([wide], 0.03)


def test_resources_other_than_cpus_stop_it_too(tmp_path: Path) -> None:
    """Eight tasks that ask for a GPU, of which the recorded node had one."""
    shape = NodeShape(cpus=8, resources=(("GPU", 10_000),))
    demand = (("CPU", 10_000), ("GPU", 10_000))
    path = record(tmp_path / "a.trace", bag(8, demand=demand), shapes=(shape,))
    asked = question(path)
    assert on(asked, 1, 8).bound.kind == "GPU" and on(asked, 1, 8).makespan_s == 0.08
    assert on(asked, 1, 8, resources={"GPU": 40_000}).makespan_s == 0.02
    with pytest.raises(WorkloadError, match=r"work asks for GPU 1, .* 0: .* --resource GPU="):
        on(asked, 1, 8, resources={"GPU": 0})
    demand = (("CPU", 20_000),)
    path = record(tmp_path / "b.trace", bag(2, demand=demand), shapes=(NodeShape(cpus=2),))
    with pytest.raises(WorkloadError, match=r"asks for CPU 2.* give more with --cpus"):
        on(question(path), 4, 1)


# ------------------------------------------------------------------ faster


def test_halving_a_function_is_worth_what_it_is_worth(tmp_path: Path) -> None:
    """In a chain, half of it; beside a longer one, nothing."""
    asked = question(record(tmp_path / "a.trace", chain(4, 10), bag(1, 30)))
    cluster = asked.cluster(1, 2, network=INSTANT, costs="free")

    def halved(name: str) -> float:
        changed = Question(scaled(asked.recording, {name: Fraction(1, 2)}))
        return changed.predict(cluster).makespan_s

    assert asked.predict(cluster).makespan_s == 0.04
    assert (halved("link"), halved("work")) == (0.03, 0.04)
    assert asked.functions() == [("link", 0.04), ("work", 0.03), ("(driver)", 0.0)]


def test_machines_of_twice_the_speed_take_half_the_time(tmp_path: Path) -> None:
    """The driver's, too."""
    asked = question(record(tmp_path / "a.trace", serial(20)))
    assert on(asked, 1, speed_permille=2000).makespan_s == pytest.approx(0.191 / 2, rel=1e-6)


# ------------------------------------------------------------------ as recorded


PROGRAMS: dict[str, Callable[[], do.Body]] = {
    "chain": lambda: chain(5),
    "bag": lambda: bag(7),
    "nested": lambda: nested(3),
    "serial": lambda: serial(4),
    "shuffle": lambda: shuffle(3, 4, MB),
    "throttled": lambda: throttled([30, 10, 20, 10, 40, 10, 10], 3),
}


@pytest.mark.parametrize("cpus", [1, 3])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_recorded_cluster_reproduces_the_recording(
    name: str, cpus: int, tmp_path: Path
) -> None:
    """To the nanosecond where nothing but computing takes time."""
    path = record(tmp_path / "a.trace", PROGRAMS[name](), shapes=(NodeShape(cpus=cpus),))
    asked = question(path)
    row = asked.predict(asked.recorded_cluster(INSTANT, "free"))
    assert row.makespan_s == asked.recording.makespan_ns / 1e9
    assert (row.never_ran, row.lost, asked.recording.left_out) == (0, (), ())


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_recorded_somewhere_runs_elsewhere_as_if_it_were_recorded_there(
    name: str, tmp_path: Path
) -> None:
    """The prediction from one CPU for four is what four CPUs really (virtually) took."""
    there = question(record(tmp_path / "b.trace", PROGRAMS[name](), shapes=(NodeShape(cpus=4),)))
    here = question(record(tmp_path / "a.trace", PROGRAMS[name]()))
    predicted = here.predict(here.cluster(1, 4, network=INSTANT, costs="free"))
    assert predicted.makespan_s == there.recording.makespan_ns / 1e9


def test_by_times_nothing_begins_before_it_was_submitted(tmp_path: Path) -> None:
    """A driver that takes its time is an arrival process: no machine changes when they come."""
    path = record(tmp_path / "a.trace", serial(20))
    row = on(question(path, "times"), 1, speed_permille=10_000)
    assert row.makespan_s == pytest.approx(0.1901)
    assert on(question(path), 1, speed_permille=10_000).makespan_s == pytest.approx(0.0191)


def test_what_is_not_waited_for_again_keeps_its_time(tmp_path: Path) -> None:
    """A `get` that gave up takes as long on any cluster; one that polls does not count."""

    def gives_up(run: do.Run) -> do.Steps:
        (item,) = yield do.Submit(remote("long", 100))
        try:
            yield do.GetValues((item,), timeout_ns=40 * MS)
        except do.ReadTimedOut:
            pass
        yield do.Submit(remote("next", 10))
        yield do.Sleep(200 * MS)
        return []

    def polls(run: do.Run) -> do.Steps:
        (item,) = yield do.Submit(remote("long", 100))
        while not (yield do.WaitFor((item,), 1, timeout_ns=30 * MS)):
            pass
        yield do.Submit(remote("next", 10))
        yield do.Sleep(200 * MS)
        return []

    asked = question(record(tmp_path / "a.trace", gives_up, shapes=(NodeShape(cpus=2),)))
    assert on(asked, 1, 2, speed_permille=10_000).makespan_s == pytest.approx(0.041)
    asked = question(record(tmp_path / "b.trace", polls, shapes=(NodeShape(cpus=2),)))
    assert on(asked, 1, 2, speed_permille=10_000).makespan_s == pytest.approx(0.011)


def test_values_put_by_the_driver_travel(tmp_path: Path) -> None:
    """A large one, taken by tasks on every node, moves to each once."""

    def body(run: do.Run) -> do.Steps:
        item = yield do.PutValue(Blob(10 * MB, "x"))
        items: list[ObjectID] = []
        spread = remote("use", 50, strategy=Strategy(kind=SPREAD))
        for _ in range(8):
            items += yield do.Submit(spread, args=(item,))
        yield do.GetValues(tuple(items))
        return []

    asked = question(record(tmp_path / "a.trace", body))
    assert on(asked, 1).bytes_moved == 0
    assert on(asked, 4).bytes_moved == 30 * MB


def test_references_in_values_are_followed(tmp_path: Path) -> None:
    """A task returns the references of what it launched; the driver waits for these."""
    inner = remote("inner", 20)

    def outer(run: do.Run) -> do.Steps:
        items: list[ObjectID] = []
        for _ in range(2):
            items += yield do.Submit(inner)
        return [do.Result(100, refs=tuple(items))]

    outside = do.Remote(outer, name="outer")

    def body(run: do.Run) -> do.Steps:
        (item,) = yield do.Submit(outside)
        (got,) = yield do.GetValues((item,))
        yield do.GetValues(got.refs)
        (last,) = yield do.Submit(remote("last", 10), args=got.refs)
        yield do.GetValues((last,))
        return []

    asked = question(record(tmp_path / "a.trace", body))
    row = on(asked, 1, 2)
    assert (row.makespan_s, row.lost) == (0.03, ())
    assert asked.predict(asked.recorded_cluster(INSTANT, "free")).makespan_s == 0.05


@pytest.mark.parametrize("soft", [True, False])
def test_nodes_that_tasks_insist_on_stand_for_those_of_the_recording(
    soft: bool, tmp_path: Path
) -> None:
    """The third node's tasks run on the third; in a smaller cluster, anywhere."""
    shapes = (NodeShape(cpus=1),) * 3
    third = Strategy(kind=AFFINITY, node=node_name(NodeID(2)), is_soft=soft)
    asked = question(record(tmp_path / "a.trace", bag(6, strategy=third), shapes=shapes))
    assert asked.recording.makespan_ns == 60 * MS
    assert on(asked, 3).makespan_s == 0.06
    assert on(asked, 2).makespan_s == 0.03


def test_several_drivers_begin_as_they_did(tmp_path: Path) -> None:
    """Both are played."""
    asked = question(record(tmp_path / "a.trace", bag(4), chain(4), shapes=(NodeShape(cpus=2),)))
    assert len(asked.recording.drivers) == 2
    assert asked.predict(asked.recorded_cluster(INSTANT, "free")).makespan_s == 0.04


def test_recordings_of_several_nodes(tmp_path: Path) -> None:
    """A shuffle over three nodes, played on the same and on one."""
    path = record(tmp_path / "a.trace", shuffle(6, 6, MB), shapes=(NodeShape(cpus=1),) * 3)
    asked = question(path)
    own = asked.predict(asked.recorded_cluster(NetworkChoice(), "free"))
    assert own.makespan_s == pytest.approx(asked.recording.makespan_ns / 1e9, rel=0.35)
    assert on(asked, 1).makespan_s == 0.12


@pytest.mark.parametrize("name", ["format-1", "format-2", "real-1", "real-2"])
def test_old_and_real_recordings_are_played(name: str) -> None:
    """With kills, cancellations, timeouts and nesting in them; what is left out is told."""
    asked = question(ROOT / "traces" / f"{name}.trace")
    row = asked.predict(asked.recorded_cluster())
    assert row.never_ran == 0 and row.makespan_s > 0
    assert asked.recording.left_out
    assert row.makespan_s >= row.bound.s - 1e-6


def test_the_same_question_has_the_same_answer(tmp_path: Path) -> None:
    """Every bit of it, with lots drawn and without."""
    path = record(tmp_path / "a.trace", shuffle(4, 6, MB))
    for policy in ("hybrid", "random"):
        first, second = (on(question(path), 3, policy=policy, network=SLOW) for _ in range(2))
        assert first == second


# ------------------------------------------------------------------ no run beats its bound

_TASKS = st.lists(
    st.tuples(st.integers(0, 30), st.lists(st.integers(0, 9), max_size=3), st.integers(0, 2)),
    min_size=1,
    max_size=10,
)


def _program(tasks: list[tuple[int, list[int], int]]) -> do.Body:
    """Tasks that take some of those before, submitted with waits for any of them in between."""

    def body(run: do.Run) -> do.Steps:
        made: list[ObjectID] = []
        for ms, before, waits in tasks:
            args = tuple(dict.fromkeys(made[n % len(made)] for n in before)) if made else ()
            made += yield do.Submit(remote(f"f{ms}", ms, 200_000), args=args)
            if waits == 1:
                yield do.WaitFor(tuple(made[-3:]), 1)
            elif waits == 2:
                yield do.Compute(5 * MS)
        yield do.GetValues(tuple(made))
        return []

    return body


@settings(max_examples=25)
@given(tasks=_TASKS, nodes=st.integers(1, 4), cpus=st.integers(1, 3), slow=st.booleans())
def test_no_run_is_shorter_than_its_bounds(
    tasks: list[tuple[int, list[int], int]],
    nodes: int,
    cpus: int,
    slow: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever the program, the cluster and the network."""
    path = record(tmp_path_factory.mktemp("p") / "a.trace", _program(tasks))
    asked = question(path)
    row = on(asked, nodes, cpus, "hybrid", network=SLOW if slow else INSTANT, costs="measured")
    assert row.never_ran == 0
    for bound in row.bounds:
        assert row.makespan_s >= bound.s - 1e-9, bound


@pytest.mark.parametrize("seed", [442, 456, 461, 491, 492, 512, 541])
def test_recordings_of_made_up_worlds_are_played(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With faults, labels, affinities, functions that return nothing, several drivers."""
    path = tmp_path / "world.trace"
    main(["seed", str(seed), "--trace", str(path)])
    capsys.readouterr()
    asked = question(path)
    everything = {name: 10**9 for task in asked.recording.tasks for name, _ in task.demand}
    everything.pop("CPU", None)
    clusters = [asked.recorded_cluster(), asked.cluster(2, 8, resources=everything)]
    for cluster in clusters:
        row = asked.predict(cluster)
        assert row.never_ran == 0
        assert row.makespan_s >= row.bound.s
