"""Where a task wants to run: what a program says of it, as cores compare and carry it.

Rules (DESIGN 1, PROTOCOL N20)
------------------------------
- A task without a `Strategy` runs at its own node, or where the head finds room.
- Labels that must hold (`hard`) are part of what a node must have, like resources: without such a
  node the task waits, and is reported.
- A certain node is another matter. Node numbers are never given out twice, so one that is dead, or
  never was, will not come: the task goes elsewhere if it may (`is_soft`), or fails.
"""

from __future__ import annotations

import msgspec

from detray.ids import NodeID, node_name

SPREAD, AFFINITY = 1, 2
"""`Strategy.kind`; 0 for labels alone."""
IN, NOT_IN, EXISTS, MISSING = "in", "!in", "exists", "!exists"
"""`Expression.operator`."""
NODE_LABEL = "ray.io/node-id"
"""Every node has this label; its value is the node's id as users see it."""


class Expression(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the label `key` of a node must be: `operator` says how `values` (distinct) count."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class Strategy(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where the tasks of a template want to run.

    `node`: with AFFINITY, a node's id as users see it. `is_soft`: elsewhere if it is dead or can
    never meet the demand; `spills`: also if it is busy now. `fails`: instead of waiting for a node
    that is busy. `hard` expressions must be met, by whichever kind; nodes that meet all of `soft`
    come first.
    """

    kind: int = 0
    node: str = ""
    is_soft: bool = False
    spills: bool = False
    fails: bool = False
    hard: tuple[Expression, ...] = ()
    soft: tuple[Expression, ...] = ()


def is_named(strategy: Strategy, node: NodeID) -> bool:
    """True if the strategy names this node."""
    return strategy.kind == AFFINITY and strategy.node == node_name(node)


def node_named(text: str) -> NodeID:
    """The number in a node's id as users see it; -1 if none can be."""
    try:
        number = int(text, 16)
    except ValueError:
        return NodeID(-1)
    return NodeID(number if number < 1 << 62 else -1)


def is_labelled(
    expressions: tuple[Expression, ...], node: NodeID, labels: tuple[tuple[str, str], ...]
) -> bool:
    """True if a node with these labels meets all of the expressions."""
    for expression in expressions:
        key = expression.key
        value = node_name(node) if key == NODE_LABEL else dict(labels).get(key)
        if not _is_met(expression, value):
            return False
    return True


def _is_met(expression: Expression, value: str | None) -> bool:
    """A node without the label meets NOT_IN, as in Ray and Kubernetes."""
    match expression.operator:
        case "in":
            return value in expression.values
        case "!in":
            return value not in expression.values
        case "exists":
            return value is not None
        case _:
            return value is None


def format_strategy(strategy: Strategy | None) -> str:
    """What of a strategy may make it infeasible, for people; "" if nothing."""
    if strategy is None or not strategy.hard:
        return ""
    return "a node with " + " and ".join(map(_format_expression, strategy.hard))


def _format_expression(expression: Expression) -> str:
    key, values = expression.key, ", ".join(expression.values)
    match expression.operator:
        case "in" if len(expression.values) == 1:
            return f"the label {key}={values}"
        case "in":
            return f"the label {key} in ({values})"
        case "!in":
            return f"no label {key} in ({values})"
        case "exists":
            return f"a label {key}"
        case _:
            return f"no label {key}"
