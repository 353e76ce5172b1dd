"""Client: what the surface of detray calls, in a driver and in a worker alike.

Every method may be called by any thread. What a call does to the books it does under
`Connection.lock`; see `core/client.py` for the books and `runtime/connection.py` for who sends,
reads and waits.
"""

from __future__ import annotations

import os
import socket
import time
import weakref
from _thread import get_ident
from collections.abc import Callable
from threading import RLock, main_thread
from typing import Any

import msgspec

from detray.core import stimuli
from detray.core.client import BATCH_WEIGHT, Books
from detray.core.effects import ConfirmPin, FailRequest, Notify, Place, ReportStatus, Welcome
from detray.core.streams import RunContext, Stream
from detray.core.tickets import Ticket
from detray.errors import EngineError, ServiceDiedError
from detray.ids import (
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
from detray.runtime.forks import Forks
from detray.runtime.frames import FrameReader
from detray.runtime.getting import Fetcher
from detray.runtime.session import GREETING_DIGESTS, session_ip, session_name
from detray.runtime.shield import DriverShield, Shield
from detray.runtime.store import Store
from detray.serialization.values import Serialized


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
        digests: bool = False,
    ) -> None:
        """`store` is (descriptor, bytes) of the arena and the session directory.

        With `digests` messages tell the digests of the values that they bring: for a recording.
        """
        self.job = job
        self.node = node
        self.inline_bytes_max = inline_bytes_max
        self.digest = _digester() if digests else None
        """What makes digests, if anybody wants them."""
        self.books = Books(client)
        self.current = RunContext(root_task(job), 0, 0, "", _main_thread())
        self.is_worker = client > 0
        self.is_fork = False
        """True in a child that user code forked: nothing here is its own."""
        self._on_end = on_end
        self.connection = Connection(
            sock, self.books, shield or DriverShield(), self._note_end, self._tell, reader
        )
        self.lock = self.connection.lock
        self.export_lock = RLock()
        self.store = Store(*store, self._dropped_view)
        self._session_dir = store[2]
        self._session = ""
        self._ip = ""
        self.created = self.books.references.created.append
        self._dropped = self.books.references.dropped.append
        self._values = self.books.values
        self.forks = Forks(self.books.pins)
        self._flusher = Flusher(self.connection, self.forks)
        self._completions = Completions(self)
        getter = self.getter = Fetcher(self)
        self.get_one = getter.get_one
        self.get_many = getter.get_many
        self.wait = getter.wait
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

    @property
    def session(self) -> str:
        """The name of this session, or of the cluster that it is part of.

        Raises ServiceDiedError if the service has taken it away already.
        """
        if not self._session:
            try:
                self._session = session_name(self._session_dir)
            except FileNotFoundError:
                raise self.error() from None
        return self._session

    @property
    def ip(self) -> str:
        """The host at which others find this node."""
        if not self._ip:
            self._ip = session_ip(self._session_dir)
        return self._ip

    def claim(self, item: ObjectID, owner: NodeID) -> None:
        """Count a reference that came by the user's own pickling."""
        with self.changing():
            self.books.claim(item, owner)
        self.sent()

    def pin_forever(self, item: ObjectID) -> NodeID:
        """Hold `item` until the job ends: the user pickles a reference by himself. Its owner.

        Waits for the service: who gets those bytes may claim the reference at once, by another
        connection or at another node, which must not overtake the pin.
        """
        with self.changing():
            ticket = self.books.pin(item)
        self.expect(ticket)
        answer = ticket.answer
        if not isinstance(answer, ConfirmPin):
            raise EngineError(f"a pin was answered by {answer!r}")
        return answer.owner

    # -------------------------------------------------------------- functions and tasks

    def reserve_function(self) -> FunctionID:
        """A name for a function that will be exported."""
        with self.changing():
            return self._stream().next_export()

    def export_function(
        self, function: FunctionID, definition: bytes, name: str, refs: tuple[ObjectID, ...]
    ) -> None:
        """Export a pickled function under its reserved name; `refs` are captured in it."""
        size, mark = len(definition), self._digest(definition)
        self._say(
            stimuli.FunctionExported(self.books.client, function, name, size, refs, mark),
            definition,
        )

    def define_template(self, wanted: stimuli.TemplateDefined, exceptions: bytes) -> TemplateID:
        """Fix what many submissions share: `wanted`, but for the client and the number."""
        with self.changing():
            template = self.books.next_template()
            message = msgspec.structs.replace(
                wanted, client=self.books.client, template=template, size_bytes=len(exceptions)
            )
            self.books.send(message, *((exceptions,) if exceptions else ()))
        self.sent()
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
            raise self.error()
        mark = self.digest(data) if self.digest is not None and data else b""
        books = self.books
        with self.lock:
            stream = self.current.streams.get(get_ident()) or self._stream()
            items = books.submit(stream, template, num_returns, data, args, refs, False, mark)
        if books.out_weight >= BATCH_WEIGHT or self._flusher.asleep:
            self.sent()
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
            self.sent()

    # -------------------------------------------------------------- values

    def put(self, value: Serialized) -> ObjectID:
        """Store a value; its id, to be made a reference at once. Raises ObjectStoreFullError."""
        if value.size_bytes > self.inline_bytes_max:
            with self.changing():
                item = self._stream().next_put()
            mark = self.write_block(item, value)
            with self.lock:
                self.books.seal_put(item, value.refs, mark)
        else:
            data = value.to_bytes()
            mark = self._digest(data)
            with self.changing():
                stream = self.current.streams.get(get_ident()) or self._stream()
                item = self.books.put(stream, data, value.refs, mark)
        self.sent()
        return item

    def write_block(self, item: ObjectID, value: Serialized) -> bytes:
        """Ask for a block and write a value there; its digest, b"" if nobody wants to know.

        Raises ObjectStoreFullError and the like.
        """
        from detray.core.effects import GrantBlock, RefuseBlock

        with self.changing():
            ticket = self.books.request_block(item, value.size_bytes)
        try:
            self.expect(ticket)
            answer = ticket.answer
            if isinstance(answer, RefuseBlock):
                from detray.serialization.failures import error_from

                raise error_from(answer.failure, answer.text, None, item)
            if not isinstance(answer, GrantBlock):
                raise EngineError(f"a wish for a block was answered by {answer!r}")
            with self.store.block(answer.segment, answer.offset, value.size_bytes) as view:
                value.write_into(view)
                return self._digest(view)
        except BaseException:
            if not isinstance(ticket.answer, RefuseBlock):
                with self.lock:
                    self.books.abandon_block(item)
                self.sent()
            raise

    def add_done_callback(self, item: ObjectID, callback: Callable[..., object]) -> None:
        """Call `callback(value)` or `callback(None, error)`, in another thread, at the end."""
        self._completions.add(item, callback)

    def status(self, topic: str = "summary", limit: int = 1000) -> dict[str, Any]:
        """What the node knows, in plain dicts, lists, strings and integers."""
        with self.changing():
            ticket = self.books.request_status(topic, limit)
        self.expect(ticket)
        answer = ticket.answer
        if not isinstance(answer, ReportStatus):
            raise EngineError(f"a status request was answered by {answer!r}")
        report: dict[str, Any] = msgspec.msgpack.decode(answer.body)
        return report

    def reports(self) -> list[dict[str, Any]]:
        """What each node of the cluster tells about itself; in a private session there is one.

        Raises EngineError if the cluster's head does not answer.
        """
        from detray.runtime.asking import reports_from

        found = reports_from(self._session_dir)
        return [self.status()] if found is None else found

    # -------------------------------------------------------------- life

    def sleep(self, seconds: float) -> None:
        """Do nothing for so long."""
        time.sleep(seconds)

    def close(self) -> None:
        """Send what is left and leave. Everything that waits, and every later call, raises."""
        self._ended = self._ended or "this session was shut down"
        self.connection.close()
        self.store.close()
        self.forks.close()
        _open_clients.discard(self)

    def flush(self) -> None:
        """Send what is buffered now; nothing in a fork, where another thread's lock stays held."""
        if not self.is_fork:
            self.connection.flush()

    def forget(self) -> None:
        """In a forked child: the connection is the parent's, and so are the references."""
        self._ended = (
            "this process was forked from one that uses detray, and cannot use its session. Fork "
            "before detray.init(), or use the 'spawn' start method of multiprocessing"
        )
        self.is_fork = True
        self._values.clear()
        self._flusher.forget()
        self._dropped = _ignore
        self.created = _ignore

    def _note_end(self, reason: str) -> None:
        self._ended = self._ended or reason
        self._flusher.stop()
        if self._on_end is not None:
            self._on_end(reason)

    def error(self) -> Exception:
        """What every call raises once the session has ended."""
        return ServiceDiedError(
            f"detray cannot be used here any more: {self._ended}. After detray.shutdown(), "
            "detray.init() starts a new session"
        )

    # -------------------------------------------------------------- inside

    def _tell(self, notice: Notify | FailRequest) -> None:
        """Note what the service refused. What it wants the user to know comes by the log channel,
        which a thread reads even while the program does something else."""
        if isinstance(notice, FailRequest):
            self._fault = f"the service refused {notice.what}: {notice.text}"

    def changing(self) -> Any:  # Any: the lock's own type is private
        """The lock of the books, if the session still lives."""
        if self._ended:
            raise self.error()
        return self.lock

    def _stream(self) -> Stream:
        context = self.current
        thread = get_ident()
        return context.streams.get(thread) or context.open_stream(thread)

    def _digest(self, data: bytes | memoryview) -> bytes:
        return self.digest(data) if self.digest is not None else b""

    def _say(self, message: stimuli.ClientStimulus, *payloads: bytes) -> None:
        with self.changing():
            self.books.send(message, *payloads)
        self.sent()

    def sent(self) -> None:
        """Something was appended to the books: send a full batch, or see that somebody will."""
        if self.books.out_weight >= BATCH_WEIGHT:
            self.connection.flush()
        elif self._flusher.asleep:
            self._flusher.kick()

    def expect(self, ticket: Ticket, timeout_s: float | None = None) -> bool:
        """Wait for an answer; False if none came in time. Raises EngineError if it is a refusal."""
        if not self.connection.wait(ticket, timeout_s):
            return False
        if ticket.answer is None:
            raise self.error()
        if self._fault:
            fault, self._fault = self._fault, ""
            raise EngineError(fault)
        return True

    def view(self, place: Place) -> memoryview:
        """A block's bytes; takes over the pin that came with the place."""
        return self.store.view(place.object, place.segment, place.offset, place.size_bytes)


def connect(
    sock: socket.socket,
    session_dir: str,
    timeout_s: float = 60.0,
    make: Callable[..., Client] = Client,
) -> Client:
    """Meet the service on a driver's socket: take the arena and the welcome, make the client.

    Raises ServiceDiedError if the service ends first, TimeoutError if it says nothing.
    """
    sock.settimeout(timeout_s)
    greeting, fds, _, _ = socket.recv_fds(sock, 1, 1)
    if not fds:
        raise ServiceDiedError("the service ended while it started")
    reader = FrameReader()
    while (piece := reader.next()) is None:
        if not reader.receive(sock):
            os.close(fds[0])
            raise ServiceDiedError("the service ended while it started")
    welcome = msgspec.msgpack.decode(piece[0], type=list[Welcome])[0]
    return make(
        sock,
        client=welcome.client,
        job=welcome.job,
        node=welcome.node,
        inline_bytes_max=welcome.inline_bytes_max,
        store=(fds[0], welcome.arena_bytes, session_dir),
        reader=reader,
        digests=greeting == GREETING_DIGESTS,
    )


def _digester() -> Callable[[bytes | memoryview], bytes]:
    from detray.serialization.digests import digest  # here: most sessions need none

    return digest


def _main_thread() -> int:
    return main_thread().ident or 0


def _ignore(item: ObjectID) -> None:
    """What a forked child does with its copies of the parent's references."""


_open_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _before_fork() -> None:
    for client in list(_open_clients):
        client.forks.begin()


def _after_fork_in_parent() -> None:
    for client in list(_open_clients):
        client.forks.end_in_parent()


def _after_fork_in_child() -> None:
    for client in list(_open_clients):
        client.forks.end_in_child()
        client.forget()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
