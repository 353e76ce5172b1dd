"""A million tasks: what a waiting one costs, and whether many cost more each than few.

Two tasks that wait for a file occupy every worker while the million is submitted, so that all of it
waits in the service at once. Then the file appears.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from detray.bench import measure, work
from detray.bench.subjects import make

_FEW = 1_000


def wait_for_file(path: str) -> None:
    """Occupy a worker until the file is there."""
    while not os.path.exists(path):
        time.sleep(0.01)


def measure_million(*, tasks: int, workers: int) -> Iterator[tuple[str, float]]:
    """The rows of the group "million"."""
    import detray

    subject = make("detray")
    subject.start(workers)
    nothing = detray.remote(work.nothing)
    gate = detray.remote(num_cpus=1)(wait_for_file)
    for _ in range(5):
        subject.batch(_FEW)
    service = next(pid for pid, role in subject.roles().items() if role == "service")
    before_ns = measure.cpu_ns(service)
    for _ in range(20):
        subject.batch(_FEW)
    few_ns = (measure.cpu_ns(service) - before_ns) / (20 * _FEW)

    with tempfile.TemporaryDirectory() as folder:
        opener = Path(folder, "open")
        gates = [gate.remote(str(opener)) for _ in range(workers)]
        time.sleep(0.5)
        before_bytes = measure.resident_bytes(service)
        cpu_before = measure.cpu_ns(service)
        began = time.perf_counter()
        refs = [nothing.remote() for _ in range(tasks)]
        _await_quiet(service)
        yield "pending_bytes", (measure.resident_bytes(service) - before_bytes) / tasks
        opener.touch()
        for start in range(0, tasks, 100_000):
            detray.get(refs[start : start + 100_000])
        yield "million", tasks / (time.perf_counter() - began)
        many_ns = (measure.cpu_ns(service) - cpu_before) / tasks
        yield "growth", many_ns / few_ns
        detray.get(gates)
    del refs
    subject.stop()


def _await_quiet(service: int) -> None:
    """Until the service has taken in everything: its CPU time stands still for a while."""
    while True:
        before = measure.cpu_ns(service)
        time.sleep(0.3)
        if measure.cpu_ns(service) - before < 15_000_000:
            return
