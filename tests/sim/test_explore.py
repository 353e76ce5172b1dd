"""explore: planted mistakes are found, made small, and come back by their tokens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import detray
import detray_sim
from detray_sim.exploring import Case, ExplorationFailed

QUICK: dict[str, Any] = {"nodes": 1, "cpus": 2}


def found(test: Any, *args: Any, **kwargs: Any) -> ExplorationFailed:
    """What an exploration finds."""
    with pytest.raises(ExplorationFailed) as caught:
        test(*args, **kwargs)
    return caught.value


def lose_an_update(tmp_path: Path) -> None:
    """Two tasks read, think, and write: a race."""
    counter = tmp_path / "counter"
    counter.write_text("0")

    @detray.remote
    def increment() -> None:
        value = int(counter.read_text())
        detray.sleep(0.001)
        counter.write_text(str(value + 1))

    first = increment.remote()
    detray.wait([first], timeout=0.02)
    detray.get([first, increment.remote()])
    assert int(counter.read_text()) == 2


def test_a_race_between_tasks_is_found_and_comes_back(tmp_path: Path) -> None:
    """Only delays make it happen; the token has what it needs."""
    slow = {"jitter_ns": 30_000_000}
    error = found(detray_sim.explore(50, **slow, **QUICK)(lose_an_update), tmp_path)
    assert isinstance(error.__cause__, AssertionError)
    assert error.case.jitter_ns and error.case.delays
    assert "lose_an_update failed under seed" in str(error)
    token = re.findall(r'replay\("(.*)"\)', str(error))[0]
    for number in range(2):
        (again := tmp_path / f"again{number}").mkdir()
        with pytest.raises(AssertionError):
            detray_sim.replay(token)(lose_an_update)(tmp_path=again)


def assume_order() -> None:
    """The first submitted is the first that is ready: it need not be."""

    @detray.remote
    def work(n: int) -> int:
        return n

    refs = [work.remote(n) for n in range(2)]
    ready, _ = detray.wait(refs)
    assert ready == [refs[0]]


def test_an_assumption_about_the_order_of_wait_is_found() -> None:
    """And needs one delay, no fault, one node."""
    error = found(detray_sim.explore(50, cpus=2)(assume_order))
    assert error.case.nodes == 1
    assert error.case.faults == ()
    assert error.case.delays is not None and error.case.delays <= 3


def append_twice(tmp_path: Path) -> None:
    """A retried task appends again: not idempotent."""
    log = tmp_path / "log"

    @detray.remote(max_retries=-1)
    def append(n: int) -> None:
        with log.open("a") as file:
            file.write(f"{n}\n")
        detray.sleep(0.01)

    detray.get([append.remote(n) for n in range(8)])
    assert len(log.read_text().split()) == 8


def test_a_task_that_must_not_run_twice_is_found_with_its_one_fault(tmp_path: Path) -> None:
    """All other faults are left out, and so are the delays."""
    error = found(detray_sim.explore(100, faults="all")(append_twice), tmp_path=tmp_path)
    assert len(error.case.faults) == 1
    assert error.case.jitter_ns == 0
    assert error.case.faults[0].kind in str(error)
    assert isinstance(Case.from_token(error.case.token), Case)
    assert Case.from_token(error.case.token) == error.case


def test_what_is_right_passes() -> None:
    """Every seed, with faults."""
    runs: list[int] = []

    @detray_sim.explore(15, faults={"worker_crash": 30.0, "node_crash": 1.0})
    def total() -> None:
        square = detray.remote(max_retries=-1)(lambda n: n * n)
        add = detray.remote(max_retries=-1)(lambda *numbers: sum(numbers))
        assert detray.get(add.remote(*[square.remote(n) for n in range(20)])) == 2470
        runs.append(1)

    total()
    assert len(runs) == 16


def test_a_test_may_say_what_it_likes_to_init() -> None:
    """It runs in the simulator all the same."""

    @detray_sim.explore(3, nodes=2, cpus=1)
    def program() -> None:
        detray.init(num_cpus=64)
        assert len(detray.nodes()) == 2
        assert detray.cluster_resources()["CPU"] == 2
        detray.shutdown()
        assert len(detray.nodes() if detray.get(detray.put(1)) else []) == 2

    program()
    assert not detray.is_initialized()


@detray_sim.explore(3, nodes=1)
def test_fixtures_work_and_each_run_has_a_directory_of_its_own(tmp_path: Path) -> None:
    """The decorator is all that a test needs."""
    path = tmp_path / "made"
    assert not path.exists()
    detray.get(detray.remote(lambda: path.write_text("x")).remote())
    assert path.exists()


def test_a_mistake_that_needs_no_luck_is_found_in_the_plain_world() -> None:
    """With the simplest world in its text."""
    error = found(detray_sim.explore(5, faults="all")(lambda: detray.get(detray.put(1)).nothing))
    assert isinstance(error.__cause__, AttributeError)
    assert (error.case.nodes, error.case.faults, error.case.jitter_ns) == (1, (), 0)


def test_the_environment_chooses_seeds_and_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a command line."""
    seeds: list[int] = []

    @detray_sim.explore(100, nodes=1)
    def program() -> None:
        from detray import startup

        detray.get(detray.put(1))
        seeds.append(startup.running().session.options.seed)  # type: ignore[attr-defined]

    monkeypatch.setenv("DETRAY_SIM_SEED", "17")
    program()
    assert seeds == [17, 17]
    monkeypatch.setenv("DETRAY_SIM_REPLAY", Case(seed=5).token)
    program()
    assert seeds == [17, 17, 5]


def test_a_token_that_is_none_is_refused() -> None:
    """At once."""
    with pytest.raises(ValueError, match="no token"):
        detray_sim.replay("nonsense")
