"""What a simulated run recorded, as trace files, and played again on fresh cores.

Each core of the world is a process of its own with a clock of its own, as in a real cluster. The
world knows the order of all steps, so one file can hold them all; `write_parts` writes what the
processes of a real cluster would have written, for `detray trace collect`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from detray.core.config import CORE_REVISION
from detray.core.effects import Effect
from detray.core.global_scheduler import GlobalScheduler
from detray.core.local import LocalScheduler
from detray.core.outbox import Outbox
from detray.core.placement import POLICIES
from detray.ids import NodeID
from detray.trace.format import (
    NO_DIGEST,
    CoreInfo,
    HeadCore,
    Header,
    LocalCore,
    ProcessInfo,
    SegmentStart,
)
from detray.trace.recorder import Recorder
from detray_sim.cluster import SimCluster
from detray_sim.head import SimHead
from detray_sim.node import SimNode
from detray_sim.server import BASE_NS, CoreServer, SteppedCore

_encode = msgspec.msgpack.Encoder().encode


class ReplayDiffers(AssertionError):
    """A core that was told the same ordered something else: a bug, or a trap of determinism."""


def write_trace(cluster: SimCluster, path: str | os.PathLike[str]) -> None:
    """Write a recorded run, all nodes and heads, as one trace that `detray replay` verifies.

    Raises ValueError if the cluster was made without `record=True`, OSError if the file cannot be
    written.
    """
    _check(cluster)
    _write(cluster, cluster.cores, path)


def write_parts(cluster: SimCluster, folder: Path) -> list[Path]:
    """Write what each core recorded to a file of its own; their paths, by core number.

    A core knows nothing of its node's number when it begins. Raises as `write_trace` does.
    """
    _check(cluster)
    paths = []
    for server in cluster.cores:
        paths.append(folder / f"{server.number}-{server.name}.trace")
        _write(cluster, [server], paths[-1])
    return paths


def trace_header(cluster: SimCluster) -> Header:
    """What `write_trace` begins with."""
    return _header(cluster, cluster.cores)


def _check(cluster: SimCluster) -> None:
    if not cluster.recorded:
        raise ValueError("0 steps were recorded: make the cluster with record=True, and run it")


def _write(
    cluster: SimCluster, servers: Sequence[CoreServer], path: str | os.PathLike[str]
) -> None:
    numbers = {server.number: place for place, server in enumerate(servers)}
    header = _header(cluster, servers)
    recorder = Recorder(header, (), path, start=_start(cluster, numbers))
    outbox = Outbox()
    for step in cluster.recorded:
        core = numbers.get(step.core)
        if core is not None:
            metas = [_encode(step.stimuli)] if step.stimuli else []
            recorder.step(core, step.now_ns, metas, outbox.encode_effects(step.effects))
    recorder.close("the simulation ended")


def _header(cluster: SimCluster, servers: Sequence[CoreServer]) -> Header:
    is_whole = len(servers) == len(cluster.cores)
    cores: list[CoreInfo] = []
    for place, server in enumerate(servers):
        if isinstance(server, SimNode):
            node = server.node_id if is_whole and server.node_id is not None else NodeID(-1)
            cores.append(
                LocalCore(name=server.name, config=server.config, node=node, process=place)
            )
        else:
            assert isinstance(server, SimHead)
            cores.append(
                HeadCore(
                    name=server.name,
                    config=server.config,
                    epoch=epoch_of(server.core),
                    process=place,
                    unplayable=_why_unplayable(server),
                )
            )
    return Header(
        core_revision=CORE_REVISION,
        detray_version=version("detray"),
        entrypoint="simulated",
        processes=tuple(
            ProcessInfo(wall_ns=0, monotonic_ns=BASE_NS, life=life_of(cluster, server.number))
            for server in servers
        ),
        cores=tuple(cores),
        cluster=life_of(cluster, -1),
    )


def life_of(cluster: SimCluster, number: int) -> str:
    """32 hexadecimal digits for a core's process, or for the cluster (-1)."""
    names = b"%d/%d" % (cluster.config.seed, number)
    return blake2b(names + cluster.kept, digest_size=16).hexdigest()


def epoch_of(core: SteppedCore) -> int:
    """The epoch of a head; 0 if it has no store."""
    return int(getattr(getattr(core.tables, "durable", None), "epoch", 0))


def _why_unplayable(server: SimHead) -> str:
    """A policy that only the simulator has is not in a trace."""
    placement = server.core.placement  # type: ignore[attr-defined]  # a head's core has it
    if type(server.core) is GlobalScheduler and type(placement) in POLICIES.values():
        return ""
    return f"{type(placement).__name__}, a policy of the simulator, decides here"


def _start(cluster: SimCluster, numbers: Iterable[int]) -> SegmentStart | None:
    """The states that heads with a store began with; None if there are no such heads."""
    found = [
        (place, cluster.openings[number])
        for place, number in enumerate(numbers)
        if number in cluster.openings
    ]
    if not found:
        return None
    return SegmentStart(
        first_step=0,
        cores=tuple(place for place, _ in found),
        digests=(NO_DIGEST,) * len(found),
        snapshots=tuple(state for _, state in found),
        begins=True,
    )


def replay(cluster: SimCluster) -> int:
    """Tell fresh cores, all of them, what the recorded ones were told; how many steps were equal.

    Raises ReplayDiffers at the first step that is not.
    """
    cores = [_fresh(cluster, server) for server in cluster.cores]
    for number, step in enumerate(cluster.recorded):
        effects: Sequence[Effect] = cores[step.core].handle(*step.stimuli, now_ns=step.now_ns)
        if tuple(effects) != step.effects:
            server = cluster.cores[step.core]
            raise ReplayDiffers(f"step {number} of {server!r}: {_first(effects, step.effects)}")
    return len(cluster.recorded)


def _fresh(cluster: SimCluster, server: CoreServer) -> SteppedCore:
    if isinstance(server, SimNode):
        return LocalScheduler(server.config)
    assert isinstance(server, SimHead)
    if server.number in cluster.openings:
        return GlobalScheduler.restore(server.config, cluster.openings[server.number])
    return GlobalScheduler(server.config)


def _first(now: Sequence[Any], then: Sequence[Any]) -> str:
    """The first effect that differs. (Any: effects of all kinds.)"""
    for left, right in zip(now, then, strict=False):
        if left != right:
            return f"{left} instead of {right}"
    return f"{len(now)} effects instead of {len(then)}"
