"""Clocks, CPU meters and noise makers of the measurements.

CPU time is read from the kernel in nanoseconds (`/proc/PID/task/*/schedstat`), because the ticks of
`/proc/PID/stat` are 10 ms: a twentieth of what a thousand batches cost.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec

_HOG = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))\n"


Arguments = ParamSpec("Arguments")


def seconds(
    action: Callable[Arguments, object], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    action(*args, **kwargs)
    return time.perf_counter() - started


def rate(action: Callable[[], object], per_call: int, *, total_s: float) -> float:
    """Operations a second: the median over as many calls as fit `total_s`.

    Three at least, but no further one after five times `total_s`. One call more goes first and is
    not counted: it warms connections, caches and pages.
    """
    action()
    samples = [seconds(action)]
    while sum(samples) < (total_s if len(samples) >= 3 else 5 * total_s) and len(samples) < 1_000:
        samples.append(seconds(action))
    return per_call / statistics.median(samples)


def cpu_ns(pid: int) -> int:
    """CPU time of a process, all threads that still live, 0 if it is gone."""
    total = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                total += int(file.read().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return total
    return total


def resident_bytes(pid: int) -> int:
    """Memory of a process that is not shared with a file or another process."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def children(pid: int) -> list[int]:
    """The processes that a process started and that live."""
    import psutil

    return [child.pid for child in psutil.Process(pid).children()]


def descendants(pid: int) -> list[int]:
    """Children and theirs, to the last generation."""
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


@contextlib.contextmanager
def hogs(count: int = 2) -> Iterator[None]:
    """Processes that do nothing but use a CPU each."""
    running = [subprocess.Popen([sys.executable, "-S", "-c", _HOG]) for _ in range(count)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for hog in running:
            hog.kill()
            hog.wait()
