"""Chance and trouble in simulated sessions: faults, deadlocks, early ends, what is refused."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import detray
from detray import errors, exceptions, util
from tests.sim.engine_tasks import add, pause

# ------------------------------------------------------------------ chance


def _story(seed: int, **options: Any) -> list[Any]:
    """Everything that one run shows: ids, order, results."""
    told: list[Any] = []

    @detray.remote
    def note(n: int) -> tuple[int, str, str, float]:
        context = detray.get_runtime_context()
        detray.sleep(0.001 * (n % 3))
        return n, context.get_worker_id(), context.get_node_id(), random.random()

    with detray.init(engine="sim", nodes=3, cpus=2, seed=seed, seed_random=True, **options):
        refs = [note.remote(n) for n in range(30)]
        told += [repr(ref) for ref in refs]
        told += list(util.as_completed(refs, chunk_size=1))
        told.append(random.random())
    return told


def test_equal_seeds_tell_equal_stories() -> None:
    """Ids, order, workers, random numbers; other seeds tell others."""
    assert _story(1) == _story(1)
    assert _story(1) != _story(2)
    crashes = {"worker_killed": 50.0, "node_restarts": 3.0}
    assert _story(5, faults=crashes) == _story(5, faults=crashes)


def test_faults_cost_retries_and_no_values(tmp_path: Path) -> None:
    """Workers and nodes die; values come."""
    log = tmp_path / "log"

    @detray.remote(max_retries=-1)
    def square(n: int) -> int:
        with log.open("a") as file:
            file.write(f"{n}\n")
        detray.sleep(0.02)
        return n * n

    faults = {"worker_crash": 20.0, "node_crash": 2.0}
    with detray.init(engine="sim", nodes=3, cpus=2, seed=11, faults=faults) as session:
        assert session["address"] == "sim"
        values = detray.get([square.remote(n) for n in range(200)])
    assert values == [n * n for n in range(200)]
    assert len(log.read_text().split()) > 200, "somebody was killed and tried again"


def test_code_of_a_dead_worker_ends_where_it_waits(tmp_path: Path) -> None:
    """Its side effects stay; what follows its last call of detray does not happen."""
    log = tmp_path / "log"

    @detray.remote(max_retries=0)
    def stubborn() -> None:
        log.write_text("begun")
        while True:
            try:
                detray.sleep(1000)
                log.write_text("gone on")
            except BaseException:
                continue

    with detray.init(engine="sim", cpus=1):
        ref = stubborn.remote()
        detray.sleep(1)
        detray.cancel(ref, force=True)
        with pytest.raises(exceptions.WorkerCrashedError):
            detray.get(ref)
    assert log.read_text() == "begun"


# ------------------------------------------------------------------ what goes wrong


def test_a_deadlock_is_reported_with_who_waits_for_whom() -> None:
    """Instead of hanging for ever: what no machine can run."""
    with (
        detray.init(engine="sim", nodes=2, cpus=1),
        pytest.raises(exceptions.DeadlockError, match=r"(?s)nothing has happened.*add"),
    ):
        detray.get(add.options(resources={"unicorn": 1}).remote(1))


def test_after_a_deadlock_the_session_goes_on() -> None:
    """The driver only stops waiting."""
    with detray.init(engine="sim", cpus=1):
        stuck = add.options(num_cpus=5).remote(1)
        with pytest.raises(exceptions.DeadlockError):
            detray.get(stuck)
        assert detray.get(add.remote(1, 1)) == 2


def test_a_program_that_ends_early_leaves_no_thread() -> None:
    """Tasks end where they stand."""
    with detray.init(engine="sim", cpus=4):
        refs = [pause.remote(1000) for _ in range(4)]
        detray.sleep(1)
        assert sum(t.name.startswith("detray-sim") for t in threading.enumerate()) == 4
    with pytest.raises(errors.NotStartedError):
        detray.get(refs[0])
    assert not any(t.name.startswith("detray-sim") for t in threading.enumerate())


def test_a_task_that_computes_for_ever_can_be_interrupted() -> None:
    """Ctrl-C ends the session, not the program."""

    @detray.remote
    def spin() -> None:
        while True:
            pass

    with detray.init(engine="sim"):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            detray.get(spin.remote())
        with pytest.raises(errors.ServiceDiedError, match="KeyboardInterrupt"):
            detray.put(1)
    assert not any(t.name.startswith("detray-sim") for t in threading.enumerate())


def test_other_threads_of_the_program_are_refused() -> None:
    """A simulated process has one."""
    found: list[Exception] = []

    def use() -> None:
        try:
            detray.put(1)
        except RuntimeError as error:
            found.append(error)

    with detray.init(engine="sim"):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert "one thread" in str(found[0])


@pytest.mark.parametrize(
    "given, kind, text",
    [
        ({"engine": "sim", "nods": 3}, RuntimeError, "Did you mean 'nodes'"),
        ({"engine": "sim", "nodes": 0}, ValueError, "at least 1"),
        ({"engine": "sim", "nodes": "three"}, TypeError, "nodes"),
        ({"engine": "sim", "faults": ["gremlins"]}, ValueError, "gremlins"),
        ({"engine": "sim", "faults": 3}, TypeError, "faults must be"),
        ({"engine": "steam"}, ValueError, "there are processes, sim"),
        ({"nodes": 3}, RuntimeError, "Unknown keyword"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], kind: type[Exception], text: str) -> None:
    """Before anything is started."""
    with pytest.raises(kind, match=text):
        detray.init(**given)
    assert not detray.is_initialized()


def test_without_the_simulator_there_is_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install."""
    monkeypatch.setitem(sys.modules, "detray_sim.engine", None)
    with pytest.raises(ImportError, match=r"detray\[sim\]"):
        detray.init(engine="sim")


def test_debuggers_that_watch_the_program_watch_its_tasks() -> None:
    """Trace functions go along to the threads of tasks, as for breakpoints and coverage."""
    seen: set[str] = set()

    def trace(frame: Any, event: str, argument: object) -> Any:
        seen.add(frame.f_code.co_name)
        return None

    @detray.remote
    def watched() -> int:
        return 1

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with detray.init(engine="sim"):
            detray.get(watched.remote())
    finally:
        sys.settrace(before)
    assert "watched" in seen
