"""Parts of a task's time, and what is behind them, in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from detray.core.resources import format_demand
from detray.ids import ClientID
from detray.trace.explaining.parts import (
    ARGUMENT,
    FETCH,
    GET,
    PLACE,
    QUEUE,
    RESOURCE,
    RESUME,
    ROOM,
    RUN,
    START,
    Part,
)
from detray.trace.explaining.tree import EVENT, Cause
from detray.trace.gathering.lives import LOST, TaskLife, Transfer
from detray.trace.names import short
from detray.trace.quantities import size_text

if TYPE_CHECKING:
    from detray.trace.explaining.causes import Explainer


ENDED = "had ended, and its owner had not heard of it"


def part_text(x: Explainer, life: TaskLife, part: Part, *, is_open: bool = False) -> str:
    """What a task did, or waited for, in a part of its time; `is_open`: it still does."""
    text = _open_text(x, life, part) if is_open else _text(x, life, part)
    return text if text else "did what the trace does not tell"


def _text(x: Explainer, life: TaskLife, part: Part) -> str:
    node = x.node_named(part.core, part.node)
    worker = x.worker_named(part.core, part.client)
    match part.kind:
        case "argument":
            return f"waited for its argument {_value(x, part)}"
        case "place":
            return f"waited at the head for a place{_infeasible(life, part)}"
        case "travel":
            return _travel(life, part, node)
        case "fetch":
            return f"waited for the bytes of its argument {_value(x, part)} to reach {node}"
        case "resource":
            if part.text:
                return f"waited to be run again; it needs {_demand(life)}"
            return f"waited on {node} to be sent to a worker; it needs {_demand(life)}"
        case "start":
            return f"waited for the process of {worker} to start"
        case "queue":
            return f"waited in the queue of {worker}"
        case "run":
            return f"ran on {worker}"
        case "get":
            failed = f", which failed: {part.text}" if part.text else ""
            return f"stood still in a get for {_value(x, part)}{failed}"
        case "resume":
            return f"had {_value(x, part)} and waited to go on after its get"
        case "room":
            refused = f", and there was none: {part.text}" if part.text else ""
            return f"waited for room in the store for {short(part.item)}{refused}"
        case "report":
            return ENDED
        case "kept":
            return "had finished, and its value was taken to be there" + (
                f", until {part.text}" if part.text else ""
            )
    return ""


_NOW = {
    ARGUMENT: "waits for its argument",
    PLACE: "waits at the head for a place",
    FETCH: "waits for the bytes of its argument",
    RESOURCE: "waits",
    START: "waits for the process",
    QUEUE: "waits in the queue",
    RUN: "runs",
    GET: "stands still in a get",
    RESUME: "waits to go on",
    ROOM: "waits for room in the store",
}
_THEN = {
    ARGUMENT: "waited for its argument",
    PLACE: "waited at the head for a place",
    FETCH: "waited for the bytes of its argument",
    RESOURCE: "waited",
    START: "waited for the process",
    QUEUE: "waited in the queue",
    RUN: "ran",
    GET: "stood still in a get",
    RESUME: "waited to go on",
    ROOM: "waited for room in the store",
}


def _open_text(x: Explainer, life: TaskLife, part: Part) -> str:
    text = _text(x, life, part)
    then = _THEN.get(part.kind)
    return text.replace(then, _NOW[part.kind], 1) if then else text


def _value(x: Explainer, part: Part) -> str:
    return x.value_named(part.item) if part.item else "something"


def _demand(life: TaskLife) -> str:
    return format_demand(life.demand) if life.demand else "what its template says"


def _infeasible(life: TaskLife, part: Part) -> str:
    if not part.text:
        return ""
    return (
        f", and no node could ever run it: it needs {_demand(life)}, the most of each that any has "
        f"is {part.text}"
    )


def _travel(life: TaskLife, part: Part, node: str) -> str:
    if part.core >= 0:
        lost = " and never reached it" if part.is_lost else ""
        return f"was on its way to {node}{lost}"
    run = next((run for run in life.attempts if run.number == part.attempt), None)
    how = " and was lost there" if run is not None and run.state == LOST else ""
    return f"was at {node}, whose recording is not in the trace{how}"


def meanwhile_text(names: Sequence[str]) -> str:
    """Many runs in a few words."""
    counts = Counter(names).most_common(3)
    if len(counts) == 1:
        return f"{len(names)} more {'run' if len(names) == 1 else 'runs'} of {names[0]}"
    shown = ", ".join(f"{count} of {name}" for name, count in counts)
    rest = len(set(names)) - len(counts)
    others = f" and of {rest} other functions" if rest > 0 else ""
    return f"{len(names)} more runs: {shown}{others}"


def away_text(x: Explainer, transfer: Transfer, until_ns: int) -> Cause:
    """A transfer."""
    source = x.node_named(x.history.core_of(transfer.source), transfer.source)
    text = f"{size_text(max(0, transfer.size_bytes))} came from {source}"
    if transfer.reason:
        text = f"a transfer from {source} broke off: {transfer.reason}"
    elif transfer.ended_ns < 0:
        text = f"{size_text(max(0, transfer.size_bytes))} were coming from {source}"
    length_ns = until_ns - transfer.began_ns
    return Cause(
        EVENT, text, length_ns, x.since(transfer.began_ns), x.since(transfer.ended_ns),
        about=short(transfer.object),
    )  # fmt: skip


def reason_text(x: Explainer, client: ClientID, core: int) -> str:
    """A client in words."""
    if client < 0:
        return f"driver {-client}{x.history.where(core)}"
    return f"worker {client}{x.history.where(core)}" if client else "its owner"
