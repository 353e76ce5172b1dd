"""What the head tells people: complete, aged, bounded, and never a surprise to its readers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from detray.core.config import GlobalConfig, LocalConfig, Policy
from detray.core.local import LocalScheduler
from detray.core.status import summary as summary_of_core
from detray.ids import NodeID, node_name
from detray.runtime.head import overview as ov
from detray.runtime.head.overview import Overview, StoreState
from tests.head.clusters import FACTS, S, node, overview, summary, tables

NOW = 100 * S


def alive(report: dict[str, Any]) -> list[int]:
    return [entry["number"] for entry in report["nodes"] if entry["alive"]]


def test_a_node_is_described_by_its_newest_summary() -> None:
    """Amounts as users give them, bytes, counts by state, and how old all that is."""
    view, t = overview(2)
    entry = view.report(t, NOW + 1_500_000_000)["nodes"][1]
    assert entry["id"] == node_name(1)
    assert (entry["number"], entry["name"], entry["address"]) == (1, "machine-1", "10.0.0.2:7399")
    assert (entry["pid"], entry["head"], entry["alive"], entry["reason"]) == (5001, False, True, "")
    assert entry["age_s"] == 1.5
    assert entry["silent_s"] == 2.5
    assert entry["resources"]["total"] == {"CPU": 8, "GPU": 2, "memory": 64_000_000_000}
    assert entry["resources"]["available"]["CPU"] == 2
    assert entry["tasks"] == {"running": 6, "ready": 40, "waiting": 12, "fetching": 2}
    assert entry["workers"] == {"busy": 5, "blocked": 1, "idle": 1}
    assert entry["running"] == {"count_words": 5, "merge": 1}
    assert entry["store"]["used_bytes"] == 750_000_000
    assert entry["transfers"]["incoming"] == 2
    assert entry["links"]["resent_messages"] == 3


def test_a_node_that_was_never_heard_is_shown_as_the_head_knows_it() -> None:
    """No age, and the totals with which it joined."""
    view = Overview(FACTS)
    (entry,) = view.report(tables(node(4)), NOW)["nodes"]
    assert entry["age_s"] is None
    assert entry["resources"] == {
        "total": {"CPU": 8, "GPU": 2},
        "available": {"CPU": 6, "GPU": 2},
    }


def test_what_a_core_says_of_itself_is_understood() -> None:
    """A real summary, through the wire, gives no field that the overview does not know."""
    config = LocalConfig(node_name="n", totals=(("CPU", 20_000),), arena_bytes=1 << 20)
    core = LocalScheduler(config)
    body = msgspec.msgpack.decode(msgspec.msgpack.encode(summary_of_core(core._step)))
    view = Overview(FACTS)
    t = tables(node(0))
    view.heard(0, body, NOW)
    (entry,) = view.report(t, NOW)["nodes"]
    assert entry["resources"]["total"] == {"CPU": 2}
    assert entry["store"]["size_bytes"] == 1 << 20
    unknown = set(body) - set(ov.NodeSummary.__struct_fields__)
    assert unknown == {"node", "incarnation", "name"}, "the head's tables have these"


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "status",
        {"total": {"CPU": "many"}},
        {"tasks": [1]},
        {"workers": [{"state": 3}]},
        {"store": {"size_bytes": None}},
    ],
    ids=str,
)
def test_nonsense_is_refused_and_changes_nothing(body: object) -> None:
    """One ValueError that names the node; the last good summary stays."""
    view, t = overview(1)
    before = view.report(t, NOW)
    with pytest.raises(ValueError, match="node 0 sent a status that is none"):
        view.heard(0, body, NOW)
    assert view.report(t, NOW) == before


def test_a_lying_node_cannot_make_the_report_large() -> None:
    """Names are cut, lists are counted or cut."""
    view, t = overview(1)
    lies = summary(
        tasks={f"state {i}": 1 for i in range(10_000)},
        workers=[{"state": "busy", "task": f"{i}" + "x" * 10_000} for i in range(4_000)],
        drivers=[{"pid": 1, "job": i, "entrypoint": "y" * 10_000} for i in range(100)],
    )
    view.heard(0, lies, NOW)
    assert len(json.dumps(view.report(t, NOW))) < 100_000


def test_a_buried_node_is_remembered_with_the_reason() -> None:
    """Who it was, why it died, for how long; what it had is not the cluster's any more."""
    view, t = overview(3)
    view.buried(1, "it was silent for 5000 ms", NOW)
    del t.nodes[NodeID(1)]
    report = view.report(t, NOW + 4 * S)
    assert alive(report) == [0, 2]
    entry = report["nodes"][-1]
    assert (entry["number"], entry["name"], entry["pid"]) == (1, "machine-1", 5001)
    assert (entry["alive"], entry["reason"]) == (False, "it was silent for 5000 ms")
    assert entry["age_s"] == 4.0
    assert entry["resources"] == {"total": {}, "available": {}}
    (failure,) = report["failures"]
    assert (failure["kind"], failure["node"]) == ("node died", 1)
    assert failure["text"] == "machine-1: it was silent for 5000 ms"


def test_a_node_that_vanishes_from_the_tables_is_dead_all_the_same() -> None:
    """Nobody told the overview: the head's tables did."""
    view, t = overview(2)
    del t.nodes[NodeID(0)]
    report = view.report(t, NOW)
    assert alive(report) == [1]
    assert report["nodes"][-1]["reason"] == "it left the cluster"
    assert report["nodes"][-1]["name"] == "machine-0"


def test_a_reason_that_comes_late_replaces_the_guess() -> None:
    """The same death, told twice, is one row and one failure."""
    view, t = overview(2)
    del t.nodes[NodeID(0)]
    view.report(t, NOW)
    view.buried(0, "it was stopped", NOW + S)
    report = view.report(t, NOW + S)
    assert [entry["reason"] for entry in report["nodes"]] == ["", "it was stopped"]
    assert len(report["failures"]) == 1


def test_a_death_of_an_earlier_head_is_told_with_name_and_address() -> None:
    """After a restart the log knows who died; this process never saw it alive."""
    view = Overview(FACTS)
    view.buried(7, "gone", NOW, name="old", address="10.0.0.9:1")
    (entry,) = view.report(tables(), NOW)["nodes"]
    assert (entry["name"], entry["address"], entry["alive"]) == ("old", "10.0.0.9:1", False)


def test_the_newest_dead_are_remembered() -> None:
    """Bounded, the oldest go; the newest is shown first."""
    view = Overview(FACTS)
    for number in range(ov.DEAD_MAX + 50):
        view.buried(number, "gone", NOW + number)
    numbers = [entry["number"] for entry in view.report(tables(), NOW)["nodes"]]
    assert numbers == list(range(ov.DEAD_MAX + 49, 49, -1))


def test_counters_that_grow_are_failures() -> None:
    """The second summary is compared with the first; only what the table TROUBLES lists counts."""
    view, t = overview(1)
    view.heard(0, summary(totals={"finished": 99_999, "failed": 4, "workers lost": 1}), NOW + S)
    failures = view.report(t, NOW + 2 * S)["failures"]
    assert [(f["kind"], f["count"], f["node"], f["age_s"]) for f in failures] == [
        ("workers died", 1, 0, 1.0),
        ("tasks failed", 4, 0, 1.0),
    ]


def test_equal_failures_are_one_with_a_count() -> None:
    """A thousand of two kinds do not push everything else out; later ones are news again."""
    view, t = overview(1)
    for second in range(1_000):
        view.note("stranger", "a wrong token from 10.1.1.1", NOW + second * S)
        view.note("garbage", "10.1.1.1", NOW + second * S)
    view.note("garbage", "10.1.1.1", NOW + 1_100 * S)
    failures = view.report(t, NOW + 1_100 * S)["failures"]
    assert [(f["kind"], f["count"], f["age_s"]) for f in failures] == [
        ("garbage", 1, 0.0),
        ("garbage", 1_000, 101.0),
        ("stranger", 1_000, 101.0),
    ]


def test_failures_are_bounded() -> None:
    """The newest stay."""
    view, t = overview(1)
    for index in range(500):
        view.note("refused", str(index), NOW)
    texts = [f["text"] for f in view.report(t, NOW)["failures"]]
    assert texts == [str(index) for index in range(499, 499 - ov.FAILURES_MAX, -1)]


def test_jobs_name_their_program_and_process() -> None:
    """The head knows the job, the node knows the process."""
    view, t = overview(1)
    assert view.report(t, NOW)["jobs"] == [
        {"number": 1, "node": 0, "namespace": "", "entrypoint": "program-1.py", "pid": 900}
    ]


def test_the_head_tells_of_itself_and_of_its_store() -> None:
    """Epoch, uptime, the lag of a second copy of the log, what no node can run."""
    view = Overview(FACTS)
    state = StoreState(False, 12, 3_250_000_000, "redis://h:6379 refuses connections")
    head = view.report(tables(unplaced=2), NOW, state)["head"]
    assert (head["epoch"], head["up_s"], head["pid"]) == (3, 90.0, 4711)
    assert head["store"] == {
        "url": "file:/var/lib/detray",
        "reachable": False,
        "lag_records": 12,
        "lag_s": 3.25,
        "problem": "redis://h:6379 refuses connections",
    }
    assert head["unplaceable"] == 2
    assert head["unplaced"][0]["demand"] == {"TPU": 8}


def test_a_report_is_json_and_nobody_elses_afterwards() -> None:
    """Threads read it while the loop goes on: later events do not reach into it."""
    view, t = overview(2)
    report = view.report(t, NOW)
    before = json.dumps(report)
    view.buried(1, "gone", NOW)
    del t.nodes[NodeID(1)]
    t.nodes[NodeID(0)].totals["CPU"] = 1
    t.counts["nodes buried"] = 1
    view.heard(0, summary(tasks={}), NOW + S)
    view.report(t, NOW + S)
    assert json.dumps(report) == before


def test_policy_and_config_need_no_report() -> None:
    """The tables of a fresh head give an empty page, not an error."""
    report = Overview(FACTS).report(tables(), 10 * S)
    assert (report["nodes"], report["jobs"], report["failures"]) == ([], [], [])
    assert GlobalConfig().policy == Policy()
