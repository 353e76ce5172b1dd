"""Strategies: what labels must be, and which node a request may go to."""

from __future__ import annotations

import msgspec
import pytest

from detray.core.head_messages import PlacementRequested
from detray.core.placement import Node, find_able, find_wanted
from detray.core.strategy import (
    AFFINITY,
    EXISTS,
    IN,
    MISSING,
    NODE_LABEL,
    NOT_IN,
    Expression,
    Strategy,
    format_strategy,
    is_labelled,
    node_named,
)
from detray.ids import NodeID, TaskID, node_name

LABELS = (("disk", "ssd"), ("zone", "eu"))
HERE = NodeID(3)


@pytest.mark.parametrize(
    "expression, is_met",
    [
        (Expression("zone", IN, ("us", "eu")), True),
        (Expression("zone", IN, ("us",)), False),
        (Expression("rack", IN, ("1",)), False),
        (Expression("zone", NOT_IN, ("us",)), True),
        (Expression("zone", NOT_IN, ("eu", "us")), False),
        (Expression("rack", NOT_IN, ("1",)), True),
        (Expression("zone", EXISTS), True),
        (Expression("rack", EXISTS), False),
        (Expression("zone", MISSING), False),
        (Expression("rack", MISSING), True),
        (Expression(NODE_LABEL, IN, (node_name(3),)), True),
        (Expression(NODE_LABEL, NOT_IN, (node_name(3),)), False),
        (Expression(NODE_LABEL, IN, (node_name(4),)), False),
    ],
    ids=str,
)
def test_a_label_is_as_the_expression_says(expression: Expression, is_met: bool) -> None:
    """A label that is not there is in no list; every node has its id as a label."""
    assert is_labelled((expression,), HERE, LABELS) is is_met
    assert is_labelled((Expression("disk", EXISTS), expression), HERE, LABELS) is is_met


def test_all_expressions_must_hold_and_none_is_met_by_anybody() -> None:
    """A list of expressions is an "and"."""
    assert is_labelled((), HERE, ())
    assert not is_labelled((Expression("a", MISSING), Expression("a", EXISTS)), HERE, LABELS)


@pytest.mark.parametrize(
    "text, node",
    [(node_name(7), 7), ("f" * 56, -1), ("", -1), ("zz", -1), ("1" * 56, -1)],
)
def test_an_id_that_cannot_be_names_nobody(text: str, node: int) -> None:
    """Whatever a client says, a core goes on."""
    assert node_named(text) == node


def _nodes() -> dict[NodeID, Node]:
    """Three nodes: a small one, a large one, a large one with a label."""
    small, large = {"CPU": 10_000}, {"CPU": 40_000}
    return {
        NodeID(0): Node(NodeID(0), 1, "a", small),
        NodeID(1): Node(NodeID(1), 1, "b", large),
        NodeID(2): Node(NodeID(2), 1, "c", large, labels=LABELS),
    }


def _request(cpus: int, strategy: Strategy | None) -> PlacementRequested:
    task, demand = TaskID(bytes(16)), (("CPU", cpus * 10_000),)
    return PlacementRequested(1, NodeID(0), task, 0, "f", demand, (), strategy)


@pytest.mark.parametrize(
    "cpus, strategy, able",
    [
        (1, None, [0, 1, 2]),
        (2, None, [1, 2]),
        (1, Strategy(AFFINITY, node_name(0)), [0]),
        (1, Strategy(AFFINITY, node_name(0), is_soft=True), [0]),
        (2, Strategy(AFFINITY, node_name(0), is_soft=True), [1, 2]),
        (1, Strategy(AFFINITY, node_name(9), is_soft=True), [0, 1, 2]),
        (1, Strategy(AFFINITY, node_name(0), is_soft=True, spills=True), [0, 1, 2]),
        (1, Strategy(hard=(Expression("zone", IN, ("eu",)),)), [2]),
        (1, Strategy(AFFINITY, node_name(1), True, hard=(Expression("zone", EXISTS),)), [2]),
        (1, Strategy(soft=(Expression("zone", IN, ("eu",)),)), [0, 1, 2]),
        (8, None, []),
    ],
)
def test_a_request_may_go_to_these_nodes(
    cpus: int, strategy: Strategy | None, able: list[int]
) -> None:
    """A wish gives way to what can never be, not to what is busy, unless it says so."""
    nodes, request = _nodes(), _request(cpus, strategy)
    assert find_able(request, nodes) == able
    wanted = find_wanted(request, nodes)
    assert wanted is None or [wanted.id] == able


def test_what_may_lack_is_told_in_words() -> None:
    """Labels that must be there; a node that is only liked lacks nowhere."""
    hard = (
        Expression("zone", IN, ("eu",)),
        Expression("rack", IN, ("1", "2")),
        Expression("disk", NOT_IN, ("hdd",)),
        Expression("gpu", EXISTS),
        Expression("spot", MISSING),
    )
    assert format_strategy(Strategy(hard=hard)) == (
        "a node with the label zone=eu and the label rack in (1, 2) and no label disk in (hdd) and "
        "a label gpu and no label spot"
    )
    assert format_strategy(Strategy(soft=hard)) == format_strategy(None) == ""


def test_a_strategy_travels_as_it_is() -> None:
    """On the wire, and as a key of what shares a template."""
    strategy = Strategy(AFFINITY, node_name(1), hard=(Expression("zone", IN, ("eu",)),))
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(strategy), type=Strategy)
    assert again == strategy and hash(again) == hash(strategy)
