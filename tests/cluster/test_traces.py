"""The trace of a real cluster: recorded apart, collected, replayed as a whole."""

from __future__ import annotations

import argparse
from pathlib import Path

import detray
from detray.cli.collect import fetch_recordings
from detray.cluster_utils import Cluster
from detray.trace.collecting import collect
from detray.trace.graphs.graph import build
from detray.trace.reading import Trace, open_trace
from detray.trace.replaying import replay
from tests.cluster.conftest import SOON_BURIED, detray_command


@detray.remote
def add(x: int, *more: int) -> int:
    return x + sum(more)


def far_sum(nodes: int) -> int:
    """Tasks on each node, whose results go into one on the last."""
    parts = [
        add.options(resources={f"n{number % nodes}": 1}).remote(number) for number in range(12)
    ]
    total: int = detray.get(add.options(resources={f"n{nodes - 1}": 1}).remote(0, *parts))
    return total


def fetched(cluster: Cluster) -> list[Trace]:
    """What all living processes have recorded so far."""
    options = argparse.Namespace(
        address=cluster.address, token_file=None, tls_cert=None, tls_key=None, tls_ca=None
    )
    return [Trace(data, name, salvage=True) for name, data in fetch_recordings(options)]


def test_a_running_cluster_gives_a_trace_that_replays_as_a_whole(
    driver: Cluster, tmp_path: Path
) -> None:
    """Every node's decisions are taken again, and what one says it sent, the other got."""
    assert far_sum(3) == 66
    output = str(tmp_path / "cluster.trace")
    status, out, err = detray_command("trace", "collect", "--address", driver.address, "-o", output)
    assert (status, err) == (0, "")
    assert "steps of head, node 0, node 1, node 2" in out
    status, out, err = detray_command("replay", output)
    assert (status, err) == (0, "")
    assert out.count("identical") == 4
    trace = open_trace(output)
    assert len(trace.header.cluster) == 32
    assert len({process.life for process in trace.header.processes}) == 4
    report = replay(trace)
    assert report.is_same and report.link_messages > 30
    ran = {
        data["node"]
        for _, data in build(trace).nodes(data=True)
        if data["kind"] == "task" and not data["is_root"]
    }
    assert {"node 0", "node 1", "node 2"} <= ran


def test_deaths_are_in_the_trace_and_what_they_cost_is_told(tmp_path: Path) -> None:
    """A node killed, then the head, which comes back: three lives more to tell of."""
    detray.shutdown()
    with Cluster() as cluster:
        for number in range(3):
            cluster.add_node(
                num_cpus=2,
                wait=False,
                resources={f"n{number}": 100},
                record=str(tmp_path / f"n{number}.trace"),
                object_store_memory=100 << 20,
                **({"_system_config": SOON_BURIED} if not number else {}),
            )
        cluster.wait_ready()
        cluster.connect()
        assert far_sum(3) == 66
        before = [trace for trace in fetched(cluster) if trace.header.head_cores()]
        cluster.kill_head()
        cluster.restart_head()
        cluster.wait_for_nodes()
        assert far_sum(3) == 66
        cluster.list_all_nodes()[2].kill_service()
        cluster.wait_for_nodes()
        assert far_sum(2) == 66
        after = [trace for trace in fetched(cluster) if trace.header.head_cores()]
        detray.shutdown()
    nodes = [open_trace(path) for path in sorted(tmp_path.glob("n*.trace"))]
    assert [trace.complete for trace in nodes].count(False) >= 1  # killed: its end is missing
    collected = collect([*before, *after, *nodes], tmp_path / "all.trace")
    assert collected.differences == []
    assert {"head of epoch 1", "head of epoch 2"} <= set(collected.cores)
    assert any("recording ends before" in note for note in collected.notes)
    trace = open_trace(tmp_path / "all.trace")
    report = replay(trace)
    assert report.is_same, report.difference
    assert (report.link_messages, report.unmatched) == (collected.matched, collected.unmatched)
    assert sum(report.steps) == trace.step_count


def test_what_a_node_knows_of_the_graph_is_in_the_graph_of_all(
    driver: Cluster, tmp_path: Path
) -> None:
    """`detray.graph()` is of the program's node; the collected trace adds what others know."""
    assert far_sum(3) == 66
    live = detray.graph()
    collect(fetched(driver), str(tmp_path / "cluster.trace"))
    whole = open_trace(tmp_path / "cluster.trace").graph()
    assert set(live) <= set(whole)
    assert set(live.edges(keys=True)) <= set(whole.edges(keys=True))
    for node, data in live.nodes(data=True):
        found = whole.nodes[node]
        assert set(data) == set(found)
        told = (
            "kind",
            "name",
            "state",
            "attempts",
            "owner",
            "demand",
            "submitted_ns",
            "size_bytes",
        )
        assert [data.get(name) for name in told] == [found.get(name) for name in told]
    ran = [data for _, data in whole.nodes(data=True) if data.get("started_ns", -1) > 0]
    assert len({data["node"] for data in ran}) == 3
    assert all(data["submitted_ns"] <= data["started_ns"] for data in ran if "demand" in data)
