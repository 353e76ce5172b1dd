"""The second copy of the head's log, on a real server that is killed, paused and emptied."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from detray.core.durable import (
    Admitted,
    Buried,
    DurableEvent,
    EpochRaised,
    JobBegan,
    digest,
    encode_snapshot,
)
from detray.ids import JobNumber, NodeID
from detray.runtime.head import redis_server as server_module
from detray.runtime.head import redis_store as store_module
from detray.runtime.head.file_store import FileStore
from detray.runtime.head.redis_server import safe_url
from detray.runtime.head.redis_store import RedisStore
from detray.runtime.head.store import StoreError, read_tables
from tests.head.redis_servers import PASSWORD, RedisServer, redis_server

CLUSTER = "c" * 32
PATIENCE_S = 30


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as found:
        yield found


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules, sooner."""
    monkeypatch.setattr(store_module, "LOOK_S", 0.05)
    monkeypatch.setattr(store_module, "RETRY_S", 0.05)
    monkeypatch.setattr(store_module, "RETRY_S_MAX", 0.1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For servers that answer nothing. (Who waits for others may not mistake a slow one for it.)"""
    monkeypatch.setattr(server_module, "ANSWER_S", 0.5)


class Head:
    """A store and what a head does with it."""

    def __init__(self, folder: Path, url: str, *, events_max: int = 10_000) -> None:
        self.notes: list[str] = []
        local = FileStore(str(folder), events_max=events_max)
        self.store = RedisStore(local, url, CLUSTER, lambda level, text: self.notes.append(text))
        self.store.open()
        self.loaded = self.store.load()
        self.tables = read_tables(self.loaded)
        self.epoch = self.tables.epoch

    def begin(self) -> Head:
        """Raise the epoch."""
        self.epoch += 1
        self.commit(EpochRaised(self.epoch, self.tables.next_node, self.tables.next_job))
        return self

    def commit(self, *events: DurableEvent) -> None:
        self.store.commit(events)
        if self.store.is_long:
            tables = read_tables(self.store._local.load())
            self.store.compact(encode_snapshot(tables))

    def admit(self, *numbers: int) -> None:
        for number in numbers:
            self.commit(Admitted(NodeID(number), 1, f"n{number}", (("CPU", 10_000),)))

    def even(self) -> None:
        """Wait until the server has all."""
        wait(lambda: self.store.state.lag_records == 0 and self.store.state.is_reachable,
             lambda: str(self.store.state))  # fmt: skip


def wait(what: Callable[[], bool], why: Callable[[], str] = lambda: "") -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until, why()
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path: Path, server: RedisServer) -> Iterator[Callable[..., Head]]:
    """Heads on folders of the test; closed at its end."""
    heads: list[Head] = []

    def begin(folder: str = "a", **options: int) -> Head:
        head = Head(tmp_path / folder, server.url, **options)
        heads.append(head)
        return head

    yield begin
    for head in heads:
        head.store.close()


def remote_digest(head: Head) -> str:
    """Of what the server has."""
    found = head.store._copy.read()
    assert found.tables is not None, found.problem
    return digest(found.tables)


def test_what_is_committed_arrives_at_the_server(
    start: Callable[..., Head], server: RedisServer
) -> None:
    """Event by event, as a stream under the cluster's name; equal by digest."""
    head = start().begin()
    head.admit(0, 1, 2)
    head.commit(Buried(NodeID(1), "test"), JobBegan(JobNumber(1), NodeID(0), "p.py"))
    head.even()
    assert remote_digest(head) == head.store.digest()
    client = server.client()
    assert sorted(client.keys()) == [
        f"detray:{CLUSTER}:{name}" for name in ("epoch", "log", "sequence", "snapshot")
    ]
    assert client.get(f"detray:{CLUSTER}:epoch") == "1"
    assert client.get(f"detray:{CLUSTER}:sequence") == "6"
    assert client.xlen(f"detray:{CLUSTER}:log") == 6


def test_a_head_starts_on_another_machine_from_the_server_alone(start: Callable[..., Head]) -> None:
    """An empty folder takes over what the server has, and knows that it may lack the end."""
    first = start("a").begin()
    first.admit(0, 1)
    first.even()
    tables = first.store.digest()
    first.store.close()
    second = start("b")
    assert not second.loaded.is_complete
    assert digest(second.tables) == tables == second.store.digest()
    second.begin()
    second.admit(5)
    second.even()
    assert remote_digest(second) == second.store.digest()
    assert second.epoch == 2
    expected = second.store.digest()
    second.store.close()
    third = start("b")
    assert (third.loaded.is_complete, digest(third.tables)) == (True, expected)


def test_the_local_log_counts_when_it_is_further(
    impatient: None, start: Callable[..., Head], server: RedisServer
) -> None:
    """The server was away at the end; the next head on this machine brings it up to date."""
    first = start().begin()
    first.admit(0)
    first.even()
    server.pause()
    first.admit(1, 2)
    expected = first.store.digest()
    first.store.close()
    server.go_on()
    second = start()
    assert digest(second.tables) == expected
    assert remote_digest(second) == expected
    assert second.loaded.is_complete


def test_the_machine_that_was_left_takes_over_what_others_did(start: Callable[..., Head]) -> None:
    """Its log is longer, but of an earlier epoch."""
    first = start("a").begin()
    first.admit(*range(20))
    first.even()
    first.store.close()
    second = start("b").begin()
    second.commit(*(Buried(NodeID(n), "moved") for n in range(20)))
    second.even()
    expected = second.store.digest()
    second.store.close()
    again = start("a")
    assert digest(again.tables) == expected
    assert again.tables.members == {}
    again.begin()
    assert again.epoch == 3
    again.admit(30)
    again.even()
    assert remote_digest(again) == again.store.digest()


def test_of_two_heads_that_start_one_gets_the_epoch(start: Callable[..., Head]) -> None:
    """Both loaded the same; the second that raises it is told."""
    first, second = start("a"), start("b")
    first.begin()
    with pytest.raises(StoreError, match=r"another head has taken over.*epoch 1"):
        second.begin()
    first.admit(1)
    first.even()
    assert second.store._local.load().sequence == 0


def test_a_head_that_was_replaced_learns_it(start: Callable[..., Head]) -> None:
    """An idle one within a moment; and it commits nothing any more, here or there."""
    old = start("a").begin()
    old.admit(0)
    old.even()
    new = start("b").begin()
    new.admit(7)
    new.even()

    def is_told() -> bool:
        try:
            old.store.check()
        except StoreError:
            return True
        return False

    wait(is_told)
    before = remote_digest(new)
    with pytest.raises(StoreError, match="epoch 2, this head has 1"):
        old.admit(99)
    assert remote_digest(new) == before
    assert NodeID(99) not in read_tables(old.store._local.load()).members


def test_a_server_that_dies_and_comes_back_empty_is_filled_again(
    start: Callable[..., Head], server: RedisServer
) -> None:
    """Meanwhile the head commits as before, and says how far behind the copy is."""
    head = start().begin()
    head.admit(0)
    head.even()
    server.kill()
    head.admit(1, 2, 3)
    wait(lambda: not head.store.state.is_reachable)
    state = head.store.state
    assert state.lag_records == 3
    assert state.lag_ns > 0
    assert f"127.0.0.1:{server.port}" in state.problem
    server.start()
    head.even()
    assert remote_digest(head) == head.store.digest()
    assert server.client().get(f"detray:{CLUSTER}:epoch") == "1"
    assert head.store.state.lag_ns == 0
    assert [("cluster goes on" in note, "is back" in note) for note in head.notes] == [
        (True, False),
        (False, True),
    ]


def test_an_idle_head_fills_an_emptied_server_too(
    start: Callable[..., Head], server: RedisServer
) -> None:
    """Nothing new is needed: it looks."""
    head = start().begin()
    head.admit(0)
    head.even()
    server.client().flushall()
    wait(lambda: bool(server.client().exists(f"detray:{CLUSTER}:snapshot")))
    head.even()
    assert remote_digest(head) == head.store.digest()


def test_a_paused_server_holds_nobody_up(
    impatient: None, start: Callable[..., Head], server: RedisServer
) -> None:
    """It takes the connection and answers nothing; what it is asked late does no harm."""
    head = start().begin()
    head.admit(0)
    head.even()
    server.pause()
    for number in range(1, 30):
        head.admit(number)
    wait(lambda: not head.store.state.is_reachable)
    assert head.store.state.lag_records == 29
    server.go_on()
    head.even()
    assert remote_digest(head) == head.store.digest()
    for number in range(30, 40):
        head.admit(number)
    head.even()
    assert remote_digest(head) == head.store.digest()


def test_what_waits_is_bounded(
    start: Callable[..., Head], server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond QUEUE_MAX a snapshot will do."""
    monkeypatch.setattr(store_module, "QUEUE_MAX", 10)
    head = start().begin()
    head.even()
    server.pause()
    for number in range(100):
        head.admit(number)
        assert len(head.store._feeder._queue) <= 10  # type: ignore[union-attr]  # it has begun
    server.go_on()
    head.even()
    assert remote_digest(head) == head.store.digest()
    assert server.client().xlen(f"detray:{CLUSTER}:log") < 100


def test_the_stream_is_trimmed_behind_snapshots(
    start: Callable[..., Head], server: RedisServer
) -> None:
    """Compaction of the local log is compaction there."""
    head = start(events_max=20).begin()
    head.admit(*range(100))
    head.even()
    assert server.client().xlen(f"detray:{CLUSTER}:log") <= 40
    assert remote_digest(head) == head.store.digest()
    head.store.close()
    assert digest(start(events_max=20).tables) == remote_digest(head)


def test_a_damaged_copy_is_replaced_where_there_is_a_log(
    start: Callable[..., Head], server: RedisServer
) -> None:
    """An event in the middle is gone. With the local log that is a note, without it an error."""
    head = start("a").begin()
    head.admit(*range(10))
    head.even()
    expected = head.store.digest()
    head.store.close()
    server.client().xdel(f"detray:{CLUSTER}:log", "4-0")
    with pytest.raises(StoreError, match=r"event 4 is missing in its log, and file:.* is empty"):
        start("b")
    again = start("a")
    assert digest(again.tables) == expected == remote_digest(again)
    assert "event 4 is missing" in again.notes[0]


def test_an_epoch_without_a_log_is_still_an_epoch(
    start: Callable[..., Head], server: RedisServer
) -> None:
    """The server forgot all but the key: the next head's is higher all the same."""
    start("a").begin().store.close()
    client = server.client()
    for name in ("log", "sequence", "snapshot"):
        client.delete(f"detray:{CLUSTER}:{name}")
    client.set(f"detray:{CLUSTER}:epoch", 41)
    head = start("a").begin()
    assert head.epoch == 42
    head.even()
    assert client.get(f"detray:{CLUSTER}:epoch") == "42"


def test_the_server_takes_nothing_of_an_earlier_epoch(start: Callable[..., Head]) -> None:
    """Each script checks it, whatever the process that sends it believes."""
    start().begin().store.close()
    head = start().begin()
    head.admit(0)
    head.even()
    copy, before = head.store._copy, remote_digest(head)
    last = head.store._mirror.sequence
    snapshot = encode_snapshot(read_tables(head.store._local.load()))
    assert copy.append(1, last + 1, [b"x"]) == ("fenced", 2)
    assert copy.replace(1, last + 5, snapshot) == ("fenced", 2)
    assert copy.raise_epoch(1, 2, last + 1, [b"x"]) == ("fenced", 2)
    assert copy.append(2, last + 2, [b"x"]) == ("gap", last)
    assert copy.append(2, last, [b"x"]) == ("gap", last)
    assert copy.look() == (2, last)
    assert remote_digest(head) == before


def test_an_answer_that_was_lost_is_no_harm(
    start: Callable[..., Head], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server did what it was told, and nobody heard of it: nothing is there twice."""
    head = start().begin()
    append, lost = store_module.RedisCopy.append, []

    def deaf(copy: store_module.RedisCopy, *arguments: Any) -> store_module.Verdict:
        answer = append(copy, *arguments)
        if len(lost) < 3:
            lost.append(answer)
            raise TimeoutError("no answer")
        return answer

    monkeypatch.setattr(store_module.RedisCopy, "append", deaf)
    for number in range(20):
        head.admit(number)
    wait(lambda: len(lost) == 3 or head.store.state.lag_records == 0)
    head.even()
    assert lost
    assert remote_digest(head) == head.store.digest()


# ------------------------------------------------------------------ errors


def test_a_head_does_not_start_while_the_server_is_away(
    tmp_path: Path, server: RedisServer
) -> None:
    """The message says which, why, and what to do; the folder is free again."""
    server.kill()
    with pytest.raises(StoreError) as told:
        Head(tmp_path / "a", server.url)
    text = str(told.value)
    assert f"redis://127.0.0.1:{server.port}/0" in text
    assert f"--store file:{tmp_path}/a" in text
    local = FileStore(str(tmp_path / "a"))
    local.open()
    local.close()
    server.start()


def test_passwords_are_used_and_never_told(tmp_path: Path) -> None:
    """In the place, in errors, in notes."""
    with redis_server(password=PASSWORD) as server:
        head = Head(tmp_path / "a", server.url).begin()
        head.admit(1)
        head.even()
        assert head.store.place == f"redis://127.0.0.1:{server.port}/0"
        server.kill()
        head.admit(2)
        wait(lambda: not head.store.state.is_reachable)
        assert PASSWORD not in str(head.notes) + head.store.state.problem
        head.store.close()
        server.start()
        with pytest.raises(StoreError) as told:
            Head(tmp_path / "b", server.url.replace(PASSWORD, "wrong-secret"))
        assert "wrong-secret" not in str(told.value)


def test_a_unix_socket_will_do(tmp_path: Path, server: RedisServer) -> None:
    """unix:///path?db=0."""
    head = Head(tmp_path / "a", server.socket_url).begin()
    head.even()
    assert server.client().get(f"detray:{CLUSTER}:epoch") == "1"
    head.store.close()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:pw@h:6379/0", "redis://h:6379/0"),
        ("rediss://me:pw@h/2?ssl_ca_certs=/x&password=pw", "rediss://me@h/2"),
        ("unix://:pw@/run/r.sock?db=1", "unix:///run/r.sock"),
        ("redis://u:p@w@[::1]:1", "redis://u@[::1]:1"),
        ("redis://:pw@[broken", "an unreadable URL"),
        ("redis:pw@h", "an unreadable URL"),
    ],
)
def test_urls_are_told_without_secrets(url: str, told: str) -> None:
    """Whatever form they have."""
    assert safe_url(url) == told


@pytest.mark.parametrize("url", ["redis://:pw@h:port/0", "http://h", "redis:h", "pw", "://:pw@h"])
def test_what_is_no_url_is_refused(tmp_path: Path, url: str) -> None:
    """With the forms that there are, and without the secret."""
    pytest.importorskip("redis")
    with pytest.raises(StoreError, match="not the address of a Redis server") as told:
        RedisStore(FileStore(str(tmp_path)), url, CLUSTER, print)
    assert ":pw" not in str(told.value)


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A StoreError with the command."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(StoreError, match=r"pip install 'detray\[redis\]'"):
        RedisStore(FileStore(str(tmp_path)), "redis://h", CLUSTER, print)
