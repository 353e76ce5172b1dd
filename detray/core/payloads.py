"""Which bytes travel with which message: the one place that knows the order of a frame's payload.

The driver keeps payload bytes in a dict by key. `incoming` says under which keys the slices of a
received frame go, `outgoing` whose bytes are appended to a frame that is sent. A size of 0 means no
payload at all. Incoming bytes never replace bytes that are there (PROTOCOL N6: live values are
never replaced); a return of a later attempt arrives under a key of its own and the core orders a
`CopyPayload` when it accepts it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detray.core import peer_messages as pm
from detray.core.effects import INLINE, DefineFunction, DefineTemplate, GetAnswered, RunTask
from detray.core.stimuli import (
    FunctionExported,
    ObjectPut,
    RunFailed,
    RunFinished,
    TaskSubmitted,
    TemplateDefined,
)
from detray.ids import ClientID, ObjectID, TaskID, TemplateID, first_return, return_object

Keys = list[tuple[bytes, int]]
_TEMPLATES_MAX = 1 << 32
"""Of one client."""
_ATTEMPTS_MAX = 1 << 32


def template_number(client: ClientID, template: TemplateID) -> int:
    """The node-wide number of a client's template; fits in 63 bits."""
    sender = client * 2 if client >= 0 else -client * 2 - 1
    return sender << 32 | template


def template_key(number: int) -> bytes:
    """Where the pickled exception classes of a template are kept."""
    return b"T" + number.to_bytes(8, "big")


def value_key(item: ObjectID, attempt: int) -> bytes:
    """Where an inline return arrives: under its id at first, apart from it on a later attempt."""
    return item if attempt == 0 else item + attempt.to_bytes(4, "big")


def error_key(task: TaskID, attempt: int) -> bytes:
    """Where the pickled error of an attempt arrives."""
    return task + b"E" + attempt.to_bytes(4, "big")


def _in_finished(m: RunFinished) -> Keys:
    if len(m.returns) == 1 and not m.attempt:
        only = m.returns[0]
        if only.in_block or not only.size_bytes:
            return []
        return [(first_return(m.task), only.size_bytes)]
    _check_attempt(m.attempt)
    return [
        (value_key(return_object(m.task, index), m.attempt), part.size_bytes)
        for index, part in enumerate(m.returns)
        if not part.in_block and part.size_bytes
    ]


def shipped_template_key(node: int, number: int) -> bytes:
    """Where the payload of another node's template arrives."""
    return b"T" + node.to_bytes(4, "big") + number.to_bytes(8, "big")


def _in_delivered(m: pm.RunDelivered) -> Keys:
    keys: Keys = [(m.task, m.size_bytes)] if m.size_bytes else []
    for arg in m.args:
        if arg.is_inline and arg.size_bytes:
            keys.append((arg.object, arg.size_bytes))
    return keys


def _in_done(m: pm.RunDone) -> Keys:
    _check_attempt(m.attempt)
    return [
        (value_key(return_object(m.task, index), m.attempt), part.size_bytes)
        for index, part in enumerate(m.returns)
        if not part.is_kept and part.size_bytes > 0
    ]


def _check_attempt(attempt: int) -> None:
    """Also where there is no payload: its keys are dropped by their names, too."""
    if not 0 <= attempt < _ATTEMPTS_MAX:
        raise OverflowError("no attempt has that number")


def _in_template(m: TemplateDefined) -> Keys:
    if not 0 <= m.template < _TEMPLATES_MAX:
        raise OverflowError("its number would be that of another client's template")
    return _in_sized(template_key(template_number(m.client, m.template)), m.size_bytes)


def _in_sized(key: bytes, size_bytes: int) -> Keys:
    return [(key, size_bytes)] if size_bytes else []


# Any: each entry takes the message type that is its key.
INCOMING: dict[type, Callable[[Any], Keys]] = {
    FunctionExported: lambda m: _in_sized(m.function, m.size_bytes),
    TemplateDefined: _in_template,
    TaskSubmitted: lambda m: _in_sized(m.task, m.size_bytes),
    ObjectPut: lambda m: _in_sized(m.object, m.size_bytes),
    RunFinished: _in_finished,
    RunFailed: lambda m: _in_sized(error_key(m.task, m.attempt), m.size_bytes),
    pm.FunctionShipped: lambda m: _in_sized(m.function, m.size_bytes),
    pm.TemplateShipped: lambda m: _in_sized(shipped_template_key(m.node, m.template), m.size_bytes),
    pm.RunDelivered: _in_delivered,
    pm.RunDone: _in_done,
    pm.RunErred: lambda m: _in_sized(error_key(m.task, m.attempt), m.size_bytes),
    pm.ValueSent: lambda m: _in_sized(m.object, m.size_bytes),
    pm.ValueFailed: lambda m: _in_sized(m.object, m.size_bytes),
}
"""By type of client or peer message: keys and sizes of the payload slices it brings, in order.

They raise OverflowError for numbers that no client and no node gives.
"""


def _out_run(e: RunTask) -> list[bytes]:
    keys: list[bytes] = [e.task] if e.size_bytes else []
    for place in e.args:
        if place.segment == INLINE and place.size_bytes:
            keys.append(place.object)
    return keys


def _out_answer(e: GetAnswered) -> list[bytes]:
    keys: list[bytes] = [p.object for p in e.places if p.segment == INLINE and p.size_bytes]
    if e.also:
        keys += [p.object for p in e.also]
    return keys


OUTGOING: dict[type, Callable[[Any], list[bytes]]] = {
    DefineFunction: lambda e: [e.function] if e.size_bytes else [],
    DefineTemplate: lambda e: [template_key(e.template)] if e.size_bytes else [],
    RunTask: _out_run,
    GetAnswered: _out_answer,
    pm.FunctionShipped: lambda m: [m.function] if m.size_bytes else [],
    pm.TemplateShipped: lambda m: [template_key(m.template)] if m.size_bytes else [],
    pm.RunDelivered: lambda m: [key for key, _ in _in_delivered(m)],
    pm.RunDone: lambda m: [key for key, _ in _in_done(m)],
    pm.RunErred: lambda m: [error_key(m.task, m.attempt)] if m.size_bytes else [],
    pm.ValueSent: lambda m: [m.object] if m.size_bytes else [],
    pm.ValueFailed: lambda m: [m.object] if m.size_bytes else [],
}
"""By type of message to a client or peer: the keys of the payload bytes to append, in order."""
