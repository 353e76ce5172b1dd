"""Sessions with real processes: start and end, and what a program sees of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detray
from detray import errors, exceptions, util
from detray.startup import SessionInfo


@detray.remote
def add(a: Any, b: Any = 0) -> Any:
    return a + b


@detray.remote
def fail(error: Exception) -> None:
    raise error


@detray.remote
def fibonacci(n: int) -> int:
    if n < 2:
        return n
    return sum(detray.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))


def run(program: str, *, timeout_s: float = 60, **environment: str) -> tuple[int, str, str]:
    """A program in a process of its own: its exit status and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )
    return done.returncode, done.stdout, done.stderr


# ------------------------------------------------------------------ beginning and end


def test_the_first_use_starts_a_session(no_session: None) -> None:
    """Nobody has to call init."""
    assert not detray.is_initialized()
    assert detray.get(add.remote(1, 2)) == 3
    assert detray.is_initialized()


def test_sessions_follow_each_other_in_one_process(no_session: None) -> None:
    """Functions work in each; references only in their own."""
    for number in range(3):
        with detray.init(num_cpus=1):
            ref = add.remote(number, 1)
            assert detray.get(ref) == number + 1
        assert not detray.is_initialized()
        with pytest.raises(errors.NotStartedError):
            detray.get(ref)
    detray.shutdown()
    detray.shutdown()
    with detray.init(num_cpus=1), pytest.raises(errors.StaleRefError):
        add.remote(ref)


def test_a_second_init_is_a_mistake_unless_it_is_said_not_to_be(session: SessionInfo) -> None:
    """With Ray's words."""
    with pytest.raises(RuntimeError, match=r"Maybe you called detray\.init twice by accident"):
        detray.init()
    assert detray.init(ignore_reinit_error=True) is session


def test_the_context_is_a_mapping_of_facts(session: SessionInfo) -> None:
    """With the keys and attributes that programs for Ray read."""
    assert session["address"] == session.address_info["address"] == "local"
    assert dict(session) == session.address_info
    assert session.ray_version == detray.__version__


def test_a_program_may_end_without_saying_goodbye() -> None:
    """The last lines of its workers arrive, and nothing is left running."""
    status, out, err = run(
        """
        import detray as ray
        @ray.remote
        def speak(n):
            print("line", n)
        ray.get([speak.remote(n) for n in range(20)])
        """
    )
    assert (status, err) == (0, "")
    lines = [line.split(") ", 1)[1] for line in out.splitlines()]
    assert sorted(lines) == sorted(f"line {n}" for n in range(20))


def test_an_error_nobody_catches_shows_the_remote_traceback() -> None:
    """On the driver's terminal, with the task's own line."""
    status, _, err = run(
        """
        import detray as ray
        @ray.remote
        def divide(a, b):
            return a / b
        ray.get(divide.remote(1, 0))
        """
    )
    assert status == 1
    assert "TaskError(ZeroDivisionError): detray::divide() (pid=" in err
    assert ", ip=127.0.0.1)\n" in err
    assert "/detray/" not in err, "frames of our own say nothing about the user's error"
    assert err.rstrip().endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("ray.get(wait_long.remote(), timeout=0.01)", "GetTimeoutError"),
        ("ray.get([wait_long.remote()], timeout=0.01)", "GetTimeoutError"),
        ("ray.get(die.remote())", "WorkerCrashedError"),
    ],
)
def test_neither_do_frames_of_ours_stand_above_what_the_world_did(call: str, name: str) -> None:
    """A time that is over, a worker that died: the line of the program, and what happened."""
    status, _, err = run(
        f"""
        import os, time
        import detray as ray
        @ray.remote
        def wait_long():
            time.sleep(60)
        @ray.remote(max_retries=0)
        def die():
            os._exit(3)
        {call}
        """
    )
    shown = err[err.index("Traceback") :]
    assert status == 1 and f"detray.errors.{name}: " in shown
    assert "/detray/" not in shown and shown.count("  File ") == 1, shown


def test_sigterm_ends_a_driver_in_order() -> None:
    """atexit handlers run, as Ray has it."""
    status, out, _ = run(
        """
        import atexit, os, signal
        import detray as ray
        atexit.register(lambda: print("goodbye"))
        ray.init(num_cpus=1)
        os.kill(os.getpid(), signal.SIGTERM)
        """
    )
    assert (status, out) == (128 + 15, "goodbye\n")


def test_a_fork_of_the_driver_is_told_that_it_has_no_session() -> None:
    """And its end does not end the parent's."""
    status, out, err = run(
        """
        import os, sys
        import detray as ray
        ray.init(num_cpus=1)
        ref = ray.put(1)
        if os.fork() == 0:
            try:
                ray.get(ray.put(2))
            except ray.exceptions.RayError as error:
                print("child:", type(error).__name__, flush=True)
            sys.exit(0)
        os.wait()
        print("parent:", ray.get(ref))
        """
    )
    assert (status, out) == (0, "child: ServiceDiedError\nparent: 1\n"), err


# ------------------------------------------------------------------ tasks and values


def test_arguments_and_results_of_every_kind(session: SessionInfo) -> None:
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


def test_several_returns_and_none(session: SessionInfo) -> None:
    """A list of references, or None; a wrong number is the task's error."""
    three = detray.remote(num_returns=3)(lambda: (1, "b", None))
    assert detray.get(three.remote()) == [1, "b", None]
    assert three.options(num_returns=0).remote() is None
    with pytest.raises(ValueError, match="returned 3 values"):
        detray.get(three.options(num_returns=2).remote()[0])


def test_recursion_and_closures(session: SessionInfo) -> None:
    """Functions call themselves, captured values and references go along."""
    ref, offset = detray.put(100), 5
    captured = detray.remote(lambda x: detray.get(ref) + offset + x)
    assert detray.get(captured.remote(1)) == 106
    assert detray.get(fibonacci.remote(6)) == 8


def test_a_remote_function_can_be_an_argument(session: SessionInfo) -> None:
    """And be called where it arrives."""
    call = detray.remote(lambda f, x: detray.get(f.remote(x, 1)))
    assert detray.get(call.remote(add, 4)) == 5


def test_a_redefined_function_is_another_function(session: SessionInfo) -> None:
    """As in a notebook: the same name, new code; old references keep their meaning."""
    results = []
    for number in range(3):

        @detray.remote
        def f(number: int = number) -> int:
            return number

        results.append(f.remote())
    assert detray.get(results) == [0, 1, 2]


def test_errors_keep_their_class_through_chains_of_tasks(session: SessionInfo) -> None:
    """The dependent task does not run; its reference raises the first one's error."""
    chain = add.remote(add.remote(fail.remote(KeyError("first")), 1), 1)
    with pytest.raises(KeyError) as caught:
        detray.get(chain)
    assert isinstance(caught.value, exceptions.RayTaskError)
    assert str(caught.value).startswith("detray::fail() (pid=")


def test_retry_exceptions_is_asked_of_the_worker(session: SessionInfo, tmp_path: Path) -> None:
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


def test_an_exception_class_that_cannot_be_asked_means_no_retry(session: SessionInfo) -> None:
    """The task's own exception arrives; the worker does not die of the class."""

    class Sphinx(type):
        def __instancecheck__(cls, instance: object) -> bool:
            raise RuntimeError("no answer")

    class Riddle(Exception, metaclass=Sphinx):
        pass

    with pytest.raises(ValueError, match="mine"):
        detray.get(fail.options(retry_exceptions=[Riddle]).remote(ValueError("mine")))


@pytest.mark.parametrize("end", ["return -1", "raise ValueError", "sys.exit(3)"])
def test_a_fork_of_a_task_never_becomes_a_second_worker(session: SessionInfo, end: str) -> None:
    """A child that leaves the function ends there: its parent reports, and runs what follows."""

    @detray.remote(max_retries=0)
    def forks() -> int:
        child = os.fork()
        if child == 0:
            exec(f"def leave():\n    {end}", {"sys": sys}, here := {})
            return int(here["leave"]())
        os.waitpid(child, 0)
        return os.getpid()

    pid = detray.get(forks.remote())
    assert pid > 0
    assert detray.get([add.remote(i) for i in range(50)]) == list(range(50))


def test_what_a_fork_looks_at_is_not_overwritten(no_session: None) -> None:
    """The parent lets its view go, the fork goes on looking; its end frees the block."""
    detray.init(num_cpus=1, object_store_memory=80 << 20)
    held = detray.get(detray.put(np.full(5_000_000, 7)))
    go, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(go, 1)
        os._exit(0 if (held == 7).all() else 1)
    del held
    others = [detray.put(np.full(5_000_000, i)) for i in range(6)]
    assert [int(detray.get(ref)[0]) for ref in others] == list(range(6))
    os.write(told, b"x")
    assert os.waitpid(child, 0)[1] == 0
    detray.shutdown()
    os.close(go)
    os.close(told)


def test_a_timeout_is_also_the_builtin_one(session: SessionInfo) -> None:
    """And a cancelled task says that it was."""
    slow = detray.remote(lambda: time.sleep(60)).remote()
    with pytest.raises(TimeoutError) as caught:
        detray.get(slow, timeout=0.05)
    assert isinstance(caught.value, exceptions.GetTimeoutError)
    assert detray.wait([slow], timeout=0) == ([], [slow])
    detray.cancel(slow)
    with pytest.raises(exceptions.TaskCancelledError):
        detray.get(slow)


def test_a_worker_that_dies_is_named_with_its_status(session: SessionInfo) -> None:
    """WorkerCrashedError, when no attempt is left."""
    with pytest.raises(exceptions.WorkerCrashedError, match="status 7"):
        detray.get(detray.remote(max_retries=0)(lambda: os._exit(7)).remote())


def test_results_that_cannot_be_pickled_are_named(session: SessionInfo) -> None:
    """The worker survives, the task fails with a TypeError."""
    import threading

    with pytest.raises(TypeError, match="return value"):
        detray.get(detray.remote(lambda: {"x": threading.Lock()}).remote())


def test_awaiting_and_futures(session: SessionInfo) -> None:
    """In an event loop, and by concurrent.futures."""

    async def both() -> list[Any]:
        return await asyncio.gather(add.remote(1, 2), add.remote(3, 4))

    assert asyncio.run(both()) == [3, 7]
    assert add.remote(1, 2).future().result(10) == 3
    assert isinstance(fail.remote(KeyError("k")).future().exception(10), KeyError)


def test_as_completed_and_map_unordered(session: SessionInfo) -> None:
    """Everything comes once."""
    assert sorted(util.as_completed([add.remote(n) for n in range(20)])) == list(range(20))
    assert sorted(util.map_unordered(add, range(20), backpressure_size=3)) == list(range(20))


def test_get_with_progress_gets_the_same(session: SessionInfo) -> None:
    """Values in order; failures raised."""
    refs = [add.remote(n, n) for n in range(50)]
    assert detray.get(refs, progress=True) == [2 * n for n in range(50)]
    with pytest.raises(KeyError):
        detray.get([*refs, fail.remote(KeyError())], progress=True)


# ------------------------------------------------------------------ what there is to see


def test_the_cluster_is_one_node_with_what_init_said(session: SessionInfo) -> None:
    """In the shapes that Ray gives."""
    resources = detray.cluster_resources()
    assert resources["CPU"] == 2
    assert resources["object_store_memory"] == 200 << 20
    [node] = detray.nodes()
    assert node["Alive"] and node["Resources"] == resources
    assert node["NodeID"] == session["node_id"]


def test_available_resources_leave_out_what_is_used_up(session: SessionInfo) -> None:
    """Inside the tasks that use it, for example."""
    busy = detray.remote(num_cpus=2)(lambda: detray.available_resources())
    assert "CPU" not in detray.get(busy.remote())


def test_a_task_knows_who_it_is(session: SessionInfo) -> None:
    """Its ids are those that the driver sees."""

    @detray.remote(name="fancy")
    def who() -> tuple[Any, ...]:
        context = detray.get_runtime_context()
        return context.get_task_id(), context.get_task_name(), context.get_job_id()

    ref = who.remote()
    here = detray.get_runtime_context()
    assert detray.get(ref) == (ref.task_id().hex(), "fancy", here.get_job_id())
    assert here.get_task_id() is None


def test_a_task_with_gpus_is_told_which(no_session: None) -> None:
    """By number, and by CUDA_VISIBLE_DEVICES."""

    @detray.remote(num_gpus=1)
    def which() -> tuple[list[int], str]:
        return detray.get_gpu_ids(), os.environ["CUDA_VISIBLE_DEVICES"]

    with detray.init(num_cpus=1, num_gpus=2):
        ids, visible = detray.get(which.remote())
        assert [str(number) for number in ids] == visible.split(",")
        assert len(ids) == 1


def test_inside_a_task_init_is_a_mistake_and_shutdown_nothing(session: SessionInfo) -> None:
    """The session is the driver's."""

    @detray.remote
    def inside() -> str:
        detray.shutdown()
        detray.init(ignore_reinit_error=True)
        try:
            detray.init()
        except RuntimeError as error:
            return str(error)
        return ""

    assert "twice" in detray.get(inside.remote())


def test_timeline_and_graph_show_the_session(no_session: None, tmp_path: Path) -> None:
    """As Chrome events and as a drawing."""
    with detray.init(num_cpus=1):
        detray.get(add.remote(add.remote(1), 2))
        events = detray.timeline()
        assert events is not None
        assert sum(event.get("cat") == "task" for event in events) >= 2
        detray.timeline(tmp_path / "timeline.json")
        graph = detray.graph(tmp_path / "graph.svg")
    assert (tmp_path / "timeline.json").read_text().startswith("[")
    assert "<svg" in (tmp_path / "graph.svg").read_text()[:1000]
    kinds = [kind for _, kind in graph.nodes(data="kind")]
    assert kinds.count("task") == 3  # the program itself is one


def test_the_graph_of_a_session_is_that_of_its_trace(no_session: None, tmp_path: Path) -> None:
    """Same tasks, objects, edges and attributes, to the nanosecond: one program makes both."""

    @detray.remote
    def parent(x: int) -> int:
        return int(detray.get(add.remote(x, 1))) + len(detray.get(detray.put("abc")))

    @detray.remote(max_retries=0)
    def wrong(x: int) -> int:
        raise ValueError(f"no {x}")

    gate = tmp_path / "gate"

    @detray.remote(num_cpus=0)
    def through_the_gate() -> None:
        while not gate.exists():
            time.sleep(0.01)

    # Of one CPU: what a parent calls cannot be done before it waits for it.
    with detray.init(num_cpus=1, record=tmp_path / "run.trace"):
        through = through_the_gate.remote()
        assert detray.wait([through], timeout=0.01) == ([], [through])
        gate.touch()
        detray.get(through)
        refs = [parent.remote(number) for number in range(3)]
        total = add.remote(refs[0], refs[1])
        held = add.options(num_cpus=0).remote(detray.put(1), 2)
        with pytest.raises(ValueError, match="no 1"):
            detray.get(wrong.remote(1))
        detray.get([*refs, total, held])
        live = detray.graph()
    recorded = detray.trace.open(tmp_path / "run.trace").graph()
    assert dict(live.nodes(data=True)) == dict(recorded.nodes(data=True))
    assert list(live.edges(keys=True, data=True)) == list(recorded.edges(keys=True, data=True))
    assert live.graph == recorded.graph
    names = [name for _, name in recorded.nodes(data="name") if name]
    expected = ["add"] * 5 + ["parent"] * 3 + ["through_the_gate", "wrong"]
    assert sorted(names)[-10:] == expected
    waited = [data["waits"] for _, data in recorded.nodes(data=True) if data.get("waits")]
    assert len(waited) >= 4  # three parents and the program
    ends = [data["ended_ns"] for _, data in recorded.nodes(data=True) if "ended_ns" in data]
    assert all(abs(end - time.time_ns()) < 3600 * 10**9 for end in ends)  # dates


def test_an_infeasible_task_fails_at_once_where_that_was_asked_for(no_session: None) -> None:
    """With what it asked and what there is."""
    with (
        detray.init(num_cpus=1, infeasible="raise"),
        pytest.raises(exceptions.TaskUnschedulableError, match="unicorn"),
    ):
        detray.get(add.options(resources={"unicorn": 1}).remote(1))
