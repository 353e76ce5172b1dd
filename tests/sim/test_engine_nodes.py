"""Several simulated nodes and a head: programs spread, values travel, machines and links fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from detray.core.config import Policy
from detray.ids import ObjectID
from detray_sim import behaviour as do
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.head import HEAD_MACHINE
from detray_sim.result import NodeShape
from detray_sim.values import Blob
from tests.sim.test_engine import MS, SECOND, is_empty

LARGE = 300_000


def world(nodes: int = 3, *, cpus: int = 2, sessions: bool = False, seed: int = 0) -> SimCluster:
    """Some nodes, every check on, all joined."""
    cluster = SimCluster(
        ClusterConfig(
            nodes=(NodeShape(cpus=cpus, store_bytes=64 << 20),) * nodes,
            seed=seed,
            sessions=sessions,
            policy=Policy(pipeline_depth_max=4),
        ),
        digest=True,
        check_each_step=True,
        check_values=True,
    )
    cluster.settle(20 * MS)
    assert len(cluster.members) == nodes
    return cluster


def work(run: do.Run) -> do.Work:
    """Five milliseconds, then twice what was given."""
    return do.Work(5 * MS, [do.Result(100, run.token * 2)])


def load(run: do.Run) -> do.Work:
    """A large value."""
    return do.Work(5 * MS, [do.Result(LARGE, ("large", run.token))])


def join(run: do.Run) -> do.Work:
    """Takes two large values and returns what they are."""
    return do.Work(5 * MS, [do.Result(50, tuple(got.value.token[1] for got in run.args))])


WORK = do.Remote(work, name="work")
LOAD = do.Remote(load, name="load")
JOIN = do.Remote(join, name="join")
PAIRS = 12


def graph(run: do.Run) -> do.Steps:
    """Small tasks, large values, joins of these, and a nested call that is handed a reference."""
    small: list[ObjectID] = []
    for number in range(40):
        small += yield do.Submit(WORK, token=number)
    loads: list[ObjectID] = []
    for number in range(PAIRS + 1):
        loads += yield do.Submit(LOAD, token=number)
    joins: list[ObjectID] = []
    for number in range(PAIRS):
        joins += yield do.Submit(JOIN, args=(loads[number], loads[number + 1]))
    put = yield do.PutValue(Blob(LARGE, ("large", "put")))
    (deep,) = yield do.Submit(OUTER, refs=(put, loads[0]), token="outer")
    yield do.DropRefs([*loads, put])
    first = yield do.GetValues(tuple(small))
    second = yield do.GetValues((*joins, deep))
    tokens = [got.value.token for got in first], [got.value.token for got in second]
    return [do.Result(1, tokens)]


def outer(run: do.Run) -> do.Steps:
    """Hands its references on to a child and waits for it."""
    (child,) = yield do.Submit(JOIN, args=run.refs)
    (got,) = yield do.GetValues((child,))
    return [do.Result(50, got.value.token)]


OUTER = do.Remote(outer, name="outer")
EXPECTED = (
    [number * 2 for number in range(40)],
    [*[(number, number + 1) for number in range(PAIRS)], ("put", 0)],
)


def ends_right(cluster: SimCluster, *, limit_ns: int = 300 * SECOND) -> None:
    """The program ends, with its values, and leaves nothing anywhere."""
    driver = cluster.drive(0, graph)
    assert cluster.run(cluster.clock.now_ns + limit_ns), "the program did not end"
    assert driver.failed is None, driver.failed
    assert driver.results[0].token == EXPECTED
    cluster.settle(40 * SECOND)
    is_empty(cluster)


@pytest.mark.parametrize("sessions", [False, True])
def test_a_program_uses_all_nodes(sessions: bool) -> None:
    """Tasks run everywhere, large values travel, and afterwards nothing is left."""
    cluster = world(sessions=sessions)
    seen: dict[int, int] = {}
    cluster.listener = lambda node, worker, run: seen.update({node.machine: 1})
    ends_right(cluster)
    assert set(seen) == {0, 1, 2}
    assert cluster.transfers


def test_several_drivers_share_the_cluster() -> None:
    """One program on each machine."""
    cluster = world()
    drivers = [cluster.drive(machine, graph) for machine in range(3)]
    assert cluster.run(300 * SECOND)
    assert [driver.results[0].token for driver in drivers] == [EXPECTED] * 3
    cluster.settle(10 * SECOND)
    is_empty(cluster)


def test_several_drivers_share_what_fails() -> None:
    """The same, while a machine that runs tasks of all of them dies."""
    cluster = world(4, cpus=1)
    drivers = [cluster.drive(machine, graph) for machine in range(3)]
    cluster.settle(30 * MS)
    cluster.crash_node(3)
    assert cluster.run(cluster.clock.now_ns + 300 * SECOND)
    assert [driver.results[0].token for driver in drivers] == [EXPECTED] * 3
    cluster.settle(40 * SECOND)
    is_empty(cluster)


def test_a_late_program_is_not_kept_waiting() -> None:
    """Ten tasks of a second driver, beside three hundred of the first, which fill all nodes."""
    cluster = world(2, cpus=1)

    def many(run: do.Run) -> do.Steps:
        items: list[ObjectID] = []
        for number in range(300):
            items += yield do.Submit(WORK, token=number)
        yield do.GetValues(tuple(items))
        return [do.Result(1, run.clock_ns())]

    def few(run: do.Run) -> do.Steps:
        items: list[ObjectID] = []
        for number in range(10):
            items += yield do.Submit(WORK, token=number)
        yield do.GetValues(tuple(items))
        return [do.Result(1, run.clock_ns())]

    first = cluster.drive(0, many)
    cluster.settle(50 * MS)
    second = cluster.drive(1, few)
    assert cluster.run(cluster.clock.now_ns + 300 * SECOND)
    assert second.results[0].token < first.results[0].token // 2


def test_equal_worlds_have_equal_digests() -> None:
    """With sessions over links that lose packets by lot, too."""

    def digest(seed: int) -> str:
        cluster = world(sessions=True, seed=seed)
        cluster.set_link(0, 1, loss_permille=100, duplicate_permille=50, reorder_permille=50)
        ends_right(cluster)
        return cluster.digest()

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


Fault = Callable[[SimCluster], object]

FAULTS: dict[str, Fault] = {
    "lossy links": lambda c: (
        [
            c.set_link(a, b, loss_permille=200, duplicate_permille=100, reorder_permille=100)
            for a in range(-1, 3)
            for b in range(a + 1, 3)
        ]
        and None
    ),
    "slow link": lambda c: c.set_link(0, 1, delay_ns=20 * MS),
    "slow node": lambda c: c.slow_node(1, 50),
    "kill workers": lambda c: [c.kill_worker(machine) for machine in range(3)],
    "hang workers": lambda c: [c.hang_worker(m, 0, 500 * MS) for m in range(3)],
    "pause node": lambda c: c.pause(1, 300 * MS),
    "pause owner": lambda c: c.pause(0, 300 * MS),
    "pause head": lambda c: c.pause(HEAD_MACHINE, 300 * MS),
    "short cut": lambda c: (c.cut(0, 1), c.clock.after(300 * MS, c.heal, 0, 1)),
    "late finalizers": lambda c: [c.late_finalizers(m, 50 * MS) for m in range(3)],
    "fast clock": lambda c: c.set_clock(1, drift_ppm=100_000),
    "jump forward": lambda c: c.jump_clock(1, 2 * SECOND),
    "jump back": lambda c: c.jump_clock(0, -SECOND),
    "corrupt transfers": lambda c: c.corrupt_next_transfer(3),
    "crash": lambda c: c.crash_node(2),
    "restart": lambda c: c.restart_node(2),
    "long pause": lambda c: c.pause(2, 20 * SECOND),
    "long cut": lambda c: (c.cut_group((2,)), c.clock.after(20 * SECOND, c.heal_all)),
    "cut from head": lambda c: (c.cut(-1, 2), c.clock.after(20 * SECOND, c.heal, -1, 2)),
    "cut peers": lambda c: (c.cut(1, 2), c.clock.after(20 * SECOND, c.heal, 1, 2)),
}


@pytest.mark.parametrize("at_ms", [0, 25, 40])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_values_are_right_whatever_happens(fault: str, at_ms: int) -> None:
    """Every fault that spares the driver's machine costs time, and no value."""
    cluster = world(sessions=True)
    cluster.clock.after(at_ms * MS, FAULTS[fault], cluster)
    ends_right(cluster)


@pytest.mark.parametrize("sessions", [False, True])
@pytest.mark.parametrize("fault", ["long pause", "long cut", "cut from head"])
def test_who_comes_back_from_the_dead_starts_empty(fault: str, sessions: bool) -> None:
    """A node that was buried is refused, leaves, and joins again under another number."""
    cluster = world(sessions=sessions)
    before = cluster.nodes[2]
    cluster.clock.after(25 * MS, FAULTS[fault], cluster)
    ends_right(cluster)
    after = cluster.nodes[2]
    assert before is not after
    assert not before.is_alive
    assert after.node_id == 3
    assert set(cluster.head.core.tables.nodes) == {0, 1, 3}
    driver = cluster.drive(2, graph)
    assert cluster.run(cluster.clock.now_ns + 100 * SECOND)
    assert driver.results[0].token == EXPECTED
