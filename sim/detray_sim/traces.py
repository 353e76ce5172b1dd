"""What a simulated run recorded, as a trace file, and played again on fresh cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from detray.core.effects import Effect
from detray.core.global_scheduler import GlobalScheduler
from detray.core.local import LocalScheduler
from detray.core.outbox import Outbox
from detray.trace.format import HEAD, LOCAL
from detray.trace.recorder import Recorder, new_header
from detray_sim.cluster import SimCluster
from detray_sim.node import SimNode
from detray_sim.server import BASE_NS, SteppedCore

_encode = msgspec.msgpack.Encoder().encode


class ReplayDiffers(AssertionError):
    """A core that was told the same ordered something else: a bug, or a trap of determinism."""


def write_trace(cluster: SimCluster, path: str | os.PathLike[str]) -> None:
    """Write a recorded run of one node and its head as a trace that `detray replay` verifies.

    A trace has one local scheduler: for several nodes use `replay`. Raises ValueError without
    `record=True` or with several nodes, OSError if the file cannot be written.
    """
    nodes = [server for server in cluster.cores if isinstance(server, SimNode)]
    if len(nodes) != 1 or not cluster.recorded:
        raise ValueError(f"{len(nodes)} nodes, {len(cluster.recorded)} steps: not one whole run")
    header = new_header(
        local=nodes[0].config,
        head=cluster.head.config,
        entrypoint="simulated",
        wall_ns=0,
        monotonic_ns=BASE_NS,
        detray_version=version("detray"),
    )
    recorder = Recorder(header, (), path)
    outbox = Outbox()
    for step in cluster.recorded:
        core = HEAD if cluster.cores[step.core] is cluster.head else LOCAL
        metas = [_encode(step.stimuli)] if step.stimuli else []
        recorder.step(core, step.now_ns, metas, outbox.encode_effects(step.effects))
    recorder.close("the simulation ended")


def replay(cluster: SimCluster) -> int:
    """Tell fresh cores, all of them, what the recorded ones were told; how many steps were equal.

    Raises ReplayDiffers at the first step that is not.
    """
    cores: list[SteppedCore] = [
        LocalScheduler(server.config)
        if isinstance(server, SimNode)
        else GlobalScheduler(cluster.head.config)
        for server in cluster.cores
    ]
    for number, step in enumerate(cluster.recorded):
        effects: Sequence[Effect] = cores[step.core].handle(*step.stimuli, now_ns=step.now_ns)
        if tuple(effects) != step.effects:
            server = cluster.cores[step.core]
            raise ReplayDiffers(f"step {number} of {server!r}: {_first(effects, step.effects)}")
    return len(cluster.recorded)


def _first(now: Sequence[Any], then: Sequence[Any]) -> str:
    """The first effect that differs. (Any: effects of all kinds.)"""
    for left, right in zip(now, then, strict=False):
        if left != right:
            return f"{left} instead of {right}"
    return f"{len(now)} effects instead of {len(then)}"
