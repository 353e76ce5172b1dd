"""Where the scripts of a random program want to run, drawn from a tape."""

from __future__ import annotations

from detray.core.strategy import (
    AFFINITY,
    EXISTS,
    IN,
    MISSING,
    NOT_IN,
    SPREAD,
    Expression,
    Strategy,
)
from detray.ids import node_name
from detray_sim.tape import Tape

GHOST = 1_000
"""The number of a node that is in no world."""
LABELS = ("east", "west")
"""Values of the label `zone`; a node of a world has one of them, or no such label."""


def draw_strategy(tape: Tape, label: str, nodes: int) -> Strategy:
    """Any strategy. Nodes are numbered as they join, and one that comes back is another."""
    node = node_name(tape.pick(f"{label}/node", (*range(nodes + 1), GHOST)))
    labels = (_draw_expression(tape, label),)
    kinds = (
        Strategy(SPREAD),
        Strategy(AFFINITY, node),
        Strategy(AFFINITY, node, is_soft=True),
        Strategy(hard=labels),
        Strategy(soft=labels),
        Strategy(SPREAD, hard=labels),
        Strategy(AFFINITY, node, is_soft=True, hard=labels),
        Strategy(AFFINITY, node, is_soft=True, spills=True),
        Strategy(AFFINITY, node, fails=True),
    )
    return tape.pick(f"{label}/kind", kinds)


def _draw_expression(tape: Tape, label: str) -> Expression:
    operator = tape.pick(f"{label}/operator", (NOT_IN, IN, EXISTS, MISSING))
    values = (tape.pick(f"{label}/value", LABELS),) if operator in (IN, NOT_IN) else ()
    return Expression("zone", operator, values)
