"""Stories: the steps of a trace that touch one task, object, worker or node, in plain sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.head_messages import NodeBuried
from detray.ids import OBJECT_ID_BYTES, TASK_ID_BYTES, ClientID, NodeID, ObjectID, TaskID, is_put
from detray.trace.format import TraceError
from detray.trace.gathering.history import History, follow, history_of, new_history
from detray.trace.gathering.lives import ARRIVED, FAILED, LOST, MADE_AGAIN, Attempt, ObjectLife
from detray.trace.links import AT_HEAD
from detray.trace.names import first_line, is_a_put, matches, short
from detray.trace.plain_text import one_line
from detray.trace.play import Makers, Opening, Told, schedulers, tell
from detray.trace.reading import Trace
from detray.trace.telling.nodes import is_of_node
from detray.trace.telling.sentences import SILENT, sentence

_CLIENT = re.compile(
    r"(?:(worker|driver)[ -]?|w)(\d+)(?: on| of|,)?(?: ?(?:node[ -]?|n)(\d+))?$", re.IGNORECASE
)
_NODE = re.compile(r"(?:node[ -]?|n)(\d+)$", re.IGNORECASE)
_CANDIDATES_MAX = 20


class StoryLine(NamedTuple):
    """One fact: `since_ns` after the trace began, in step `step`.

    Lines are in the order of the steps. Where machines tell different dates, `since_ns` may go
    back between two of them.
    """

    since_ns: int
    step: int
    text: str

    def __str__(self) -> str:
        return f"{self.since_ns / 1e9:12.6f} s  step {self.step:<7} {one_line(self.text)}"


class StorySubject(NamedTuple):
    """What a story is about: an id, or a client (then `item` is empty) of a node (-1: of any).

    Without a client it is the node itself, or the head (-1).
    """

    item: bytes
    client: ClientID
    node: NodeID = NodeID(-1)

    def __str__(self) -> str:
        if self.item:
            return short(self.item)
        if not self.client:
            return f"node {self.node}" if self.node >= 0 else "head"
        name = f"worker {self.client}" if self.client > 0 else f"driver {-self.client}"
        return f"{name} on node {self.node}" if self.node >= 0 else name


def story(trace: Trace, subject: StorySubject, makers: Makers = schedulers) -> Iterator[StoryLine]:
    """All that `trace` says about `subject`. Raises TraceError."""
    teller = _Teller(trace, subject)
    for item in tell(trace, makers):
        yield from teller.take(item)


class _Teller:
    """Tells the story of one subject, step by step."""

    def __init__(self, trace: Trace, subject: StorySubject) -> None:
        self._trace = trace
        self._subject = subject
        self._is_about = _test(subject)
        self._history = new_history(trace)
        self._began_ns: int | None = None
        self._is_of_node = not subject.item and not subject.client
        self._has_nodes = bool(trace.header.local_cores())
        self._dead: set[NodeID] = set()
        """Nodes of whose death the story has told."""

    def take(self, item: Opening | Told) -> Iterator[StoryLine]:
        """What a step says of it."""
        history = self._history
        lost_before = len(_lost(history, self._subject))
        is_local = follow(history, self._trace, item)
        if isinstance(item, Opening):
            return
        core, number = item.step.core, item.step.number
        date_ns = self._trace.header.date_ns(core, item.step.now_ns)
        if is_local or self._is_of_node or not self._has_nodes:
            if self._began_ns is None and (is_local or not self._has_nodes):
                self._began_ns = date_ns  # by the nodes, as `detray why` counts
            history.core = core
            since = date_ns - (date_ns if self._began_ns is None else self._began_ns)
            for text in (*self._losses(item, lost_before), *self._said(item, is_local)):
                yield StoryLine(since, number, text)

    def _losses(self, item: Told, before: int) -> Iterator[str]:
        """What no message names: runs that ended with a worker, copies that ended with a node."""
        for run in _lost(self._history, self._subject)[before:]:
            reason = first_line(run.error)
            yield f"its run on {_place(run, self._history)} is lost: {reason}"
        life = self._history.objects.get(ObjectID(self._subject.item))
        if life is None:
            return
        for message in item.stimuli:
            if type(message) is not NodeBuried or message.node in self._dead:
                continue
            if message.node in holders(self._history, life):
                self._dead.add(message.node)
                yield f"node {message.node} is dead, and its copy with it: {message.reason}"

    def _said(self, item: Told, is_local: bool) -> Iterator[str]:
        subject = self._subject
        is_there = self._history.node_of(item.step.core) == subject.node
        if subject.client and subject.node >= 0 and not is_there:
            return
        for message in _messages(item):
            if isinstance(message, SILENT):
                continue
            if self._is_of_node:
                is_own = is_there if subject.node >= 0 else not is_local
                is_told = is_of_node(message, subject.node, is_own)
            else:
                is_told = self._is_about(message)
            if is_told:
                yield sentence(_narrowed(message, subject.item), self._history)


def holders(history: History, life: ObjectLife) -> set[NodeID]:
    """The nodes that had a copy of an object at some time."""
    found = {history.node_of(life.core)}
    found.update(
        history.node_of(move.core) for move in life.moves if move.kind in (ARRIVED, MADE_AGAIN)
    )
    return found - {NodeID(-1)}


def _place(run: Attempt, history: History) -> str:
    if not run.worker:
        return f"node {run.node}"
    return f"worker {run.worker}{history.where(run.core)}"


def find_subject(
    trace: Trace, wanted: str, makers: Makers = schedulers, history: History | None = None
) -> StorySubject:
    """What a user means by `wanted`: an id, the start of its hex, a short name, "worker 3", "worker
    3 on node 1", "node 1", "head", or the name of a function that was called once, or failed once.

    `history` is that of the trace, if the caller has it. Raises TraceError if that is nothing, or
    several.
    """
    text = wanted.strip()
    client = _CLIENT.match(text)
    if client:
        sign = -1 if (client[1] or "").lower() == "driver" else 1
        node = NodeID(int(client[3])) if client[3] else NodeID(-1)
        subject = StorySubject(b"", ClientID(sign * int(client[2])), node)
        return _find_client(trace, subject, history, makers)
    history = history or history_of(trace, makers)
    numbered = _NODE.match(text)
    if numbered:
        return _find_node(trace, NodeID(int(numbered[1])), history)
    ids: list[bytes] = [*history.tasks, *history.objects]
    found = [item for item in ids if matches(item, wanted)]
    exact = [item for item in found if item.hex() == text.lower()]
    found = exact or found
    if not found:
        called = [life for life in history.tasks.values() if life.name == text]
        failed = [life for life in called if life.state == FAILED]
        found = [life.id for life in (failed if len(failed) == 1 else called)]
    if len(found) == 1:
        return StorySubject(found[0], ClientID(0))
    if not found:
        if text.lower() in ("head", "the head"):
            return StorySubject(b"", ClientID(0), AT_HEAD)
        raise TraceError(
            f"{trace.name} knows nothing of {wanted!r}: give an id (`ref.hex()`), a name such as "
            '1.9f3a12.3, a function, "worker 3", "node 2" or "head"'
        )
    names = ", ".join(map(short, found[:_CANDIDATES_MAX]))
    raise TraceError(f"{wanted!r} may be any of {len(found)}: {names}")


def _find_node(trace: Trace, node: NodeID, history: History) -> StorySubject:
    """A node that the trace shows, or that others in it speak of."""
    if node not in history.members and node not in history.nodes:
        known = sorted({*history.members, *(n for n in history.nodes if n >= 0)})
        names = ", ".join(map(str, known[:_CANDIDATES_MAX])) or "none"
        raise TraceError(f"{trace.name} knows nothing of node {node}; it knows: {names}")
    return StorySubject(b"", ClientID(0), node)


def _find_client(
    trace: Trace, subject: StorySubject, history: History | None, makers: Makers
) -> StorySubject:
    """With its node, where the trace has several."""
    if subject.node >= 0 or len(trace.header.local_cores()) < 2:
        return subject
    history = history or history_of(trace, makers)
    seats = [*history.workers, *history.programs]
    nodes = sorted(history.node_of(core) for core, client in seats if client == subject.client)
    if len(nodes) < 2:
        return subject._replace(node=nodes[0]) if nodes else subject
    names = ", ".join(str(subject._replace(node=node)) for node in nodes[:_CANDIDATES_MAX])
    raise TraceError(f"{str(subject)!r} may be any of {len(nodes)}: {names}")


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


def _narrowed(message: Any, item: bytes) -> Any:  # Any: a stimulus or an effect
    """A message that lets many things go, with no more of them than what is of `item`."""
    name = _LISTS.get(type(message)) if item else None
    if name is None:
        return message
    listed = getattr(message, name)
    own = [key for key in listed if key.startswith(item) and is_a_put(key) == is_a_put(item)]
    return msgspec.structs.replace(message, **{name: tuple(own)}) if own else message


_LISTS: dict[type, str] = {
    ef.DropPayloads: "keys",
    st.RefsDropped: "objects",
    st.ViewsDropped: "objects",
}
"""Messages about hundreds of things that have nothing in common but the moment, and their field."""


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
