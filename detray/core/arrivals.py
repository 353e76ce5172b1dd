"""What arrives at a client: each message from the service, entered into the books.

A reference in a message is granted by it: counted as received here, in the same step, whether or
not anybody still wants it (PROTOCOL D 5). A view pin likewise, per place with a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from detray.core import effects
from detray.core.client import Books
from detray.core.effects import INLINE, ClientMessage, GetAnswered, Place, RunTask
from detray.core.run_queue import QueuedRun
from detray.core.tickets import Ticket


class Payload(Protocol):
    """What the messages of a frame take their payload from, in order."""

    def take(self, size_bytes: int) -> bytes:
        """The next `size_bytes`."""

    def of(self, place: Place) -> bytes:
        """The bytes of a place, if they travel inline."""


def receive(books: Books, messages: Sequence[ClientMessage], payload: memoryview) -> list[Ticket]:
    """Enter a frame's messages; the tickets that are done now.

    Payload is copied: the view may die.
    """
    return enter(books, messages, Cutter(payload))


def enter(books: Books, messages: Sequence[ClientMessage], cut: Payload) -> list[Ticket]:
    """Enter messages whose payload is cut already, or never was one piece (in the simulator)."""
    done: list[Ticket] = []
    for message in messages:
        _ENTER[type(message)](books, message, cut, done)
    return done


def retract(books: Books, count: int) -> None:
    """A marker came: the last `count` runs in the queue are the service's again."""
    for run in books.queue.retract(count):
        books.release_run(run)


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


def _grant(books: Books, place: Place) -> None:
    if place.refs:
        books.references.receive(place.refs)
    if place.segment != INLINE:
        books.pins.receive((place.object,))


def _on_answer(books: Books, message: GetAnswered, cut: Payload, done: list[Ticket]) -> None:
    ticket = books.requests.get(message.request)
    for place in message.places:
        data = cut.of(place)
        if not place.failure and place.segment == INLINE and not place.refs:
            books.keep(place.object, data or None)
            if ticket is not None:
                ticket.found[place.object] = data
            continue
        _grant(books, place)
        if ticket is not None:
            ticket.found[place.object] = (place, data)
        else:  # Abandoned meanwhile: counted as received, and given back.
            books.release(place)
    for place in message.also:
        books.keep(place.object, cut.take(place.size_bytes))
    if not message.more and ticket is not None:
        del books.requests[message.request]
        ticket.timed_out = message.timed_out
        ticket.finish(message, done)


def _on_told(
    books: Books,
    message: effects.ReportStatus | effects.ConfirmPin,
    cut: Payload,
    done: list[Ticket],
) -> None:
    ticket = books.requests.pop(message.request, None)
    if ticket is not None:
        ticket.finish(message, done)


def _on_block(
    books: Books,
    message: effects.GrantBlock | effects.RefuseBlock,
    cut: Payload,
    done: list[Ticket],
) -> None:
    ticket = books.blocks.pop(message.object, None)
    if ticket is not None:
        ticket.finish(message, done)


def _on_run(books: Books, message: RunTask, cut: Payload, done: list[Ticket]) -> None:
    blob = cut.take(message.size_bytes)
    values: tuple[bytes, ...] = ()
    if message.args:
        values = tuple([cut.of(place) for place in message.args])
        for place in message.args:
            _grant(books, place)
    if message.refs:
        books.references.receive(message.refs)
    books.queue.runs.append(QueuedRun(message, blob, values))
    _arrived(books, done)


def _on_function(
    books: Books, message: effects.DefineFunction, cut: Payload, done: list[Ticket]
) -> None:
    # Its references are carried by the definition until the function is loaded (`execution.py`).
    books.references.receive(message.refs)
    books.queue.definitions[message.function] = (message, cut.take(message.size_bytes))


def _on_template(
    books: Books, message: effects.DefineTemplate, cut: Payload, done: list[Ticket]
) -> None:
    books.queue.templates[message.template] = (message, cut.take(message.size_bytes))


def _on_interrupt(
    books: Books, message: effects.InterruptRun, cut: Payload, done: list[Ticket]
) -> None:
    # The pipe and the signal reach a run that has begun; this reaches one that has not.
    task, attempt = message.task, message.attempt
    if any(r.message.task == task and r.message.attempt == attempt for r in books.queue.runs):
        books.queue.interrupt(task, attempt)


def _on_exit(books: Books, message: effects.ExitWorker, cut: Payload, done: list[Ticket]) -> None:
    books.queue.leaving = True
    _arrived(books, done)


def _on_notice(
    books: Books,
    message: effects.Notify | effects.FailRequest,
    cut: Payload,
    done: list[Ticket],
) -> None:
    books.notices.append(message)


def _on_welcome(books: Books, message: effects.Welcome, cut: Payload, done: list[Ticket]) -> None:
    """Only the first frame has one, and whoever connected has read it."""


def _arrived(books: Books, done: list[Ticket]) -> None:
    ticket, books.arrivals = books.arrivals, None
    if ticket is not None:
        ticket.finish(None, done)


# Any: each entry takes the message type that is its key.
_ENTER: dict[type, Callable[[Books, Any, Payload, list[Ticket]], None]] = {
    effects.Welcome: _on_welcome,
    effects.DefineFunction: _on_function,
    effects.DefineTemplate: _on_template,
    effects.RunTask: _on_run,
    effects.InterruptRun: _on_interrupt,
    effects.GetAnswered: _on_answer,
    effects.GrantBlock: _on_block,
    effects.RefuseBlock: _on_block,
    effects.ReportStatus: _on_told,
    effects.ConfirmPin: _on_told,
    effects.ExitWorker: _on_exit,
    effects.Notify: _on_notice,
    effects.FailRequest: _on_notice,
}
