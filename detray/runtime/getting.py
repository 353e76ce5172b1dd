"""Getting values: what is at hand, what must be asked for, what an answer turns into."""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detray.core.effects import INLINE, Place
from detray.core.tickets import Ticket, TicketGroup
from detray.errors import EngineError, GetTimeoutError
from detray.ids import NO_TASK, ObjectID
from detray.serialization.values import deserialize

if TYPE_CHECKING:
    from detray.runtime.client import Client

ANSWER_GRACE_S = 1.0
"""The core keeps the time of a get. Beyond it by this much we keep it ourselves: the service is
stuck, or the machine is busy."""
_TIMEOUT_S_MAX = 1e9
"""Longer than any process lives, and still a 64-bit number of nanoseconds."""


class Fetcher:
    """A client's `get` and `wait`; the methods without underscore are the client's own."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._books = client.books
        self._values = client.books.values

    def get_many(self, items: Sequence[ObjectID], timeout: float | None = None) -> list[Any]:
        """The values of `items`, in order. (Any: they are the user's.)

        Raises the exception of the first that failed, as soon as one has; GetTimeoutError if
        `timeout` seconds were not enough.
        """
        at_hand = list(map(self._values.get, items))
        if None in at_hand:
            return self._fetch(items, at_hand, timeout)
        values: list[Any] = []
        try:
            for data in at_hand:
                values.append(deserialize(data))  # type: ignore[arg-type]  # None was looked for
        except Exception as problem:
            raise _unreadable(items[len(values)], problem) from problem
        return values

    def get_one(self, item: ObjectID, timeout: float | None = None) -> Any:
        """The value of one object; see `get_many`."""
        data = self._values.get(item)
        if data is None:
            ticket = self._request([item], 1, timeout, fetch=True, ahead=True)
            came, loaded = self._load(ticket, [item], timeout)
            return loaded[item] if item in loaded else self._read(item, came[item])
        return self._read(item, data)

    def begin(self, item: ObjectID, group: TicketGroup) -> Ticket:
        """Ask for an object without waiting; `finish` when the ticket is done."""
        with self._client.changing():
            ticket = self._books.request(
                (item,), 1, fail_fast=True, fetch=True, timeout_ns=-1, blocks=NO_TASK, group=group
            )
        self._client.connection.flush()
        return ticket

    def finish(self, ticket: Ticket, item: ObjectID) -> Any:
        """The value that a ticket of `begin` brought; raises as `get_many` does."""
        if ticket.answer is None:
            raise self._client.error()
        values, loaded = self._load(ticket, [item], None)
        return loaded[item] if item in loaded else self._read(item, values[item])

    def _fetch(
        self, items: Sequence[ObjectID], at_hand: list[bytes | None], timeout: float | None
    ) -> list[Any]:
        """`get_many` if not all values are at hand."""
        here = {item: data for item, data in zip(items, at_hand, strict=True) if data is not None}
        missing = [item for item in dict.fromkeys(items) if item not in here]
        ticket = self._request(missing, len(missing), timeout, fetch=True)
        came, loaded = self._load(ticket, missing, timeout)
        here.update(came)
        return [self._read(item, here[item]) if item in here else loaded[item] for item in items]

    def _load(
        self, ticket: Ticket, items: list[ObjectID], timeout: float | None
    ) -> tuple[dict[ObjectID, bytes], dict[ObjectID, Any]]:
        """What a get brought: plain bytes, and the values of what had to be unpickled at once."""
        came: dict[ObjectID, bytes] = {}
        loaded: dict[ObjectID, Any] = {}
        try:
            self._check_answer(ticket, items, timeout)
            for item in items:
                entry = ticket.found.pop(item)
                if isinstance(entry, bytes):
                    came[item] = entry
                else:
                    loaded[item] = self.read_place(*entry)
        finally:
            self._discard(ticket)
        return came, loaded

    def wait(
        self, items: Sequence[ObjectID], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> set[ObjectID]:
        """Those of the distinct `items` that are available, once `num_returns` are or time is up.

        `fetch_local` makes no difference within one node.
        """
        values = self._values
        ready: set[ObjectID] = set()
        for item in items:
            if item in values:
                ready.add(item)
                if len(ready) >= num_returns:
                    return ready
        missing = [item for item in items if item not in ready]
        ticket = self._request(missing, num_returns - len(ready), timeout, fetch=False)
        ready.update(ticket.found)
        self._discard(ticket)
        return ready

    def _request(
        self,
        items: list[ObjectID],
        needed: int,
        timeout: float | None,
        *,
        fetch: bool,
        ahead: bool = False,
    ) -> Ticket:
        """Ask for objects and wait for the answer, or for none in time: then nothing was found."""
        with self._client.changing():
            context = self._client.current
            blocks = NO_TASK
            if self._client.is_worker and get_ident() == context.executing:
                blocks = context.task
            ticket = self._books.request(
                tuple(items),
                needed,
                fail_fast=fetch,
                fetch=fetch,
                timeout_ns=_nanoseconds(timeout),
                blocks=blocks,
                also=self._books.read_ahead(items[0]) if ahead else (),
            )
        has_answer = False
        try:
            has_answer = self._client.expect(ticket, _patience(timeout))
        finally:
            if not has_answer:
                with self._client.lock:
                    self._books.abandon(ticket)
                self._client.sent()
        return ticket

    def _discard(self, ticket: Ticket) -> None:
        if ticket.found:
            with self._client.lock:
                self._books.discard(ticket)
            self._client.sent()

    def _check_answer(self, ticket: Ticket, items: list[ObjectID], timeout: float | None) -> None:
        """Raise what a get has to raise instead of returning values."""
        found = ticket.found
        for item in items:
            entry = found.get(item)
            if isinstance(entry, tuple) and entry[0].failure:
                from detray.serialization.failures import error_from

                place, payload = entry
                # The error's references are counted as it is unpickled, before its carrier goes
                # (`_discard`).
                raise error_from(place.failure, place.text, payload, item)
        if len(found) < len(items):
            late = next(item for item in items if item not in found)
            raise GetTimeoutError(
                f"{len(items) - len(found)} of {len(items)} objects were not available within "
                f"{timeout} s; the first of them is ObjectRef({late.hex()}). Their tasks go "
                "on: get them again, or cancel them"
            )

    def _read(self, item: ObjectID, data: bytes | memoryview) -> Any:
        try:
            return deserialize(data)
        except Exception as problem:
            raise _unreadable(item, problem) from problem

    def read_place(self, place: Place, data: bytes) -> Any:
        """Unpickle a value that came with grants or a pin; takes them over."""
        try:
            if place.segment == INLINE:
                return self._read(place.object, data)
            return self._read(place.object, self._client.view(place))
        finally:
            if place.refs:
                # After the unpickling: what it made is counted before the carrier goes.
                self._books.references.release(place.refs)
                self._client.sent()


def _patience(timeout: float | None) -> float | None:
    """How long to wait for the service's answer; None: as long as it takes."""
    if timeout is None or timeout > _TIMEOUT_S_MAX:
        return None
    return timeout + ANSWER_GRACE_S


def _nanoseconds(timeout: float | None) -> int:
    if timeout is None or timeout > _TIMEOUT_S_MAX:
        return -1
    return int(timeout * 1e9)


def _unreadable(item: ObjectID, problem: Exception) -> EngineError:
    return EngineError(
        f"ObjectRef({item.hex()}) cannot be unpickled here: {type(problem).__name__}: {problem}"
    )
