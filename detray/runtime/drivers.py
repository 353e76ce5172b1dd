"""Drivers and observers: the clients that are not our workers, and how they come and go.

A driver's end has two parts. Its connection ends (`ClientLost`, after its last complete frame); and
the kernel says that the process has gone (`ProcessGone`): until then it may still look at shared
memory. The driver that spawned us is known; others connect to the listening socket and say who they
are first. An observer only asks for status and can map nothing: both of its ends are one.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Any

import msgspec

from detray import __version__
from detray.core.stimuli import ClientLost, DriverConnected, ObserverConnected, ProcessGone
from detray.ids import ClientID
from detray.runtime.connections import ClientConnection, Garbage, Inbox
from detray.runtime.frames import UNDECODABLE, FrameError, FrameReader
from detray.runtime.session import GREETING, GREETING_DIGESTS
from detray.runtime.wakeups import READ, WRITE, Wakeups

HELLO_BYTES_MAX = 1 << 16
NEWCOMERS_MAX = 64
"""Connections that have not said who they are; others wait to be accepted."""
_HELLO_NS = 5_000_000_000
"""Who has not said hello after so long is turned away."""
_PEER = struct.Struct("3i")


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The first and only message of a newcomer before it has a number."""

    kind: str
    pid: int
    namespace: str
    entrypoint: str
    """Of a log channel: the number of the driver whose it is."""
    version: str


_decode_hello = msgspec.msgpack.Decoder(tuple[Hello]).decode


class _Guest:
    """A connected driver or observer. `pid_fd` is -1 once its process has gone."""

    __slots__ = ("connection", "has_hung_up", "is_lost", "pid", "pid_fd")

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.pid = 0
        self.pid_fd = -1
        self.has_hung_up = False
        self.is_lost = False


class Guests:
    """Drivers and observers by client number, and newcomers that have none yet."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        payloads: dict[bytes, bytes],
        wakeups: Wakeups,
        connections: dict[ClientID, ClientConnection],
        arena_fd: int,
        digests: bool,
        note: Callable[[str, str], None],
        open_log: Callable[[ClientID, socket.socket, FrameReader], None],
    ) -> None:
        self._inbox = inbox
        self._payloads = payloads
        self._wakeups = wakeups
        self._connections = connections
        self._arena_fd = arena_fd
        self._greeting = GREETING_DIGESTS if digests else GREETING
        self._note = note
        self._open_log = open_log
        self._guests: dict[ClientID, _Guest] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._newcomers: set[socket.socket] = set()
        self._next_number = -1

    def listen(self, path: str) -> None:
        """Let observers and further drivers connect at `path`. Raises OSError."""
        self._listener.bind(path)
        self._listener.listen()
        self._listener.setblocking(False)
        self._wakeups.watch(self._listener.fileno(), self._on_newcomer)

    def add_driver(self, sock: socket.socket, pid: int, namespace: str, entrypoint: str) -> None:
        """Take in a driver: it gets the arena first, and a `Welcome` when its job has a number."""
        socket.send_fds(sock, [self._greeting], [self._arena_fd])
        guest = self._admit(sock, is_observer=False)
        number = guest.connection.client
        guest.pid = pid
        self._inbox.facts.append(DriverConnected(number, pid, namespace, entrypoint))
        try:
            guest.pid_fd = os.pidfd_open(pid)
        except OSError:
            return  # It has gone, or the kernel is old: its socket tells.
        self._wakeups.watch(guest.pid_fd, lambda _mask: self._on_process_end(guest))

    def cut_off(self, number: ClientID, reason: str) -> None:
        """End a guest's connection from our side."""
        guest = self._guests.get(number)
        if guest is not None and not guest.is_lost:
            self._lose(guest, reason)

    def part(self, number: ClientID, reason: str) -> None:
        """A driver says good-bye: what it sent before still counts."""
        guest = self._guests.get(number)
        if guest is not None and not guest.is_lost:
            self._drain(guest)
            self._lose(guest, reason)

    def _admit(self, sock: socket.socket, *, is_observer: bool) -> _Guest:
        number = ClientID(self._next_number)
        self._next_number -= 1
        sock.setblocking(False)
        connection = ClientConnection(
            number, sock, self._wakeups, self._payloads, is_observer=is_observer
        )
        guest = self._guests[number] = _Guest(connection)
        self._connections[number] = connection
        self._wakeups.watch(sock.fileno(), partial(self._on_stream, guest))
        return guest

    # -------------------------------------------------------------- newcomers

    def _on_newcomer(self, _mask: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # It has gone again, or descriptors have run out: it will see no answer.
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        pid, uid, _ = _PEER.unpack(credentials)
        if uid != os.getuid():
            sock.close()
            return
        sock.setblocking(False)
        self._newcomers.add(sock)
        if len(self._newcomers) == NEWCOMERS_MAX:
            self._wakeups.change(self._listener.fileno(), 0)
        reader = FrameReader(HELLO_BYTES_MAX)
        self._wakeups.watch(sock.fileno(), partial(self._on_hello, sock, reader, pid))
        self._wakeups.call_at(monotonic_ns() + _HELLO_NS, partial(self._turn_away, sock))

    def _turn_away(self, sock: socket.socket) -> None:
        """Close a newcomer's connection if it still is one."""
        if sock in self._newcomers:
            self._forget_newcomer(sock)
            sock.close()

    def _forget_newcomer(self, sock: socket.socket) -> None:
        self._wakeups.forget(sock.fileno())
        self._newcomers.discard(sock)
        self._wakeups.change(self._listener.fileno(), READ)

    def _on_hello(self, sock: socket.socket, reader: FrameReader, pid: int, _mask: int) -> None:
        try:
            count = reader.receive(sock)
            parts = reader.next()
            if parts is None and count:
                return
            hello = _decode_hello(parts[0])[0] if parts else None
            problem = _find_problem(hello)
            if not reader.is_empty and hello is not None and hello.kind != "log":
                problem = "it said more than hello"
        except BlockingIOError:
            return
        except (OSError, FrameError, *UNDECODABLE) as error:
            hello, problem = None, str(error)
        self._forget_newcomer(sock)
        if hello is None or problem:
            sock.close()
            if problem:
                self._note("warning", f"process {pid} was refused: {problem}")
        elif hello.kind == "driver":
            self._welcome_driver(sock, pid, hello)
        elif hello.kind == "log":
            self._take_log(sock, reader, pid, hello)
        else:
            guest = self._admit(sock, is_observer=True)
            self._inbox.facts.append(ObserverConnected(guest.connection.client, pid))

    def _welcome_driver(self, sock: socket.socket, pid: int, hello: Hello) -> None:
        try:
            self.add_driver(sock, pid, hello.namespace, hello.entrypoint)
        except OSError:
            sock.close()  # it has gone before it was anybody

    def _take_log(self, sock: socket.socket, reader: FrameReader, pid: int, hello: Hello) -> None:
        """A driver's second connection: its number is its own, or it is nobody's.

        It may have asked something already.
        """
        number = hello.entrypoint
        client = ClientID(int(number)) if number.removeprefix("-").isdigit() else ClientID(0)
        guest = self._guests.get(client)
        if guest is None or guest.is_lost or guest.pid != pid:
            self._note("warning", f"process {pid} was refused: it is not driver {number:.20}")
            sock.close()
        else:
            self._open_log(client, sock, reader)

    # -------------------------------------------------------------- their ends

    def _on_stream(self, guest: _Guest, mask: int) -> None:
        connection = guest.connection
        if mask & WRITE:
            connection.queue.flush()
        if mask & ~WRITE:
            try:
                if not connection.receive(self._inbox):
                    guest.has_hung_up = True
                    self._lose(guest, "it closed its connection")
            except Garbage as error:
                self._refuse(guest, error)

    def _on_process_end(self, guest: _Guest) -> None:
        self._wakeups.forget(guest.pid_fd)
        os.close(guest.pid_fd)
        guest.pid_fd = -1
        if guest.is_lost:
            self._end_if_gone(guest)
        else:
            self._drain(guest)
            self._lose(guest, "its process ended")

    def _drain(self, guest: _Guest) -> None:
        try:
            guest.has_hung_up = not guest.connection.drain(self._inbox)
        except Garbage as error:
            self._note("warning", f"client {guest.connection.client} ended with garbage: {error}")

    def _refuse(self, guest: _Guest, error: Garbage) -> None:
        self._note("error", f"client {guest.connection.client} is cut off: {error}")
        self._lose(guest, f"it was cut off: {error}")

    def _lose(self, guest: _Guest, reason: str) -> None:
        guest.is_lost = True
        connection = guest.connection
        del self._connections[connection.client]
        self._wakeups.forget(connection.sock.fileno())
        self._inbox.facts.append(ClientLost(connection.client, reason))
        if guest.pid_fd < 0 and not guest.has_hung_up and not connection.is_observer:
            # Its process has gone, a fork of it holds the socket, and may hold views.
            self._wakeups.watch(connection.sock.fileno(), lambda _mask: self._on_hang_up(guest), 0)
        else:
            # It hung up, or we do: then it sees the end, and its process is what we wait for.
            connection.sock.close()
            guest.has_hung_up = True
            self._end_if_gone(guest)

    def _on_hang_up(self, guest: _Guest) -> None:
        sock = guest.connection.sock
        self._wakeups.forget(sock.fileno())
        sock.close()
        guest.has_hung_up = True
        self._end_if_gone(guest)

    def _end_if_gone(self, guest: _Guest) -> None:
        number = guest.connection.client
        if guest.has_hung_up and guest.pid_fd < 0 and number in self._guests:
            del self._guests[number]
            self._inbox.facts.append(ProcessGone(number))


def _find_problem(hello: Any) -> str | None:
    """Why such a newcomer cannot be taken in; None if it can (or has just gone)."""
    if hello is None:
        return None
    if hello.kind not in ("driver", "log", "observer"):
        return f"there is no kind of client {hello.kind!r:.40}"
    if hello.version != __version__:
        return f"it runs detray {hello.version:.20}, the session {__version__}"
    return None
