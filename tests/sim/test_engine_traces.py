"""A simulated run is recorded, and its cores decide alike when they are told the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from detray.core.placement import Hybrid
from detray.trace.graphs.graph import build
from detray.trace.reading import open_trace
from detray.trace.replaying import replay as replay_trace
from detray_sim import behaviour as do
from detray_sim.cli import main
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.result import NodeShape
from detray_sim.traces import replay, write_trace
from tests.sim.test_engine import MS, SECOND, kill
from tests.sim.test_engine_nodes import graph


def recorded(nodes: int) -> SimCluster:
    """A run with a dead worker in it."""
    shape = NodeShape(cpus=2, store_bytes=64 << 20)
    cluster = SimCluster(ClusterConfig(nodes=(shape,) * nodes), record=True)
    cluster.drive(0, graph)
    cluster.clock.after(12 * MS, kill, cluster)
    assert cluster.run(100 * SECOND)
    cluster.settle()
    return cluster


def test_the_cores_of_a_cluster_replay() -> None:
    """Fresh cores, the same stimuli: the same effects."""
    assert replay(recorded(3)) > 100


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_run_is_a_trace_like_any_other(tmp_path: Path, nodes: int) -> None:
    """What `detray replay` reads, with all cores in it, and every message between them."""
    path = tmp_path / "run.trace"
    cluster = recorded(nodes)
    write_trace(cluster, path)
    report = replay_trace(open_trace(path))
    assert report.is_same, report.difference
    assert sum(report.steps) == len(cluster.recorded)
    assert len(report.steps) == nodes + 1
    assert (report.link_messages > 0, report.unmatched) == (True, 0)


def test_the_same_run_gives_the_same_trace(tmp_path: Path) -> None:
    """To the byte: nothing of the machine that simulates is in it but its Python's version."""
    for name in ("one", "two"):
        write_trace(recorded(2), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_head_that_decides_by_a_policy_of_the_simulator_is_told_not_replayed(
    tmp_path: Path,
) -> None:
    """Nothing in a trace could make that policy anew: its steps are kept, and links checked."""
    cluster = recorded(2)

    class Own(Hybrid):
        """A policy that only this simulation has."""

    cluster.head.core.placement = Own(0)
    write_trace(cluster, tmp_path / "run.trace")
    report = replay_trace(open_trace(tmp_path / "run.trace"))
    assert report.is_same, report.difference
    assert (report.steps[0], report.skipped > 0) == (0, True)
    assert (report.link_messages > 0, report.unmatched) == (True, 0)


def test_a_recorded_seed_is_a_trace(tmp_path: Path) -> None:
    """`detray-sim seed --trace`: faults and all."""
    path = tmp_path / "seed.trace"
    assert main(["seed", "3", "--trace", str(path)]) == 0
    trace = open_trace(path)
    report = replay_trace(trace)
    assert report.is_same and sum(report.steps) == trace.step_count > 0
    assert build(trace).number_of_nodes() > 1
    assert main(["seed", "3", "--trace", str(tmp_path / "no" / "x.trace")]) == 2


def empty(run: do.Run) -> list[do.Result]:
    """A driver that does nothing."""
    return []


def test_without_recording_there_is_no_trace(tmp_path: Path) -> None:
    """It has to be asked for."""
    cluster = SimCluster(ClusterConfig())
    cluster.drive(0, empty)
    assert cluster.run(SECOND)
    with pytest.raises(ValueError, match="0 steps"):
        write_trace(cluster, tmp_path / "run.trace")
