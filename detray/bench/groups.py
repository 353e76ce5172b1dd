"""The measurements: each takes a started engine and gives the values of its group's rows."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from detray.bench import measure
from detray.bench.clusters import CLUSTER_MEASUREMENTS
from detray.bench.subjects import Subject, Unsupported

Values = dict[str, float]
Measurement = Callable[[Subject, bool], Iterator[tuple[str, float]]]


def measure_group(group: str, subject: Subject, *, quick: bool) -> Values:
    """The rows of a group that the engine has an equal for.

    A measurement yields its rows one by one, so what an engine lacks ends it without losing the
    rows before.
    """
    values: Values = {}
    try:
        for name, value in MEASUREMENTS[group](subject, quick):
            values[name] = value
    except Unsupported:
        pass
    return values


def _total_s(quick: bool) -> float:
    return 0.05 if quick else 0.3


def _single(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    def some() -> None:
        for _ in range(20):
            subject.one()

    yield "single", measure.rate(some, 20, total_s=_total_s(quick))


def _batch(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    yield "batch", measure.rate(lambda: subject.batch(1_000), 1_000, total_s=_total_s(quick))


def _chain(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    yield "chain", measure.rate(lambda: subject.chain(100), 100, total_s=_total_s(quick))


def _wait(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    total_s = _total_s(quick)
    yield "wait_all", measure.rate(lambda: subject.wait_all(1_000), 1_000, total_s=total_s)
    yield "wait_each", measure.rate(lambda: subject.wait_each(1_000), 1_000, total_s=total_s)


def _fan_in(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    yield "fan_in", measure.rate(lambda: subject.fan_in(1_000), 1_000, total_s=_total_s(quick))


def _nested(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    yield "nested", measure.rate(lambda: subject.nested(4, 250), 1_000, total_s=_total_s(quick))


def _get(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    handle = subject.put(12345)

    def again() -> None:
        for _ in range(500):
            subject.get(handle)

    yield "get_cached", measure.rate(again, 500, total_s=_total_s(quick))

    samples = []
    for _ in range(2 if quick else 4):
        handles = subject.results(500)
        began = time.perf_counter()
        for fresh in handles:
            subject.get(fresh)
        samples.append(500 / (time.perf_counter() - began))
    yield "get_fresh", statistics.median(samples)


def _put(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    def some() -> None:
        _handles = [subject.put(index) for index in range(200)]

    yield "put_small", measure.rate(some, 200, total_s=_total_s(quick))


def _arrays(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    sizes = (("1mb", 10**6, 40), ("100mb", 10**8, 4), ("1gb", 10**9, 2))
    for label, size, repeats in sizes[: 2 if quick else 3]:
        yield from _array(subject, label, size, repeats)


def _array(subject: Subject, label: str, size: int, repeats: int) -> Iterator[tuple[str, float]]:
    """Put and get of one size, and the copy that the machine itself makes of as much."""
    import numpy as np

    array: Any = np.ones(size, dtype=np.uint8)
    puts, gets = [], []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        handle = subject.put(array)
        put_done = time.perf_counter()
        value = subject.get(handle)
        gets.append(time.perf_counter() - put_done)
        puts.append(put_done - began)
        assert value[-1] == 1  # type: ignore[index]  # whatever was put is an array here
        del handle, value
        time.sleep(0.005)  # what was dropped is freed by now, as between the steps of a program
    yield f"put_{label}_cold", size / puts[0] / 1e9
    yield f"put_{label}", size / statistics.median(puts[1:]) / 1e9
    yield f"get_{label}", statistics.median(gets) * 1e6

    target = np.empty_like(array)
    cold = measure.seconds(lambda: np.copyto(target, array))
    warm = [measure.seconds(lambda: np.copyto(target, array)) for _ in range(repeats)]
    if label == "100mb":
        yield f"memcpy_{label}_cold", size / cold / 1e9
    yield f"memcpy_{label}", size / statistics.median(warm) / 1e9


def _hogs(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    def some() -> None:
        for _ in range(20):
            subject.one()

    with measure.hogs():
        yield "single_hogs", measure.rate(some, 20, total_s=_total_s(quick))
        yield "chain_hogs", measure.rate(lambda: subject.chain(100), 100, total_s=_total_s(quick))


def _cpu(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    subject.batch(1_000)
    roles = subject.roles()
    batches = 0
    before = {pid: measure.cpu_ns(pid) for pid in roles}
    began = time.perf_counter()
    while time.perf_counter() - began < (0.2 if quick else 1.0):
        subject.batch(1_000)
        batches += 1
    used = dict.fromkeys(("driver", "service", "workers"), 0)
    for pid, role in roles.items():
        used[role] += max(0, measure.cpu_ns(pid) - before[pid])
    for role, used_ns in used.items():
        if role in roles.values():
            yield f"cpu_{role}", used_ns / 1e3 / (batches * 1_000)
    yield "cpu_all", sum(used.values()) / 1e3 / (batches * 1_000)


def _recording(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    if subject.name != "detray":
        raise Unsupported
    from detray.bench import recording

    workers = os.cpu_count() or 2
    yield from recording.measure_recording(rounds=2 if quick else 5, workers=workers)


def _million(subject: Subject, quick: bool) -> Iterator[tuple[str, float]]:
    if subject.name != "detray":
        raise Unsupported
    from detray.bench import million

    yield from million.measure_million(
        tasks=20_000 if quick else 1_000_000, workers=os.cpu_count() or 2
    )


MEASUREMENTS: dict[str, Measurement] = {
    "single": _single,
    "batch": _batch,
    "chain": _chain,
    "wait": _wait,
    "fan-in": _fan_in,
    "nested": _nested,
    "get": _get,
    "put": _put,
    "arrays": _arrays,
    "hogs": _hogs,
    "cpu": _cpu,
    "recording": _recording,
    "million": _million,
    **CLUSTER_MEASUREMENTS,
}
"""By group. `start` is not here: it is measured from outside (visit.py)."""
