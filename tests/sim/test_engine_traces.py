"""A simulated run is recorded, and its cores decide alike when they are told the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from detray.trace.reading import open_trace
from detray.trace.replaying import replay as replay_trace
from detray_sim import behaviour as do
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


def test_a_run_of_one_node_is_a_trace_like_any_other(tmp_path: Path) -> None:
    """What `detray replay` reads."""
    path = tmp_path / "run.trace"
    cluster = recorded(1)
    write_trace(cluster, path)
    report = replay_trace(open_trace(path))
    assert report.is_same, report.difference
    assert sum(report.steps) == len(cluster.recorded)


def test_a_trace_has_one_node(tmp_path: Path) -> None:
    """Several do not fit into today's format."""
    with pytest.raises(ValueError, match="2 nodes"):
        write_trace(recorded(2), tmp_path / "run.trace")


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
