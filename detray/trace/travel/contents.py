"""Contents: what a replay notes while it plays a trace for the first time, to find steps by later.

In which steps a kind of message occurs, when tasks failed, what tasks and puts are called. Small
beside the trace itself: eight bytes a message, a name a task.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from detray.core.effects import SendToHead, SendToNode, SendToPeer
from detray.core.payloads import template_number
from detray.core.peer_messages import RunDelivered, TemplateShipped
from detray.core.stimuli import BlockSealed, ObjectPut, RunFailed, TaskSubmitted, TemplateDefined
from detray.core.tables import Tables
from detray.ids import (
    NO_CLIENT,
    OBJECT_ID_BYTES,
    TASK_ID_BYTES,
    ClientID,
    NodeID,
    ObjectID,
    TaskID,
    task_of,
)
from detray.trace.format import Header, LocalCore, TraceError
from detray.trace.names import matches, short
from detray.trace.play import Core, Opening, Played
from detray.trace.telling.story import StorySubject

T = TypeVar("T", bound=bytes)
_CLIENT = re.compile(
    r"(worker|driver)[ -]?(\d+)(?:,? on|,)?(?: ?(?:node[ -]?|n)(\d+))?", re.IGNORECASE
)
_NODE = re.compile(r"node[ -]?(\d+)", re.IGNORECASE)
_CANDIDATES_MAX = 20
_TIME_MAX_NS = (1 << 63) - 1
"""Later than that is no time but a lie."""


class Contents:
    """Filled by `take` step by step. Numbers of steps are in ascending order everywhere."""

    def __init__(self) -> None:
        self.stimuli: dict[type, array[int]] = {}
        """By class of message, the steps in which a core was told one."""
        self.effects: dict[type, array[int]] = {}
        """The same for what cores ordered, and for messages inside of that."""
        self.failed: array[int] = array("Q")
        """Steps in which a task failed for good, at the node that owns it."""
        self.cancelled: array[int] = array("Q")
        self.times_ns: array[int] = array("q")
        """By step from the first: its core's clock."""
        self.dates_ns: array[int] = array("q")
        """The same as nanoseconds since 1970."""
        self.began_ns = 0
        """The date of the first step of a node, as in stories; of the first step without any."""
        self._is_early = True
        self.tasks: dict[TaskID, str] = {}
        """Names of the functions of tasks, in the order of their submission."""
        self.puts: dict[ObjectID, None] = {}
        self._erred: dict[TaskID, None] = {}
        """Tasks of which an attempt raised an error."""
        self._templates: dict[tuple[int, int], str] = {}
        self._shipped: dict[tuple[int, int], str] = {}
        self._counts: dict[int, tuple[int, int]] = {}

    def open(self, opening: Opening) -> None:
        """Cores begin, some with what they know from before."""
        for number in opening.fresh:
            tables = getattr(opening.cores[number], "tables", None)
            if not isinstance(tables, Tables):
                continue
            self._counts[number] = _ends(tables)
            for template in tables.templates.values():
                self._templates[number, template.number] = template.name
            for task in tables.tasks.values():
                name = self._templates.get((number, task.template), "task")
                self.tasks.setdefault(task.spec.task, name)
            self.puts.update(dict.fromkeys(tables.objects))

    def take(self, played: Played, header: Header, core: Core | None) -> None:
        """A step; `core` is the one that took it, None if it was not played."""
        number = played.step.number
        self.times_ns.append(min(played.step.now_ns, _TIME_MAX_NS))
        date_ns = header.date_ns(played.step.core, played.step.now_ns)
        date_ns = max(-_TIME_MAX_NS, min(date_ns, _TIME_MAX_NS))
        self.dates_ns.append(date_ns)
        if self._is_early:
            self._is_early = not isinstance(header.cores[played.step.core], LocalCore)
            if not self._is_early or len(self.dates_ns) == 1:
                self.began_ns = date_ns
        stimuli, effects = self.stimuli, self.effects
        for message in played.stimuli:
            kind = type(message)
            if kind in stimuli:
                stimuli[kind].append(number)
            else:
                stimuli[kind] = array("Q", (number,))
            note = _NOTES.get(kind)
            if note is not None:
                note(self, played.step.core, message)
        for effect in played.effects:
            effects.setdefault(type(effect), array("Q")).append(number)
            if isinstance(effect, SendToHead | SendToNode | SendToPeer):
                effects.setdefault(type(effect.message), array("Q")).append(number)
        tables = getattr(core, "tables", None)
        if type(tables) is Tables:
            before = self._counts.get(played.step.core, (0, 0))
            now = _ends(tables)
            if now != before:
                self._counts[played.step.core] = now
                if now[0] > before[0]:
                    self.failed.append(number)
                if now[1] > before[1]:
                    self.cancelled.append(number)

    def told(self, *kinds: type) -> list[int]:
        """The steps in which a core was told a message of one of these classes, each once."""
        return _merged(self.stimuli.get(kind) for kind in kinds)

    def ordered(self, *kinds: type) -> list[int]:
        """The steps that ordered one of these, or sent a message of one of these classes."""
        return _merged(self.effects.get(kind) for kind in kinds)

    def find_tasks(self, wanted: str) -> list[TaskID]:
        """The tasks that a user may mean: one by its id, or all of a function by its name.

        Raises TraceError if that is none, or several that only begin alike.
        """
        name = wanted.strip()
        found = [item for item in self.tasks if matches(item, name)]
        if not found:
            try:
                item = bytes.fromhex(name)
            except ValueError:
                item = b""
            if len(item) in (TASK_ID_BYTES, OBJECT_ID_BYTES) and item[:TASK_ID_BYTES] in self.tasks:
                return [TaskID(item[:TASK_ID_BYTES])]
            found = [item for item, function in self.tasks.items() if function == name]
            if not found:
                _refuse(wanted)
            return found
        return [_only(found, wanted)]

    def find_object(self, wanted: str) -> ObjectID:
        """The object that a user means by an id, its beginning, or a short name.

        Raises TraceError if that is none, or several.
        """
        name = wanted.strip().lower()
        try:
            item = bytes.fromhex(name)
        except ValueError:
            item = b""
        if len(item) == OBJECT_ID_BYTES:
            return ObjectID(item)
        found = [item for item in self.puts if matches(item, name)]
        head, slash, index = name.rpartition("/")
        if slash and index.isdigit():
            tasks = [item for item in self.tasks if matches(item, head)]
            found += [ObjectID(item + int(index).to_bytes(4, "big")) for item in tasks]
        if not found:
            _refuse(wanted)
        return _only(list(dict.fromkeys(found)), wanted)

    def find(self, wanted: str) -> StorySubject:
        """One thing that a user names: as `find_tasks` and `find_object`, or "worker 3", "node 2".

        A function stands for the call of it that failed, if only one did. Raises TraceError if that
        is none, or several.
        """
        client = _CLIENT.fullmatch(wanted.strip())
        if client:
            sign = -1 if client[1].lower() == "driver" else 1
            node = NodeID(int(client[3])) if client[3] else NodeID(-1)
            return StorySubject(b"", ClientID(sign * int(client[2])), node)
        numbered = _NODE.fullmatch(wanted.strip())
        if numbered:
            return StorySubject(b"", NO_CLIENT, NodeID(int(numbered[1])))
        try:
            tasks = self.find_tasks(wanted)
        except TraceError as error:
            try:
                return StorySubject(self.find_object(wanted), NO_CLIENT)
            except TraceError:
                raise error from None
        erred = [task for task in tasks if task in self._erred]
        return StorySubject(_only(erred if len(erred) == 1 else tasks, wanted), NO_CLIENT)

    # ---------------------------------------------------------------- what messages tell

    def _on_template(self, core: int, m: TemplateDefined) -> None:
        self._templates[core, template_number(m.client, m.template)] = m.name

    def _on_shipped(self, core: int, m: TemplateShipped) -> None:
        self._shipped[m.node, m.template] = m.name

    def _on_submitted(self, core: int, m: TaskSubmitted) -> None:
        number = template_number(m.client, m.template)
        self.tasks[m.task] = self._templates.get((core, number), "task")

    def _on_failed(self, core: int, m: RunFailed) -> None:
        self._erred[m.task] = None

    def _on_delivered(self, core: int, m: RunDelivered) -> None:
        self.tasks.setdefault(m.task, self._shipped.get((m.node, m.template), "task"))

    def _on_put(self, core: int, m: ObjectPut | BlockSealed) -> None:
        if TaskID(task_of(m.object)) not in self.tasks:
            self.puts[m.object] = None


_NOTES: dict[type, Any] = {  # Any: each takes the message type that is its key
    TemplateDefined: Contents._on_template,
    TemplateShipped: Contents._on_shipped,
    TaskSubmitted: Contents._on_submitted,
    RunFailed: Contents._on_failed,
    RunDelivered: Contents._on_delivered,
    ObjectPut: Contents._on_put,
    BlockSealed: Contents._on_put,
}


def _merged(lists: Iterable[Iterable[int] | None]) -> list[int]:
    return sorted({number for numbers in lists if numbers is not None for number in numbers})


def _ends(tables: Tables) -> tuple[int, int]:
    """How many tasks have failed, and how many were cancelled."""
    counts = tables.counts
    return counts.get("failed", 0), counts.get("cancelled", 0)


def _only(found: list[T], wanted: str) -> T:
    exact = [item for item in found if bytes(item).hex() == wanted.strip().lower()]
    found = exact or found
    if len(found) == 1:
        return found[0]
    names = ", ".join(map(short, found[:_CANDIDATES_MAX]))
    raise TraceError(f"{wanted!r} may be any of {len(found)}: {names}")


def _refuse(wanted: str) -> NoReturn:
    raise TraceError(
        f"the trace knows nothing of {wanted!r}: give an id (`ref.hex()`), a name such as "
        "1.9f3a12.3, or a function"
    )
