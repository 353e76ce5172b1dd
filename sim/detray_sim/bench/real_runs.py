"""The real half of the prediction study: DAGs and measurements on processes of this machine.

Nothing here is simulated, and only detray's public surface is used. Times are seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from statistics import fmean, median
from typing import Any, NamedTuple

import msgspec

import detray
from detray_sim.workload import SECOND_NS, Workload

SETTLE_S = 0.02
"""What the last program left behind is over after this."""
WARM_S = 0.03


def work(kind: str, seconds: float, *inputs: object) -> tuple[float, float]:
    """Sleep so long, or use so much CPU time; when it began and ended."""
    began = time.perf_counter()
    if kind == "sleep":
        time.sleep(seconds)
    else:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
    return began, time.perf_counter()


def nothing(value: object = None) -> object:
    """The empty task; a link of a chain."""
    return value


class RealRun(NamedTuple):
    """What a program took, and each of its tasks, in seconds."""

    makespan_s: float
    spans_s: tuple[float, ...]


class Micro(msgspec.Struct, frozen=True, kw_only=True):
    """What small programs took in one session, in seconds."""

    one_s: float
    """An empty task, submitted and waited for."""
    link_s: float
    """An empty task of a chain that was submitted at once."""
    batch_s: float
    """An empty task of a batch."""
    gap_s: float
    """From the end of a sleeping task to the begin of the next of its chain: everything rested."""
    next_s: float
    """From the end of a sleeping task to the begin of another one that waited for its worker."""
    sleep_extra_s: float
    """A sleep takes so much longer than it should."""
    compute_stretch: float
    """Of computing on every core at once: elapsed time over CPU time."""
    compute_stretch_alone: float
    """The same on one."""
    start_s: float
    """The first tasks of a session take so much longer than the next."""


@contextmanager
def session(workers: int) -> Iterator[RealSession]:
    """A fresh detray with so many CPUs; no other may run in this process."""
    detray.init(num_cpus=workers, log_to_driver=False)
    try:
        yield RealSession(workers)
    finally:
        detray.shutdown()


class RealSession:
    """A running detray, its workers there."""

    def __init__(self, workers: int) -> None:
        # Any: the types of user functions are lost on their way through a library.
        self.work: Any = detray.remote(work)
        self.nothing: Any = detray.remote(nothing)
        self.workers = workers
        self.cold_s = self._warm()
        self.warm_s = min(self._warm() for _ in range(2))

    def _warm(self) -> float:
        """Seconds of as many short sleeps at once as there are workers."""
        began = time.perf_counter()
        detray.get([self.work.remote("sleep", WARM_S) for _ in range(self.workers)])
        return time.perf_counter() - began

    def run(self, workload: Workload, order: Sequence[int]) -> RealRun:
        """Run a workload: the makespan goes from the first submission to the last result."""
        time.sleep(SETTLE_S)
        taken = {producer for task in workload.tasks for producer, _ in task.inputs}
        refs: dict[int, Any] = {}  # Any: references
        submit = self.work.remote
        began = time.perf_counter()
        for number in order:
            task = workload.tasks[number]
            inputs = [refs[producer] for producer, _ in task.inputs]
            refs[number] = submit(task.name, task.duration_ns / SECOND_NS, *inputs)
        sinks = [ref for number, ref in refs.items() if number not in taken]
        detray.wait(sinks, num_returns=len(sinks))
        makespan_s = time.perf_counter() - began
        spans = detray.get([refs[number] for number in range(len(workload.tasks))])
        return RealRun(makespan_s, tuple([end - begin for begin, end in spans]))

    # -------------------------------------------------------------- small programs

    def one(self, count: int = 100) -> float:
        """Seconds of an empty task, submitted and waited for: the median."""
        samples = []
        for _ in range(count):
            began = time.perf_counter()
            detray.wait([self.nothing.remote()], num_returns=1)
            samples.append(time.perf_counter() - began)
        return median(samples)

    def link(self, count: int = 100) -> float:
        """Seconds of a link of a chain of empty tasks."""
        began = time.perf_counter()
        ref = self.nothing.remote()
        for _ in range(count - 1):
            ref = self.nothing.remote(ref)
        detray.wait([ref], num_returns=1)
        return (time.perf_counter() - began) / count

    def batch(self, count: int = 300) -> float:
        """Seconds of an empty task in a batch."""
        began = time.perf_counter()
        refs = [self.nothing.remote() for _ in range(count)]
        detray.wait(refs, num_returns=count)
        return (time.perf_counter() - began) / count

    def gap(self, count: int) -> float:
        """Seconds between two sleeping tasks of a chain: the mean."""
        refs = [self.work.remote("sleep", 0.02)]
        for _ in range(count - 1):
            refs.append(self.work.remote("sleep", 0.02, refs[-1]))
        return _gap(detray.get(refs))

    def next(self, count: int) -> float:
        """Seconds between two sleeping tasks that want the same worker: the mean."""
        return _gap(detray.get([self.work.remote("sleep", 0.02) for _ in range(count)]))

    def elapsed(self, kind: str, seconds: float, count: int) -> float:
        """Seconds between begin and end of one of so many tasks at once: the mean."""
        spans = detray.get([self.work.remote(kind, seconds) for _ in range(count)])
        return fmean([end - began for began, end in spans])


def _gap(spans: Sequence[tuple[float, float]]) -> float:
    ordered = sorted(spans)
    return fmean([after[0] - before[1] for before, after in pairwise(ordered)])


def measure_machine(cores: int, samples: int = 20) -> Micro:
    """One look at what things cost on this machine, now; `samples` of what takes long."""
    with session(1) as alone:
        one_s, link_s = alone.one(), median([alone.link() for _ in range(3)])
        batch_s = median([alone.batch() for _ in range(3)])
        gap_s, next_s = alone.gap(samples), alone.next(samples)
        sleep_extra_s = alone.elapsed("sleep", 0.02, samples) - 0.02
        stretch_alone = alone.elapsed("compute", 0.03, samples) / 0.03
    with session(cores) as full:
        stretch = full.elapsed("compute", 0.03, samples * cores) / 0.03
        start_s = max(0.0, full.cold_s - full.warm_s)
    return Micro(
        one_s=one_s,
        link_s=link_s,
        batch_s=batch_s,
        gap_s=gap_s,
        next_s=next_s,
        sleep_extra_s=sleep_extra_s,
        compute_stretch=stretch,
        compute_stretch_alone=stretch_alone,
        start_s=start_s,
    )
