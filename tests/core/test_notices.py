"""What other nodes want the user to hear: once for each demand, bounded, for jobs of here only."""

from __future__ import annotations

from typing import Any

import pytest

from detray.core import peer_messages as pm
from detray.core.effects import Effect, Notify
from detray.core.local import LocalScheduler
from detray.core.notices import KIND_MAX, REPORTED_MAX, TEXT_MAX
from detray.ids import JobNumber, NodeID
from tests.golden.play import play

JOB = JobNumber(1)


@pytest.fixture
def core() -> LocalScheduler:
    """Node 0, with the driver of job 1; node 1 is a peer."""
    _, stage = play("nodes a b driver=a\n----\n")
    local = stage.worlds[0].local
    assert isinstance(local, LocalScheduler)
    return local


def say(core: LocalScheduler, **changes: Any) -> list[Effect]:  # Any: fields of the message
    """Node 1 says it: what comes of it."""
    peer = core.tables.peers[NodeID(1)]
    fields = {"job": JOB, "level": "warning", "kind": "worker", "text": "no process starts"}
    message = pm.NoticeSent(peer.received + 1, NodeID(1), **(fields | changes))
    effects = core.handle(message, now_ns=core.tables.now_ns + 1)
    return [effect for effect in effects if type(effect) is Notify]


def test_the_driver_hears_what_another_node_noticed(core: LocalScheduler) -> None:
    """With the node's number, which the text need not have."""
    (told,) = say(core)
    assert isinstance(told, Notify)
    assert told.text == "no process starts (Seen by node 1.)" and told.level == "warning"


def test_a_demand_is_told_of_once_and_other_notices_each_time(core: LocalScheduler) -> None:
    """Whoever notices it: another node, or this one."""
    lamp = (("lamp", 10_000),)
    assert len(say(core, kind="infeasible", demand=lamp)) == 1
    assert say(core, kind="infeasible", demand=lamp) == []
    assert (JOB, lamp, None) in core.tables.reported
    assert len(say(core)) == len(say(core)) == 1


@pytest.mark.parametrize("changes", [{"level": "fatal"}, {"job": JobNumber(7)}])
def test_what_makes_no_sense_is_stale(core: LocalScheduler, changes: dict[str, Any]) -> None:
    """A level that there is not, a job whose driver is elsewhere: counted, and told to nobody."""
    before = core.tables.counts.get("stale", 0)
    assert say(core, **changes) == []
    assert core.tables.counts["stale"] == before + 1


def test_a_talkative_node_costs_little(core: LocalScheduler) -> None:
    """Long texts are cut, and demands are told of up to a number."""
    (told,) = say(core, kind="y" * TEXT_MAX, text="x" * 10 * TEXT_MAX)
    assert isinstance(told, Notify) and len(told.text) < TEXT_MAX + 50
    assert len(told.kind) == KIND_MAX
    for number in range(REPORTED_MAX + 20):
        say(core, demand=((f"lamp{number}", 10_000),))
    assert len(core.tables.reported) == REPORTED_MAX
