"""Simulated client processes: real `Books`, a body that yields operations, and a stream to a node.

Theory of operation
-------------------
A process plays one body at a time. Operations that need no answer are performed at once, and their
cost (`Costs.submit_ns`) is a debt of time that is paid before the next operation that waits, or as
soon as enough is written for a frame: so a frame leaves at the moment at which a real program would
have got there. Whatever waits has one `_timer` or one ticket, and `Play.serial` tells a timer that
nobody waits for it any more.

What a body was granted it uses until it drops it or ends (`Play.uses`). References that come inside
values are used by taking over their carrier's use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from detray.core.arrivals import enter
from detray.core.client import BATCH_WEIGHT, Books
from detray.core.effects import INLINE, ClientMessage, FailRequest, GrantBlock, Place
from detray.core.streams import Stream
from detray.core.tickets import Ticket
from detray.errors import Failure
from detray.ids import NO_TASK, ClientID, ObjectID, TaskID, TemplateID
from detray_sim import behaviour as do
from detray_sim.costs import time_of
from detray_sim.operations import PAID_FIRST, PERFORM, SUSPENDED
from detray_sim.values import Blob, Cell, Pieces, Value, real_bytes

if TYPE_CHECKING:
    from detray_sim.node import SimNode

DEBT_NS_MAX = 2_000_000
"""A program that runs ahead of the world's time by so much waits for it."""
Then = Callable[["Play", Ticket], None]


class Play:
    """One execution of a body by a process."""

    __slots__ = (
        "attempt",
        "depth",
        "is_exposed",
        "results",
        "serial",
        "steps",
        "stream",
        "task",
        "then",
        "ticket",
        "undo",
        "uses",
        "views",
    )

    def __init__(self, task: TaskID, attempt: int, depth: int) -> None:
        self.task = task
        self.attempt = attempt
        self.depth = depth
        self.steps: do.Steps | None = None
        self.stream: Stream | None = None
        self.uses: dict[ObjectID, int] = {}
        self.views: dict[ObjectID, list[Cell]] = {}
        self.ticket: Ticket | None = None
        self.then: Then | None = None
        """Takes the answer of `ticket`."""
        self.undo: Callable[[], None] | None = None
        """Gives up what is waited for, if the body is interrupted meanwhile."""
        self.serial = 0
        self.is_exposed = True
        """False once the body is over: an interrupt comes too late."""
        self.results: Sequence[do.Result] = ()

    def naming(self) -> Stream:
        """The counters that name what this body creates."""
        stream = self.stream
        if stream is None:
            stream = self.stream = Stream(self.task, self.attempt, 0, self.depth + 1)
        return stream


class SimProcess:
    """A client of a node. `is_alive` until it dies; while `is_frozen` it does nothing at all."""

    def __init__(self, host: SimNode, client: ClientID) -> None:
        self.host = host
        self.clock = host.clock
        self.costs = host.costs
        self.books = Books(client)
        references = self.books.references
        self.created, self.dropped = references.created.append, references.dropped.append
        """One object each: by it a reference tells that it belongs here."""
        self.client = client
        self.is_alive = True
        self.is_frozen = False
        self.play: Play | None = None
        self.inline_bytes_max = host.config.policy.inline_bytes_max
        self._deferred: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._debt_ns = 0
        self._flush_planned = False
        self.remotes: dict[int, tuple[do.Remote, TemplateID]] = {}
        """By identity of the remote function (kept alive here): the template defined for it."""
        self.cells: dict[Cell, int] = {}
        """Blocks it reads or writes, with how often."""

    # -------------------------------------------------------------- the stream

    def flush(self) -> None:
        """Send what there is to say."""
        books, host = self.books, self.host
        while books.out or books.references.dropped or books.pins.dropped:
            messages, payloads = books.take()
            if messages:
                self.clock.after(self.costs.ipc_ns, host.hear, self, messages, payloads)

    def receive(self, messages: Sequence[ClientMessage], values: Sequence[Value]) -> None:
        """A frame of the node's service arrived."""
        if not self.is_alive:
            return
        if self.is_frozen:
            self._deferred.append((self.receive, (messages, values)))
            return
        books = self.books
        done = enter(books, messages, Pieces(values))
        if books.notices:
            self._complain()
        play = self.play
        if play is not None and play.ticket is not None and play.ticket in done:
            self._answered(play)
        elif books.references.dropped or books.pins.dropped:
            self.flush_later()

    def _complain(self) -> None:
        for notice in self.books.notices:
            self.host.note(f"{type(notice).__name__} to {self.client}: {notice}")
            if type(notice) is FailRequest:
                raise AssertionError(f"a simulated client made no sense: {notice}")
        self.books.notices.clear()

    def flush_later(self) -> None:
        if not self._flush_planned:
            self._flush_planned = True
            self.clock.after(self.costs.flush_ns, self._flush_late)

    def _flush_late(self) -> None:
        self._flush_planned = False
        if self.is_alive and not self.is_frozen:
            self.flush()

    def mark(self, value: Value) -> bytes:
        """The digest that a message tells of real bytes; b"" if nobody wants it, or for others."""
        make = self.host.cluster.mark
        if make is None:
            return b""
        data = real_bytes(value)
        return make(data) if data else b""

    # -------------------------------------------------------------- life

    def die(self) -> None:
        """The process is no more. What it sent is still read; what it used is used until `gone`."""
        self.is_alive = False
        self.play = None
        self._deferred.clear()

    def gone(self) -> None:
        """Nothing of the process is left: it uses no block any more."""
        for cell, count in self.cells.items():
            cell.users -= count
        self.cells.clear()

    def freeze(self) -> None:
        """The process stands still, as after SIGSTOP."""
        self.is_frozen = True

    def thaw(self) -> None:
        """It goes on; what should have happened meanwhile happens now."""
        self.is_frozen = False
        deferred, self._deferred = self._deferred, []
        for call, args in deferred:
            call(*args)
        if self.is_alive:
            self.flush()

    # -------------------------------------------------------------- playing

    def start(self, play: Play, outcome: do.Steps | do.Work | Sequence[do.Result]) -> None:
        """Begin to play what calling a body returned."""
        if type(outcome) is do.Work:
            play.results = outcome.results
            self.wait_ns(play, self.host.cpu_ns(outcome.ns) + self.take_debt(), None)
        elif isinstance(outcome, list | tuple):
            self._returned(play, outcome)
        else:
            play.steps = outcome  # type: ignore[assignment]  # neither Work nor a sequence
            self.advance(play, None)

    def advance(self, play: Play, value: Any, error: do.BodyError | None = None) -> None:
        """Send a value into the body (or raise in it) and do what it wants, until it waits."""
        steps = play.steps
        if steps is None:  # Work
            self._returned(play, play.results)
            return
        while True:
            try:
                operation = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as stop:
                self._returned(play, stop.value or ())
                return
            except do.BodyFailed as failed:
                self._failed(play, failed)
                return
            except do.BodyError as failed:
                self._failed(play, as_failure(failed))
                return
            error = None
            kind = type(operation)
            if self._debt_ns and kind in PAID_FIRST:
                self._pay(play, operation)
                return
            try:
                value = PERFORM[kind](self, play, operation)
            except do.BodyError as raised:
                value, error = None, raised
            if value is SUSPENDED:
                return

    def take_debt(self) -> int:
        """What the program owes, to be waited for by whoever asks."""
        debt_ns, self._debt_ns = self._debt_ns, 0
        return debt_ns

    def _pay(self, play: Play, operation: do.Operation) -> None:
        """The world catches up with the program before it waits for something."""
        debt_ns, self._debt_ns = self._debt_ns, 0
        play.serial += 1
        self.clock.after(debt_ns, self._perform_paid, play, play.serial, operation)

    def _perform_paid(self, play: Play, serial: int, operation: do.Operation) -> None:
        if self.is_over(play, serial, self._perform_paid, operation):
            return
        value: Any = None  # what the operation sends
        error: do.BodyError | None = None
        try:
            value = PERFORM[type(operation)](self, play, operation)
        except do.BodyError as raised:
            error = raised
        if value is not SUSPENDED:
            self.advance(play, value, error)

    def is_over(self, play: Play, serial: int, call: Callable[..., object], *args: Any) -> bool:
        """True if nobody waits for this timer, or not now. (Any: the timer's own arguments.)"""
        if play is not self.play or serial != play.serial:
            return True
        if self.is_frozen:
            self._deferred.append((call, (play, serial, *args)))
            return True
        return False

    def spend(self, play: Play, value: Any) -> Any:
        """Owe the time of a small operation; wait if it is time to send, or to be caught up."""
        self._debt_ns += self.costs.submit_ns
        if self.books.out_weight < BATCH_WEIGHT and self._debt_ns < DEBT_NS_MAX:
            return value
        debt_ns, self._debt_ns = self._debt_ns, 0
        if not debt_ns:
            self.flush()
            return value
        play.serial += 1
        self.clock.after(debt_ns, self._flush_and_go, play, play.serial, value)
        return SUSPENDED

    def _flush_and_go(self, play: Play, serial: int, value: Any) -> None:
        if not self.is_over(play, serial, self._flush_and_go, value):
            self.flush()
            self.advance(play, value)

    def wait_ns(self, play: Play, ns: int, value: Any) -> object:
        """Go on in `ns` with a value."""
        play.serial = serial = play.serial + 1
        self.clock.after(ns, self._timer, play, serial, value)
        return SUSPENDED

    def _timer(self, play: Play, serial: int, value: Any) -> None:
        if not self.is_over(play, serial, self._timer, value):
            play.undo = None
            self.advance(play, value)

    def wait_for(self, play: Play, ticket: Ticket, then: Then) -> object:
        """Go on when a ticket is done."""
        play.ticket, play.then = ticket, then
        self.flush()
        return SUSPENDED

    def _answered(self, play: Play) -> None:
        ticket, then = play.ticket, play.then
        play.ticket = play.then = play.undo = None
        assert ticket is not None and then is not None
        then(play, ticket)

    def interrupt(self, play: Play) -> None:
        """Raise the cancellation in a body, whatever it waits for."""
        if not play.is_exposed:
            return
        play.serial += 1
        self._debt_ns = 0
        if play.ticket is not None and play.undo is None:
            self.books.abandon(play.ticket)
        elif play.undo is not None:
            play.undo()
        play.ticket = play.then = play.undo = None
        if play.steps is None:
            self._failed(play, as_failure(do.Interrupted()))
        else:
            self.advance(play, None, do.Interrupted())

    # -------------------------------------------------------------- how a body ends

    def _returned(self, play: Play, results: Sequence[do.Result]) -> None:
        """The body is over; a worker reports, a driver leaves."""
        raise NotImplementedError

    def _failed(self, play: Play, failed: do.BodyFailed) -> None:
        raise NotImplementedError

    def let_go(self, play: Play) -> None:
        """Drop all that a body used: its locals are gone. Finalizers may come late (a fault)."""
        if not play.uses and not play.views:
            return
        items = [item for item, count in play.uses.items() for _ in range(count)]
        views = [(item, cell) for item, cells in play.views.items() for cell in cells]
        play.uses, play.views = {}, {}
        delay_ns = self.host.finalizer_delay_ns()
        if delay_ns:
            self.clock.after(delay_ns, self._finalize, items, views)
        else:
            self.drop(items, views)

    def _finalize(self, items: list[ObjectID], views: list[tuple[ObjectID, Cell]]) -> None:
        if self.is_alive:
            self.drop(items, views)
            self.flush_later()

    def drop(self, items: Sequence[ObjectID], views: list[tuple[ObjectID, Cell]]) -> None:
        self.books.references.dropped.extend(items)
        for item, cell in views:
            self.look_away(cell)
            self.books.pins.dropped.append(item)

    # -------------------------------------------------------------- blocks

    def look_at(self, cell: Cell) -> None:
        """Begin to read or write a block."""
        cell.users += 1
        self.cells[cell] = self.cells.get(cell, 0) + 1

    def look_away(self, cell: Cell) -> None:
        """End it."""
        cell.users -= 1
        left = self.cells[cell] - 1
        if left:
            self.cells[cell] = left
        else:
            del self.cells[cell]

    def read_place(self, play: Play, place: Place, data: Value, *, keeps: bool) -> do.Got:
        """A value that came with grants or a pin; the body takes them over."""
        item = place.object
        value = data
        if place.segment != INLINE:
            cell = self.host.memory.read(place.segment, place.offset, item)
            assert cell.value is not None
            value = cell.value
            if keeps:
                self.look_at(cell)
                play.views.setdefault(item, []).append(cell)
            else:
                self.books.pins.dropped.append(item)
        uses = play.uses
        for ref in place.refs:
            uses[ref] = uses.get(ref, 0) + 1
        return do.Got(item, value, place.refs, place.failure, place.text)

    def write(self, answer: GrantBlock, value: Value) -> tuple[Cell, int]:
        """Begin to write a block; how long it takes."""
        cell = self.host.memory.find(answer.segment, answer.offset, answer.object)
        self.look_at(cell)
        return cell, time_of(len(value), self.costs.copy_bytes_per_s)

    def blocks(self) -> TaskID:
        """The run that stands still while the process waits: a worker's own."""
        return NO_TASK


def as_failure(error: do.BodyError) -> do.BodyFailed:
    """What user code raises when it does not catch what an operation raised."""
    failed = do.BodyFailed(f"{type(error).__name__}: {error}"[:200])
    failed.__cause__ = error
    if type(error) is do.ReadFailed:
        failed.token = error.got.value.token if type(error.got.value) is Blob else None
        failed.refs = error.got.refs
    return failed


def failure_of(failed: do.BodyFailed) -> Failure:
    """The kind that a worker reports for what a body raised."""
    cause = failed.__cause__
    return Failure.CANCELLED if type(cause) is do.Interrupted else Failure.APPLICATION
