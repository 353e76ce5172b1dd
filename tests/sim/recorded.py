"""Small programs, run and recorded on simulated clusters where nothing but computing takes time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detray.core.strategy import Strategy
from detray.ids import ObjectID
from detray.trace.reading import open_trace
from detray_sim import behaviour as do
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.costs import FREE
from detray_sim.result import NodeShape
from detray_sim.traces import write_trace
from detray_sim.whatif import Question
from detray_sim.whatif_script import read_recording

MS = 1_000_000
MB = 1_000_000


def remote(
    name: str,
    ms: int,
    size_bytes: int = 10,
    *,
    returns: int = 1,
    demand: do.Demand = do.ONE_CPU,
    strategy: Strategy | None = None,
) -> do.Remote:
    """A function that computes and returns so much."""

    def body(run: do.Run) -> do.Work:
        return do.Work(ms * MS, [do.Result(size_bytes)] * returns)

    return do.Remote(body, name=name, num_returns=returns, demand=demand, strategy=strategy)


def record(
    path: Path,
    *bodies: do.Body,
    shapes: Sequence[NodeShape] = (NodeShape(cpus=1),),
    settle_ns: int = MS,
) -> Path:
    """The trace of drivers that all begin on the first machine."""
    cluster = SimCluster(ClusterConfig(nodes=tuple(shapes), costs=FREE), record=True)
    cluster.settle(settle_ns)
    for body in bodies:
        cluster.drive(0, body)
    assert cluster.run(10**14)
    write_trace(cluster, path)
    return path


def question(path: Path, follow: str = "causes") -> Question:
    """A question about a trace."""
    return Question(read_recording(open_trace(path), path.stem, follow))


# ------------------------------------------------------------------------------ drivers


def chain(length: int, ms: int = 10) -> do.Body:
    """Tasks that take each other."""
    link = remote("link", ms)

    def body(run: do.Run) -> do.Steps:
        items: list[ObjectID] = []
        for _ in range(length):
            items = yield do.Submit(link, args=tuple(items))
        yield do.GetValues(tuple(items))
        return []

    return body


def bag(count: int, ms: int = 10, **options: object) -> do.Body:
    """Tasks that have nothing to do with each other."""
    work = remote("work", ms, **options)  # type: ignore[arg-type]  # options of `remote`

    def body(run: do.Run) -> do.Steps:
        items: list[ObjectID] = []
        for _ in range(count):
            items += yield do.Submit(work)
        yield do.GetValues(tuple(items))
        return []

    return body


def shuffle(maps: int, reduces: int, size_bytes: int) -> do.Body:
    """Every reducer takes a part of every map."""
    mapper, reducer = remote("map", 10, size_bytes, returns=reduces), remote("reduce", 10)

    def body(run: do.Run) -> do.Steps:
        rows: list[list[ObjectID]] = []
        for _ in range(maps):
            rows.append((yield do.Submit(mapper)))
        found: list[ObjectID] = []
        for column in range(reduces):
            found += yield do.Submit(reducer, args=tuple([row[column] for row in rows]))
        yield do.GetValues(tuple(found))
        return []

    return body


def serial(count: int, own_ms: int = 10) -> do.Body:
    """The driver takes its time between two submissions."""
    quick = remote("quick", 1)

    def body(run: do.Run) -> do.Steps:
        items: list[ObjectID] = []
        for _ in range(count):
            items += yield do.Submit(quick)
            yield do.Compute(own_ms * MS)
        yield do.GetValues(tuple(items))
        return []

    return body


def nested(depth: int) -> do.Body:
    """Tasks that launch two others, wait for them, and go on."""

    def task(run: do.Run) -> do.Steps:
        yield do.Compute(5 * MS)
        if run.token:
            items: list[ObjectID] = []
            for _ in range(2):
                items += yield do.Submit(tree, token=run.token - 1)
            yield do.GetValues(tuple(items))
            yield do.Compute(5 * MS)
        return [do.Result(10)]

    tree = do.Remote(task, name="tree")

    def body(run: do.Run) -> do.Steps:
        items = yield do.Submit(tree, token=depth)
        yield do.GetValues(tuple(items))
        return []

    return body


def throttled(times_ms: Sequence[int], at_once: int) -> do.Body:
    """No more than so many at once: the driver waits for any before it goes on."""
    functions = [remote(f"f{ms}", ms) for ms in times_ms]

    def body(run: do.Run) -> do.Steps:
        pending: list[ObjectID] = []
        for function in functions:
            if len(pending) >= at_once:
                ready = yield do.WaitFor(tuple(pending), 1)
                first = next(item for item in pending if item in ready)
                pending.remove(first)
            pending += yield do.Submit(function)
        yield do.GetValues(tuple(pending))
        return []

    return body
