"""The books of one client: references, values at hand, answers awaited, messages to send.

Theory of operation
-------------------
A client (a driver or a worker process) has one `Books`. Calls of the program append stimuli to
`out`; whoever drives it (`runtime/connection.py`, or the simulator) calls `take` for what to send
and `core/arrivals.py` with what came. `Books` knows no socket, no lock and no clock: its driver
calls it under a lock of its own, except for the append-only queues of `Grants`.

A value that came inline and holds no reference is kept in `values` while the process has a
reference to the object, so that reading it again costs no message. Values with references inside
and values in blocks are not: each reading needs a grant, or a pin, of its own.
"""

from __future__ import annotations

from typing import Any

from detray.core import effects, stimuli
from detray.core.effects import INLINE, Place
from detray.core.grants import Grants
from detray.core.run_queue import QueuedRun, RunQueue
from detray.core.stimuli import ClientStimulus, ObjectPut, TaskSubmitted
from detray.core.streams import Stream
from detray.core.tickets import Ticket, TicketGroup
from detray.ids import ClientID, NodeID, ObjectID, TaskID, TemplateID, return_object

VALUES_BYTES_MAX = 256 << 20
"""Inline values kept by a client; the oldest go first."""
BATCH_WEIGHT = 256 << 10
"""Whoever drives the books sends when `out_weight` has reached this: enough to be worth a system
call, little enough for the service to start early (docs/performance.md)."""
READ_AHEAD_MIN, READ_AHEAD_MAX = 8, 128
"""How many returns a get of one takes along, at first and at most (`Books.read_ahead`)."""
MESSAGE_WEIGHT = BATCH_WEIGHT // 50
"""What a message counts for; a byte of payload counts for one."""

Outgoing = ClientStimulus | tuple[Any, ...]  # Any: (message, payload, payload...)


class Books:
    """Everything a client knows. See the module's text for who calls it how."""

    def __init__(self, client: ClientID) -> None:
        self.client = client
        self.references = Grants()
        self.pins = Grants()
        self.values: dict[ObjectID, bytes | None] = {}
        """Bytes at hand; None for what is known to be available."""
        self.values_bytes = 0
        self.out: list[Outgoing] = []
        self.out_weight = 0
        self.taken = 0
        """How often `take` was called."""
        self.queue = RunQueue()
        self.arrivals: Ticket | None = None
        """Set by a worker that waits for anything to come into its queue."""
        self.notices: list[effects.Notify | effects.FailRequest] = []
        self.requests: dict[int, Ticket] = {}
        """Answers awaited: to gets, to pins and for status."""
        self.blocks: dict[ObjectID, Ticket] = {}
        """Blocks awaited."""
        self._last_request = 0
        self._read_position: tuple[tuple[bytes, bytes], int, int] = ((b"", b""), 0, 0)
        """Of the last get of one object: row, number in it, how far it read ahead."""
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
        packed: bool = False,
        digest: bytes = b"",
    ) -> list[ObjectID]:
        """Submit a task; the ids of its returns."""
        index = stream.tasks
        stream.tasks = index + 1
        # child_task and return_object spelled out: these lines run for every call.
        task = TaskID((stream.prefix or stream.name()) + index.to_bytes(4, "big"))
        if num_returns == 1:
            only = ObjectID(task + b"\0\0\0\0")
            items = [only]
            self.references.received[only] = 1
        else:
            items = [return_object(task, number) for number in range(num_returns)]
            for item in items:
                self.references.received[item] = 1
        size = len(blob)
        message = TaskSubmitted(
            self.client, task, template, stream.parent, stream.depth, size, args, refs, packed,
            digest,
        )  # fmt: skip
        self.out.append((message, blob) if size else message)
        self.out_weight += size + MESSAGE_WEIGHT
        return items

    def put(
        self, stream: Stream, blob: bytes, refs: tuple[ObjectID, ...], digest: bytes = b""
    ) -> ObjectID:
        """Put a value small enough to travel inline."""
        item = stream.next_put()
        size = len(blob)
        self.references.received[item] = 1
        self.out.append((ObjectPut(self.client, item, size, refs, digest), blob))
        self.out_weight += size + MESSAGE_WEIGHT
        if not refs:
            self.keep(item, blob)
        return item

    def next_template(self) -> TemplateID:
        """A number for a template."""
        self._last_template += 1
        return TemplateID(self._last_template)

    def claim(self, item: ObjectID, owner: NodeID) -> None:
        """Count a reference that came by the user's own pickling, which said who owns it."""
        self.references.claim(item)
        self.send(stimuli.RefClaimed(self.client, item, owner))

    def pin(self, item: ObjectID) -> Ticket:
        """The program pickles a reference by itself; the answer is a `ConfirmPin`."""
        ticket = Ticket((item,))
        self._last_request = number = self._last_request + 1
        self.requests[number] = ticket
        self.send(stimuli.RefPinned(self.client, item, number))
        return ticket

    def request(
        self,
        objects: tuple[ObjectID, ...],
        needed: int,
        *,
        fail_fast: bool,
        fetch: bool,
        timeout_ns: int,
        blocks: TaskID,
        group: TicketGroup | None = None,
        also: tuple[ObjectID, ...] = (),
    ) -> Ticket:
        """Ask for distinct objects, as in `GetRequested`."""
        ticket = Ticket(objects, group)
        self._last_request = number = self._last_request + 1
        self.requests[number] = ticket
        self.send(
            stimuli.GetRequested(
                self.client, number, objects, needed, fail_fast, fetch, timeout_ns, blocks, also
            )
        )
        return ticket

    def read_ahead(self, item: ObjectID) -> tuple[ObjectID, ...]:
        """What a program that gets one return after the other will want after `item`.

        Returns of tasks submitted one after the other have numbers in a row. The window doubles
        while the program keeps to that order, and closes when it does not.
        """
        row, index = (item[:12], item[16:]), int.from_bytes(item[12:16], "big")
        last_row, last_index, window = self._read_position
        if row == last_row and last_index < index <= last_index + window + 1:
            window = min(max(window * 2, READ_AHEAD_MIN), READ_AHEAD_MAX)
        else:
            window = 0
        self._read_position = row, index, window
        received, values = self.references.received, self.values
        found = []
        for number in range(index + 1, index + 1 + window):
            following = ObjectID(row[0] + number.to_bytes(4, "big") + row[1])
            if following not in received:
                break
            if values.get(following) is None:
                found.append(following)
        return tuple(found)

    def request_status(self, topic: str, limit: int) -> Ticket:
        """Ask what the node knows; the answer is a `ReportStatus`."""
        ticket = Ticket()
        self._last_request = number = self._last_request + 1
        self.requests[number] = ticket
        self.send(stimuli.StatusRequested(self.client, number, topic, limit))
        return ticket

    def request_block(self, item: ObjectID, size_bytes: int) -> Ticket:
        """Ask for room to write an object; the answer is a `GrantBlock` or a `RefuseBlock`."""
        ticket = self.blocks[item] = Ticket((item,))
        self.send(stimuli.BlockRequested(self.client, item, size_bytes))
        return ticket

    def seal_put(self, item: ObjectID, refs: tuple[ObjectID, ...], digest: bytes = b"") -> None:
        """The block of a put is written; from now on the object is ours to drop."""
        self.references.received[item] = 1
        self.send(stimuli.BlockSealed(self.client, item, refs, digest))

    def abandon_block(self, item: ObjectID) -> None:
        """Nobody will write the block that was asked for."""
        self.blocks.pop(item, None)
        self.send(stimuli.BlockAbandoned(self.client, item))

    def abandon(self, ticket: Ticket) -> None:
        """Nobody waits for a get any more: give back what came, and what still comes."""
        for number, waiting in self.requests.items():
            if waiting is ticket:
                del self.requests[number]
                self.send(stimuli.GetAbandoned(self.client, number))
                break
        self.discard(ticket)

    # -------------------------------------------------------------- what is given back

    def discard(self, ticket: Ticket) -> None:
        """Give back the grants and pins that nobody took out of a ticket."""
        for entry in ticket.found.values():
            if type(entry) is tuple:
                self.release(entry[0])
        ticket.found.clear()

    def release_run(self, run: QueuedRun) -> None:
        """A run's arguments will not be built: give back what carried them."""
        self.references.release(run.message.refs)
        for place in run.message.args:
            self.release(place)

    def release(self, place: Place) -> None:
        """Give back the grants and the pin that came with a place nobody will read."""
        self.references.release(place.refs)
        if place.segment != INLINE:
            self.pins.dropped.append(place.object)

    # -------------------------------------------------------------- what is sent

    def send(self, message: ClientStimulus, *payloads: bytes) -> None:
        """Append a message and its payload in one move: an interrupt cannot part them."""
        self.out.append((message, *payloads) if payloads else message)
        self.out_weight += MESSAGE_WEIGHT
        for payload in payloads:
            self.out_weight += len(payload)

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
        self.out_weight = 0
        payloads: list[bytes] = []
        for place, item in enumerate(out):
            if type(item) is tuple:
                out[place] = item[0]
                payloads += item[1:]
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

    # -------------------------------------------------------------- values at hand

    def keep(self, item: ObjectID, data: bytes | None) -> None:
        """Keep bytes at hand while the process has a reference to `item`.

        None: only that it is available.
        """
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

    def end(self) -> list[Ticket]:
        """The service is gone: every ticket, done without an answer. Nothing stays at hand."""
        waiting = [*self.requests.values(), *self.blocks.values()]
        if self.arrivals is not None:
            waiting.append(self.arrivals)
        for table in (self.requests, self.blocks, self.values):
            table.clear()
        self.out.clear()
        done: list[Ticket] = []
        for ticket in waiting:
            ticket.finish(None, done)
        return done
