"""What `detray status`, `list` and `get` show of a cluster, from what its head tells."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from detray.cli import listing, status
from detray.cli.terminal import cluster_page
from detray.errors import EngineError


def node(number: int, **facts: Any) -> dict[str, Any]:
    """A node of the head's report."""
    return {
        "id": f"{number:056x}",
        "number": number,
        "name": f"n{number}",
        "address": f"10.0.0.{number}:4000",
        "pid": 100 + number,
        "head": number == 1,
        "alive": True,
        "reason": "",
        "age_s": 0.25,
        "labels": {},
        "resources": {
            "total": {"CPU": 4.0, "memory": 2.0**33, f"node:10.0.0.{number}": 1.0},
            "available": {"CPU": 1.5, "memory": 2.0**33, f"node:10.0.0.{number}": 1.0},
        },
        "tasks": {"running": 2},
        "totals": {"finished": 1_000},
        "objects": {"inline": 3},
        "store": {"size_bytes": 1 << 30, "used_bytes": 1 << 20, "segment_bytes": 0},
        "transfers": {"incoming": 1, "received": 7, "received_bytes": 7 << 20},
        "workers": {"busy": 2},
        **facts,
    }


def report() -> dict[str, Any]:
    """Two nodes, one of which died, and what went wrong."""
    gone = node(
        2,
        alive=False,
        reason="silent for 5 s",
        age_s=400.0,
        resources={"total": {}, "available": {}},
        tasks={},
        workers={},
    )
    failure = {"kind": "node died", "text": "n2: silent", "node": 2, "age_s": 400.0, "count": 1}
    return {
        "head": {
            "cluster": "c" * 32,
            "version": "0.1.0",
            "pid": 99,
            "address": "10.0.0.1:6379",
            "epoch": 2,
            "web": "http://127.0.0.1:8265",
            "up_s": 7_300.0,
            "store": {"url": "file:/var/x", "problem": "", "lag_records": 12, "lag_s": 0.5},
            "unplaceable": 1,
            "unplaced": [{"task": "ab", "name": "train", "node": 1, "demand": {"GPU": 1.0}}],
        },
        "nodes": [node(1), gone],
        "jobs": [{"number": 3, "node": 1, "namespace": "", "pid": 77, "entrypoint": "prog.py"}],
        "failures": [failure],
    }


class PlayedHead:
    """Answers from a report."""

    address = "10.0.0.1:6379"

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []

    def ask(self, topic: str, *arguments: Any) -> Any:
        self.asked.append((topic, *arguments))
        if topic not in self.answers:
            raise EngineError("the head at 10.0.0.1:6379 cannot be asked: refused")
        return self.answers[topic]


def test_the_page_sums_up_what_lives_and_names_what_died():
    """Resources in use, tasks, transfers; the dead node with its reason; what waits for ever."""
    text = cluster_page.render(report())
    lines = text.splitlines()
    assert lines[0] == "head      10.0.0.1:6379, pid 99, up 2 h"
    assert "nodes     1 alive, 1 dead" in lines
    assert "tasks     2 running" in lines
    assert "transfers 1 under way, 7 so far (7.0 MiB)" in text or "transfers 1 under way" in text
    assert "log       file:/var/x, 12 records (0.5 s) behind" in lines
    rows = [line.split() for line in lines]
    assert ["CPU", "2.5", "4"] in rows
    assert not any(row and row[0].startswith("node:") for row in rows)
    assert "dead: silent for 5 s" in text and "1 *" in text
    assert "  train of node 1: 1 GPU" in lines
    assert "7 min ago  node died: n2: silent (node 2)" in text
    assert ["3", "1", "77", "prog.py"] in rows


def test_a_task_that_runs_for_another_node_is_one_task():
    """Its owner counts it as delivered, the node that has it as what it is."""
    two = {**report(), "nodes": [node(1, tasks={"delivered": 2}), node(2)]}
    lines = cluster_page.render(two).splitlines()
    assert "tasks     2 running" in lines


def test_as_many_tasks_as_ask_for_what_no_node_has():
    """One task asks, two tasks ask."""
    assert "\n1 task asks for what no node has:\n" in cluster_page.render(report())
    more = report()
    more["head"]["unplaceable"] = 1_200
    assert "\n1,200 tasks ask for what no node has:\n" in cluster_page.render(more)


def test_a_cluster_that_has_just_begun_has_a_page_as_well():
    """Nothing is assumed to be there."""
    bare = {**report(), "nodes": [], "jobs": [], "failures": []}
    bare["head"] = {**bare["head"], "unplaceable": 0, "web": ""}
    assert "no nodes" in cluster_page.render(bare)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.21, "0.2 s"), (44.0, "44 s"), (300, "5 min"), (36_000, "10 h")]
)
def test_durations_are_short(seconds, text):
    """One unit."""
    assert cluster_page.duration_text(seconds) == text


def options(**given: Any) -> argparse.Namespace:
    """What the command line gives."""
    names = {"json": False, "watch": False, "session": None, "address": None, "filter": []}
    return argparse.Namespace(**{**names, "limit": 100, "kind": "tasks", **given})


def test_status_of_a_cluster_speaks_json(capsys):
    """The head's own words: nodes with id, address, pid, head, alive and resources."""
    head = PlayedHead({"status": report()})
    assert status.run(options(json=True), list, lambda _: head) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(n["alive"], n["head"], n["pid"]) for n in found["nodes"]] == [
        (True, True, 101),
        (False, False, 102),
    ]
    assert found["sessions"] == []


def test_a_head_that_does_not_answer_is_said(capsys):
    """Exit code 1, the reason, and no nodes for programs."""
    assert status.run(options(), list, lambda _: PlayedHead({})) == 1
    assert "cannot be asked" in capsys.readouterr().out
    assert status.run(options(json=True), list, lambda _: PlayedHead({})) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["nodes"] == [] and "refused" in found["problem"]


ROWS = [
    {"node": 1, "id": "aa01", "name": "f", "state": "running", "attempt": 0, "worker": 3},
    {"node": 2, "id": "aa02", "name": "g", "state": "ready", "attempt": 1, "worker": None},
    {"node": 2, "id": "bb03", "name": "f", "state": "ready", "attempt": 0, "worker": None},
]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ([], ["aa01", "aa02", "bb03"]),
        (["state=ready"], ["aa02", "bb03"]),
        (["state=ready", "name!=g"], ["bb03"]),
        (["worker="], ["aa02", "bb03"]),
        (["attempt>0"], ["aa02"]),
        (["id=aa", "name~f"], ["aa01"]),
    ],
)
def test_filters_pick_the_rows_of_which_all_are_true(monkeypatch, capsys, filters, ids):
    """How, `runtime/rows.py` says."""
    head = PlayedHead({"list": {"rows": ROWS, "missing": {}}})
    monkeypatch.setattr(listing, "find_head", lambda _: head)
    assert listing.run_list(options(filter=filters, json=True)) == 0
    assert [row["id"] for row in json.loads(capsys.readouterr().out)["rows"]] == ids
    assert head.asked[0][:2] == ("list", "tasks")


def test_a_list_says_what_it_leaves_out(monkeypatch, capsys):
    """Rows beyond the limit, and nodes that did not answer."""
    head = PlayedHead({"list": {"rows": ROWS, "missing": {4: "it did not answer in time"}}})
    monkeypatch.setattr(listing, "find_head", lambda _: head)
    assert listing.run_list(options(limit=1)) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split()[:4] == ["id", "name", "state", "at"]
    assert "2 more" in out and "node 4 is missing: it did not answer in time" in err


def test_an_empty_list_says_where_tasks_that_have_ended_are(monkeypatch, capsys):
    """Other engines list them, too."""
    monkeypatch.setattr(listing, "find_head", lambda _: PlayedHead({"list": {"rows": []}}))
    assert listing.run_list(options()) == 0
    assert capsys.readouterr().out.startswith("no tasks: those that have ended are in recordings")
    assert listing.run_list(options(kind="workers")) == 0
    assert capsys.readouterr().out == "no workers\n"


def test_get_tells_everything_about_what_is_called_so(monkeypatch, capsys):
    """By the beginning of its id; exit code 1 if nothing is."""
    head = PlayedHead({"list": ROWS})
    monkeypatch.setattr(listing, "find_head", lambda _: head)
    assert listing.run_get(options(id="aa")) == 0
    assert capsys.readouterr().out.count("attempt") == 2
    assert listing.run_get(options(id="cc")) == 1
    assert capsys.readouterr().out == "no tasks called cc\n"


@pytest.mark.parametrize("text", ["running", "colour=red", "attempt>many"])
def test_a_filter_that_is_none_is_refused(monkeypatch, text):
    """A shape, a column or a number that there is not."""
    monkeypatch.setattr(listing, "find_head", lambda _: PlayedHead({"list": {"rows": ROWS}}))
    with pytest.raises(ValueError, match=r"no filter|no column|is none"):
        listing.run_list(options(filter=[text]))


def test_get_asks_only_for_what_may_be_called_so(monkeypatch, capsys):
    """Nodes look the id up: they may have more rows than a list shows."""
    head = PlayedHead({"list": {"rows": ROWS, "missing": {}}})
    monkeypatch.setattr(listing, "find_head", lambda _: head)
    assert listing.run_get(options(id="aa01")) == 0
    assert head.asked[0][:2] == ("list", "tasks/aa01")


def test_a_task_that_two_nodes_know_is_one_row(monkeypatch, capsys):
    """The row of the node that has it."""
    sent = {**ROWS[0], "node": 0, "state": "delivered"}
    head = PlayedHead({"list": {"rows": [sent, ROWS[0]], "missing": {}}})
    monkeypatch.setattr(listing, "find_head", lambda _: head)
    assert listing.run_list(options(json=True)) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [ROWS[0]]
