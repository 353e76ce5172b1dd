"""Fetching payloads from a cluster: what a node may say, lose and lie about, and what is left."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from xxhash import xxh3_64_hexdigest

from detray.cli.asking import fetching
from detray.cli.asking.fetching import RunningCluster, check_sizes
from detray.cli.asking.heads import HeadAt
from detray.cli.command import main
from detray.errors import EngineError
from detray.runtime.net.security import Security
from detray.trace.format import TraceError

PIECE = fetching.PAYLOAD_PIECE_BYTES
HEAD = HeadAt("10.0.0.1:6379", Security(b"token"), "")


class Tool:
    """A head of three nodes, of which the last is dead; what a node answers can be changed."""

    def __init__(self) -> None:
        self.data = {0: os.urandom(2 * PIECE + 5), 1: b"of node 1"}
        self.said: dict[tuple[Any, ...], Callable[[], Any]] = {}
        self.asked: list[tuple[Any, ...]] = []
        self.is_closed = False

    def ask(self, topic: str, *arguments: Any, timeout: float) -> Any:
        self.asked.append(arguments)
        if arguments in self.said:
            return self.said[arguments]()
        match topic, arguments:
            case "list", ("nodes", 0):
                return [{"number": n, "alive": n < 2} for n in range(3)]
            case "payloads", (node, "size"):
                return len(self.data[node])
            case "payloads", (node, "begin"):
                return [7, len(self.data[node])]
            case "payloads", (node, 7, offset, size):
                return self.data[node][offset : offset + size]
            case "payloads", (node, "end", 7):
                return xxh3_64_hexdigest(self.data[node])
        raise AssertionError(arguments)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Tool:
    made = Tool()
    monkeypatch.setattr(fetching, "connect_head", lambda head: made)
    return made


@pytest.fixture
def cluster(tool: Tool) -> Iterator[RunningCluster]:
    with RunningCluster(HEAD) as made:
        yield made
    assert tool.is_closed


def fetch(cluster: RunningCluster, directory: Path, limit: int = 1 << 30) -> dict[int, bytes]:
    fetched = cluster.payloads([0, 1], str(directory), limit, lambda what, done, size: None)
    found = {}
    for each in fetched:
        each.file.seek(0)
        found[each.node] = each.file.read()
        each.file.close()
    return found


def failing(problem: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise problem

    return fail


def open_files() -> set[tuple[str, str]]:
    """Descriptors and what they are of; those that are no more may have been others' garbage."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one of this very look
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


@pytest.mark.parametrize("size", [fetching.TRACE_PIECE_BYTES + 1, 1_000])
def test_a_trace_without_an_end_is_left_out(
    cluster: RunningCluster, tool: Tool, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Pieces that are too long, or that never end; the others' traces come."""
    monkeypatch.setattr(fetching, "TRACE_BYTES_MAX", 10_000)

    def trace(topic: str, node: int, offset: int, *_: int, timeout: float) -> bytes:
        return bytes(size) if node == 0 else b"of another"[offset:]

    monkeypatch.setattr(tool, "ask", trace)
    assert cluster.traces() == [("node 1", b"of another"), ("head", b"of another")]
    [note] = cluster.notes
    assert note.startswith("node 0 is left out: it sent more than")


def test_payloads_come_in_pieces_and_whole(
    tool: Tool, cluster: RunningCluster, tmp_path: Path
) -> None:
    """Into files without names; who is dead is named."""
    assert cluster.payload_sizes() == {0: 2 * PIECE + 5, 1: 9}
    assert fetch(cluster, tmp_path) == tool.data
    assert max(a[3] for a in tool.asked if len(a) == 4) == PIECE
    assert list(tmp_path.iterdir()) == []
    assert cluster.notes == [
        "no payloads of node 2: it is dead; what it wrote is on its machine",
    ]


def test_a_node_without_payloads_or_without_an_answer_is_named(
    tool: Tool, cluster: RunningCluster
) -> None:
    """The others are asked all the same."""
    tool.said[0, "size"] = lambda: None
    tool.said[1, "size"] = failing(EngineError("the head cannot say: it did not answer in time"))
    assert cluster.payload_sizes() == {}
    assert "node 0 records no payloads: it was started without --record-payloads" in cluster.notes
    assert any("node 1: the head cannot say" in note for note in cluster.notes)


@pytest.mark.parametrize(
    ("question", "answer", "told"),
    [
        ((0, "begin"), lambda: "garbage", "in an unknown way"),
        ((0, "begin"), lambda: [7, -1], "in an unknown way"),
        ((0, 7, PIECE, PIECE), lambda: "text", "in an unknown way"),
        ((0, 7, PIECE, PIECE), lambda: b"", "another number of bytes"),
        ((0, 7, 2 * PIECE, PIECE), lambda: bytes(6), "another number of bytes"),
        ((0, 7, 0, PIECE), lambda: bytes(PIECE), "what came is not what it sent"),
        ((0, "end", 7), lambda: None, "what came is not what it sent"),
        ((0, 7, PIECE, PIECE), failing(EngineError("it is gone")), "it is gone"),
        ((0, 7, PIECE, PIECE), failing(TimeoutError("no answer")), "no answer"),
    ],
)
def test_a_node_that_lies_or_goes_costs_its_own_payloads_only(
    tool: Tool,
    cluster: RunningCluster,
    tmp_path: Path,
    question: tuple[Any, ...],
    answer: Callable[[], Any],
    told: str,
) -> None:
    """The other's come, and one note says what is wrong."""
    tool.said[question] = answer
    before = open_files()
    assert fetch(cluster, tmp_path) == {1: b"of node 1"}
    assert (len(cluster.notes), told in cluster.notes[0]) == (1, True), cluster.notes
    assert open_files() <= before


def test_an_answer_that_got_lost_is_asked_for_again(
    tool: Tool, cluster: RunningCluster, tmp_path: Path
) -> None:
    """Once: then the node is given up."""
    times = 0

    def lost_once() -> bytes:
        nonlocal times
        times += 1
        if times == 1:
            raise TimeoutError("dropped")
        return tool.data[0][:PIECE]

    tool.said[0, 7, 0, PIECE] = lost_once
    assert fetch(cluster, tmp_path) == tool.data


def test_more_than_was_allowed_is_refused_before_anything_comes(tool: Tool) -> None:
    """With the sizes, and what to say."""
    told = check_sizes({0: 5_000_000, 1: 300}, 6_000_000)
    assert told == "payloads: 5 MB at node 0, 300 B at node 1; at most 6 MB (--payloads-limit)"
    with pytest.raises(TraceError, match=r"5 MB together are too much. Nothing was written"):
        check_sizes({0: 5_000_000, 1: 300}, 5_000_000)


def test_what_has_become_too_much_meanwhile_ends_it(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    """The limit holds for all nodes together, whatever they said before."""
    before = open_files()
    with pytest.raises(TraceError, match="node 1 have become 9 B, and are too much now"):
        fetch(cluster, tmp_path, 2 * PIECE + 6)
    assert open_files() <= before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "end", [KeyboardInterrupt(), ConnectionResetError("reset by peer")], ids=["ctrl-c", "head"]
)
def test_whatever_ends_it_nothing_is_left(
    tool: Tool, cluster: RunningCluster, tmp_path: Path, end: BaseException
) -> None:
    """Ctrl-C, or the head goes away: no file, no descriptor."""
    tool.said[1, 7, 0, PIECE] = failing(end)
    before = open_files()
    with pytest.raises((KeyboardInterrupt, ConnectionError)):
        fetch(cluster, tmp_path)
    assert open_files() <= before
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_nothing_is_left(cluster: RunningCluster, tmp_path: Path) -> None:
    """A limit on the size of files stands for it here."""
    before = open_files()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE + 100, old[1]))
    try:
        with pytest.raises(OSError, match="there is no room for the payloads") as caught:
            fetch(cluster, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert caught.value.filename == str(tmp_path)
    assert open_files() <= before
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_makes_no_sense_is_told(tool: Tool) -> None:
    """And the connection is ended."""
    tool.said["nodes", 0] = lambda: [{"what": 1}]
    with pytest.raises(EngineError, match="lists nodes in an unknown way"):
        RunningCluster(HEAD)
    assert tool.is_closed


def test_a_limit_that_is_no_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line."""
    assert main(["trace", "collect", "--payloads", "--payloads-limit", "plenty"]) == 2
    assert "'plenty' is no size such as 500M or 8G" in capsys.readouterr().err
