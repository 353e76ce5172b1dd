"""`python -m detray.bench.seeking`: how quickly a replay opens, seeks, steps back and plays.

The trace is of a real session, with a file as its record: rounds of small tasks whose results are
kept for a while, submitted faster than they run, so that tens of thousands of tasks and objects
are alive at a time. Then two short sessions tell how a replay compares with the run it replays.

Times are elapsed time, and in brackets CPU time of this process: on a machine that does nothing
else they are the same. How busy it was is said, too.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from detray.trace.travel.seeking import Replay

ROUND = 20_000
"""Tasks submitted at once."""
LIVE = 7
"""Rounds whose references are held: then states take 50 MB."""
SEEKS = 200


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement, print its figures."""
    parser = argparse.ArgumentParser(prog="python -m detray.bench.seeking", description=__doc__)
    parser.add_argument("--stimuli", type=int, default=1_000_000, metavar="N")
    parser.add_argument(
        "--trace", metavar="FILE", help="use this trace, record it if it is missing"
    )
    parser.add_argument("--live", type=int, default=LIVE, metavar="N", help="rounds that are held")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(options.trace or Path(folder, "seeking.trace"))
        if not path.exists():
            began = time.perf_counter()
            record(path, options.stimuli, options.live)
            _say("recorded", f"{time.perf_counter() - began:.1f} s")
        measure_seeking(path)
        for duration_s, tasks in ((0.01, 2_000), (0.0, 30_000)):
            measure_ratio(Path(folder, f"{tasks}.trace"), duration_s, tasks)
    return 0


def record(path: Path, stimuli: int, live: int) -> None:
    """A session whose trace has so many stimuli and some more: each task is two."""
    import detray
    from detray.bench import work

    detray.init(num_cpus=os.cpu_count(), record=path)
    try:
        nothing = detray.remote(work.nothing)
        rounds: deque[list[Any]] = deque()
        for _ in range(stimuli // (2 * ROUND) + 1):
            rounds.append([nothing.remote() for _ in range(ROUND)])
            if len(rounds) >= live:
                detray.get(rounds.popleft())
        while rounds:
            detray.get(rounds.popleft())
    finally:
        detray.shutdown()


def measure_seeking(path: Path) -> None:
    """Open, seek, step back."""
    from detray.trace.reading import open_trace

    _say("load", _load())
    before = _resident_bytes()
    taken = Taken.by(lambda: open_trace(path))
    trace = open_trace(path)
    _say("trace", f"{trace.step_count:,} steps, {path.stat().st_size / 1e6:.0f} MB")
    _say("reading and checking the file", str(taken))
    opened: list[Replay] = []
    taken = Taken.by(lambda: opened.append(trace.replay()))
    (replay,) = opened
    stimuli = sum(len(steps) for steps in replay.contents.stimuli.values())
    _say("opening", f"{taken} for {stimuli:,} stimuli")
    _say("marks", f"{replay.mark_count:,}, about {replay.weight / 1e6:.0f} MB")
    _say("memory", f"{(_resident_bytes() - before) / 1e6:.0f} MB more than before")
    chance = random.Random(1)
    targets = [chance.randint(replay.first, replay.end) for _ in range(SEEKS)]
    sizes = []
    for target in targets[:20]:
        replay.goto(target)
        sizes.append(sum(len(core.snapshot()) for core in replay.cores.values()))
    _say(
        "state", f"up to {max(sizes) / 1e6:.1f} MB, {sum(sizes) / len(sizes) / 1e6:.1f} on average"
    )
    _say("seek", _quantiles(_timed(partial(replay.goto, target) for target in targets)))
    _say("step", _quantiles(_timed(replay.step for _ in range(SEEKS))))
    backs: list[Taken] = []
    firsts: list[Taken] = []
    for target in targets[:40]:
        replay.goto(max(target, replay.first + 20))
        firsts += _timed([replay.back])
        backs += _timed([replay.back] * 5)
    _say("first step back", _quantiles(firsts))
    _say("further steps back", _quantiles(backs))
    _say("load", _load())


def sleep_for(duration_s: float) -> None:
    """A task that takes so long, and no longer if that is nothing."""
    if duration_s:
        time.sleep(duration_s)


def measure_ratio(path: Path, duration_s: float, tasks: int) -> None:
    """How much faster than the run its replay is."""
    import detray
    from detray.trace.reading import open_trace
    from detray.trace.replaying import replay

    detray.init(num_cpus=os.cpu_count(), record=path)
    sleep = detray.remote(sleep_for)
    detray.get([sleep.remote(0) for _ in range(100)])
    began = time.perf_counter()
    for _ in range(tasks // 1_000):
        detray.get([sleep.remote(duration_s) for _ in range(1_000)])
    run_s = time.perf_counter() - began
    detray.shutdown()
    reports = []
    taken = Taken.by(lambda: reports.append(replay(open_trace(path))))
    assert reports[0].is_same, reports[0].difference
    what = f"tasks of {duration_s * 1000:.0f} ms"
    _say(what, f"run {run_s:.2f} s, replay {taken}: {run_s / taken.elapsed:.1f} times faster")


class Taken(NamedTuple):
    """How long something took, in seconds."""

    elapsed: float
    cpu: float

    @classmethod
    def by(cls, action: Callable[[], object]) -> Taken:
        """Do it once."""
        elapsed, cpu = time.perf_counter(), time.process_time()
        action()
        return cls(time.perf_counter() - elapsed, time.process_time() - cpu)

    def __str__(self) -> str:
        return f"{self.elapsed:.2f} s ({self.cpu:.2f} s)"


def _timed(actions: Iterable[Callable[[], object]]) -> list[Taken]:
    return [Taken.by(action) for action in actions]


def _quantiles(taken: list[Taken]) -> str:
    elapsed, cpu = (sorted(times) for times in zip(*taken, strict=True))
    parts = []
    for name, place in (("p50", len(taken) // 2), ("p99", len(taken) * 99 // 100), ("most", -1)):
        parts.append(f"{name} {elapsed[place] * 1e3:.1f} ms ({cpu[place] * 1e3:.1f} ms)")
    return ", ".join(parts)


def _load() -> str:
    cpus = os.cpu_count() or 1
    return f"{os.getloadavg()[0]:.1f} of {cpus} CPUs, in the last minute"


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _say(what: str, value: str) -> None:
    print(f"{what:32} {value}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
