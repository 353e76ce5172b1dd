"""Where tasks should run, as programs say it: `scheduling_strategy` and `label_selector`.

The classes have the names and arguments that they have in Ray
(`detray.util.scheduling_strategies`). Each knows its form inside detray, a `Strategy` of plain
strings and numbers, which the cores compare and carry.

**Source**: ray/util/scheduling_strategies.py for names, arguments and what is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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

_NODE_ID = re.compile("[0-9a-f]{56}")
_SELECTOR = re.compile(r"(?P<no>!?)\s*(?:in\s*\((?P<list>.*)\)|(?P<one>[^!(),]*))")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
"""A value of a label, as Ray and Kubernetes allow it."""


class NodeAffinitySchedulingStrategy:
    """Run on the node `node_id` (56 hexadecimal digits, as `detray.nodes()` shows them).

    A busy node is waited for. If it is dead, or can never run the task, the task fails with
    TaskUnschedulableError, or runs elsewhere if `soft`. `_spill_on_unavailable`: elsewhere also if
    the node is busy; `_fail_on_unavailable`: fail then.

    Raises ValueError for an id that cannot be, or flags that contradict each other.
    """

    def __init__(
        self,
        node_id: Any,  # Any: a str, or an id of Ray's kind, which has .hex()
        soft: bool,
        _spill_on_unavailable: bool = False,
        _fail_on_unavailable: bool = False,
    ) -> None:
        if not isinstance(node_id, str):
            node_id = node_id.hex()
        if not _NODE_ID.fullmatch(node_id.lower()):
            raise ValueError(
                f"node_id={node_id!r} is no id of a node: that is 56 hexadecimal digits, such as "
                "detray.nodes() and detray.get_runtime_context().get_node_id() give"
            )
        if _spill_on_unavailable and not soft:
            raise ValueError(
                "_spill_on_unavailable cannot be set when soft is False. Please set soft to True "
                "to use _spill_on_unavailable."
            )
        if _fail_on_unavailable and soft:
            raise ValueError("_fail_on_unavailable cannot be set when soft is True.")
        self.node_id = node_id.lower()
        self.soft = bool(soft)
        self._spill_on_unavailable = bool(_spill_on_unavailable)
        self._fail_on_unavailable = bool(_fail_on_unavailable)

    def to_core(self) -> Strategy:
        """Its form inside detray."""
        return Strategy(
            AFFINITY, self.node_id, self.soft, self._spill_on_unavailable, self._fail_on_unavailable
        )

    def __repr__(self) -> str:
        return f"NodeAffinitySchedulingStrategy({self.node_id!r}, soft={self.soft})"


class _Match:
    """What a label must be: `values`, and how they count."""

    operator = ""

    def __init__(self, *values: str) -> None:
        if not values:
            name = type(self).__name__
            raise ValueError(
                f"The variadic parameter of the {name} operator must be a non-empty tuple: "
                f"e.g. {name}('value1', 'value2')."
            )
        self.values = list(values)
        self._check()

    def _check(self) -> None:
        for place, value in enumerate(self.values):
            if not isinstance(value, str):
                raise ValueError(
                    f"Type of value in position {place} for the {type(self).__name__} operator "
                    f'must be str (e.g. {type(self).__name__}("value1", "value2")) '
                    f"but got {value!r} of type {type(value)}."
                )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.values))})"


class In(_Match):
    """The label has one of these values."""

    operator = IN


class NotIn(_Match):
    """The label has none of these values, or is not there."""

    operator = NOT_IN


class Exists(_Match):
    """The label is there."""

    operator = EXISTS

    def __init__(self) -> None:
        self.values = []


class DoesNotExist(_Match):
    """The label is not there."""

    operator = MISSING

    def __init__(self) -> None:
        self.values = []


class NodeLabelSchedulingStrategy:
    """Run on a node with the labels that `hard` asks for, rather on one with those of `soft`.

    Both are dicts of label to `In`, `NotIn`, `Exists` or `DoesNotExist`. While no node is as `hard`
    says the task waits, and that is reported.

    Raises ValueError if both are empty, or for what is no such dict.
    """

    def __init__(self, hard: Any = None, *, soft: Any = None) -> None:  # Any: checked below
        self.hard = _checked("hard", hard)
        self.soft = _checked("soft", soft)
        if not (self.hard or self.soft):
            raise ValueError(
                "The `hard` and `soft` parameter of NodeLabelSchedulingStrategy cannot both be "
                "empty."
            )

    def to_core(self) -> Strategy:
        """Its form inside detray."""
        return Strategy(hard=_expressions(self.hard), soft=_expressions(self.soft))

    def __repr__(self) -> str:
        return f"NodeLabelSchedulingStrategy(hard={self.hard}, soft={self.soft})"


def _checked(name: str, given: Any) -> dict[str, _Match]:  # Any: what a program gave
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(
            f"The {name} parameter must be a map (e.g. "
            f'{{"key1": In("value1")}}) but got type {type(given)}.'
        )
    for key, value in given.items():
        if not isinstance(key, str):
            raise ValueError(
                f"The map key of the {name} parameter must be of type str "
                f'(e.g. {{"key1": In("value1")}}) but got {key!r} of type {type(key)}.'
            )
        if not isinstance(value, _Match):
            raise ValueError(
                f"The map value for key {key!r} of the {name} parameter must be one of the "
                f"operators In, NotIn, Exists or DoesNotExist, but got {value!r}."
            )
    return dict(given)


def _expressions(given: Mapping[str, _Match]) -> tuple[Expression, ...]:
    """Sorted, so that equal ones are the same."""
    return tuple(
        Expression(key, match.operator, tuple(dict.fromkeys(match.values)))
        for key, match in sorted(given.items())
    )


# ------------------------------------------------------------------ options


def is_strategy(value: object) -> bool:
    """True for what `scheduling_strategy` may be, names aside."""
    return isinstance(value, NodeAffinitySchedulingStrategy | NodeLabelSchedulingStrategy)


def strategy_of(strategy: Any, selector: Any) -> Strategy | None:  # Any: both were checked
    """The options `scheduling_strategy` and `label_selector` as one; None if they say nothing."""
    found = Strategy(SPREAD) if strategy == "SPREAD" else None
    if is_strategy(strategy):
        found = strategy.to_core()
    if not selector:
        return found
    found = found or Strategy()
    parts = (found.kind, found.node, found.is_soft, found.spills, found.fails)
    return Strategy(*parts, found.hard + selected(selector), found.soft)


def selected(selector: Mapping[str, str]) -> tuple[Expression, ...]:
    """A `label_selector`: label to "value", "!value", "in(a, b)" or "!in(a, b)".

    Raises ValueError for anything else.
    """
    found = []
    for key, text in sorted(selector.items()):
        match = _SELECTOR.fullmatch(text.strip())
        values: list[str] = []
        if match is not None:
            listed = match["list"]
            values = [match["one"]] if listed is None else listed.split(",")
            values = [value.strip().strip("'\"") for value in values]
        if match is None or not all(map(_LABEL.fullmatch, values)):
            raise ValueError(
                f"Invalid label selector value {text!r} for key {key!r}: it must be 'value', "
                "'!value', 'in(value1, value2)' or '!in(value1, value2)'"
            )
        operator = NOT_IN if match["no"] else IN
        found.append(Expression(key, operator, tuple(dict.fromkeys(values))))
    return tuple(found)
