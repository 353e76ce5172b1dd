"""The plain keys, on a real server: what `redis-cli` answers, and what trouble does to them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from detray.ids import NodeID, ObjectID
from detray.runtime.changes import Changes, Fault, RowBatch, ViewRow
from detray.runtime.head import redis_server as server_module
from detray.runtime.head import redis_view as view_module
from detray.runtime.head.redis_view import RedisView
from tests.golden.play import HERE, play
from tests.head.clusters import S, overview
from tests.head.redis_servers import RedisServer, redis_server

CLUSTER = "d" * 32
PATIENCE_S = 30
TASK, OBJECT = b"t" * 16, b"o" * 20


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with redis_server() as found:
        yield found


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    """One server for all tests here, empty for each."""
    running.client().flushall()
    return running


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules, sooner."""
    monkeypatch.setattr(view_module, "RETRY_S", 0.05)
    monkeypatch.setattr(view_module, "RETRY_S_MAX", 0.1)


class Watched:
    """A view, and what a head does with it."""

    def __init__(self, server: RedisServer) -> None:
        self.notes: list[str] = []
        self.view = RedisView(server.url, CLUSTER, lambda level, text: self.notes.append(text))
        self.client = server.client()

    def key(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self.client.hgetall(f"detray:{CLUSTER}:{name}")
        return found

    def members(self, name: str) -> list[str]:
        return sorted(self.client.smembers(f"detray:{CLUSTER}:{name}"))

    def keys(self, pattern: str) -> list[str]:
        return sorted(self.client.keys(f"detray:{CLUSTER}:{pattern}"))

    def ready(self, node: int) -> int:
        """Wait until the node may be asked, as the head does once a second."""
        wait(lambda: self.view.wants(node) is not None, lambda: self.view.problem)
        seen = self.view.wants(node)
        assert seen is not None
        return seen

    def tell(self, node: int, *rows: tuple[str, ViewRow], **more: Any) -> None:  # Any: of RowBatch
        """A node's answer, through the wire, written when this returns."""
        seen = self.ready(node)
        kinds: dict[str, list[ViewRow]] = {}
        for kind, row in rows:
            kinds.setdefault(kind, []).append(row)
        self.give(node, RowBatch(seen + 1, not seen, 0, kinds, **more))

    def give(self, node: int, batch: RowBatch) -> None:
        self.view.take(node, msgspec.msgpack.decode(msgspec.msgpack.encode(batch)))
        wait(lambda: self.view.wants(node) is not None)


@pytest.fixture
def watched(server: RedisServer) -> Iterator[Watched]:
    found = Watched(server)
    yield found
    found.view.close()


def wait(what: Callable[[], bool], why: Callable[[], str] = lambda: "") -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until, why()
        time.sleep(0.005)


def owned(**facts: str | int) -> ViewRow:
    return ViewRow(OBJECT, {"state": "stored", **facts}, "")


def test_redis_cli_answers_where_an_object_lives(watched: Watched, server: RedisServer) -> None:
    """A transcript with three nodes: what `redis-cli` prints about a value that lies on two."""
    nodes: dict[int, Any] = {}

    def look(stage: Any) -> None:  # Any: the transcripts' stage
        nodes.update({world.local.tables.node: world.local.tables for world in stage.worlds})
        copies = [where for where in holders(nodes).values() if len(where) > 1]
        if copies:
            raise StopIteration

    with pytest.raises(StopIteration):
        play((HERE / "broadcast.txt").read_text(), after_step=look)
    for number, tables in nodes.items():
        watched.give(number, Changes().since(watched.ready(number), tables, 1))
    item, where = next((i, w) for i, w in holders(nodes).items() if len(w) > 1)
    done = subprocess.run(
        ["redis-cli", "-p", str(server.port), "HGETALL", f"detray:{CLUSTER}:object:{item.hex()}"],
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    told = dict(zip(lines[::2], lines[1::2], strict=True))
    assert {name for name in told if name.startswith("at:")} == {f"at:{node}" for node in where}
    assert all(told[f"at:{node}"].startswith("memory, ") for node in where)
    assert told["state"] in ("stored", "elsewhere")
    assert int(told["owner"]) in nodes
    assert item.hex() in watched.members(f"node:{told['owner']}:objects")


def holders(nodes: dict[int, Any]) -> dict[ObjectID, list[int]]:
    """Who has bytes in memory, by the nodes' own tables."""
    found: dict[ObjectID, list[int]] = {}
    for number, tables in nodes.items():
        for row in tables.objects.values():
            if type(row.state).__name__ == "Stored":
                found.setdefault(row.id, []).append(number)
    return found


def test_an_owner_has_the_facts_and_others_their_places(watched: Watched) -> None:
    """One hash for one object; each node speaks for itself."""
    watched.tell(0, ("objects", owned(size_bytes=7)))
    watched.tell(1, ("objects", ViewRow(OBJECT, None, "memory, 7 bytes")))
    watched.tell(2, ("objects", ViewRow(OBJECT, None, "disk, 7 bytes")))
    name = f"object:{OBJECT.hex()}"
    assert watched.key(name) == {
        "state": "stored", "size_bytes": "7", "at:1": "memory, 7 bytes", "at:2": "disk, 7 bytes",
    }  # fmt: skip
    assert watched.members("node:0:objects") == [OBJECT.hex()]
    assert watched.members("node:0:copies") == []
    assert watched.members("node:2:copies") == [OBJECT.hex()]
    watched.tell(1, removed={"objects": [OBJECT]})
    assert "at:1" not in watched.key(name)
    watched.tell(0, removed={"objects": [OBJECT]})
    assert watched.key(name) == {}
    watched.tell(2, removed={"objects": [OBJECT]})
    assert watched.keys("object:*") == watched.keys("node:*:copies") == []


def test_facts_that_are_over_go(watched: Watched) -> None:
    """A task that came back from another node is not said to be there."""
    watched.tell(0, ("tasks", ViewRow(TASK, {"state": "delivered", "node": 3})))
    watched.tell(0, ("tasks", ViewRow(TASK, {"state": "running"}, "worker 1")))
    assert watched.key(f"task:{TASK.hex()}") == {"state": "running", "at:0": "worker 1"}
    watched.tell(0, ("tasks", ViewRow(TASK, {"state": "ready"})))
    assert watched.key(f"task:{TASK.hex()}") == {"state": "ready"}


def test_nodes_jobs_and_the_age_of_the_view(watched: Watched) -> None:
    """From the head's report."""
    view, t = overview(2)
    watched.view.show(view.report(t, 100 * S))
    wait(lambda: watched.key("view").get("epoch") == "3")  # a report ends with it
    assert watched.members("nodes") == ["0", "1"]
    entry = watched.key("node:1")
    assert (entry["name"], entry["alive"], entry["total:CPU"], entry["available:CPU"]) == (
        "machine-1", "yes", "8", "2",
    )  # fmt: skip
    assert watched.key("job:1")["entrypoint"] == "program-1.py"
    state = watched.key("view")
    assert abs(time.time() - float(state["updated_unix"])) < 60
    assert state["updated"].endswith("Z")
    watched.tell(1, ("objects", owned()))
    assert {"rows_updated", "rows_looked_at_since"} <= set(watched.key("node:1"))


def test_the_rows_of_a_dead_node_go(watched: Watched) -> None:
    """What it owned, and its word about others' objects; who it was stays."""
    view, t = overview(2)
    watched.tell(0, ("objects", owned()), ("tasks", ViewRow(TASK, {"state": "ready"})))
    watched.tell(1, ("objects", ViewRow(OBJECT, None, "memory, 7 bytes")))
    watched.tell(1, ("functions", ViewRow(b"f" * 16, {"name": "f"}, "f, 3 bytes")))
    del t.nodes[NodeID(1)]
    view.buried(1, "test", 100 * S)
    watched.view.show(view.report(t, 100 * S))
    wait(lambda: not watched.keys("function:*") and not watched.keys("node:1:*"))
    assert watched.key(f"object:{OBJECT.hex()}") == {"state": "stored"}
    wait(lambda: watched.key("node:1").get("reason") == "test")
    assert watched.key("node:1")["alive"] == "no"
    assert watched.members("nodes") == ["0"]


def test_jobs_that_are_over_go(watched: Watched) -> None:
    """With the next report."""
    view, t = overview(1)
    watched.view.show(view.report(t, 100 * S))
    wait(lambda: watched.keys("job:*") != [])
    t.jobs.clear()
    watched.view.show(view.report(t, 100 * S))
    wait(lambda: watched.keys("job:*") == [])
    assert watched.members("jobs") == []


def test_errors_are_a_stream(watched: Watched) -> None:
    """Which object, what kind of failure, the first words of it."""
    watched.tell(0, faults=[Fault(OBJECT, "worker_crashed", "signal 9")])
    ((_, fields),) = watched.client.xrange(f"detray:{CLUSTER}:errors")
    assert fields == {
        "object": OBJECT.hex(), "failure": "worker_crashed", "text": "signal 9", "node": "0",
    }  # fmt: skip


def test_a_new_head_clears_what_the_old_one_wrote(watched: Watched, server: RedisServer) -> None:
    """And no other keys."""
    watched.tell(0, ("objects", owned()))
    for other in (f"detray:{CLUSTER}:epoch", "detray:other:object:1", "somebody's"):
        server.client().set(other, "x")
    watched.view.close()
    second = Watched(server)
    second.ready(0)
    assert second.keys("object:*") == second.keys("node:*") == []
    assert server.client().exists(f"detray:{CLUSTER}:epoch", "detray:other:object:1", "somebody's")
    assert second.ready(0) == 0, "everything is to be told"
    second.view.close()


def test_a_lost_answer_leads_to_everything(watched: Watched) -> None:
    """A batch that does not follow the last one is not written."""
    watched.tell(0, ("objects", owned()))
    assert watched.ready(0) == 1
    batch = RowBatch(3, False, 0, {"objects": [ViewRow(OBJECT, {"state": "wrong"})]})
    watched.give(0, batch)
    assert watched.ready(0) == 0
    assert watched.key(f"object:{OBJECT.hex()}") == {"state": "stored"}
    other = b"p" * 20
    watched.give(0, RowBatch(4, True, 0, {"objects": [ViewRow(other, {"state": "inline"})]}))
    assert watched.keys("object:*") == [f"detray:{CLUSTER}:object:{other.hex()}"]


def test_a_server_that_came_back_empty_between_two_writes(
    watched: Watched, server: RedisServer
) -> None:
    """Nothing failed, and nothing is there: every node tells everything again."""
    watched.tell(0, ("objects", owned()))
    assert watched.ready(0) == 1
    server.client().flushall()
    view, t = overview(1)
    watched.view.show(view.report(t, 100 * S))
    wait(lambda: watched.view.wants(0) == 0)
    watched.tell(0, ("objects", owned()))
    assert watched.keys("object:*")


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_server_that_is_away_costs_nothing_and_is_told_all(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked meanwhile, nothing is kept; then every node tells everything."""
    if how == "paused":
        monkeypatch.setattr(server_module, "ANSWER_S", 0.5)
    with redis_server() as server:
        watched = Watched(server)
        watched.tell(0, ("objects", owned()))
        if how == "killed":
            server.kill()
        else:
            server.pause()
        view, t = overview(1)
        watched.view.show(view.report(t, 100 * S))
        wait(lambda: watched.view.wants(0) is None)
        wait(lambda: bool(watched.view.problem))
        for _ in range(50):
            watched.view.show(view.report(t, 100 * S))
            watched.view.take(0, msgspec.to_builtins(RowBatch(2, False, 0)))
        assert watched.view._batches == {}
        if how == "killed":
            server.start()
        else:
            server.go_on()
        assert watched.ready(0) == 0
        wait(lambda: not watched.view.problem)
        watched.view.show(view.report(t, 100 * S))
        wait(lambda: watched.members("nodes") == ["0"])
        watched.tell(0, ("objects", owned()))
        assert watched.keys("object:*")
        assert "up to date" in watched.notes[0]  # a slow machine may take it for paused once more
        assert "kept again" in watched.notes[-1]
        watched.view.close()


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        [1, True],
        [1, True, 0, {"passwords": [[b"x", {}, ""]]}],
        [1, True, 0, {"objects": [[b"x" * 99, {}, ""]]}],
        [1, True, 0, {"objects": [[b"x", {str(i): i for i in range(99)}, ""]]}],
        [1, True, 0, {}, {"objects": [b"x" * 99]}],
        [1, True, 1 << 62],
        [1, True, -1],
    ],
    ids=lambda body: str(body)[:40],
)
def test_nonsense_of_a_node_is_refused(watched: Watched, body: object) -> None:
    """One ValueError that names it; nothing is written."""
    watched.ready(0)
    with pytest.raises(ValueError, match="node 0 sent changes that are none"):
        watched.view.take(0, body)
    assert watched.ready(0) == 0
    assert watched.keys("object:*") == []


def test_closing_leaves_no_thread(server: RedisServer) -> None:
    """And the keys, with their age."""
    watched = Watched(server)
    watched.tell(0, ("objects", owned()))
    watched.view.close()
    wait(lambda: not watched.view._thread.is_alive())  # it waits a second for it, no longer
    assert watched.keys("object:*")
