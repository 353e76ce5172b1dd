"""The simulated world around the cores: programs run, fail and end as they do in real processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from detray.core.config import Policy
from detray.errors import Failure
from detray.ids import ObjectID
from detray_sim import behaviour as do
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.costs import FREE, Costs
from detray_sim.driver import SimDriver
from detray_sim.result import NodeShape
from detray_sim.values import Blob

MS = 1_000_000
SECOND = 1_000_000_000
COSTS = Costs()


def world(cpus: int = 2, *, costs: Costs = COSTS, seed: int = 0, **shape: int) -> SimCluster:
    """One node, every check on."""
    return SimCluster(
        ClusterConfig(
            nodes=(NodeShape(cpus=cpus, store_bytes=shape.get("store_bytes", 64 << 20)),),
            costs=costs,
            seed=seed,
            policy=Policy(pipeline_depth_max=8),
        ),
        digest=True,
        check_each_step=True,
        check_values=True,
    )


def play(cluster: SimCluster, body: do.Body) -> SimDriver:
    """Run one program to its end; afterwards nothing of it may be left."""
    driver = cluster.drive(0, body)
    assert cluster.run(600 * SECOND), "the program did not end"
    cluster.settle()
    is_empty(cluster)
    return driver


def is_empty(cluster: SimCluster) -> None:
    """No task, object, payload, block or pin is left anywhere."""
    for node in cluster.nodes:
        if not node.is_alive:
            continue
        tables = node.core.tables
        assert not tables.tasks
        assert not tables.objects
        assert node.payloads == {}
        assert tables.arena.used == 0
        assert not node.processes or all(client > 0 for client in node.processes)


square = do.Remote(lambda run: do.Work(1 * MS, [do.Result(100, run.token**2)]), name="square")


def test_a_hundred_tasks_run_and_leave_nothing() -> None:
    """The first program: submit, get, drop."""

    def main(run: do.Run) -> do.Steps:
        ids: list[ObjectID] = []
        for number in range(100):
            ids += yield do.Submit(square, token=number)
        gots = yield do.GetValues(tuple(ids))
        yield do.DropRefs(ids)
        return [do.Result(8, [got.value.token for got in gots])]

    driver = play(world(4), main)
    assert driver.results[0].token == [number**2 for number in range(100)]


def test_equal_runs_have_equal_digests_and_others_have_not() -> None:
    """The digest covers every stimulus, effect and time."""

    def digest(ns: int) -> str:
        def main(run: do.Run) -> do.Steps:
            (item,) = yield do.Submit(do.Remote(lambda _: do.Work(ns, [do.Result(1)])))
            yield do.GetValues((item,))
            return []

        cluster = world()
        play(cluster, main)
        return cluster.digest()

    assert digest(1 * MS) == digest(1 * MS)
    assert digest(1 * MS) != digest(1 * MS + 1)


def test_a_task_that_waits_for_its_children_gives_back_its_cpu() -> None:
    """Ten parents with ten children each, on one CPU."""

    def parent(run: do.Run) -> do.Steps:
        ids: list[ObjectID] = []
        for number in range(10):
            ids += yield do.Submit(square, token=number)
        gots = yield do.GetValues(tuple(ids))
        return [do.Result(50, sum(got.value.token for got in gots))]

    parents = do.Remote(parent, name="parent")

    def main(run: do.Run) -> do.Steps:
        ids: list[ObjectID] = []
        for _ in range(10):
            ids += yield do.Submit(parents)
        gots = yield do.GetValues(tuple(ids))
        return [do.Result(1, [got.value.token for got in gots])]

    assert play(world(1), main).results[0].token == [285] * 10


def test_references_travel_in_arguments_and_in_values() -> None:
    """A reference nested in an argument is handed over, one in a value held by it."""

    def box(run: do.Run) -> do.Steps:
        (inner,) = run.refs
        (made,) = yield do.Submit(square, token=5)
        return [do.Result(10, "box", refs=(inner, made))]

    boxes = do.Remote(box, name="box")

    def main(run: do.Run) -> do.Steps:
        item = yield do.PutValue(Blob(10, "put"))
        (boxed,) = yield do.Submit(boxes, refs=(item,), token="x")
        yield do.DropRefs((item,))
        (got,) = yield do.GetValues((boxed,))
        yield do.DropRefs((boxed,))
        inner = yield do.GetValues(got.refs)
        return [do.Result(1, [each.value.token for each in inner])]

    assert play(world(), main).results[0].token == ["put", 25]


def test_large_values_go_through_blocks_and_files() -> None:
    """Puts, returns and arguments beyond the inline size, in a store that they overflow."""
    size = 1 << 20

    def double(run: do.Run) -> do.Work:
        return do.Work(1 * MS, [do.Result(size, run.args[0].value.token * 2)])

    doubles = do.Remote(double, name="double")

    def main(run: do.Run) -> do.Steps:
        puts = []
        for number in range(8):
            puts.append((yield do.PutValue(Blob(size, number))))
        ids: list[ObjectID] = []
        for item in puts:
            ids += yield do.Submit(doubles, args=(item,), token="t", size_bytes=300_000)
        gots = yield do.GetValues(tuple(ids), keeps=True)
        yield do.DropViews(ids)
        return [do.Result(1, [got.value.token for got in gots])]

    cluster = world(2, store_bytes=4 << 20)
    assert play(cluster, main).results[0].token == [number * 2 for number in range(8)]


def test_user_errors_reach_the_reader_and_retries_are_counted() -> None:
    """A body that raises in its first two attempts, with and without retries."""

    def flaky(run: do.Run) -> do.Steps:
        yield do.Compute(1 * MS)
        if run.attempt < 2:
            raise do.BodyFailed(f"ValueError: attempt {run.attempt}", token=run.attempt)
        return [do.Result(1, run.attempt)]

    patient = do.Remote(flaky, name="patient", max_retries=3, retry_exceptions=True)
    strict = do.Remote(flaky, name="strict", max_retries=0)

    def main(run: do.Run) -> do.Steps:
        (good,) = yield do.Submit(patient)
        (bad,) = yield do.Submit(strict)
        (got,) = yield do.GetValues((good,))
        try:
            yield do.GetValues((bad,))
        except do.ReadFailed as failed:
            return [do.Result(1, (got.value.token, failed.got.failure, failed.got.value.token))]
        raise AssertionError("no error")

    assert play(world(), main).results[0].token == (2, Failure.APPLICATION, 0)


@pytest.mark.parametrize("force", [False, True])
def test_a_running_task_can_be_cancelled(force: bool) -> None:
    """The cancellation is raised in the body; by force its worker dies."""
    caught: list[str] = []

    def slow(run: do.Run) -> do.Steps:
        try:
            yield do.Compute(100 * SECOND)
        except do.Interrupted:
            caught.append("interrupted")
            raise
        return [do.Result(1)]

    def main(run: do.Run) -> do.Steps:
        (item,) = yield do.Submit(do.Remote(slow, max_retries=0))
        yield do.Sleep(50 * MS)
        yield do.CancelTask(item, force=force)
        (got,) = yield do.GetValues((item,), raises=False)
        return [do.Result(1, got.failure)]

    failure = play(world(), main).results[0].token
    assert failure == (Failure.WORKER_CRASHED if force else Failure.CANCELLED)
    assert caught == ([] if force else ["interrupted"])


def test_a_get_times_out_and_a_wait_returns_what_is_there() -> None:
    """The core keeps the time."""

    def main(run: do.Run) -> do.Steps:
        slow = do.Remote(lambda _: do.Work(1 * SECOND, [do.Result(1, "slow")]))
        (late,) = yield do.Submit(slow)
        (soon,) = yield do.Submit(square, token=1)
        ready = yield do.WaitFor((late, soon), 1)
        before_ns = run.clock_ns()
        try:
            yield do.GetValues((late,), timeout_ns=10 * MS)
        except do.ReadTimedOut as error:
            waited_ns = run.clock_ns() - before_ns
            return [do.Result(1, (ready == {soon}, error.missing == (late,), waited_ns))]
        raise AssertionError("no timeout")

    early, missing, waited_ns = play(world(), main).results[0].token
    assert early and missing
    assert 10 * MS <= waited_ns < 11 * MS


def kill(cluster: SimCluster) -> None:
    """Kill whatever worker comes first."""
    cluster.kill_worker(0)


@pytest.mark.parametrize(
    "fault", [kill, lambda c: c.oom_kill(0), lambda c: c.hang_worker(0, 0, MS)]
)
@pytest.mark.parametrize("at_ms", [6, 7, 9, 15, 30])
def test_a_lost_worker_costs_a_retry_and_no_value(
    fault: Callable[[SimCluster], None], at_ms: int
) -> None:
    """Tasks with retries give their values whatever dies."""

    def main(run: do.Run) -> do.Steps:
        ids: list[ObjectID] = []
        for number in range(60):
            ids += yield do.Submit(square, token=number)
        gots = yield do.GetValues(tuple(ids))
        return [do.Result(1, sum(got.value.token for got in gots))]

    cluster = world(2)
    cluster.clock.after(at_ms * MS, fault, cluster)
    assert play(cluster, main).results[0].token == sum(n**2 for n in range(60))
    assert sum(cluster.faults.values()) == 1


def test_what_may_begin_once_begins_once() -> None:
    """A worker dies with runs in its queue: one is charged, the others run elsewhere."""
    begun: dict[int, int] = {}

    def once(run: do.Run) -> do.Steps:
        begun[run.token] = begun.get(run.token, 0) + 1
        yield do.Compute(1 * MS)
        return [do.Result(1, run.token)]

    remote = do.Remote(once, max_retries=0)

    def main(run: do.Run) -> do.Steps:
        ids: list[ObjectID] = []
        for number in range(50):
            ids += yield do.Submit(remote, token=number)
        gots = yield do.GetValues(tuple(ids), raises=False)
        return [do.Result(1, [got.failure for got in gots if got.failure])]

    cluster = world(1)
    cluster.clock.after(20 * MS, kill, cluster)
    failures = play(cluster, main).results[0].token
    assert set(begun.values()) == {1}
    assert failures == [Failure.WORKER_CRASHED]


def test_a_driver_that_dies_takes_its_job_along() -> None:
    """Nothing of the job is left, and another program goes on."""

    def main(run: do.Run) -> do.Steps:
        for number in range(100):
            yield do.Submit(square, token=number)
        yield do.Sleep(100 * SECOND)
        return []

    cluster = world(2)
    cluster.drive(0, main)
    cluster.clock.after(30 * MS, cluster.kill_driver, 0)
    assert cluster.run(50 * SECOND)
    cluster.settle()
    is_empty(cluster)


def test_workers_that_do_not_start_delay_and_do_not_lose() -> None:
    """Two starts fail, later ones work."""

    def main(run: do.Run) -> do.Steps:
        (item,) = yield do.Submit(square, token=3)
        (got,) = yield do.GetValues((item,))
        return [do.Result(1, got.value.token)]

    cluster = world(1)
    cluster.fail_worker_starts(0, 2)
    assert play(cluster, main).results[0].token == 9


def test_a_full_disk_refuses_and_says_so() -> None:
    """A put beyond arena and disk raises in the program."""

    def main(run: do.Run) -> do.Steps:
        try:
            yield do.PutValue(Blob(8 << 20, "large"))
        except do.StoreRefused as refused:
            return [do.Result(1, refused.failure)]
        raise AssertionError("there was room")

    cluster = world(1, store_bytes=1 << 20)
    cluster.set_disk(0, free_bytes=1000)
    assert play(cluster, main).results[0].token == Failure.OUT_OF_DISK


def test_late_finalizers_and_a_paused_service_change_nothing() -> None:
    """Drops come late, the service stands still for a second: the same values."""

    def main(run: do.Run) -> do.Steps:
        ids: list[ObjectID] = []
        for number in range(50):
            ids += yield do.Submit(square, token=number)
        gots = yield do.GetValues(tuple(ids))
        return [do.Result(1, sum(got.value.token for got in gots))]

    cluster = world(2)
    cluster.late_finalizers(0, 20 * MS)
    cluster.clock.after(15 * MS, cluster.pause, 0, 1 * SECOND)
    assert play(cluster, main).results[0].token == sum(n**2 for n in range(50))
    assert cluster.clock.now_ns > 1 * SECOND


def test_a_world_where_nothing_costs_time_still_ends() -> None:
    """Latencies and service times of 0: everything happens at one moment, in order."""

    def main(run: do.Run) -> do.Steps:
        ids: list[ObjectID] = []
        for number in range(20):
            ids += yield do.Submit(square, token=number)
        yield do.GetValues(tuple(ids))
        return []

    cluster = world(4, costs=FREE)
    driver = cluster.drive(0, main)
    assert cluster.run(100 * SECOND)
    assert driver.done_ns == 5 * MS
