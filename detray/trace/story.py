"""Stories: the steps of a trace that touch one task, object or worker, in plain sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from detray.ids import OBJECT_ID_BYTES, TASK_ID_BYTES, ClientID, ObjectID, TaskID, is_put
from detray.trace.format import LOCAL, TraceError
from detray.trace.history import History, history_of
from detray.trace.lives import LOST, Attempt
from detray.trace.names import matches, short
from detray.trace.play import Makers, Opening, Told, schedulers, tell
from detray.trace.reading import Trace
from detray.trace.sentences import sentence

_CLIENT = re.compile(r"(?:(worker|driver)[ -]?|w)(\d+)$", re.IGNORECASE)
_CANDIDATES_MAX = 20


class StoryLine(NamedTuple):
    """One fact: `since_ns` after the trace began, in step `step`."""

    since_ns: int
    step: int
    text: str

    def __str__(self) -> str:
        return f"{self.since_ns / 1e9:12.6f} s  step {self.step:<7} {self.text}"


class StorySubject(NamedTuple):
    """What a story is about: an id, or a client (then `item` is empty)."""

    item: bytes
    client: ClientID

    def __str__(self) -> str:
        if self.item:
            return short(self.item)
        return f"worker {self.client}" if self.client > 0 else f"driver {-self.client}"


def story(trace: Trace, subject: StorySubject, makers: Makers = schedulers) -> Iterator[StoryLine]:
    """All that `trace` says about `subject`. Raises TraceError."""
    is_about = _test(subject)
    history = History()
    began_ns: int | None = None
    for item in tell(trace, makers):
        if isinstance(item, Opening) or item.step.core != LOCAL:
            continue
        began_ns = item.step.now_ns if began_ns is None else began_ns
        since, number = item.step.now_ns - began_ns, item.step.number
        lost_before = _lost(history, subject)
        history.take(item.step.now_ns, item.stimuli, item.effects)
        for run in _lost(history, subject)[len(lost_before) :]:
            yield StoryLine(since, number, f"its run on worker {run.worker} is lost: {run.error}")
        for message in _messages(item):
            if is_about(message):
                yield StoryLine(since, number, sentence(message, history))


def find_subject(trace: Trace, wanted: str, makers: Makers = schedulers) -> StorySubject:
    """What a user means by `wanted`: an id, the start of its hex, a short name, "worker 3", or the
    name of a function that was called once. Raises TraceError if that is nothing, or several.
    """
    client = _CLIENT.match(wanted.strip())
    if client:
        sign = -1 if (client[1] or "").lower() == "driver" else 1
        return StorySubject(b"", ClientID(sign * int(client[2])))
    history = history_of(trace, makers)
    ids: list[bytes] = [*history.tasks, *history.objects]
    found = [item for item in ids if matches(item, wanted)]
    exact = [item for item in found if item.hex() == wanted.strip().lower()]
    found = exact or found
    if not found:
        found = [life.id for life in history.tasks.values() if life.name == wanted.strip()]
    if len(found) == 1:
        return StorySubject(found[0], ClientID(0))
    if not found:
        raise TraceError(
            f"{trace.name} knows nothing of {wanted!r}: give an id (`ref.hex()`), "
            'a name such as 1.9f3a12.3, a function, or "worker 3"'
        )
    names = ", ".join(map(short, found[:_CANDIDATES_MAX]))
    raise TraceError(f"{wanted!r} may be any of {len(found)}: {names}")


def _lost(history: History, subject: StorySubject) -> list[Attempt]:
    """The attempts of a task that ended with their worker: no message names them."""
    life = history.tasks.get(TaskID(subject.item))
    return [run for run in life.attempts if run.state == LOST] if life else []


def _messages(item: Told) -> Iterator[Any]:  # Any: stimuli and effects
    yield from item.stimuli
    yield from item.effects or ()


def _test(subject: StorySubject) -> Callable[[Any], bool]:
    """Encoded and searched: much faster than looking through the fields of every message."""
    if not subject.item:
        return lambda message: getattr(message, "client", None) == subject.client
    needle = subject.item
    encode = msgspec.msgpack.encode
    if len(needle) == TASK_ID_BYTES:
        return lambda message: needle in encode(message) and _is_task(message, needle)
    return lambda message: needle in encode(message)


def _is_task(value: Any, task: bytes) -> bool:  # Any: a message or a part of one
    """True if `value` names the task or a return of it; a put may share the sixteen bytes."""
    if isinstance(value, bytes):
        if value == task:
            return True
        is_object = len(value) == OBJECT_ID_BYTES and value.startswith(task)
        return is_object and not is_put(ObjectID(value))
    if isinstance(value, msgspec.Struct):
        return any(_is_task(getattr(value, name), task) for name in value.__struct_fields__)
    return isinstance(value, tuple | list) and any(_is_task(part, task) for part in value)
