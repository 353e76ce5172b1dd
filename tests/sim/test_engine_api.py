"""The surface on top of simulated clusters: programs say `detray.get` and mean virtual time."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detray
from detray import errors, exceptions, util
from tests.sim.engine_tasks import add, fail, fibonacci, pause

WORLDS: dict[str, dict[str, Any]] = {
    "local": {"local_mode": True, "num_cpus": 2},
    "one": {"engine": "sim", "nodes": 1, "cpus": 2, "seed": 3},
    "three": {"engine": "sim", "nodes": 3, "cpus": 2, "seed": 7},
}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[str]:
    """A session in each kind of simulated cluster."""
    detray.shutdown()
    with detray.init(**WORLDS[request.param]):
        yield request.param
    assert [t for t in threading.enumerate() if t.name.startswith("detray-sim")] == []


# ------------------------------------------------------------------ tasks and values


def test_arguments_and_results_of_every_kind(world: str) -> None:
    """Values, references, references inside values, keywords, large arrays."""
    array = np.arange(300_000)
    whole = detray.put(array)
    assert detray.get(add.remote(add.remote(1, 2), b=add.remote(3, 4))) == 10
    assert (detray.get(add.remote(whole, b=1)) == array + 1).all()
    assert (detray.get(add.remote(array, array)) == 2 * array).all()
    [inner] = detray.get(add.remote([whole], []))
    assert (detray.get(inner) == array).all()
    assert not detray.get(whole).flags.writeable
    assert not detray.get(add.remote(np.arange(3), 1)).flags.writeable


def test_nobody_sees_what_others_do_to_a_value(world: str) -> None:
    """Arguments, results and puts are copies: in the driver as in tasks."""

    @detray.remote
    def spoil(values: list[int]) -> list[int]:
        values.append(9)
        return values

    mine = [1]
    ref = detray.put(mine)
    mine.append(2)
    assert detray.get(spoil.remote(ref)) == [1, 9]
    assert detray.get(ref) == [1]
    detray.get(ref).append(3)
    assert detray.get([ref, spoil.remote(mine)]) == [[1], [1, 2, 9]]
    assert mine == [1, 2]


def test_several_returns_and_none(world: str) -> None:
    """A list of references, or None; a wrong number is the task's error."""
    three = detray.remote(num_returns=3)(lambda: (1, "b", None))
    assert detray.get(three.remote()) == [1, "b", None]
    assert three.options(num_returns=0).remote() is None
    with pytest.raises(ValueError, match="returned 3 values"):
        detray.get(three.options(num_returns=2).remote()[0])


def test_recursion_and_closures(world: str) -> None:
    """Functions call themselves, captured values and references go along."""
    ref, offset = detray.put(100), 5
    captured = detray.remote(lambda x: detray.get(ref) + offset + x)
    # A worker has the function, and the reference in it, from its first such task on.
    assert [detray.get(captured.remote(x)) for x in range(4)] == [105, 106, 107, 108]
    assert detray.get(fibonacci.remote(8)) == 21


def test_a_remote_function_can_be_an_argument(world: str) -> None:
    """And be called where it arrives."""
    call = detray.remote(lambda f, x: detray.get(f.remote(x, 1)))
    assert detray.get(call.remote(add, 4)) == 5


def test_references_travel_through_tasks(world: str) -> None:
    """Made by a task, returned inside a value, used by another, on whatever node."""

    @detray.remote
    def make(n: int) -> list[Any]:
        return [detray.put(n), add.remote(n, 1), detray.put(np.full(50_000, n))]

    @detray.remote
    def total(refs: list[Any]) -> int:
        return int(sum(np.asarray(value).flat[0] for value in detray.get(refs)))

    made = detray.get([make.remote(n) for n in range(6)])
    assert detray.get([total.remote(refs) for refs in made]) == [3 * n + 1 for n in range(6)]


def test_objects_are_freed_when_their_last_reference_goes(world: str) -> None:
    """Nothing is left but what the program holds."""
    refs = [add.remote(n, np.zeros(50_000)) for n in range(20)]
    detray.get(refs)
    del refs
    detray.sleep(10)
    left = sum(sum(report["objects"].values()) for report in _reports())
    assert left == 0


def _reports() -> list[dict[str, Any]]:
    from detray import object_ref

    found: list[dict[str, Any]] = object_ref.bound().reports()
    return found


def test_large_arguments_returns_and_a_store_that_overflows() -> None:
    """What does not fit goes to the simulated disk."""
    with detray.init(engine="sim", nodes=2, cpus=1, object_store_memory=80 << 20):
        arrays = [detray.put(np.full(2_000_000, n)) for n in range(8)]
        sums = [add.remote(ref, n) for n, ref in enumerate(arrays)]
        assert [int(array[0]) for array in detray.get(sums)] == [2 * n for n in range(8)]


# ------------------------------------------------------------------ errors


def test_errors_keep_their_class_through_chains_of_tasks(world: str) -> None:
    """The dependent task does not run; its reference raises the first one's error."""
    chain = add.remote(add.remote(fail.remote(KeyError("first")), 1), 1)
    with pytest.raises(KeyError) as caught:
        detray.get(chain)
    assert isinstance(caught.value, exceptions.RayTaskError)
    assert str(caught.value).startswith("detray::fail() (pid=")
    assert "detray_sim" not in str(caught.value)


def test_retry_exceptions_is_asked_of_the_worker(world: str, tmp_path: Path) -> None:
    """Only the classes listed are worth another attempt."""
    log = tmp_path / "log"

    @detray.remote(max_retries=2, retry_exceptions=[OSError])
    def flaky(error: type[Exception]) -> str:
        with log.open("a") as file:
            file.write("x")
        if len(log.read_text()) < 3:
            raise error("not yet")
        return "done"

    assert detray.get(flaky.remote(OSError)) == "done"
    log.unlink()
    with pytest.raises(ValueError, match="not yet"):
        detray.get(flaky.remote(ValueError))
    assert log.read_text() == "x"


def test_results_that_cannot_be_pickled_are_named(world: str) -> None:
    """The worker survives, the task fails with a TypeError."""
    with pytest.raises(TypeError, match="return value"):
        detray.get(detray.remote(lambda: {"x": threading.Lock()}).remote())


@pytest.mark.parametrize(
    "leave, text",
    [
        (lambda: os._exit(7), "status 7"),
        (lambda: sys.exit(3), "status 3"),
        (lambda: os.kill(os.getpid(), 9), "signal 9"),
    ],
)
def test_a_task_that_ends_its_process_ends_a_simulated_one(
    leave: Callable[[], Any], text: str, world: str
) -> None:
    """WorkerCrashedError, when no attempt is left; this process lives."""
    with pytest.raises(exceptions.WorkerCrashedError, match=text):
        detray.get(detray.remote(max_retries=0)(leave).remote())


def test_a_crash_is_retried(world: str, tmp_path: Path) -> None:
    """What was done stays done; the next attempt knows its number."""
    log = tmp_path / "log"

    @detray.remote(max_retries=3)
    def dies_twice() -> int:
        with log.open("a") as file:
            file.write("x")
        attempt = detray.get_runtime_context().get_attempt_number()
        if attempt < 2:
            os._exit(1)
        return attempt

    assert detray.get(dies_twice.remote()) == 2
    assert log.read_text() == "xxx"


# ------------------------------------------------------------------ time, waiting, cancelling


def test_a_day_of_sleep_takes_no_time(world: str) -> None:
    """As they come, by virtual time."""
    refs = [pause.remote(86_400, "late"), pause.remote(0.5, "soon")]
    began = time.monotonic()
    ready, others = detray.wait(refs, num_returns=1)
    assert (ready, others) == ([refs[1]], [refs[0]])
    assert detray.wait(others, timeout=10) == ([], others)
    with pytest.raises(TimeoutError) as caught:
        detray.get(others, timeout=0.05)
    assert isinstance(caught.value, exceptions.GetTimeoutError)
    assert list(util.as_completed(refs)) == ["soon", "late"]
    assert time.monotonic() - began < 30


def test_a_running_task_can_be_cancelled(world: str, tmp_path: Path) -> None:
    """It sees a KeyboardInterrupt where it waits; one that did not begin never runs."""
    log = tmp_path / "log"

    @detray.remote
    def patient() -> None:
        try:
            detray.sleep(1000)
        except KeyboardInterrupt:
            log.write_text("interrupted")
            raise

    running = patient.remote()
    detray.sleep(1)
    detray.cancel(running)
    with pytest.raises(exceptions.TaskCancelledError):
        detray.get(running)
    assert log.read_text() == "interrupted"
    queue = [pause.remote(100, n) for n in range(8)]
    detray.cancel(queue[-1])
    with pytest.raises(exceptions.TaskCancelledError):
        detray.get(queue[-1])
    forced = pause.options(max_retries=0).remote(1000)
    detray.sleep(500)
    detray.cancel(forced, force=True)
    with pytest.raises(exceptions.WorkerCrashedError):
        detray.get(forced)


def test_as_completed_map_unordered_and_progress(world: str) -> None:
    """Everything comes once."""
    assert sorted(util.as_completed([add.remote(n) for n in range(20)])) == list(range(20))
    assert sorted(util.map_unordered(add, range(20), backpressure_size=3)) == list(range(20))
    assert detray.get([add.remote(n, n) for n in range(9)], progress=True) == [*range(0, 18, 2)]


def test_awaiting_and_futures(world: str) -> None:
    """In an event loop, and by concurrent.futures."""

    async def both() -> list[Any]:
        return await asyncio.gather(add.remote(1, 2), add.remote(3, 4))

    assert asyncio.run(both()) == [3, 7]
    assert add.remote(1, 2).future().result(10) == 3
    assert isinstance(fail.remote(KeyError("k")).future().exception(10), KeyError)


def test_time_is_virtual_on_request() -> None:
    """In tasks and in the program; `detray.sleep` is so in any case."""

    @detray.remote
    def nap() -> float:
        before = time.monotonic()
        time.sleep(3600)
        return time.monotonic() - before

    with detray.init(engine="sim", cpus=4, patch_time=True):
        before = time.time()
        naps = detray.get([nap.remote() for _ in range(4)])
        assert all(3600 <= seconds < 3601 for seconds in naps)
        assert 3600 <= time.time() - before < 3610


# ------------------------------------------------------------------ what there is to see


def test_the_cluster_is_what_init_said(world: str) -> None:
    """In the shapes that Ray gives."""
    count = WORLDS[world].get("nodes", 1)
    nodes = detray.nodes()
    assert len(nodes) == count
    assert len({node["NodeID"] for node in nodes}) == count
    assert detray.cluster_resources()["CPU"] == 2 * count
    busy = detray.remote(num_cpus=2)(lambda: detray.available_resources().get("CPU", 0))
    assert detray.get(busy.remote()) == 2 * (count - 1)


def test_tasks_run_on_all_nodes() -> None:
    """And say where."""
    where = detray.remote(lambda: (detray.sleep(1), detray.get_runtime_context().get_node_id())[1])
    with detray.init(engine="sim", nodes=3, cpus=1):
        assert len(set(detray.get([where.remote() for _ in range(9)]))) == 3


def test_a_task_knows_who_it_is(world: str) -> None:
    """Its ids are those that the driver sees."""

    @detray.remote(name="fancy")
    def who() -> tuple[Any, ...]:
        context = detray.get_runtime_context()
        return context.get_task_id(), context.get_task_name(), context.get_job_id()

    ref = who.remote()
    here = detray.get_runtime_context()
    assert detray.get(ref) == (ref.task_id().hex(), "fancy", here.get_job_id())
    assert here.get_task_id() is None


def test_a_task_with_gpus_is_told_which() -> None:
    """By number."""
    with detray.init(engine="sim", nodes=2, cpus=1, num_gpus=2):
        which = detray.remote(num_gpus=1)(lambda: detray.get_gpu_ids())
        assert all(len(ids) == 1 for ids in detray.get([which.remote() for _ in range(4)]))


def test_inside_a_task_init_is_a_mistake_and_shutdown_nothing(world: str) -> None:
    """The session is the driver's."""

    @detray.remote
    def inside() -> str:
        detray.shutdown()
        detray.init(ignore_reinit_error=True)
        try:
            detray.timeline()
        except RuntimeError as error:
            assert "only the driver" in str(error)
        try:
            detray.init()
        except RuntimeError as error:
            return str(error)
        return ""

    assert "twice" in detray.get(inside.remote())


def test_timeline_and_graph_show_a_session_of_one_node(tmp_path: Path) -> None:
    """As Chrome events and as a drawing; with several nodes there is no one trace."""
    with detray.init(local_mode=True, num_cpus=1):
        detray.get(add.remote(add.remote(1), 2))
        events = detray.timeline() or []
        assert sum(event.get("cat") == "task" for event in events) >= 2
        graph = detray.graph(tmp_path / "graph.svg")
    assert [kind for _, kind in graph.nodes(data="kind")].count("task") == 3
    with detray.init(engine="sim", nodes=2), pytest.raises(RuntimeError, match="several nodes"):
        detray.timeline()


def test_a_reference_that_was_pickled_by_the_program_can_be_claimed(world: str) -> None:
    """Out of band, as with real processes."""
    ref = detray.put("kept")
    with pytest.warns(UserWarning, match="outside of detray's own messages"):
        data = pickle.dumps(ref)
    load = detray.remote(lambda data: detray.get(pickle.loads(data)))
    assert detray.get(pickle.loads(data)) == "kept"
    assert detray.get([load.remote(data) for _ in range(6)]) == ["kept"] * 6


@detray.remote
def pack(held: list[detray.ObjectRef[str]]) -> tuple[str, bytes]:
    """Pickle a reference that was granted, and one to a value of its own; let go of both."""
    detray.sleep(0.01)
    data = pickle.dumps({"granted": held[0], "own": detray.put("own")})
    return detray.get_runtime_context().get_node_id(), data


@detray.remote
def unpack(data: bytes) -> tuple[str, str, str]:
    """Read both."""
    detray.sleep(0.01)
    found = pickle.loads(data)
    here = detray.get_runtime_context().get_node_id()
    return here, detray.get(found["granted"]), detray.get(found["own"])


@pytest.mark.filterwarnings("ignore:.*outside of detray's own messages")
def test_what_one_node_pickled_another_can_claim_from_a_third() -> None:
    """The bytes name the owner; the node that pickled holds the object meanwhile."""
    with detray.init(engine="sim", nodes=3, cpus=1, seed=3):
        given = detray.put("given")
        packed = detray.get([pack.remote([given]) for _ in range(9)])
        del given
        found = detray.get([unpack.remote(data) for _, data in packed])
    assert {(granted, own) for _, granted, own in found} == {("given", "own")}
    moves = {(here, there) for (here, _), (there, _, _) in zip(packed, found, strict=True)}
    assert len({here for here, _ in moves}) == 3
    assert any(here != there for here, there in moves)


@pytest.mark.filterwarnings("ignore:.*outside of detray's own messages")
def test_a_reference_pickled_in_another_world_names_both() -> None:
    """Ids repeat from session to session: it must not be taken for one of this session."""
    with detray.init(engine="sim", seed=1):
        data = pickle.dumps(detray.put("first"))
    with detray.init(engine="sim", seed=2):
        second = detray.put("second")
        foreign = pickle.loads(data)
        assert foreign == second
        with pytest.raises(errors.StaleRefError, match=r"'sim-1'.*'sim-2'"):
            detray.get(foreign)
        del foreign
        assert detray.get(second) == "second"
