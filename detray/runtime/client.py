"""Client: what the surface of detray calls, in a driver and in a worker alike.

Every method may be called by any thread. What a call does to the books it does under
`Connection.lock`; see `core/client.py` for the books and `runtime/connection.py` for who sends,
reads and waits.
"""

from __future__ import annotations

import os
import socket
import sys
import weakref
from _thread import get_ident
from collections.abc import Callable, Sequence
from threading import RLock, main_thread
from typing import Any

import msgspec

from detray.core import stimuli
from detray.core.client import BATCH_WEIGHT, Books
from detray.core.effects import INLINE, FailRequest, Notify, Place, ReportStatus, Welcome
from detray.core.streams import RunContext, Stream
from detray.core.tickets import Ticket, TicketGroup
from detray.errors import EngineError, GetTimeoutError, ServiceDiedError
from detray.ids import (
    NO_TASK,
    ClientID,
    FunctionID,
    JobNumber,
    NodeID,
    ObjectID,
    TemplateID,
    root_task,
)
from detray.runtime.completions import Completions
from detray.runtime.connection import Connection
from detray.runtime.flusher import Flusher
from detray.runtime.frames import FrameReader
from detray.runtime.serialization import Serialized, deserialize
from detray.runtime.shield import DriverShield, Shield
from detray.runtime.store import Store

ANSWER_GRACE_S = 1.0
"""The core keeps the time of a get. Beyond it by this much, the service must be stuck."""


class Client:
    """One process's end of the protocol."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        client: ClientID,
        job: JobNumber,
        node: NodeID,
        inline_bytes_max: int,
        store: tuple[int, int, str],
        reader: FrameReader | None = None,
        shield: Shield | None = None,
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        """`store` is (descriptor, bytes) of the arena and the session directory."""
        self.job = job
        self.node = node
        self.inline_bytes_max = inline_bytes_max
        self.books = Books(client)
        self.current = RunContext(root_task(job), 0, 0, "", _main_thread())
        self.is_worker = client > 0
        self._on_end = on_end
        self.connection = Connection(
            sock, self.books, shield or DriverShield(), self._note_end, self._tell, reader
        )
        self.lock = self.connection.lock
        self.export_lock = RLock()
        self.store = Store(*store, self._dropped_view)
        self.created = self.books.references.created.append
        self._dropped = self.books.references.dropped.append
        self._values = self.books.values
        self._flusher = Flusher(self.connection)
        self._completions = Completions(self)
        self._ended = ""
        """Why nothing can be done any more."""
        self._fault = ""
        """What the service refused; the next call that waits raises it. A bug of ours."""
        _open_clients.add(self)

    # -------------------------------------------------------------- references

    def dropped(self, item: ObjectID) -> None:
        """A reference died. Called from `__del__`, at any moment, in any thread."""
        self._dropped(item)
        if self._flusher.asleep:
            self._flusher.kick()

    def _dropped_view(self, item: ObjectID) -> None:
        """A view died. Called like `dropped`."""
        self.books.pins.dropped.append(item)
        if self._flusher.asleep:
            self._flusher.kick()

    def claim(self, item: ObjectID) -> None:
        """Count a reference that came by the user's own pickling."""
        with self._changing():
            self.books.claim(item)
        self._sent()

    def pin_forever(self, item: ObjectID) -> None:
        """Hold `item` until the job ends: the user pickles a reference by himself."""
        self._say(stimuli.RefPinned(self.books.client, item))
        # Who gets those bytes may claim the reference by another connection at once.
        self.connection.flush()

    # -------------------------------------------------------------- functions and tasks

    def reserve_function(self) -> FunctionID:
        """A name for a function that will be exported."""
        with self._changing():
            return self._stream().next_export()

    def export_function(
        self, function: FunctionID, definition: bytes, name: str, refs: tuple[ObjectID, ...]
    ) -> None:
        """Export a pickled function under its reserved name; `refs` are captured in it."""
        size = len(definition)
        self._say(
            stimuli.FunctionExported(self.books.client, function, name, size, refs), definition
        )

    def define_template(
        self,
        function: FunctionID,
        name: str,
        num_returns: int,
        demand: tuple[tuple[str, int], ...],
        max_retries: int,
        retry_application_errors: bool,
        max_calls: int,
        exceptions: bytes,
    ) -> TemplateID:
        """Fix what many submissions share; see `TemplateDefined`."""
        with self._changing():
            template = self.books.next_template()
            message = stimuli.TemplateDefined(
                self.books.client,
                template,
                function,
                name,
                num_returns,
                demand,
                max_retries,
                retry_application_errors,
                max_calls,
                len(exceptions),
            )
            self.books.send(message, *((exceptions,) if exceptions else ()))
        self._sent()
        return template

    def submit(
        self,
        template: TemplateID,
        num_returns: int,
        blob: Serialized | None,
        args: tuple[ObjectID, ...] = (),
    ) -> list[ObjectID]:
        """Submit a call; the ids of its returns, each to be made a reference at once."""
        if blob is None:
            data = b""
            refs: tuple[ObjectID, ...] = ()
        elif blob.size_bytes > self.inline_bytes_max:
            return self._submit_packed(template, num_returns, blob, args)
        else:
            data, refs = blob.to_bytes(), blob.refs
        if self._ended:
            raise self._error()
        books = self.books
        with self.lock:
            stream = self.current.streams.get(get_ident()) or self._stream()
            items = books.submit(stream, template, num_returns, data, args, refs)
        if books.out_weight >= BATCH_WEIGHT or self._flusher.asleep:
            self._sent()
        return items

    def cancel(self, item: ObjectID, force: bool, recursive: bool) -> None:
        """Cancel the producer of `item`."""
        self._say(stimuli.CancelRequested(self.books.client, item, force, recursive))
        self.connection.flush()

    def _submit_packed(
        self,
        template: TemplateID,
        num_returns: int,
        blob: Serialized,
        args: tuple[ObjectID, ...],
    ) -> list[ObjectID]:
        item = self.put(blob)
        self.created(item)
        try:
            with self.lock:
                stream = self._stream()
                return self.books.submit(
                    stream, template, num_returns, b"", (item, *args), (), True
                )
        finally:
            self.dropped(item)
            self._sent()

    # -------------------------------------------------------------- values

    def put(self, value: Serialized) -> ObjectID:
        """Store a value; its id, to be made a reference at once. Raises ObjectStoreFullError."""
        if value.size_bytes > self.inline_bytes_max:
            with self._changing():
                item = self._stream().next_put()
            self.write_block(item, value)
            with self.lock:
                self.books.seal_put(item, value.refs)
        else:
            data = value.to_bytes()
            with self._changing():
                stream = self.current.streams.get(get_ident()) or self._stream()
                item = self.books.put(stream, data, value.refs)
        self._sent()
        return item

    def write_block(self, item: ObjectID, value: Serialized) -> None:
        """Ask for a block and write a value there. Raises ObjectStoreFullError and the like."""
        from detray.core.effects import GrantBlock, RefuseBlock

        with self._changing():
            ticket = self.books.request_block(item, value.size_bytes)
        try:
            self._await(ticket)
            answer = ticket.answer
            if isinstance(answer, RefuseBlock):
                from detray.runtime.failures import error_from

                raise error_from(answer.failure, answer.text, None, item)
            if not isinstance(answer, GrantBlock):
                raise EngineError(f"a wish for a block was answered by {answer!r}")
            with self.store.block(answer.segment, answer.offset, value.size_bytes) as view:
                value.write_into(view)
        except BaseException:
            if not isinstance(ticket.answer, RefuseBlock):
                with self.lock:
                    self.books.abandon_block(item)
                self._sent()
            raise

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
            return self._fetch([item], [None], timeout)[0]
        return self._read(item, data)

    def begin_get(self, item: ObjectID, group: TicketGroup) -> Ticket:
        """Ask for an object without waiting; `finish_get` when the ticket is done."""
        with self._changing():
            ticket = self.books.request(
                (item,), 1, fail_fast=True, fetch=True, timeout_ns=-1, blocks=NO_TASK, group=group
            )
        self.connection.flush()
        return ticket

    def finish_get(self, ticket: Ticket, item: ObjectID) -> Any:
        """The value that a ticket of `begin_get` brought; raises as `get_many` does."""
        if ticket.answer is None:
            raise self._error()
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
        ready = {item for item in items if item in values}
        if len(ready) >= num_returns:
            return ready
        missing = [item for item in items if item not in ready]
        ticket = self._request(missing, num_returns - len(ready), timeout, fetch=False)
        ready.update(ticket.found)
        self._discard(ticket)
        return ready

    def add_done_callback(self, item: ObjectID, callback: Callable[..., object]) -> None:
        """Call `callback(value)` or `callback(None, error)`, in another thread, at the end."""
        self._completions.add(item, callback)

    def status(self, topic: str = "summary", limit: int = 1000) -> dict[str, Any]:
        """What the node knows, in plain dicts, lists, strings and integers."""
        with self._changing():
            ticket = self.books.request_status(topic, limit)
        self._await(ticket)
        answer = ticket.answer
        if not isinstance(answer, ReportStatus):
            raise EngineError(f"a status request was answered by {answer!r}")
        report: dict[str, Any] = msgspec.msgpack.decode(answer.body)
        return report

    # -------------------------------------------------------------- life

    def close(self) -> None:
        """Send what is left and leave. Everything that waits, and every later call, raises."""
        self._ended = self._ended or "this session was shut down"
        self.connection.close()
        _open_clients.discard(self)

    def flush(self) -> None:
        """Send what is buffered now."""
        self.connection.flush()

    def forget(self) -> None:
        """In a forked child: the connection is the parent's, and so are the references."""
        self._ended = (
            "this process was forked from one that uses detray, and cannot use its session. Fork "
            "before detray.init(), or use the 'spawn' start method of multiprocessing"
        )
        self._values.clear()
        self._flusher.forget()
        self._dropped = _ignore
        self.created = _ignore

    def _note_end(self, reason: str) -> None:
        self._ended = self._ended or reason
        if self._on_end is not None:
            self._on_end(reason)

    def _error(self) -> Exception:
        return ServiceDiedError(f"detray cannot be used here any more: {self._ended}")

    # -------------------------------------------------------------- inside

    def _tell(self, notice: Notify | FailRequest) -> None:
        """Pass on what the service wants the user to know."""
        if isinstance(notice, Notify):
            print(f"(detray) {notice.level}: {notice.text}", file=sys.stderr)
        else:
            self._fault = f"the service refused {notice.what}: {notice.text}"

    def _changing(self) -> Any:  # Any: the lock's own type is private
        """The lock of the books, if the session still lives."""
        if self._ended:
            raise self._error()
        return self.lock

    def _stream(self) -> Stream:
        context = self.current
        thread = get_ident()
        return context.streams.get(thread) or context.open_stream(thread)

    def _say(self, message: stimuli.ClientStimulus, *payloads: bytes) -> None:
        with self._changing():
            self.books.send(message, *payloads)
        self._sent()

    def _sent(self) -> None:
        """Something was appended to the books: send a full batch, or see that somebody will."""
        if self.books.out_weight >= BATCH_WEIGHT:
            self.connection.flush()
        elif self._flusher.asleep:
            self._flusher.kick()

    def _await(self, ticket: Ticket, timeout_s: float | None = None) -> None:
        if not self.connection.wait(ticket, timeout_s):
            raise EngineError(f"the service did not answer within {timeout_s} s")
        if ticket.answer is None:
            raise self._error()
        if self._fault:
            fault, self._fault = self._fault, ""
            raise EngineError(fault)

    def _request(
        self, items: list[ObjectID], needed: int, timeout: float | None, *, fetch: bool
    ) -> Ticket:
        """Ask for objects and wait for the answer."""
        with self._changing():
            context = self.current
            blocks = NO_TASK
            if self.is_worker and get_ident() == context.executing:
                blocks = context.task
            ticket = self.books.request(
                tuple(items),
                needed,
                fail_fast=fetch,
                fetch=fetch,
                timeout_ns=-1 if timeout is None else int(timeout * 1e9),
                blocks=blocks,
            )
        try:
            self._await(ticket, None if timeout is None else timeout + ANSWER_GRACE_S)
        except BaseException:
            with self.lock:
                self.books.abandon(ticket)
            self._sent()
            raise
        return ticket

    def _discard(self, ticket: Ticket) -> None:
        if ticket.found:
            with self.lock:
                self.books.discard(ticket)
            self._sent()

    def _check_answer(self, ticket: Ticket, items: list[ObjectID], timeout: float | None) -> None:
        """Raise what a get has to raise instead of returning values."""
        found = ticket.found
        for item in items:
            entry = found.get(item)
            if isinstance(entry, tuple) and entry[0].failure:
                from detray.runtime.failures import error_from

                place, payload = entry
                # The error's references are counted as it is unpickled, before its carrier goes
                # (`_discard`).
                raise error_from(place.failure, place.text, payload, item)
        if len(found) < len(items):
            late = next(item for item in items if item not in found)
            raise GetTimeoutError(
                f"{len(items) - len(found)} of {len(items)} objects were not available within "
                f"{timeout} s; the first of them is ObjectRef({late.hex()})"
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
            return self._read(place.object, self.view(place))
        finally:
            if place.refs:
                # After the unpickling: what it made is counted before the carrier goes.
                self.books.references.release(place.refs)
                self._sent()

    def view(self, place: Place) -> memoryview:
        """A block's bytes; takes over the pin that came with the place."""
        return self.store.view(place.object, place.segment, place.offset, place.size_bytes)


def connect(sock: socket.socket, session_dir: str, timeout_s: float = 60.0) -> Client:
    """Meet the service on a driver's socket: take the arena and the welcome, make the client.

    Raises ServiceDiedError if the service ends first, TimeoutError if it says nothing.
    """
    sock.settimeout(timeout_s)
    _, fds, _, _ = socket.recv_fds(sock, 1, 1)
    if not fds:
        raise ServiceDiedError("the service ended while it started")
    reader = FrameReader()
    while (piece := reader.next()) is None:
        if not reader.receive(sock):
            os.close(fds[0])
            raise ServiceDiedError("the service ended while it started")
    welcome = msgspec.msgpack.decode(piece[0], type=list[Welcome])[0]
    return Client(
        sock,
        client=welcome.client,
        job=welcome.job,
        node=welcome.node,
        inline_bytes_max=welcome.inline_bytes_max,
        store=(fds[0], welcome.arena_bytes, session_dir),
        reader=reader,
    )


def _unreadable(item: ObjectID, problem: Exception) -> EngineError:
    return EngineError(
        f"ObjectRef({item.hex()}) cannot be unpickled here: {type(problem).__name__}: {problem}"
    )


def _main_thread() -> int:
    return main_thread().ident or 0


def _ignore(item: ObjectID) -> None:
    """What a forked child does with its copies of the parent's references."""


_open_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _forget_all() -> None:
    for client in list(_open_clients):
        client.forget()


os.register_at_fork(after_in_child=_forget_all)
