"""Each safeguard of the cores has a transcript that goes otherwise without it (PROTOCOL T16).

A swarm notices most of them too, after some or many seeds (docs/simulation-safety.md); these notice
each at once, and say in their text what would go wrong. Of sessions: tests/core/test_session.py.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from detray.core import peer_messages as pm
from detray.core.config import Policy
from detray.core.states import Delivered
from detray.errors import Failure
from detray.ids import NodeID
from detray.trace.transcript.script import Passage
from tests.golden.play import HERE, play

SHOWN = {
    "retraction_off": "pipelining_block",
    "fencing_off": "two_nodes_cannot_talk",
    "pin_off": "sent_blocks_are_pinned",
    "in_flight_hold_off": "borrow_through_a_third_node",
    "grant_count_off": "drop_crosses_loan",
    "acceptance_check_off": "result_refused",
    "promotion_off": "both_evict",
    "lineage_off": "lost_values_are_made_again",
    "transfer_check_off": "bytes_of_an_older_attempt",
    "wanted_check_off": "rerun_stores_what_is_wanted",
    "burial_cleanup_off": "a_node_leaves",
}
"""By switch, a transcript that shows what it is there for."""
BY_HAND = {"attempt_check_off"}
"""No link between cores brings what this one refuses, so a test below says it."""


def outputs(text: str) -> list[list[str]] | str:
    """What each block of a transcript brings, or what went wrong on the way."""
    try:
        played, _ = play(text)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return [part.output for part in played if isinstance(part, Passage)]


def without(text: str, switch: str) -> str:
    """The transcript on nodes that lack a safeguard."""
    found = re.search(r"^(nodes|config) .*$", text, re.MULTILINE)
    assert found is not None, "it must say in its first block what its nodes are like"
    return f"{text[: found.end()]} {switch}=1{text[found.end() :]}"


def test_every_safeguard_is_shown() -> None:
    """A new switch needs a transcript here, or a test below."""
    switches = {name for name in Policy.__struct_fields__ if name.endswith("_off")}
    assert switches == SHOWN.keys() | BY_HAND


@pytest.mark.parametrize(("switch", "name"), SHOWN.items(), ids=SHOWN)
def test_a_transcript_goes_otherwise_without_the_safeguard(switch: str, name: str) -> None:
    """With all of them it is what the file says: that is what `test_transcripts.py` is about."""
    text = (HERE / f"{name}.txt").read_text()
    right = outputs(text)
    assert isinstance(right, list)
    assert outputs(without(text, switch)) != right


REPORTS = """\
nodes a b c driver=a{switch}
----

submit x b=1 retries=2
settle
----
"""
"""x runs at b, the first attempt of three."""


@pytest.mark.parametrize(("node", "attempt"), [(1, 1), (2, 0)], ids=["attempt", "node"])
@pytest.mark.parametrize("is_off", [False, True], ids=["on", "off"])
def test_only_the_node_that_has_the_open_attempt_says_how_it_ended(
    node: int, attempt: int, is_off: bool
) -> None:
    """D 26: what is said of another attempt, or by another node, changes nothing.

    Without the check the loss of a run that goes on is believed: another is begun beside it.
    """
    _, stage = play(REPORTS.format(switch=" attempt_check_off=1" if is_off else ""))
    core = stage.worlds[0].local
    (task,) = core.tables.tasks.values()
    assert isinstance(task.state, Delivered) and task.state.node == 1
    seq = core.tables.peers[NodeID(node)].received + 1
    said: list[Any] = [
        pm.RunLost(
            seq, NodeID(node), task.spec.task, attempt, int(Failure.WORKER_CRASHED), "it died"
        )
    ]
    effects = core.handle(*said, now_ns=core.tables.now_ns + 1)
    assert (task.attempt == 1) is is_off
    assert bool(effects) is is_off
