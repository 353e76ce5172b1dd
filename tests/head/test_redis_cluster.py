"""A real cluster with a Redis server: the head's log, the plain keys, the page; and troubles."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import detray
from detray import startup
from detray.cluster_utils import Cluster
from tests.head.redis_servers import RedisServer, redis_server

pytestmark = pytest.mark.slow
PATIENCE_S = 40
BIG = 1_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as found:
        yield found


@pytest.fixture
def cluster(server: RedisServer) -> Iterator[Cluster]:
    """A head with a page and two nodes, and this process as a driver."""
    server.client().flushall()
    startup.shutdown()
    with Cluster() as made:
        made.add_node(num_cpus=1, store=server.url, web_port=0, object_store_memory=100 * BIG)
        made.add_node(num_cpus=1, resources={"other": 1}, object_store_memory=100 * BIG)
        made.connect()
        yield made
    startup.shutdown()


def wait(what: Callable[[], Any], why: Callable[[], object] = lambda: "") -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until, why()
        time.sleep(0.05)


def status(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = cluster.ask("status")
    return found


def read(cluster: Cluster, path: str) -> bytes:
    url = status(cluster)["head"]["web"]
    with urllib.request.urlopen(url + path, timeout=10) as answer:
        return bytes(answer.read())


class Keys:
    """The keys of the one cluster on the server."""

    def __init__(self, server: RedisServer) -> None:
        self.client = server.client()

    def __call__(self, name: str) -> dict[str, str]:
        (key,) = self.client.keys(f"detray:*:{name}") or [""]
        return dict(self.client.hgetall(key))

    def count(self, pattern: str) -> int:
        return len(self.client.keys(f"detray:*:{pattern}"))

    def text(self, name: str) -> str:
        (key,) = self.client.keys(f"detray:*:{name}") or [""]
        return self.client.get(key) or ""


@detray.remote(num_cpus=0, resources={"other": 1})
def make() -> bytes:
    return b"x" * BIG


@detray.remote
def measure(value: bytes) -> int:
    return len(value)


def test_redis_cli_says_where_an_object_lives(cluster: Cluster, server: RedisServer) -> None:
    """At the node that made it, and after a get here as well; gone when nobody holds it."""
    keys = Keys(server)
    made = [make.remote()]
    wait(lambda: detray.wait(made, fetch_local=False, timeout=0)[0])
    first, second = (node.number for node in cluster.list_all_nodes())
    name = f"object:{made[0].hex()}"
    wait(lambda: {f"at:{second}", "owner"} <= set(keys(name)), lambda: keys.client.keys())
    assert keys(name)["owner"] == str(first)
    assert keys(name)[f"at:{second}"].startswith("memory, ")
    assert len(detray.get(made[0])) == BIG
    wait(lambda: f"at:{first}" in keys(name), lambda: keys(name))
    (key,) = keys.client.keys(f"detray:*:{name}")
    done = subprocess.run(
        ["redis-cli", "-p", str(server.port), "HGET", key, "primary"],
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    assert done.stdout.strip() == str(second)
    made.clear()
    wait(lambda: not keys(name), lambda: keys(name))
    wait(lambda: keys(f"node:{second}").get("alive") == "yes")
    wait(lambda: keys("job:1").get("node") == str(first))


def test_the_page_and_the_metrics_are_those_of_the_cluster(cluster: Cluster) -> None:
    """What runs is shown; numbers as Prometheus reads them."""
    assert detray.get([measure.remote(b"abc") for _ in range(20)]) == [3] * 20
    pid = cluster.head_pid

    def shown() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(read(cluster, "/api/status"))
        return found

    wait(lambda: sum(n["totals"].get("finished", 0) for n in shown()["nodes"]) >= 20, shown)
    report = shown()
    assert report["head"]["pid"] == pid
    assert [node["alive"] for node in report["nodes"]] == [True, True]
    assert [node["head"] for node in report["nodes"]] == [True, False]
    assert report["head"]["store"]["reachable"] is True
    assert report["jobs"][0]["pid"] > 0
    assert read(cluster, "/healthz") == b"ok\n"
    pytest.importorskip("prometheus_client")
    assert b"detray_nodes_alive 2.0\n" in read(cluster, "/metrics")


def test_the_server_may_be_away(cluster: Cluster, server: RedisServer) -> None:
    """Killed, and back empty: the cluster works all the time, and everything is there again."""
    keys = Keys(server)
    held = make.remote()
    wait(lambda: keys(f"object:{held.hex()}"))
    server.kill()
    assert detray.get(measure.remote(b"abc")) == 3
    third = cluster.add_node(num_cpus=1, object_store_memory=100 * BIG)
    wait(lambda: not status(cluster)["head"]["store"]["reachable"])
    lag = status(cluster)["head"]["store"]
    assert lag["lag_records"] >= 1
    assert lag["lag_s"] > 0
    assert detray.get(measure.remote(b"abcd")) == 4
    server.start()
    wait(lambda: status(cluster)["head"]["store"]["lag_records"] == 0, lambda: status(cluster))
    wait(
        lambda: keys(f"object:{held.hex()}").get("owner"),
        lambda: (keys.client.keys(), keys(f"object:{held.hex()}"), keys("view")),
    )
    wait(lambda: keys(f"node:{third.number}").get("alive") == "yes")
    assert keys.text("epoch") == "1"


def test_a_head_comes_back_from_the_server_alone(cluster: Cluster, server: RedisServer) -> None:
    """kill -9, its directory gone: nodes come back to it with what they had, nobody is admitted
    twice, and the epoch is the next."""
    keys = Keys(server)
    held = make.remote()
    assert len(detray.get(held)) == BIG
    wait(lambda: status(cluster)["head"]["store"]["lag_records"] == 0)
    before = [node.number for node in cluster.list_all_nodes()]
    cluster.kill_head()
    (log,) = Path(cluster._own_dir).rglob("head.db")
    for path in log.parent.glob("head.db*"):
        path.unlink()
    cluster.restart_head()
    wait(lambda: {n["number"] for n in status(cluster)["nodes"] if n["alive"]} == set(before))
    assert keys.text("epoch") == "2"
    assert status(cluster)["head"]["epoch"] == 2
    assert len(detray.get(held)) == BIG
    assert detray.get(measure.remote(held)) == BIG
    third = cluster.add_node(num_cpus=1, object_store_memory=100 * BIG)
    assert third.number > max(before) + 1_000
    wait(lambda: keys(f"node:{third.number}"))
