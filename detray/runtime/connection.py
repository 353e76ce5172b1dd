"""A client's stream to its service: who sends, who reads, who waits.

Theory of operation
-------------------
There is no reader thread: handing an answer from one thread to another costs more than the answer.
Whoever waits tries to become the *leader*, who reads the socket for everybody; the others
(*followers*) sleep on a lock of their own until their ticket is done or the leader leaves.

Three locks, taken in this order, never the other way round:

* `_sending`: the order of frames on the wire is the order of `Books.take`;
* `_reading`: held by the leader;
* `lock`: the books. Held for microseconds, never while blocking.

The socket is non-blocking. Who cannot send reads meanwhile: the service may be waiting for us to
read before it reads again.

The end of the stream, by whatever cause, ends every ticket; later calls raise `broken`.
"""

from __future__ import annotations

import select
import socket
from _thread import LockType, allocate_lock
from collections.abc import Callable
from time import monotonic, sleep

import msgspec

from detray.core.arrivals import receive, retract
from detray.core.client import Books, Outgoing
from detray.core.effects import ClientMessage, FailRequest, Notify
from detray.core.tickets import Ticket
from detray.runtime.frames import FrameError, FrameReader, frame
from detray.runtime.shield import Shield
from detray.runtime.spin import Spinner

_SEND_RETRY_MS = 20
_MARKER = b"\x91\x92\xa9retracted"
_END = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Connection:
    """Sends what the books want sent, and enters what comes, until the stream ends."""

    def __init__(
        self,
        sock: socket.socket,
        books: Books,
        shield: Shield,
        on_end: Callable[[str], None],
        on_notice: Callable[[Notify | FailRequest], None],
        reader: FrameReader | None = None,
    ) -> None:
        """`on_end` is called once, with the reason; `on_notice` by whoever reads one."""
        sock.setblocking(False)
        self.lock = allocate_lock()
        self.books = books
        self.shield = shield
        self.broken: str | None = None
        self._sock = sock
        self._on_end = on_end
        self._on_notice = on_notice
        self._sending = allocate_lock()
        self._reading = allocate_lock()
        self._followers: dict[Ticket, LockType] = {}
        self._reader = reader or FrameReader()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[ClientMessage]).decode
        self._input = select.poll()
        self._input.register(sock, select.POLLIN)
        self._spinner = Spinner(self._input)

    def flush(self, last: Outgoing | None = None) -> None:
        """Send everything, `last` after what is there already.

        Raises nothing if the stream has ended: the next wait says so.
        """
        raised = self.shield.raise_()
        try:
            with self._sending:
                with self.lock:
                    if last is not None:
                        self.books.out.append(last)
                    messages, payloads = self.books.take()
                if messages and self.broken is None:
                    self._send(frame(self._encode(messages), payloads))
        finally:
            if raised:
                self.shield.lower()

    def wait(self, ticket: Ticket, timeout_s: float | None = None) -> bool:
        """Flush, then wait until `ticket` is done; False if `timeout_s` ran out first.

        A signal handler that raises ends the wait with its exception, everything consistent.
        """
        deadline = None if timeout_s is None else monotonic() + timeout_s
        follower: LockType | None = None
        raised = self.shield.raise_()
        try:
            self.flush()
            while not ticket.done:
                if self._reading.acquire(False):
                    try:
                        in_time = self._lead(ticket, deadline)
                    finally:
                        self._stop_reading()
                elif follower is None:
                    # Registered first, then looked again: the leader may just have left.
                    follower = self._follow(ticket)
                    continue
                else:
                    in_time = self._sleep(follower, deadline)
                if not in_time:
                    return ticket.done
            return True
        finally:
            if follower is not None:
                self._followers.pop(ticket, None)
                # If the leader chose us to be the next one just now, somebody else must be.
                self._wake_next()
            if raised:
                self.shield.lower()

    def arrive(self, ticket: Ticket) -> None:
        """Register the ticket that whatever comes into the queue makes done."""
        with self.lock:
            self.books.arrivals = ticket

    @property
    def fileno(self) -> int:
        """The socket's descriptor, to poll it together with others."""
        return self._sock.fileno()

    def receive_now(self, wait_ms: int = 0) -> None:
        """Enter what has come, or comes within `wait_ms`, unless somebody else is reading."""
        raised = self.shield.raise_()
        try:
            if self._reading.acquire(False):
                try:
                    if self._input.poll(wait_ms):
                        self._receive()
                finally:
                    self._stop_reading()
            elif wait_ms:
                sleep(0.001)
        finally:
            if raised:
                self.shield.lower()

    def end(self, reason: str) -> None:
        """The stream is over: every ticket is done, everybody who waits wakes up."""
        with self.lock:
            if self.broken is not None:
                return
            self.broken = reason
            tickets = self.books.end()
        self._wake(tickets)
        self._on_end(reason)

    def close(self) -> None:
        """Send what is left and end the stream from our side."""
        self.flush()
        self.end("this process closed it")
        try:
            # Wakes a leader in another thread; close alone would leave it in its poll.
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._sock.close()

    # -------------------------------------------------------------- sending

    def _send(self, data: bytes) -> None:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.end(f"the service does not answer (sending failed: {error})")
            return
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:])

    def _send_rest(self, rest: memoryview) -> None:
        """The socket is full: send the rest piece by piece, reading meanwhile."""
        try:
            while rest and self.broken is None:
                try:
                    rest = rest[self._sock.send(rest) :]
                except BlockingIOError:
                    self._read_until_writable()
        except OSError as error:
            self.end(f"the service does not answer (sending failed: {error})")

    def _read_until_writable(self) -> None:
        both = select.poll()
        if not self._reading.acquire(False):
            # Somebody else drains the socket; look again soon, the leader may leave.
            both.register(self._sock, select.POLLOUT)
            both.poll(_SEND_RETRY_MS)
            return
        try:
            both.register(self._sock, select.POLLOUT | select.POLLIN)
            while self.broken is None:
                for _, what in both.poll():
                    if what & select.POLLIN:
                        self._receive()
                    if what & (select.POLLOUT | _END):
                        return
        finally:
            self._stop_reading()

    # -------------------------------------------------------------- reading

    def _lead(self, ticket: Ticket, deadline: float | None) -> bool:
        while not ticket.done:
            if not self._spinner.find_input() and not self._block(deadline):
                return False
            self._receive()
        return True

    def _block(self, deadline: float | None) -> bool:
        """Sleep until something is readable; False if the deadline passed first."""
        if deadline is None:
            timeout_ms = None
        else:
            timeout_ms = max(0, int((deadline - monotonic()) * 1000) + 1)
            if timeout_ms == 0:
                return False
        opened = self.shield.open()
        try:
            return bool(self._input.poll(timeout_ms)) or monotonic() < (deadline or 0)
        finally:
            if opened:
                self.shield.close()

    def _receive(self) -> None:
        """Read once and enter every complete frame."""
        reader = self._reader
        try:
            if not reader.receive(self._sock):
                self.end("the service closed the connection")
                return
            while (piece := reader.next()) is not None:
                self._enter(*piece)
        except BlockingIOError:
            return
        except (OSError, FrameError) as error:
            self.end(f"receiving failed: {error}")

    def _enter(self, meta: memoryview, payload: memoryview) -> None:
        if meta[:12] == _MARKER:
            count = msgspec.msgpack.decode(meta)[0][1]
            with self.lock:
                retract(self.books, count)
            return
        messages = self._decode(meta)
        with self.lock:
            done = receive(self.books, messages, payload)
        if self._followers:
            self._wake(done)
        while self.books.notices:
            self._on_notice(self.books.notices.pop(0))

    # -------------------------------------------------------------- followers

    def _follow(self, ticket: Ticket) -> LockType:
        mine = allocate_lock()
        mine.acquire()
        with self.lock:
            self._followers[ticket] = mine
        return mine

    def _sleep(self, mine: LockType, deadline: float | None) -> bool:
        opened = self.shield.open()
        try:
            if deadline is None:
                return mine.acquire()
            return mine.acquire(timeout=max(0.0, deadline - monotonic()))
        finally:
            if opened:
                self.shield.close()

    def _wake(self, done: list[Ticket]) -> None:
        for ticket in done:
            mine = self._followers.get(ticket)
            if mine is not None:
                _release(mine)

    def _stop_reading(self) -> None:
        self._reading.release()
        self._wake_next()

    def _wake_next(self) -> None:
        """Let one follower try to lead. A follower registers before it looks for a leader."""
        if not self._followers:
            return
        with self.lock:
            for ticket, mine in self._followers.items():
                if not ticket.done:
                    _release(mine)
                    return


def _release(lock: LockType) -> None:
    try:
        lock.release()
    except RuntimeError:  # It was released already: its owner is about to look.
        pass
