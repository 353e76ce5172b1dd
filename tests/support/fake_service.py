"""A service played by a test: it reads what a client says and answers what it is told to."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from detray import object_ref
from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.payloads import INCOMING
from detray.ids import ClientID, JobNumber, NodeID, ObjectID
from detray.runtime.client import Client
from detray.runtime.frames import FrameReader, frame

T = TypeVar("T")
ARENA_BYTES = 1 << 22
ME = ClientID(-1)


class FakeService:
    """The other end of a client's socket. `hear` blocks until a message of a type came."""

    def __init__(self, sock: socket.socket, arena_fd: int) -> None:
        self.sock = sock
        self.arena_fd = arena_fd
        self.heard: list[st.ClientStimulus] = []
        self.payloads: dict[bytes, bytes] = {}
        self._read = 0
        self._reader = FrameReader()
        self._decode = msgspec.msgpack.Decoder(list[st.ClientStimulus]).decode
        sock.settimeout(10)

    def hear(self, kind: type[T]) -> T:
        """The next message of this type; those before it are passed over."""
        while True:
            while self._read < len(self.heard):
                message = self.heard[self._read]
                self._read += 1
                if isinstance(message, kind):
                    return message
            self.receive()

    def receive(self) -> None:
        """Read once."""
        if not self._reader.receive(self.sock):
            raise EOFError("the client closed the connection")
        while (piece := self._reader.next()) is not None:
            start = 0
            for message in self._decode(piece[0]):
                self.heard.append(message)
                for key, size in INCOMING.get(type(message), lambda _: [])(message):
                    self.payloads[key] = bytes(piece[1][start : start + size])
                    start += size
            assert start == len(piece[1])

    def is_silent(self, for_ms: int) -> bool:
        """True if nothing comes for this long."""
        return not select.select([self.sock], [], [], for_ms / 1000)[0]

    def say(self, *messages: ef.ClientMessage, payload: tuple[bytes, ...] = ()) -> None:
        """Send messages in one frame."""
        self.sock.sendall(frame(msgspec.msgpack.encode(list(messages)), list(payload)))

    def answer(self, get: st.GetRequested, values: dict[ObjectID, bytes]) -> None:
        """Answer a get with inline values."""
        found = [item for item in get.objects if item in values]
        places = tuple(ef.Place(item, 0, len(values[item])) for item in found)
        self.say(
            ef.GetAnswered(ME, get.request, len(found) < get.needed, False, places),
            payload=tuple(values[item] for item in found),
        )


@contextmanager
def fake_service(inline_bytes_max: int = 1000) -> Iterator[tuple[Client, FakeService]]:
    """A client, bound as this process's session, and the service it talks to."""
    ours, theirs = socket.socketpair()
    arena_fd = os.memfd_create("arena")
    os.ftruncate(arena_fd, ARENA_BYTES)
    client = Client(
        ours,
        client=ME,
        job=JobNumber(1),
        node=NodeID(0),
        inline_bytes_max=inline_bytes_max,
        store=(os.dup(arena_fd), ARENA_BYTES, "/nonexistent"),
    )
    object_ref.bind(client)
    try:
        yield client, FakeService(theirs, arena_fd)
    finally:
        object_ref.unbind()
        client.close()
        theirs.close()
        os.close(arena_fd)
