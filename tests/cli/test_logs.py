"""`detray logs`: what nodes wrote; one that does not answer takes nothing from the others."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from detray.cli import logs
from detray.errors import EngineError


class HeadWithLogs:
    """A head of nodes with one log each, of which some are away."""

    def __init__(self, logs: dict[int, bytes], away: set[int]) -> None:
        self.logs = logs
        self.away = away
        self.asked: list[int] = []

    def ask(self, topic: str, *arguments: Any) -> Any:
        """Its answer, as `runtime/head/main.py` gives it."""
        if topic == "list":
            return [{"number": node, "alive": True} for node in self.logs]
        node, *rest = arguments
        self.asked.append(node)
        if node in self.away:
            raise EngineError(f"the head cannot answer 'logs': node {node} did not answer in time")
        if not rest:
            return [{"name": "worker-1.log", "size_bytes": len(self.logs[node])}]
        _, start, size = rest
        return self.logs[node][start : start + size]


LOGS = {1: b"a of 1\nb of 1\n", 2: b"a of 2\n", 3: b"a of 3\n"}


def ask(monkeypatch: pytest.MonkeyPatch, head: HeadWithLogs, **options: Any) -> int:
    monkeypatch.setattr(logs, "find_head", lambda _: head)
    given = {"node": None, "worker": None, "follow": False, "tail": 100, **options}
    return logs.run(argparse.Namespace(**given))


def test_a_node_that_is_away_is_said_and_the_others_are_shown(monkeypatch, capsys):
    """Exit code 1: what was asked for could not all be done."""
    head = HeadWithLogs(LOGS, away={2})
    assert ask(monkeypatch, head) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "[node 1 worker-1] a of 1",
        "[node 1 worker-1] b of 1",
        "[node 3 worker-1] a of 3",
    ]
    assert err.count("\n") == 1
    assert "node 2 does not answer" in err and "in time" in err
    assert head.asked.count(2) == 1, "nobody waits twice for it"


def test_all_answer(monkeypatch, capsys):
    """Then there is nothing to say."""
    assert ask(monkeypatch, HeadWithLogs(LOGS, away=set()), tail=1) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[0], len(out.splitlines()), err) == ("[node 1 worker-1] b of 1", 3, "")


def test_a_node_that_goes_away_between_two_pieces_is_said(monkeypatch, capsys):
    """What was read of it is shown."""
    head = HeadWithLogs({1: b"x\n", 2: b"y" * 300_000 + b"\n", 3: b"z\n"}, away=set())
    answer = head.ask

    def once(topic: str, *arguments: Any) -> Any:
        if topic == "logs" and arguments[0] == 2 and len(arguments) > 1 and arguments[2] > 0:
            head.away.add(2)
        return answer(topic, *arguments)

    monkeypatch.setattr(head, "ask", once)
    assert ask(monkeypatch, head, tail=-1) == 1
    out, err = capsys.readouterr()
    assert "[node 3 worker-1] z\n" in out and "[node 2 worker-1] yyy" in out
    assert "node 2 does not answer" in err


def test_who_follows_hears_once_that_a_node_is_away(monkeypatch, capsys):
    """Not every half second; and again if it goes once more."""
    head = HeadWithLogs(LOGS, away={2})
    rounds = iter([{2}, {2}, set(), {2}])

    def wait(_: float) -> None:
        try:
            head.away = next(rounds)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(logs.time, "sleep", wait)
    with pytest.raises(KeyboardInterrupt):
        ask(monkeypatch, head, follow=True)
    out, err = capsys.readouterr()
    assert out.count("[node 2 worker-1] a of 2") == 1, "shown when it was back"
    assert err.count("node 2 does not answer") == 2


def test_without_a_cluster_or_a_log_it_says_so(monkeypatch, capsys):
    """With exit code 1; and who is named and not there is an error."""
    monkeypatch.setattr(logs, "find_head", lambda _: None)
    assert logs.run(argparse.Namespace()) == 1
    assert ask(monkeypatch, HeadWithLogs(LOGS, away=set()), worker=7) == 1
    out, err = capsys.readouterr()
    assert err == "" and "--address" in out and "no such log" in out
    with pytest.raises(EngineError, match="no node 9 lives: 1, 2, 3 do"):
        ask(monkeypatch, HeadWithLogs(LOGS, away=set()), node=9)
