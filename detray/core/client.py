"""The books of one client: names, references, values at hand, answers awaited, messages to send.

Theory of operation
-------------------
A client (a driver or a worker process) has one `Books`. Calls of the program append stimuli to
`out`; whoever drives it (`runtime/connection.py`, or the simulator) calls `take` for what to send
and `receive` with what came. `Books` knows no socket, no lock and no clock: its driver calls it
under a lock of its own, except for the append-only queues of `Grants`.

A value that came inline and holds no reference is kept in `values` while the process has a
reference to the object, so that reading it again costs no message. Values with references inside
and values in blocks are not: each reading needs a grant, or a pin, of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from detray.core import effects, stimuli
from detray.core.effects import INLINE, ClientMessage, GetAnswered, Place, RunTask
from detray.core.grants import Grants
from detray.core.inbox import Inbox, Run
from detray.core.stimuli import ClientStimulus, ObjectPut, TaskSubmitted
from detray.ids import (
    ClientID,
    FunctionID,
    JobNumber,
    ObjectID,
    TaskID,
    TemplateID,
    child_prefix,
    function_id,
    put_object,
    return_object,
)

VALUES_BYTES_MAX = 256 << 20
"""Inline values kept by a client; the oldest go first."""
MESSAGE_BYTES = 96
"""What a message without payload counts for when the driver decides to send."""

Outgoing = ClientStimulus | tuple[Any, ...]  # Any: (message, payload, payload...)


class Stream:
    """Counters of what one thread of one attempt creates; ids follow from them (`detray.ids`)."""

    __slots__ = ("attempt", "depth", "exports", "number", "parent", "prefix", "puts", "tasks")

    def __init__(self, parent: TaskID, attempt: int, number: int, depth: int) -> None:
        self.parent = parent
        self.attempt = attempt
        self.number = number
        self.depth = depth
        """Of the children: 1 for what a driver submits."""
        self.prefix = b""
        self.tasks = self.puts = self.exports = 0

    def name(self) -> bytes:
        """Compute the prefix. Lazy: most runs create nothing and need no hash."""
        self.prefix = child_prefix(self.parent, self.attempt, self.number)
        return self.prefix


class Ticket:
    """Something awaited from the service: the answer to a get, to a wish for a block or for status.

    `found` has, per object answered so far, its bytes, or (place, bytes) if it needs more than
    that: a failure, a block, references inside. It owns the grants and pins in it until somebody
    takes them out. `done` is set when nothing more will come, `answer` by the others than gets.
    """

    __slots__ = ("answer", "done", "found", "objects", "timed_out")

    def __init__(self, objects: tuple[ObjectID, ...] = ()) -> None:
        self.objects = objects
        self.found: dict[ObjectID, bytes | tuple[Place, bytes]] = {}
        self.answer: ClientMessage | None = None
        self.timed_out = False
        self.done = False


class Books:
    """Everything a client knows. See the module's text for who calls it how."""

    def __init__(self, client: ClientID, job: JobNumber) -> None:
        self.client = client
        self.job = job
        self.references = Grants()
        self.pins = Grants()
        self.values: dict[ObjectID, bytes | None] = {}
        """Bytes at hand; None for what is known to be available."""
        self.values_bytes = 0
        self.out: list[Outgoing] = []
        self.out_bytes = 0
        self.taken = 0
        """How often `take` was called."""
        self.inbox = Inbox()
        self.arrivals: Ticket | None = None
        """Set by a worker that waits for anything to come into its inbox."""
        self.notices: list[effects.Notify | effects.FailRequest] = []
        self._requests: dict[int, Ticket] = {}
        self._blocks: dict[ObjectID, Ticket] = {}
        self._last_request = 0
        self._last_template = -1

    # -------------------------------------------------------------- what the program does

    def submit(
        self,
        stream: Stream,
        template: TemplateID,
        num_returns: int,
        blob: bytes,
        args: tuple[ObjectID, ...],
        refs: tuple[ObjectID, ...],
        *,
        packed: bool = False,
    ) -> list[ObjectID]:
        """Submit a task; the ids of its returns."""
        index = stream.tasks
        stream.tasks = index + 1
        # child_task and return_object spelled out: this line and the next run for every call.
        task = TaskID((stream.prefix or stream.name()) + index.to_bytes(4, "big"))
        if num_returns == 1:
            only = ObjectID(task + b"\0\0\0\0")
            items = [only]
            self.references.received[only] = 1
        else:
            items = [return_object(task, number) for number in range(num_returns)]
            for item in items:
                self.references.received[item] = 1
        message = TaskSubmitted(
            self.client,
            task,
            template,
            stream.parent,
            stream.depth,
            len(blob),
            args,
            refs,
            packed,
        )
        self.out.append((message, blob) if blob else message)
        self.out_bytes += len(blob) + MESSAGE_BYTES
        return items

    def put(self, stream: Stream, blob: bytes, refs: tuple[ObjectID, ...]) -> ObjectID:
        """Put a value small enough to travel inline."""
        item = self.name_put(stream)
        self.references.received[item] = 1
        self.send(ObjectPut(self.client, item, len(blob), refs), blob)
        if not refs:
            self._keep(item, blob)
        return item

    def name_put(self, stream: Stream) -> ObjectID:
        """The name of the stream's next put."""
        index = stream.puts
        stream.puts = index + 1
        return put_object(stream.prefix or stream.name(), index)

    def name_export(self, stream: Stream) -> FunctionID:
        """The name of the stream's next export."""
        index = stream.exports
        stream.exports = index + 1
        return function_id(stream.prefix or stream.name(), index)

    def next_template(self) -> TemplateID:
        """A number for a template."""
        self._last_template += 1
        return TemplateID(self._last_template)

    def claim(self, item: ObjectID) -> None:
        """Count a reference that came by the user's own pickling."""
        self.references.claim(item)
        self.send(stimuli.RefClaimed(self.client, item))

    def request(
        self,
        objects: tuple[ObjectID, ...],
        needed: int,
        *,
        fail_fast: bool,
        fetch: bool,
        timeout_ns: int,
        blocks: TaskID,
    ) -> Ticket:
        """Ask for distinct objects, as in `GetRequested`."""
        ticket = Ticket(objects)
        self._last_request = number = self._last_request + 1
        self._requests[number] = ticket
        self.send(
            stimuli.GetRequested(
                self.client, number, objects, needed, fail_fast, fetch, timeout_ns, blocks
            )
        )
        return ticket

    def request_status(self, topic: str, limit: int) -> Ticket:
        """Ask what the node knows; the answer is a `ReportStatus`."""
        ticket = Ticket()
        self._last_request = number = self._last_request + 1
        self._requests[number] = ticket
        self.send(stimuli.StatusRequested(self.client, number, topic, limit))
        return ticket

    def request_block(self, item: ObjectID, size_bytes: int) -> Ticket:
        """Ask for room to write an object; the answer is a `GrantBlock` or a `RefuseBlock`."""
        ticket = self._blocks[item] = Ticket((item,))
        self.send(stimuli.BlockRequested(self.client, item, size_bytes))
        return ticket

    def seal_put(self, item: ObjectID, refs: tuple[ObjectID, ...]) -> None:
        """The block of a put is written; from now on the object is ours to drop."""
        self.references.received[item] = 1
        self.send(stimuli.BlockSealed(self.client, item, refs))

    def abandon_block(self, item: ObjectID) -> None:
        """Nobody will write the block that was asked for."""
        self._blocks.pop(item, None)
        self.send(stimuli.BlockAbandoned(self.client, item))

    def abandon(self, ticket: Ticket) -> None:
        """Nobody waits for a get any more: give back what came, and what still comes."""
        for number, waiting in self._requests.items():
            if waiting is ticket:
                del self._requests[number]
                self.send(stimuli.GetAbandoned(self.client, number))
                break
        self.discard(ticket)

    def discard(self, ticket: Ticket) -> None:
        """Give back the grants and pins that nobody took out of a ticket."""
        for entry in ticket.found.values():
            if type(entry) is tuple:
                self.release(entry[0])
        ticket.found.clear()

    # -------------------------------------------------------------- what is sent

    def send(self, message: ClientStimulus, *payloads: bytes) -> None:
        """Append a message and its payload in one move: an interrupt cannot part them."""
        self.out.append((message, *payloads) if payloads else message)
        self.out_bytes += MESSAGE_BYTES + sum(map(len, payloads))

    @property
    def has_something(self) -> bool:
        """True if `take` would return messages."""
        return bool(self.out or self.references.dropped or self.pins.dropped)

    def take(self) -> tuple[list[ClientStimulus], list[bytes]]:
        """What to send now: messages and their payload. Drops come last (PROTOCOL, D 7)."""
        self.taken += 1
        references, pins = self.references, self.pins
        if references.dropped or references.created:
            self._settle_references()
        if pins.dropped:
            ended, counts = pins.settle()
            if ended:
                self.out.append(stimuli.ViewsDropped(self.client, tuple(ended), tuple(counts)))
        out, self.out = self.out, []
        self.out_bytes = 0
        payloads: list[bytes] = []
        if tuple in map(type, out):
            for place, item in enumerate(out):
                if type(item) is tuple:
                    out[place] = item[0]
                    payloads.extend(item[1:])
        return out, payloads  # type: ignore[return-value]  # the loop took all tuples out

    def _settle_references(self) -> None:
        ended, counts = self.references.settle()
        if not ended:
            return
        values = self.values
        if values:
            for item in ended:
                data = values.pop(item, None)
                if data is not None:
                    self.values_bytes -= len(data)
        self.out.append(stimuli.RefsDropped(self.client, tuple(ended), tuple(counts)))

    # -------------------------------------------------------------- what arrives

    def receive(self, messages: Sequence[ClientMessage], payload: memoryview) -> list[Ticket]:
        """Enter a frame's messages; the tickets that are done now.

        Payload is copied: the view may die.
        """
        cut = Cutter(payload)
        done: list[Ticket] = []
        for message in messages:
            _ENTER[type(message)](self, message, cut, done)
        return done

    def retract(self, count: int) -> None:
        """A marker came: the last `count` runs in the inbox are the service's again."""
        for run in self.inbox.retract(count):
            self.release_run(run)

    def release_run(self, run: Run) -> None:
        """A run's arguments will not be built: give back what carried them."""
        self.references.release(run.message.refs)
        for place in run.message.args:
            self.release(place)

    def fail(self) -> list[Ticket]:
        """The service is gone: all tickets, done without an answer. Nothing is at hand any more."""
        tickets = [*self._requests.values(), *self._blocks.values()]
        if self.arrivals is not None:
            tickets.append(self.arrivals)
        self._requests.clear()
        self._blocks.clear()
        self.values.clear()
        self.out.clear()
        for ticket in tickets:
            ticket.done = True
        return tickets

    def release(self, place: Place) -> None:
        """Give back the grants and the pin that came with a place nobody will read."""
        self.references.release(place.refs)
        if place.segment != INLINE:
            self.pins.dropped.append(place.object)

    def _grant(self, place: Place) -> None:
        if place.refs:
            self.references.receive(place.refs)
        if place.segment != INLINE:
            self.pins.receive((place.object,))

    def _keep(self, item: ObjectID, data: bytes | None) -> None:
        """Keep bytes at hand while the process has a reference to `item`."""
        if item not in self.references.received:
            return
        values = self.values
        if data is None:
            values.setdefault(item, None)
            return
        if values.get(item) is not None:
            return
        values[item] = data
        self.values_bytes += len(data)
        while self.values_bytes > VALUES_BYTES_MAX:
            oldest = values.pop(next(iter(values)))
            self.values_bytes -= len(oldest) if oldest is not None else 0

    def _on_answer(self, message: GetAnswered, cut: Cutter, done: list[Ticket]) -> None:
        ticket = self._requests.get(message.request)
        for place in message.places:
            data = cut.of(place)
            if not place.failure and place.segment == INLINE and not place.refs:
                self._keep(place.object, data or None)
                if ticket is not None:
                    ticket.found[place.object] = data
                continue
            self._grant(place)
            if ticket is not None:
                ticket.found[place.object] = (place, data)
            else:  # Abandoned meanwhile: counted as received, and given back.
                self.release(place)
        if not message.more and ticket is not None:
            del self._requests[message.request]
            ticket.timed_out = message.timed_out
            self._finish(ticket, message, done)

    def _on_status(self, message: effects.ReportStatus, cut: Cutter, done: list[Ticket]) -> None:
        ticket = self._requests.pop(message.request, None)
        if ticket is not None:
            self._finish(ticket, message, done)

    def _on_block(
        self, message: effects.GrantBlock | effects.RefuseBlock, cut: Cutter, done: list[Ticket]
    ) -> None:
        ticket = self._blocks.pop(message.object, None)
        if ticket is not None:
            self._finish(ticket, message, done)

    def _finish(self, ticket: Ticket, message: ClientMessage, done: list[Ticket]) -> None:
        ticket.answer = message
        ticket.done = True
        done.append(ticket)

    def _on_run(self, message: RunTask, cut: Cutter, done: list[Ticket]) -> None:
        blob = cut.take(message.size_bytes)
        values = tuple([cut.of(place) for place in message.args])
        if message.refs:
            self.references.receive(message.refs)
        for place in message.args:
            self._grant(place)
        self.inbox.runs.append(Run(message, blob, values))
        self._arrived(done)

    def _on_function(
        self, message: effects.DefineFunction, cut: Cutter, done: list[Ticket]
    ) -> None:
        self.references.receive(message.refs)
        self.inbox.definitions[message.function] = (message, cut.take(message.size_bytes))

    def _on_template(
        self, message: effects.DefineTemplate, cut: Cutter, done: list[Ticket]
    ) -> None:
        self.inbox.templates[message.template] = (message, cut.take(message.size_bytes))

    def _on_interrupt(self, message: effects.InterruptRun, cut: Cutter, done: list[Ticket]) -> None:
        # The pipe and the signal reach a run that has begun; this reaches one that has not.
        task, attempt = message.task, message.attempt
        if any(r.message.task == task and r.message.attempt == attempt for r in self.inbox.runs):
            self.inbox.interrupt(task, attempt)

    def _on_exit(self, message: effects.ExitWorker, cut: Cutter, done: list[Ticket]) -> None:
        self.inbox.leaving = True
        self._arrived(done)

    def _on_notice(
        self, message: effects.Notify | effects.FailRequest, cut: Cutter, done: list[Ticket]
    ) -> None:
        self.notices.append(message)

    def _on_welcome(self, message: effects.Welcome, cut: Cutter, done: list[Ticket]) -> None:
        """Only the first frame has one, and whoever connected has read it."""

    def _arrived(self, done: list[Ticket]) -> None:
        ticket, self.arrivals = self.arrivals, None
        if ticket is not None:
            ticket.done = True
            done.append(ticket)


class Cutter:
    """Cuts a frame's payload into copies, in order."""

    __slots__ = ("_payload", "_start")

    def __init__(self, payload: memoryview) -> None:
        self._payload = payload
        self._start = 0

    def take(self, size_bytes: int) -> bytes:
        """The next `size_bytes`."""
        if not size_bytes:
            return b""
        start = self._start
        self._start = end = start + size_bytes
        return bytes(self._payload[start:end])

    def of(self, place: Place) -> bytes:
        """The bytes of a place, if they travel inline."""
        return self.take(place.size_bytes) if place.segment == INLINE else b""


# Any: each entry takes the message type that is its key.
_ENTER: dict[type, Callable[[Books, Any, Cutter, list[Ticket]], None]] = {
    effects.Welcome: Books._on_welcome,
    effects.DefineFunction: Books._on_function,
    effects.DefineTemplate: Books._on_template,
    effects.RunTask: Books._on_run,
    effects.InterruptRun: Books._on_interrupt,
    effects.GetAnswered: Books._on_answer,
    effects.GrantBlock: Books._on_block,
    effects.RefuseBlock: Books._on_block,
    effects.ReportStatus: Books._on_status,
    effects.ExitWorker: Books._on_exit,
    effects.Notify: Books._on_notice,
    effects.FailRequest: Books._on_notice,
}
