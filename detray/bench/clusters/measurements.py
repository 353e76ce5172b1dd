"""The measurements of clusters. Each starts and ends its own, of as many nodes as it needs.

What is compared takes turns within one cluster, or in clusters that follow one another, so that the
same quiet and busy moments meet both.
"""

from __future__ import annotations

import contextlib
import importlib
import statistics
import time
from collections.abc import Callable, Iterator

from detray.bench import measure
from detray.bench.clusters.plain import PlainLink
from detray.bench.clusters.subject import CLUSTER_ENGINES, ClusterSubject
from detray.bench.subjects import Subject, Unsupported

_CLASSES = {
    "detray": ("subject", "DetrayCluster"),
    "ray": ("subject", "RayCluster"),
    "dask": ("dask", "DaskCluster"),
}
_MB = 10**6
_NODES = 4
_RECEIVERS = 8
_SPARE_BYTES = 2 << 30
_STORE_BYTES_MIN = 100 << 20
_IN_A_SLICE = 20
_PATIENCE_S = 15
_SLOW_RATE = 1_000
_FEW = 2_000

Rows = Iterator[tuple[str, float]]


@contextlib.contextmanager
def _cluster(engine: str, nodes: int, **options: int) -> Iterator[ClusterSubject]:
    if engine not in CLUSTER_ENGINES:
        raise Unsupported
    home, class_name = _CLASSES[engine]
    module = importlib.import_module(f"detray.bench.clusters.{home}")
    cluster: ClusterSubject = getattr(module, class_name)()
    cluster.start(nodes, **options)
    try:
        yield cluster
    finally:
        cluster.stop()


# ------------------------------------------------------------------ tasks at another node


def _remote(subject: Subject, quick: bool) -> Rows:
    """Empty tasks at the driver's node and at another one, in turns."""
    with _cluster(subject.name, 2) as cluster:

        def one(node: int) -> float:
            began = time.perf_counter()
            for _ in range(_IN_A_SLICE):
                cluster.batch(1, node)
            return (time.perf_counter() - began) / _IN_A_SLICE * 1e6

        def many(node: int) -> float:
            return 1_000 / measure.seconds(cluster.batch, 1_000, node)

        for names, action, count, turns in (
            (("local_one", "remote_one"), one, _IN_A_SLICE, 2 if quick else 40),
            (("local_batch", "remote_batch"), many, 1_000, 1 if quick else 7),
        ):
            values, cpu_us = _in_turns(cluster, action, turns)
            for node, name in enumerate(names):
                yield name, values[node]
            if cpu_us is not None:
                for node, name in enumerate(names):
                    yield f"cpu_{name}", cpu_us[node] / count


def _in_turns(
    cluster: ClusterSubject, action: Callable[[int], float], turns: int
) -> tuple[list[float], list[float] | None]:
    """The median of the values, and of the CPU time in us if that is known, for nodes 0 and 1."""
    values: tuple[list[float], list[float]] = ([], [])
    used: tuple[list[float], list[float]] = ([], [])
    for node in (0, 1):
        action(node)  # warm: connections, functions, workers
    pids = cluster.pids()
    for _ in range(turns):
        for node in (0, 1):
            before = sum(map(measure.cpu_ns, pids))
            values[node].append(action(node))
            used[node].append((sum(map(measure.cpu_ns, pids)) - before) / 1e3)
    cpu_us = [statistics.median(part) for part in used] if pids else None
    return [statistics.median(part) for part in values], cpu_us


# ------------------------------------------------------------------ bytes


def _transfer(subject: Subject, quick: bool) -> Rows:
    """Get of what lies at another node, and as many bytes over plain sockets, in turns."""
    import numpy as np
    import psutil

    np.ones(1)  # imported before the first get needs it

    for label, size_bytes, turns in (("100mb", 100 * _MB, 7), ("1gb", 1_000 * _MB, 3)):
        # Two copies in the stores, one that a task makes, two of the plain sockets.
        if psutil.virtual_memory().available < 5 * size_bytes + _SPARE_BYTES:
            return
        turns = 1 if quick else turns
        store_bytes = 2 * size_bytes + (256 << 20)
        with (
            _cluster(subject.name, 2, store_bytes=store_bytes) as cluster,
            PlainLink(size_bytes) as plain,
        ):
            plain_s, fetch_s = [], []
            for turn in range(turns + 1):
                plain_s.append(plain.seconds())
                handle = cluster.make_at(1, size_bytes)
                fetch_s.append(measure.seconds(cluster.get, handle))
                del handle
                time.sleep(0.1)  # both stores free it
                if not turn:
                    yield f"fetch_{label}_cold", size_bytes / fetch_s.pop() / 1e9
            yield f"fetch_{label}", size_bytes / statistics.median(fetch_s) / 1e9
            yield f"plain_{label}", size_bytes / statistics.median(plain_s) / 1e9
        if quick:
            return


def _broadcast(subject: Subject, quick: bool) -> Rows:
    """One object to eight nodes at once, and one object each, one node after the other."""
    size_bytes = (10 if quick else 100) * _MB
    receivers = list(range(1, 3 if quick else _RECEIVERS + 1))
    with _cluster(
        subject.name,
        len(receivers) + 1,
        store_bytes=max((len(receivers) + 2) * size_bytes, _STORE_BYTES_MIN),
    ) as cluster:
        at_once, one_by_one = [], []
        for _ in range(2 if quick else 4):
            handle = cluster.make_at(0, size_bytes)
            at_once.append(measure.seconds(cluster.send_to, receivers, handle))
            del handle
            handles = [cluster.make_at(0, size_bytes) for _ in receivers]
            began = time.perf_counter()
            for node, handle in zip(receivers, handles, strict=True):
                cluster.send_to([node], handle)
            one_by_one.append(time.perf_counter() - began)
            del handle, handles
            time.sleep(0.1)  # all stores free them
        # The first turn writes into memory that nobody has touched.
        yield "broadcast", statistics.median(at_once[1:]) * 1e3
        yield "pulls", statistics.median(one_by_one[1:]) * 1e3


# ------------------------------------------------------------------ several nodes


def _nodes(subject: Subject, quick: bool) -> Rows:
    """10,000 tasks on one node with four slots, and on four nodes with one each.

    Engines for which that would take too long get fewer; all values are rates.
    """
    count = 500 if quick else 10_000
    for nodes in (1, _NODES):
        with _cluster(subject.name, nodes, slots=_NODES // nodes) as cluster:
            cluster.batch(100)
            if measure.seconds(cluster.batch, 200) > 200 / _SLOW_RATE:
                count = min(count, _FEW)
            empty = [measure.seconds(cluster.batch, count)]
            while not quick and len(empty) < 3 and sum(empty) < _PATIENCE_S:
                empty.append(measure.seconds(cluster.batch, count))
            yield f"empty_{nodes}", count / statistics.median(empty)
            cluster.batch_busy(100)
            busy_s = measure.seconds(cluster.batch_busy, count)
            yield f"busy_{nodes}", count / busy_s


CLUSTER_MEASUREMENTS = {
    "remote": _remote,
    "transfer": _transfer,
    "broadcast": _broadcast,
    "nodes": _nodes,
}
