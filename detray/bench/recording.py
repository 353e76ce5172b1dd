"""What recording costs, and what the cores cost alone.

Two ways to the same number, because 3 % is below the noise of whole runs on a shared machine:

- *end to end*: sessions with and without `record=PATH` take turns, the CPU time of all their
  processes is compared (without a path, the flight recorder runs);
- *by itself*: the steps of a recorded run go through a fresh recorder, to a file and to the ring
  in memory, digest included; that CPU time is set against what the run cost in all processes.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from detray.bench import measure
from detray.bench.subjects import make

_BATCHES = 10


def measure_recording(*, rounds: int, workers: int) -> Iterator[tuple[str, float]]:
    """The rows of the group "recording"."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bench.trace")
        without, with_path = [], []
        for _ in range(rounds):
            without.append(_cpu_ns_a_task(None, workers))
            with_path.append(_cpu_ns_a_task(path, workers))
        run_ns = statistics.median(without)
        yield "record_added", (statistics.median(with_path) / run_ns - 1) * 100
        yield from _from_trace(path, Path(folder, "again.trace"), run_ns)


def _cpu_ns_a_task(path: Path | None, workers: int) -> float:
    """CPU of all processes of one session in batches, a task."""
    subject = make("detray")
    subject.start(workers, record=path)
    for _ in range(3):
        subject.batch(1_000)
    pids = list(subject.roles())
    before = sum(map(measure.cpu_ns, pids))
    for _ in range(_BATCHES):
        subject.batch(1_000)
    used = sum(map(measure.cpu_ns, pids)) - before
    subject.stop()
    return used / (_BATCHES * 1_000)


def _from_trace(path: Path, again: Path, run_ns: float) -> Iterator[tuple[str, float]]:
    from detray.core.stimuli import TaskSubmitted
    from detray.trace.play import schedulers
    from detray.trace.reading import open_trace

    trace = open_trace(path)
    steps = list(trace.steps())
    stimuli = [step.stimuli() for step in steps]
    tasks = sum(type(item) is TaskSubmitted for step in stimuli for item in step)
    count = sum(map(len, stimuli))
    yield "record_cost", _recorder_ns(trace, steps, again) / tasks / run_ns * 100
    yield "flight_cost", _recorder_ns(trace, steps, None) / tasks / run_ns * 100
    yield "record_bytes", os.path.getsize(path) / count

    cores = [maker.make() for maker in schedulers(trace.header)]

    def through_the_cores() -> None:
        for step in steps:
            cores[step.core].handle(*step.stimuli(), now_ns=step.now_ns)

    yield "core", count / (_cpu_of(through_the_cores) / 1e9)


# Any: a trace and its steps, from modules that only this measurement loads
def _recorder_ns(trace: Any, steps: list[Any], path: Path | None) -> int:
    """CPU time of a recorder that is told all steps."""
    from detray.trace.play import schedulers
    from detray.trace.recorder import Recorder

    cores: list[Any] = [maker.make() for maker in schedulers(trace.header)]
    recorder = Recorder(trace.header, cores, path)
    told = [(step.core, step.now_ns, step.metas, step.groups) for step in steps]

    def record() -> None:
        for core, now_ns, metas, groups in told:
            recorder.step(core, now_ns, metas, groups)
        recorder.close("measured")

    return _cpu_of(record)


def _cpu_of(action: Callable[[], None]) -> int:
    began = time.process_time_ns()
    action()
    return time.process_time_ns() - began
