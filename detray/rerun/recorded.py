"""What is known of a recorded run, for who wants to run parts of it again.

The payload file says which task was called with what and what came of it; the trace adds where each
attempt ran, how it ended and what it was told when it waited. Nothing is unpickled here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from detray.core.effects import GetAnswered, RunTask
from detray.core.payloads import template_number
from detray.core.peer_messages import (
    FunctionShipped,
    RunDelivered,
    RunDone,
    RunErred,
    TemplateShipped,
    ValueSent,
)
from detray.core.stimuli import (
    BlockRequested,
    BlockSealed,
    FunctionExported,
    GetRequested,
    ObjectPut,
    RunFailed,
    RunFinished,
    TaskSubmitted,
    TemplateDefined,
)
from detray.errors import Failure
from detray.ids import (
    OBJECT_ID_BYTES,
    TASK_ID_BYTES,
    ClientID,
    FunctionID,
    NodeID,
    ObjectID,
    TaskID,
    child_prefix,
    is_put,
    job_of,
    return_object,
    root_task,
    task_of,
)
from detray.trace.format import LocalCore, TraceError
from detray.trace.gathering.history import History, follow, new_history
from detray.trace.links import nodes_of
from detray.trace.payloads.reading import KeptMessage, Payloads
from detray.trace.play import Told, tell
from detray.trace.reading import Trace

_STREAMS_MAX = 16
"""Threads of a task whose puts are told from those of others."""


class RecordedFunction(msgspec.Struct, frozen=True):
    """An exported function: its name and pickled definition."""

    name: str
    definition: memoryview


class CallTemplate(msgspec.Struct, frozen=True):
    """What many calls share."""

    function: FunctionID
    name: str
    num_returns: int
    demand: tuple[tuple[str, int], ...]


class Call(msgspec.Struct, frozen=True):
    """A task as it was submitted. `blob` are its pickled arguments (b"": none, or `packed`)."""

    task: TaskID
    template: CallTemplate | None
    parent: TaskID
    depth: int
    args: tuple[ObjectID, ...]
    refs: tuple[ObjectID, ...]
    packed: bool
    blob: bytes | memoryview

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.template.name if self.template else "a function that was not recorded"


class RecordedValue(msgspec.Struct, frozen=True):
    """A recorded value: its size, its digest (b"": none) and, if it came inline, its bytes."""

    size: int
    digest: bytes
    data: memoryview | None = None


class Raised(msgspec.Struct, frozen=True):
    """How an attempt failed."""

    kind: int
    summary: str
    payload: memoryview | None


class Seat(msgspec.Struct, frozen=True):
    """Where an attempt ran, and the devices it had there."""

    node: NodeID
    worker: ClientID
    units: tuple[tuple[str, tuple[int, ...]], ...]


class Answer(msgspec.Struct):
    """What a task was told when it waited: which of `objects` were there, or that time was up."""

    objects: tuple[ObjectID, ...]
    needed: int
    fetch: bool
    ready: set[ObjectID]
    timed_out: bool = False


Attempt = tuple[TaskID, int]


class Recorded:
    """A trace and its payloads, by id. Everything is in the order in which it was recorded."""

    def __init__(self, trace: Trace, payloads: Payloads) -> None:
        """Raises TraceError if the payloads are not this trace's, or make no sense."""
        _check_lives(trace, payloads)
        self.trace = trace
        self.payloads = payloads
        self.functions: dict[FunctionID, RecordedFunction] = {}
        self.calls: dict[TaskID, Call] = {}
        self.results: dict[Attempt, tuple[RecordedValue, ...]] = {}
        self.errors: dict[Attempt, Raised] = {}
        self.puts: dict[ObjectID, RecordedValue] = {}
        self.failures: dict[ObjectID, tuple[int, str]] = {}
        """What programs were told of objects without a value: failure and text."""
        self.seats: dict[Attempt, Seat] = {}
        self.answers: dict[Attempt, list[Answer]] = {}
        self._blocks = payloads.blocks
        self._latest: dict[TaskID, int] = {}
        self._values: dict[ObjectID, RecordedValue] = {}
        """Values that came from other nodes."""
        self._read_payloads()
        self.history = self._read_trace()
        self._attempts = self._number_attempts()
        self._makers: dict[bytes, TaskID] = {}
        """Who put what begins so; filled as far as it is asked for."""
        self._streams_known = 0

    # -------------------------------------------------------------- values

    def part(self, item: ObjectID) -> RecordedValue | None:
        """What is known of an object's value; of several attempts, the last one's."""
        if is_put(item):
            return self.puts.get(item) or self._values.get(item)
        parts = self.results.get((task_of(item), self._latest.get(task_of(item), 0)))
        index = int.from_bytes(item[16:], "big")
        if parts is not None and index < len(parts):
            return parts[index]
        return self._values.get(item)

    def bytes_of(self, item: ObjectID) -> bytes | memoryview | None:
        """An object's recorded bytes, None if they were not kept."""
        part = self.part(item)
        if part is not None and part.data is not None:
            return part.data
        attempt = 0 if is_put(item) else self._latest.get(task_of(item), 0)
        return self._block(item, attempt)

    def returned(self, task: TaskID, attempt: int, index: int) -> bytes | memoryview | None:
        """The recorded bytes of one return of one attempt, None if they were not kept."""
        parts = self.results.get((task, attempt), ())
        if index < len(parts) and parts[index].data is not None:
            return parts[index].data
        return self._block(return_object(task, index), attempt)

    def error_of(self, item: ObjectID) -> tuple[int, str, memoryview | None] | None:
        """The failure of an object: kind, text, pickled error; None if it is not known to have
        failed."""
        task = task_of(item)
        if is_put(item) or (task, self._latest.get(task, 0)) in self.results:
            return None
        raised = self.errors.get((task, self._latest.get(task, 0)))
        told = self.failures.get(item)
        if raised is not None:
            return raised.kind, raised.summary, raised.payload
        return (*told, None) if told is not None else None

    def maker_of(self, item: ObjectID) -> TaskID | None:
        """The task that returned or put an object; None for a driver's put, or if not known."""
        if not is_put(item):
            return task_of(item)
        while item[:12] not in self._makers and self._streams_known < _STREAMS_MAX:
            for task, numbers in self._attempts.items():
                for number in numbers:
                    self._makers[child_prefix(task, number, self._streams_known)] = task
            self._streams_known += 1
        return self._makers.get(item[:12])

    def is_of_driver(self, item: ObjectID) -> bool:
        """True for what the program itself put."""
        root = root_task(job_of(item))
        return any(item[:12] == child_prefix(root, 0, n) for n in range(_STREAMS_MAX))

    def latest(self, task: TaskID) -> int:
        """The number of the last attempt that is known, 0 if none is."""
        return self._latest.get(task, 0)

    def attempts(self, task: TaskID) -> list[int]:
        """The numbers of the attempts that are known."""
        return self._attempts.get(task, [])

    def ending(self, task: TaskID, attempt: int) -> tuple[str, str]:
        """How an attempt ended, in the words of `detray.trace.gathering.lives`, and why; ("", "")
        if nobody knows."""
        if (task, attempt) in self.results:
            return "finished", ""
        raised = self.errors.get((task, attempt))
        if raised is not None:
            return ("cancelled" if raised.kind == Failure.CANCELLED else "failed"), raised.summary
        life = self.history.tasks.get(task)
        for run in life.attempts if life is not None else ():
            if run.number == attempt:
                return run.state, run.error
        return "", ""

    def _number_attempts(self) -> dict[TaskID, list[int]]:
        found: dict[TaskID, set[int]] = {task: set() for task in self.calls}
        for life in self.history.tasks.values():
            found.setdefault(life.id, set()).update(run.number for run in life.attempts)
        for task, number in (*self.results, *self.errors, *self.seats):
            found.setdefault(task, set()).add(number)
        return {task: sorted(numbers) for task, numbers in found.items()}

    def _block(self, item: ObjectID, attempt: int) -> bytes | None:
        if (item, attempt) not in self._blocks:
            return None
        return self.payloads.block(item, attempt)

    # -------------------------------------------------------------- the payload file

    def _read_payloads(self) -> None:
        reader = _Reader(self)
        for said in self.payloads.said():
            handler = _ON_SAID.get(type(said.message))
            if handler is not None:
                handler(reader, said, said.message)
        reader.close()

    # -------------------------------------------------------------- the trace

    def _read_trace(self) -> History:
        trace = self.trace
        history = new_history(trace)
        nodes = nodes_of(trace)
        running: dict[tuple[int, TaskID], int] = {}
        asked: dict[tuple[int, ClientID, int], Answer] = {}
        for item in tell(trace):
            follow(history, trace, item)
            if not isinstance(item, Told):
                continue
            core = item.step.core
            if not isinstance(trace.header.cores[core], LocalCore):
                continue
            for m in item.stimuli:
                if type(m) is GetRequested and m.blocks and not (m.fetch and m.timeout_ns < 0):
                    attempt = running.get((core, m.blocks), 0)
                    answer = Answer(m.objects, m.needed, m.fetch, set())
                    asked[core, m.client, m.request] = answer
                    self.answers.setdefault((m.blocks, attempt), []).append(answer)
            for e in item.effects or ():
                if type(e) is RunTask:
                    running[core, e.task] = e.attempt
                    self.seats[e.task, e.attempt] = Seat(nodes[core], e.client, e.units)
                    if e.attempt > self._latest.get(e.task, 0):
                        self._latest[e.task] = e.attempt
                elif type(e) is GetAnswered:
                    self._take_answer(e, asked.get((core, e.client, e.request)))
        history.close()
        for task, attempt in self.results:  # An attempt that was lost later counts for less.
            if (task, self._latest.get(task, 0)) not in self.results:
                self._latest[task] = attempt
        return history

    def _take_answer(self, e: GetAnswered, answer: Answer | None) -> None:
        for place in e.places:
            if place.failure:
                self.failures[place.object] = place.failure, place.text
        if answer is not None:
            answer.ready.update(place.object for place in e.places)
            answer.timed_out |= e.timed_out


class _Reader:
    """Fills a `Recorded` from messages. Templates are looked up in the end: they come from others
    than the calls that use them, and perhaps later."""

    def __init__(self, into: Recorded) -> None:
        self.into = into
        self.templates: dict[tuple[int, int, int], CallTemplate] = {}
        self.submitted: dict[TaskID, tuple[tuple[int, int, int], KeptMessage]] = {}
        self.delivered: dict[TaskID, tuple[tuple[int, int, int], KeptMessage]] = {}
        self.blocks: dict[ObjectID, int] = {}

    def close(self) -> None:
        """All is read: the calls, each with its template."""
        everything = {**self.delivered, **self.submitted}
        # In the order of submission, as far as it is known.
        for task in (*self.submitted, *(t for t in self.delivered if t not in self.submitted)):
            key, said = everything[task]
            call = self.into.calls[task] = _call(said, self.templates.get(key))
            self.check(len(task) == len(call.parent) == TASK_ID_BYTES, *call.args, *call.refs)

    def check(self, is_well: bool, *items: ObjectID) -> None:
        """Refuse ids that are none: whatever computes with them may rely on their length."""
        if not is_well or any(len(item) != OBJECT_ID_BYTES for item in items):
            raise TraceError(f"{self.into.payloads.name}: it names a task or object by no id")

    def on_function(self, said: KeptMessage, m: FunctionExported | FunctionShipped) -> None:
        definition = said.payload[0][1] if said.payload else memoryview(b"")
        self.into.functions.setdefault(m.function, RecordedFunction(m.name, definition))

    def on_template(self, said: KeptMessage, m: TemplateDefined) -> None:
        key = said.process, -1, template_number(m.client, m.template)
        self.templates[key] = CallTemplate(m.function, m.name, m.num_returns, m.demand)

    def on_shipped_template(self, said: KeptMessage, m: TemplateShipped) -> None:
        key = said.process, m.node, m.template
        self.templates[key] = CallTemplate(m.function, m.name, m.num_returns, m.demand)

    def on_submitted(self, said: KeptMessage, m: TaskSubmitted) -> None:
        key = said.process, -1, template_number(m.client, m.template)
        self.submitted.setdefault(m.task, (key, said))

    def on_delivered(self, said: KeptMessage, m: RunDelivered) -> None:
        self.delivered.setdefault(m.task, ((said.process, m.node, m.template), said))
        for key, data in said.payload:
            if len(key) == OBJECT_ID_BYTES:
                self.into._values.setdefault(ObjectID(key), RecordedValue(len(data), b"", data))

    def on_put(self, said: KeptMessage, m: ObjectPut) -> None:
        self.check(True, m.object)
        data = said.payload[0][1] if said.payload else memoryview(b"")
        self.into.puts[m.object] = RecordedValue(m.size_bytes, m.digest, data)

    def on_requested(self, said: KeptMessage, m: BlockRequested) -> None:
        self.blocks[m.object] = m.size_bytes

    def on_sealed(self, said: KeptMessage, m: BlockSealed) -> None:
        self.check(True, m.object)
        size = self.into._blocks.get((m.object, 0), self.blocks.pop(m.object, -1))
        self.into.puts[m.object] = RecordedValue(size, m.digest)

    def on_finished(self, said: KeptMessage, m: RunFinished) -> None:
        inline = iter(said.payload)
        self.check(len(m.task) == TASK_ID_BYTES)
        parts = tuple(
            RecordedValue(part.size_bytes, part.digest, _next_data(inline, part))
            for part in m.returns
        )
        self.into.results[m.task, m.attempt] = parts
        self.into._latest[m.task] = max(m.attempt, self.into._latest.get(m.task, 0))

    def on_failed(self, said: KeptMessage, m: RunFailed | RunErred) -> None:
        self.check(len(m.task) == TASK_ID_BYTES)
        payload = said.payload[0][1] if said.payload else None
        self.into.errors.setdefault((m.task, m.attempt), Raised(m.kind, m.summary, payload))
        self.into._latest[m.task] = max(m.attempt, self.into._latest.get(m.task, 0))

    def on_done(self, said: KeptMessage, m: RunDone) -> None:
        if (m.task, m.attempt) in self.into.results or any(p.size_bytes < 0 for p in m.returns):
            return
        inline = iter(said.payload)
        self.into.results[m.task, m.attempt] = tuple(
            RecordedValue(
                p.size_bytes, b"", None if p.is_kept or not p.size_bytes else next(inline)[1]
            )
            for p in m.returns
        )

    def on_value(self, said: KeptMessage, m: ValueSent) -> None:
        if said.payload:
            part = RecordedValue(m.size_bytes, b"", said.payload[0][1])
            self.into._values.setdefault(m.object, part)


def _next_data(inline: Any, part: Any) -> memoryview | None:  # Any: an iterator, a `Return`
    return None if part.in_block or not part.size_bytes else next(inline)[1]


def _call(said: KeptMessage, template: CallTemplate | None) -> Call:
    m: TaskSubmitted | RunDelivered = said.message
    blob = next((data for key, data in said.payload if key == m.task), memoryview(b""))
    if isinstance(m, TaskSubmitted):
        args, refs = m.args, m.refs
    else:
        args = tuple(argument.object for argument in m.args)
        refs = tuple(item for item, _ in m.refs)
    return Call(m.task, template, m.parent, m.depth, args, refs, m.packed, blob)


# Any: each takes the type of message that is its key
_ON_SAID: dict[type, Callable[[_Reader, KeptMessage, Any], None]] = {
    FunctionExported: _Reader.on_function,
    FunctionShipped: _Reader.on_function,
    TemplateDefined: _Reader.on_template,
    TemplateShipped: _Reader.on_shipped_template,
    TaskSubmitted: _Reader.on_submitted,
    RunDelivered: _Reader.on_delivered,
    ObjectPut: _Reader.on_put,
    BlockRequested: _Reader.on_requested,
    BlockSealed: _Reader.on_sealed,
    RunFinished: _Reader.on_finished,
    RunFailed: _Reader.on_failed,
    RunErred: _Reader.on_failed,
    RunDone: _Reader.on_done,
    ValueSent: _Reader.on_value,
}


def _check_lives(trace: Trace, payloads: Payloads) -> None:
    """Payloads belong to a trace if the processes that kept them are among those it tells of."""
    known = {process.life for process in trace.header.processes if process.life}
    strange = [p.life for p in payloads.header.processes if p.life not in known]
    if strange:
        raise TraceError(
            f"{payloads.name} does not belong to {trace.name}: it was recorded by another run "
            f"(life {strange[0][:8] or 'unknown'}..., the trace has "
            f"{', '.join(life[:8] + '...' for life in sorted(known)) or 'none'})"
        )
