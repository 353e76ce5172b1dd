"""Recordings of a simulated cluster, as the processes of a real one would have made them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detray.core.outbox import Outbox
from detray.trace.format import Header
from detray.trace.play import schedulers
from detray.trace.reading import RecordedStep, Trace, open_trace
from detray.trace.recorder import Recorder
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.result import NodeShape
from detray_sim.traces import write_parts
from tests.sim.test_engine import MS, SECOND, kill
from tests.sim.test_engine_nodes import graph

Change = Callable[[int, list[Any]], list[Any]]
"""Changes the stimuli of a step, by its number. (Any: stimuli.)"""


def run_cluster(nodes: int = 4, seed: int = 0) -> SimCluster:
    """A recorded run over several nodes, with a dead worker in it."""
    shape = NodeShape(cpus=2, store_bytes=64 << 20)
    cluster = SimCluster(ClusterConfig(nodes=(shape,) * nodes, seed=seed), record=True)
    cluster.drive(0, graph)
    cluster.clock.after(12 * MS, kill, cluster)
    assert cluster.run(100 * SECOND)
    cluster.settle()
    return cluster


def parts_of(cluster: SimCluster, folder: Path, seed: int = 1) -> list[Trace]:
    """What each process of the cluster recorded, in an order that says nothing."""
    folder.mkdir(exist_ok=True)
    traces = [open_trace(path) for path in write_parts(cluster, folder)]
    random.Random(seed).shuffle(traces)
    return traces


def named(traces: Sequence[Trace], name: str) -> Trace:
    """The recording of the core of that name."""
    return next(trace for trace in traces if trace.header.cores[0].name == name)


def rewritten(
    trace: Trace,
    path: Path,
    *,
    change: Change | None = None,
    ring_bytes: int = 0,
    steps: int | None = None,
    header: Header | None = None,
) -> Trace:
    """The trace recorded again by a recorder whose core is told the same, or changed, stimuli.

    With `ring_bytes` it is a flight recorder that holds so much; after `steps` steps it is cut.
    """
    header = header or trace.header
    core: Any = schedulers(header)[0].make()
    recorder = Recorder(header, [core], None if ring_bytes else path, ring_bytes or 1 << 26)
    outbox = Outbox()
    taken: list[RecordedStep] = list(trace.steps())[:steps]
    for step in taken:
        stimuli: list[Any] = step.stimuli()
        if change is not None:
            stimuli = change(step.number, stimuli)
        effects = core.handle(*stimuli, now_ns=step.now_ns)
        metas = [msgspec.msgpack.encode(stimuli)] if stimuli else []
        recorder.step(0, step.now_ns, metas, outbox.encode_effects(effects))
    if ring_bytes:
        return Trace(recorder.read_all(), f"flight of {trace.name}")
    recorder.flush()
    if steps is None:
        recorder.close("done")
    return open_trace(path)
