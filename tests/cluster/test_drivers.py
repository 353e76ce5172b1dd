"""Several drivers of one cluster: how they come, what they share, how they go."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import detray
from detray import errors, nearby, startup
from detray.cluster_utils import Cluster
from tests.cluster.conftest import SOON_BURIED, begin_program, run_program, until


def jobs(cluster: Cluster) -> list[int]:
    """Numbers of the jobs that the head knows."""
    return [job["number"] for job in cluster.ask("list", "jobs", 100)]


def rows(cluster: Cluster, kind: str) -> list[dict[str, Any]]:
    """What the nodes list."""
    return list(cluster.ask("list", kind, 1000)["rows"])


def test_a_driver_leaves_and_the_cluster_stays(cluster: Cluster) -> None:
    """Twice in one process; each time a job of its own."""
    numbers = []
    for _ in range(2):
        with cluster.connect() as session:
            assert session["address"] == cluster.address
            assert session["session_dir"] == cluster.head_node.session_dir
            numbers.append(int(detray.get_runtime_context().get_job_id(), 16))
            assert detray.get(detray.remote(lambda: 1).remote()) == 1
    assert numbers[0] < numbers[1]
    assert not detray.is_initialized()
    assert cluster.remaining_processes_alive()
    until(lambda: jobs(cluster) == [], "the jobs are over")


def test_it_is_said_which_cluster_was_joined(cluster: Cluster) -> None:
    """One line on standard error, whichever way the cluster was named."""
    program = "import detray; detray.init({}); print(detray.cluster_resources()['CPU'])"
    for argument, environment in (
        (f"address={cluster.address!r}", {}),
        ("address='auto'", {}),
        ("", {"DETRAY_ADDRESS": cluster.address}),
        ("", {"RAY_ADDRESS": "auto"}),
    ):
        status, out, err = run_program(program.format(argument), **environment)
        assert (status, out) == (0, "6.0\n"), err
        assert err.splitlines() == [
            f"detray: connected to the cluster at {cluster.address} by the node at "
            f"{cluster.head_node.address}"
        ]


def test_a_program_that_names_no_cluster_stays_alone(cluster: Cluster) -> None:
    """A cluster of `cluster_utils` belongs to whoever made it."""
    program = "import detray; detray.init({}); print(detray.cluster_resources()['CPU'])"
    for argument in ("num_cpus=1", "'local', num_cpus=1"):
        assert run_program(program.format(argument)) == (0, "1.0\n", "")


def test_a_driver_that_is_killed_leaves_what_others_have(driver: Cluster) -> None:
    """Its tasks, objects and workers go; the other driver does not notice."""
    mine = detray.put(bytes(1_000_000))
    other = begin_program(
        f"""
        import sys, time
        import detray as ray
        ray.init(address={driver.address!r})
        print(int(ray.get_runtime_context().get_job_id(), 16), flush=True)
        held = [ray.put(bytes(1_000_000)) for _ in range(3)]
        def sleep():
            print("asleep")
            time.sleep(600)
        slow = [ray.remote(sleep).options(resources={{f"n{{n}}": 1}}).remote() for n in range(3)]
        sys.stdin.read()
        """
    )
    assert other.stdout is not None
    number = int(other.stdout.readline())
    assert {other.stdout.readline().split(") ")[1] for _ in range(3)} == {"asleep\n"}
    assert number in jobs(driver)
    until(lambda: sum(row["job"] == number for row in rows(driver, "objects")) >= 3, "it has some")
    other.send_signal(signal.SIGKILL)
    other.communicate()
    until(
        lambda: (
            number not in jobs(driver)
            and not any(
                row["job"] == number
                for kind in ("tasks", "objects", "workers")
                for row in rows(driver, kind)
            )
        ),
        "everything of the killed driver is gone",
    )
    assert detray.get(mine) == bytes(1_000_000)


def test_two_drivers_share_the_cpus(driver: Cluster) -> None:
    """The second one's tasks do not wait for all of the first one's."""

    def nap() -> None:
        import time

        time.sleep(0.3)  # together they take 50 s, of which the other program needs one or two

    many = [detray.remote(nap).remote() for _ in range(1_000)]
    status, out, err = run_program(
        f"""
        import detray as ray
        ray.init(address={driver.address!r})
        print(sum(ray.get([ray.remote(lambda: 1).remote() for _ in range(6)])))
        """
    )
    assert (status, out) == (0, "6\n"), err
    _, unfinished = detray.wait(many, num_returns=len(many), timeout=0)
    assert unfinished, "the first driver was served first, whole"
    for ref in unfinished:
        detray.cancel(ref)


def test_what_describes_a_node_cannot_be_said_where_one_is_joined(cluster: Cluster) -> None:
    """As in Ray."""
    with pytest.raises(ValueError, match=r"existing cluster, num_cpus.*: num_cpus, labels"):
        detray.init(address=cluster.address, num_cpus=3, labels={"a": "b"})
    assert not detray.is_initialized()


def test_a_cluster_that_is_not_here_is_no_cluster(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What to do instead is said."""
    with pytest.raises(ConnectionError, match=r"`detray start --address=127\.0\.0\.1:1` here"):
        detray.init(address="127.0.0.1:1")
    with pytest.raises(ValueError, match="has no port"):
        detray.init(address="somewhere")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(ConnectionError, match="`detray start --head`"):
        detray.init(address="auto")


def test_a_node_of_another_version_is_not_joined(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both versions are named; also where only the node itself finds out."""
    node = cluster.head_node
    info = Path(node.session_dir, "cluster.json")
    said = info.read_bytes()
    monkeypatch.setattr("detray.joining.__version__", "9.9")
    with pytest.raises(ConnectionError, match=r"this program 9\.9: both"):
        cluster.connect()
    info.write_text(json.dumps({**json.loads(said), "version": ""}))
    try:
        with pytest.raises(ConnectionError, match="did not let this program in"):
            cluster.connect()
    finally:
        info.write_bytes(said)
    assert cluster.remaining_processes_alive()


def test_the_node_that_serves_a_driver_is_named_when_it_dies() -> None:
    """In every call, as what Ray calls it; the driver can join again where a node is left."""
    startup.shutdown()
    patience = {"_system_config": SOON_BURIED}
    with Cluster(initialize_head=True, connect=True, head_node_args=patience) as small:
        second = small.add_node(resources={"second": 1})
        first = small.head_node
        ref = detray.put(1)
        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(errors.NodeDiedError, match=rf"node {first.number} at {first.address}"):
            for _ in range(1000):
                detray.get(detray.remote(lambda: 1).remote())
        with pytest.raises(errors.ServiceDiedError):
            detray.put(2)
        del ref
        startup.shutdown()
        until(lambda: not first.is_alive(), "it is dead")
        assert first.pid not in [process.pid for process in nearby.find_local()]
        small.connect()
        assert detray.get(detray.remote(lambda: 1).remote(), timeout=30) == 1
        assert detray.get_runtime_context().get_node_id() == second.node_id
        until(
            lambda: [n["Alive"] for n in detray.nodes()] == [True, False],
            "the head has buried the node",
        )
