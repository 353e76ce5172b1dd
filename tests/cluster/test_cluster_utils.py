"""`cluster_utils.Cluster`: nodes that come, go and die, and what is left of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

import detray
from detray import launch, nearby, startup
from detray.cluster_utils import Cluster
from detray.errors import EngineError
from detray.launch import LaunchError
from detray.runtime.session import home
from tests.cluster.conftest import SOON_BURIED, begin_program, until


@pytest.fixture(scope="module")
def small() -> Iterator[Cluster]:
    """A head and one node; who is silent is buried soon."""
    startup.shutdown()
    patience = {"_system_config": SOON_BURIED}
    with Cluster(initialize_head=True, head_node_args=patience) as made:
        yield made


def living(cluster: Cluster) -> list[int]:
    """Numbers of the nodes that the head counts as alive."""
    return [node["number"] for node in cluster.ask("status")["nodes"] if node["alive"]]


def test_nodes_are_added_and_removed_in_order(small: Cluster) -> None:
    """Each has a number, an address, a store and processes of its own."""
    first, second = small.head_node, small.add_node(num_cpus=3, resources={"extra": 1})
    assert second.number > first.number
    assert len({first.address, second.address, small.address}) == 3
    assert first.session_dir != second.session_dir
    small.wait_for_nodes()
    assert living(small) == [first.number, second.number]
    small.remove_node(second)
    assert not second.is_alive() and not os.path.exists(second.session_dir)
    small.wait_for_nodes()
    [gone] = [n for n in small.ask("status")["nodes"] if n["number"] == second.number]
    assert not gone["alive"] and gone["reason"]
    with pytest.raises(ValueError, match="no node of this cluster"):
        small.remove_node(second)


def test_what_only_a_removed_node_had_is_made_again(small: Cluster) -> None:
    """By another one that can; nobody waits for the silence of a node that said good-bye."""
    small.connect()
    nodes = small.add_nodes(2, resources={"maker": 1})

    @detray.remote(resources={"maker": 1}, num_returns=2)
    def make() -> tuple[str, bytes]:
        return detray.get_runtime_context().get_node_id(), bytes(1_000_000)

    where, large = make.remote()
    maker = detray.get(where)
    [left] = [node for node in nodes if node.node_id == maker]
    [stays] = [node for node in nodes if node is not left]
    small.remove_node(left)
    assert detray.get(large, timeout=30) == bytes(1_000_000)
    startup.shutdown()
    small.remove_node(stays)


@pytest.mark.parametrize("how", ["service", "machine"])
def test_a_node_that_is_killed_is_buried(small: Cluster, how: str) -> None:
    """Its number is never given again, and its processes and files are gone."""
    node = small.add_node()
    processes = [p.pid for p in psutil.Process(node.pid).children(recursive=True)]
    assert processes, "a node has a zygote"
    (node.kill_service if how == "service" else node.kill_machine)()
    until(lambda: not any(psutil.pid_exists(pid) for pid in processes), "its processes are gone")
    assert not os.path.exists(node.session_dir)
    small.remove_node(node)
    small.wait_for_nodes()
    again = small.add_node()
    assert again.number > node.number
    small.remove_node(again)


def test_the_head_dies_and_comes_back(small: Cluster) -> None:
    """The nodes stay; programs go on; what waited for the head is done after it is back."""
    small.connect()
    before, address = small.head_pid, small.address
    small.kill_head()
    assert detray.get(detray.remote(lambda: 1).remote()) == 1
    small.restart_head()
    assert small.address == address and small.head_pid != before
    small.wait_for_nodes()
    assert living(small) == [small.head_node.number]
    added = small.add_node(resources={"later": 1})
    assert detray.get(detray.remote(lambda: 2).options(resources={"later": 1}).remote()) == 2
    startup.shutdown()
    small.remove_node(added)


def test_questions_that_make_no_sense_end_nobody(small: Cluster) -> None:
    """Rows of nothing, places outside a recording, of the head's and of a node's."""
    pids = [small.head_pid, small.head_node.pid]
    told = small.ask("list", "nonsense", 5)
    assert told["rows"] == [] and "no rows of 'nonsense'" in next(iter(told["missing"].values()))
    for process in (-1, small.head_node.number):
        assert small.ask("trace", process, 0, 100, 7)
        for place in (-5, 1 << 63):
            assert small.ask("trace", process, place, 100, 7) == b""
    for arguments in ((-5, 100), (1 << 63, 100), ("worker-1.log", 1 << 63, 100), ("end", 3)):
        with pytest.raises(EngineError):
            small.ask("payloads", small.head_node.number, *arguments)
    assert [small.head_pid, small.head_node.pid] == pids
    assert small.remaining_processes_alive()


def test_options_that_make_no_sense_are_refused(small: Cluster) -> None:
    """Before anything is started."""
    with pytest.raises(RuntimeError, match="colour"):
        small.add_node(colour="red")
    with pytest.raises(ValueError, match="only the first node has a head"):
        small.add_node(port=1)
    with pytest.raises(ValueError, match="'patience' is no field"):
        Cluster(head_node_args={"_system_config": {"patience": 1}}, initialize_head=True)
    with pytest.raises(ValueError, match="head_node_args are for initialize_head=True"):
        Cluster(head_node_args={"num_cpus": 2})
    with pytest.raises(LaunchError, match="no head yet"):
        Cluster().connect()


def test_a_node_that_cannot_start_says_why(small: Cluster) -> None:
    """And is none of the cluster's."""
    with pytest.raises(LaunchError, match=r"could not start|ended while it started"):
        small.add_node(node_ip_address="203.0.113.77")
    assert len(small.list_all_nodes()) == 1


def test_a_program_that_is_killed_takes_its_cluster_along() -> None:
    """Processes, directories, the head's log: whatever ended it."""
    program = begin_program(
        """
        import sys, time
        import detray
        from detray.cluster_utils import Cluster
        cluster = Cluster(initialize_head=True, connect=True)
        cluster.add_node(resources={"other": 2})
        sleep = detray.remote(lambda: time.sleep(600))
        refs = [sleep.remote(), sleep.options(resources={"other": 1}).remote()]
        detray.wait(refs, timeout=0.1)
        print(cluster.address, flush=True)
        sys.stdin.read()
        """
    )
    assert program.stdout is not None
    address = program.stdout.readline().strip()
    mine = nearby.of_address(nearby.find_local(), address)
    assert [process.kind for process in mine] == ["head", "node", "node"]
    assert all(process.is_tied for process in mine)

    def children() -> list[int]:
        return [p.pid for m in mine for p in psutil.Process(m.pid).children(recursive=True)]

    until(lambda: len(children()) >= 4, "there are two zygotes and two workers")
    workers = children()
    program.send_signal(signal.SIGKILL)
    program.communicate()
    until(lambda: not nearby.of_address(nearby.find_local(), address), "head and nodes are gone")
    until(lambda: not any(psutil.pid_exists(pid) for pid in workers), "so are their workers")
    until(lambda: not any(os.path.exists(m.directory) for m in mine), "and their directories")
    # The log of its head is removed by the next cluster.
    with Cluster(initialize_head=True):
        logs = [name for name in os.listdir(home()) if name.startswith("head-of-")]
        assert not [name for name in logs if name.split("-")[2] == str(program.pid)]


def test_shutdown_leaves_nothing(small: Cluster) -> None:
    """Also of a node that is frozen, and of one that was killed; twice does no harm."""
    cluster = Cluster(initialize_head=True)
    frozen, dead = cluster.add_nodes(2)
    frozen.freeze()
    dead.kill_machine()
    pids = [cluster.head_pid, *(node.pid for node in cluster.list_all_nodes())]
    directories = [node.session_dir for node in cluster.list_all_nodes()]
    cluster.shutdown()
    cluster.shutdown()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    until(lambda: not any(map(os.path.exists, directories)), "the directories are gone")
    assert small.remaining_processes_alive()


def test_a_redis_url_or_a_path_is_a_store() -> None:
    """The local log of a Redis store is where it would be without."""
    assert launch.place_store("", "/d") == ("file:/d", "/d")
    assert launch.place_store("file:/x/../y", "/d") == ("file:/y", "/y")
    assert launch.place_store("redis://h:1/0", "/d") == ("redis://h:1/0", "/d")
    for bad in ("file:", "mysql://x", "/plain/path"):
        with pytest.raises(ValueError, match="say file:PATH"):
            launch.place_store(bad, "/d")


def test_nodes_end_with_a_head_that_ends_in_order() -> None:
    """`detray stop` of the head is the end of its cluster, on every machine."""
    startup.shutdown()
    with Cluster(initialize_head=True, head_node_args={"num_cpus": 1}) as cluster:
        nodes = [cluster.head_node, cluster.add_node(num_cpus=1)]
        os.kill(cluster.head_pid, signal.SIGTERM)
        until(lambda: not any(node.is_alive() for node in nodes), "the nodes have ended")
        assert not any(os.path.exists(node.session_dir) for node in nodes)
