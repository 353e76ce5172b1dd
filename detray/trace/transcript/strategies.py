"""Strategies as transcripts write them, and as they are read there.

    submit x strategy=spread                  submit x hard=zone:in:eu,us;disk:exists
    submit x strategy=node:b                  submit x soft=zone:in:eu
    submit x strategy=node:b,soft,spill       submit x strategy=node:ghost

`fail` is the flag of those that do not wait for a node that is busy.
"""

from __future__ import annotations

from detray.core.strategy import AFFINITY, SPREAD, Expression, Strategy
from detray.ids import node_name
from detray.trace.transcript.cast import GHOST, Cast
from detray.trace.transcript.script import Words


def strategy_of(cast: Cast, w: Words) -> Strategy | None:
    """What a submission says of where it wants to run."""
    hard, soft = _expressions(w.text("hard")), _expressions(w.text("soft"))
    head, *flags = w.list("strategy") or [""]
    if not (head or hard or soft):
        return None
    if head == "spread":
        return Strategy(SPREAD, hard=hard, soft=soft)
    name = head.removeprefix("node:")
    node = GHOST if name == "ghost" else node_name(cast.node_number(name)) if name else ""
    marks = ("soft" in flags, "spill" in flags, "fail" in flags)
    return Strategy(AFFINITY if node else 0, node, *marks, hard, soft)


def say_strategy(strategy: Strategy, cast: Cast) -> str:
    """The same, back."""
    parts = ["spread"] if strategy.kind == SPREAD else []
    if strategy.kind == AFFINITY:
        parts.append(f"node {cast.symbolic(strategy.node)}")
    flags = ("is_soft", "soft"), ("spills", "spill"), ("fails", "fail")
    parts += [word for field, word in flags if getattr(strategy, field)]
    for word, expressions in (("with", strategy.hard), ("preferring", strategy.soft)):
        parts += [f"{word} {_say(expression)}" for expression in expressions]
    return " ".join(parts)


def _expressions(text: str) -> tuple[Expression, ...]:
    found = []
    for part in filter(None, text.split(";")):
        key, operator, *values = part.split(":")
        found.append(Expression(key, operator, tuple(values[0].split(",")) if values else ()))
    return tuple(found)


def _say(expression: Expression) -> str:
    return " ".join([expression.key, expression.operator, ",".join(expression.values)]).rstrip()
