"""Tasks of a cluster run again, from what its nodes recorded each for itself."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import detray
from detray import rerun
from detray.cluster_utils import Cluster
from detray.trace.payloads.format import payloads_path
from tests.cluster.conftest import STORE_BYTES, detray_command

np = pytest.importorskip("numpy")
LARGE = 300_000


@detray.remote
def make(n: int) -> object:
    return np.arange(n, dtype="f8")


@detray.remote
def plus(array: object, more: float) -> object:
    return array + more  # type: ignore[operator]  # numpy has no types here


@detray.remote
def spread(count: int, resource: str) -> float:
    where = [plus.options(resources={resource: 1}).remote(np.ones(4), n) for n in range(count)]
    return float(sum(array.sum() for array in detray.get(where)))


def program() -> None:
    """Values go from node to node, large and small; calls are nested across nodes."""
    far, near = {"resources": {"n1": 1}}, {"resources": {"n0": 1}}
    large = make.options(**near).remote(LARGE)
    moved = plus.options(**far).remote(large, 2)
    back = plus.options(**near).remote(moved, 3)
    assert detray.get(back)[1] == 6
    own = detray.put(np.ones(LARGE))
    assert detray.get(plus.options(**far).remote(own, 1))[0] == 2
    assert detray.get(spread.options(**far).remote(3, "n0")) == 24


@pytest.fixture
def recordings(tmp_path: Path) -> list[str]:
    """What two nodes and their head wrote."""
    detray.shutdown()
    with Cluster() as cluster:
        for number in range(2):
            cluster.add_node(
                num_cpus=2,
                wait=False,
                resources={f"n{number}": 100},
                record=str(tmp_path / f"n{number}.trace"),
                record_payloads=True,
                object_store_memory=STORE_BYTES,
            )
        cluster.wait_ready()
        cluster.connect()
        program()
        detray.shutdown()
    return [str(tmp_path / name) for name in ("n0.trace", "n1.trace", "n0.trace.head")]


def test_what_two_nodes_recorded_runs_again_as_one(recordings: list[str], tmp_path: Path) -> None:
    """Collected, every task runs, with inputs that came from other nodes; a part of it does not."""
    whole = str(tmp_path / "cluster.trace")
    status, out, err = detray_command("trace", "collect", *recordings, "-o", whole)
    assert (status, err) == (0, "")
    assert "steps of head, node 0, node 1" in out
    recorded = rerun.open_recorded(whole)
    assert len(recorded.payloads.header.processes) == 2
    summary = rerun.run_all(recorded, trust=True)
    assert (summary.same, summary.tasks) == (8, 8)
    seats = {recorded.calls[task].name: seat.node for (task, _), seat in recorded.seats.items()}
    assert set(seats.values()) == {0, 1}
    status, out, err = detray_command("rerun", whole, "spread", "--trust", "--deep")
    assert (status, err) == (0, "")
    assert "same: the result is the same, to the byte" in out


def test_each_node_has_enough_for_what_it_owns_or_ran(recordings: list[str]) -> None:
    """The driver's node knows all; the other one's file says what it lacks."""
    owner = rerun.run_all(rerun.open_recorded(recordings[0]), trust=True)
    assert (owner.same + len(owner.unknown), owner.tasks) == (8, 8)
    assert all("no digest" in report.text for report in owner.unknown)
    other = rerun.open_recorded(recordings[1])
    assert rerun.run(other, "spread", trust=True).verdict == "same"
    assert Path(payloads_path(recordings[2])).exists() is False  # a head sees no payload


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes whose payloads are in a ring and in a file; a third that records none."""
    detray.shutdown()
    recorded: list[dict[str, Any]] = [{"record_payloads": True}, {"record_payloads": True}, {}]
    recorded[1]["record"] = str(tmp_path / "n1.trace")
    with Cluster() as cluster:
        for number, options in enumerate(recorded):
            cluster.add_node(
                num_cpus=2,
                wait=False,
                resources={f"n{number}": 100},
                object_store_memory=STORE_BYTES,
                **options,
            )
        cluster.wait_ready()
        cluster.connect()
        yield cluster
        detray.shutdown()


def test_a_running_cluster_gives_its_payloads_and_its_tasks_run_again(
    running: Cluster, tmp_path: Path
) -> None:
    """Of a ring and of a file, while they are written; who has none is named."""
    program()
    first, second, other = [node.number for node in running.list_all_nodes()]
    place = tmp_path / "here"
    place.mkdir()
    whole = str(place / "cluster.trace")
    collect = ("trace", "collect", "--address", running.address, "--payloads", "-o", whole)
    status, out, err = detray_command(*collect, "--payloads-limit", "1K")
    assert status == 2 and "together are too much" in err
    assert list(place.iterdir()) == []
    status, out, err = detray_command(*collect)
    assert (status, err) == (0, "")
    assert re.match(
        r"payloads: [\d.]+ [kM]B at node \d, [\d.]+ [kM]B at node \d; at most 1.07 GB "
        r"\(--payloads-limit\)\n",
        out,
    )
    assert f"node {other} records no payloads: it was started without --record-payloads" in out
    assert re.search(rf"{whole}.payloads: [\d.]+ MB", out)
    assert sorted(path.name for path in place.iterdir()) == [
        "cluster.trace",
        "cluster.trace.payloads",
    ]
    assert stat.S_IMODE(Path(payloads_path(whole)).stat().st_mode) == 0o600
    detray.shutdown()
    recorded = rerun.open_recorded(whole)
    assert len(recorded.payloads.header.processes) == 2
    summary = rerun.run_all(recorded, trust=True)
    assert (summary.same, summary.tasks) == (8, 8)
    seats = {recorded.calls[task].name: seat.node for (task, _), seat in recorded.seats.items()}
    assert set(seats.values()) == {first, second}
    status, out, err = detray_command("rerun", whole, "spread", "--trust")
    assert (status, err) == (0, "")
    assert "same: the result is the same, to the byte" in out


def test_a_dead_node_is_named_and_costs_nothing_else(running: Cluster, tmp_path: Path) -> None:
    """What the other one has is enough for what its program called."""
    program()
    killed = running.list_all_nodes()[1]
    killed.kill_service()
    running.wait_for_nodes()
    whole = str(tmp_path / "cluster.trace")
    status, out, err = detray_command(
        "trace", "collect", "--address", running.address, "--payloads", "--json", "-o", whole
    )
    assert (status, err) == (0, "")
    notes = json.loads(out)["notes"]
    assert (
        f"no payloads of node {killed.number}: it is dead; what it wrote is on its machine" in notes
    )
    detray.shutdown()
    assert rerun.run(rerun.open_recorded(whole), "spread", trust=True).verdict == "same"
