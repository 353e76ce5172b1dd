"""What a simulated program records of values and errors is what the real one records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import detray
from detray.core.stimuli import RunFailed
from detray.trace.comparing.diffing import diff
from detray.trace.reading import Trace, open_trace
from detray.trace.replaying import replay
from detray_sim.engine import SimSession

LARGE = 300_000


def make_program(factor: int = 1) -> Callable[[], list[float]]:
    """Values small and large, put, passed, returned; a function within a function; an error."""

    @detray.remote(retry_exceptions=[KeyError])
    def half(n: int) -> float:
        if n == 3:
            raise ValueError(f"{n} is odd")
        return n * factor / 2

    @detray.remote(num_returns=2)
    def both(box: Any, n: int) -> Any:
        return len(box), bytes([n]) * LARGE

    @detray.remote
    def spread(n: int) -> float:
        put = detray.put([n] * 10)
        parts = [both.remote(bytes(LARGE), n), both.remote(put, n)]
        return sum(len(detray.get(whole)) + detray.get(size) for size, whole in parts)

    @detray.remote
    def nothing() -> None:
        pass

    def program() -> list[float]:
        small, large = detray.put("small"), detray.put(b"l" * LARGE)
        found = detray.get([half.remote(n) for n in (2, 4)])
        with pytest.raises(ValueError, match="3 is odd"):
            detray.get(half.remote(3))
        found += detray.get([spread.remote(5), both.remote(large, 2)[0], both.remote(small, 2)[0]])
        detray.get(nothing.remote())
        return found

    return program


def record(path: Path, program: Callable[[], list[float]], **options: Any) -> Trace:
    detray.shutdown()
    with detray.init(num_cpus=2, record=str(path), **options):
        assert program()[2:] == [2 * LARGE + LARGE + 10, LARGE, 5]
    return open_trace(path)


def failures(trace: Trace) -> list[RunFailed]:
    return [m for step in trace.steps() for m in step.stimuli() if type(m) is RunFailed]


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_real_run_and_a_simulated_one_are_compared_by_digest(tmp_path: Path, nodes: int) -> None:
    """The same tasks, arguments, code and results, each by its bytes; the same traceback."""
    program = make_program()
    real = record(tmp_path / "real.trace", program)
    simulated = record(tmp_path / "sim.trace", program, engine="sim", seed=3, nodes=nodes)
    found = diff(real, simulated)
    assert found.is_same, found.departures
    assert (found.counts.common, found.counts.compared) == (9, 16)
    assert (found.counts.by_size_only, found.notes) == (0, [])
    (there,), (here,) = failures(real), failures(simulated)
    assert here.traceback == there.traceback
    assert "in half" in here.traceback and here.traceback.endswith("ValueError: 3 is odd")
    assert replay(simulated).is_same


def test_a_value_that_differs_is_found_by_its_digest(tmp_path: Path) -> None:
    """Though it has the same size."""
    real = record(tmp_path / "real.trace", make_program())
    other = record(tmp_path / "sim.trace", make_program(factor=7), engine="sim")
    found = diff(real, other)
    assert {(item.kind, item.name) for item in found.departures} == {("result", "half")}
    assert any("pickled code of half is not the same" in note for note in found.notes)


def steps_of(program: Callable[[], list[float]], **options: Any) -> list[tuple[object, ...]]:
    """What the cores of a simulated session did, and when, without digests."""
    sessions: list[SimSession] = []
    detray.shutdown()
    with detray.init(num_cpus=2, engine="sim", seed=5, nodes=2, sessions=sessions, **options):
        program()
        found: list[tuple[object, ...]] = [
            (step.core, step.now_ns, [type(m) for m in step.stimuli], list(map(type, step.effects)))
            for step in sessions[0].cluster.recorded
        ]
    return found


def test_digests_change_no_decision(tmp_path: Path) -> None:
    """A run recorded to a file takes the same steps at the same times as one that is not."""
    program = make_program()
    recorded = steps_of(program, record=str(tmp_path / "sim.trace"))
    assert steps_of(program, records=True) == recorded
    assert len(recorded) > 40


def test_only_what_is_kept_for_long_has_digests(tmp_path: Path) -> None:
    """As in real sessions: the trace of one that is not recorded to a file has none."""
    detray.shutdown()
    sessions: list[SimSession] = []
    with detray.init(num_cpus=2, engine="sim", sessions=sessions):
        make_program()()
        trace = Trace(sessions[0].trace())
    real = record(tmp_path / "real.trace", make_program())
    found = diff(real, trace)
    assert found.is_same and not found.b.has_digests
