"""What leaves on a connection, in which order: whatever was begun, then frames, then bulk.

Rules
-----
- `put` never blocks. What the kernel does not take waits here, as the session's own messages, not
  as copies: they are encoded when their turn comes. So a peer that does not read costs the
  session's window, which is kept anyway.
- Of bulk there is one chunk at a time here, and per wake-up `_BULK_BYTES_MAX`.
- A connection that fails to send swallows everything; its reader sees the end.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

from detray.core.session import Frame
from detray.runtime.net.blocks import BlockTable, OutgoingChunk
from detray.runtime.net.framing import MESSAGES, array_of, encode_frame, frame_header
from detray.runtime.net.sockets import PlainSocket

OutMessage = tuple[bytes, tuple[bytes, ...]]
"""An encoded message and the slices of its payload."""
SESSION_HEAD = struct.Struct("<QQI")
"""first, ack, bytes of msgpack."""
_FRAME_BYTES = 1 << 18
"""A frame of messages is cut where it gets longer than this."""
_ASIDE_BYTES_MAX = 1 << 24
_BULK_BYTES_MAX = 1 << 22
_JOINED_BYTES_MAX = 1 << 16
_LAST_BYTES_MAX = 1 << 22


def encode_messages(frame: Frame[OutMessage]) -> bytes:
    """The body of a session frame."""
    messages = frame.messages
    if len(messages) == 1:
        encoded, payload = messages[0]
        head = SESSION_HEAD.pack(frame.first, frame.ack, len(encoded) + 1)
        return b"".join((head, b"\x91", encoded, *payload))
    meta = array_of([encoded for encoded, _ in messages])
    parts = [part for _, parts in messages for part in parts]
    return b"".join((SESSION_HEAD.pack(frame.first, frame.ack, len(meta)), meta, *parts))


class _Aside(bytes):
    """A frame that may be dropped before it is here, counted while it waits."""


class Outlet:
    """The sending side of one connection. `want_write` is told whenever that changes."""

    __slots__ = ("_aside_bytes", "_blocks", "_chunk", "_current", "_is_chunk_begun", "_queue",
                 "_sock", "_want_write", "is_broken", "is_waiting")  # fmt: skip

    def __init__(
        self, sock: PlainSocket, blocks: BlockTable, want_write: Callable[[bool], None]
    ) -> None:
        self._sock = sock
        self._blocks = blocks
        self._want_write = want_write
        self._queue: deque[bytes | Frame[OutMessage]] = deque()
        self._current: memoryview | None = None
        """What is being sent: the kernel has taken what is missing in front."""
        self._chunk: OutgoingChunk | None = None
        """The chunk whose frame or data `_current` is."""
        self._is_chunk_begun = False
        self._aside_bytes = 0
        self.is_waiting = False
        """True while the kernel takes nothing, or bulk waits for its next turn."""
        self.is_broken = False

    @property
    def is_empty(self) -> bool:
        """True if the kernel has everything but bulk."""
        return not self._queue and (self._current is None or self._chunk is not None)

    def put(self, item: bytes | Frame[OutMessage]) -> None:
        """Send a frame, before all bulk that was not begun."""
        if self.is_broken:
            return
        if self.is_waiting or self._current is not None or self._queue:
            self._queue.append(item)
            return
        # Most frames find everything before them sent.
        data = self._encode(item) if isinstance(item, Frame) else item
        try:
            sent = self._sock.send(data)
        except OSError:
            self._give_up()
            return
        if sent < len(data):
            self._current = memoryview(data)[sent:]
            self._wait(True)
        elif self._queue:
            self.flush()  # what was too long for one frame

    def put_aside(self, frame: bytes) -> bool:
        """Send an aside, unless too many of them wait already; False if it was dropped."""
        if self._aside_bytes > _ASIDE_BYTES_MAX:
            return False
        if self.is_waiting and not self.is_broken:
            self._aside_bytes += len(frame)
            self._queue.append(_Aside(frame))
        else:
            self.put(frame)
        return True

    def begin_bulk(self) -> None:
        """There are chunks: from the next wake-up on."""
        if not self.is_waiting and not self.is_broken:
            self._wait(True)

    def last_bytes(self, frame: bytes) -> bytes:
        """A copy of what must still go for `frame` to arrive, as the last one.

        That is the rest of what was begun, and of what waits as much as is worth it.
        """
        parts = [bytes(self._current or b"")]
        chunk = self._chunk
        if chunk is not None and not self._is_chunk_begun:
            parts.append(bytes(chunk.data))
        size = 0
        while self._queue and size < _LAST_BYTES_MAX:
            item = self._queue.popleft()
            parts.append(self._encode(item) if isinstance(item, Frame) else item)
            size += len(parts[-1])
        return b"" if self.is_broken else b"".join([*parts, frame])

    def end(self) -> None:
        """The connection is over: nothing is read from a block's view any more."""
        self.is_broken = True
        self._queue.clear()
        self._current = None
        chunk, self._chunk = self._chunk, None
        self._blocks.disconnected(chunk.block if chunk is not None else None)

    def flush(self) -> None:
        """Send until the kernel takes no more, or nothing is left."""
        budget = _BULK_BYTES_MAX
        send = self._sock.send
        while not self.is_broken:
            current = self._current
            if current is None:
                current = self._next_item(may_be_bulk=budget > 0)
                if current is None:
                    break
                self._current = current
            try:
                is_more = self._chunk is not None and not self._is_chunk_begun
                sent = send(current, is_more=is_more) if current else 0
            except OSError:
                self._give_up()
                return
            if sent < len(current):
                self._current = current[sent:]
                if not sent or not self._sock.hides_bytes:
                    self._wait(True)
                    return
                continue  # TLS takes a record at a time
            if self._chunk is not None:
                budget -= sent
            del current
            self._current = None
            self._finish_item()
        self._wait(self._blocks.has_chunks and not self.is_broken)

    def _next_item(self, *, may_be_bulk: bool) -> memoryview | None:
        if self._queue:
            item = self._queue.popleft()
            if isinstance(item, Frame):
                return memoryview(self._encode(item))
            if isinstance(item, _Aside):
                self._aside_bytes -= len(item)
            return memoryview(item)
        if not may_be_bulk:
            return None
        chunk = self._blocks.next_chunk()
        if chunk is None:
            return None
        self._chunk = chunk
        self._is_chunk_begun = False
        return memoryview(chunk.frame)

    def _finish_item(self) -> None:
        """The kernel has all of it: a chunk's data follows its frame."""
        chunk = self._chunk
        if chunk is None:
            return
        if not self._is_chunk_begun and len(chunk.data):
            self._is_chunk_begun = True
            self._current = chunk.data
            return
        self._chunk = None
        block = chunk.block
        del chunk
        self._blocks.chunk_out(block)

    def _encode(self, frame: Frame[OutMessage]) -> bytes:
        """The first bytes of a session frame; what is too long for one goes back into the queue."""
        if len(frame.messages) > 1:
            frame = self._cut(frame)
        body = encode_messages(frame)
        if len(body) <= _JOINED_BYTES_MAX:
            return encode_frame(MESSAGES, body)
        self._queue.appendleft(body)
        return frame_header(MESSAGES, body)

    def _cut(self, frame: Frame[OutMessage]) -> Frame[OutMessage]:
        size = 0
        for count, (encoded, parts) in enumerate(frame.messages):
            size += len(encoded) + sum(map(len, parts))
            if size > _FRAME_BYTES and count:
                first, ack = frame.first, frame.ack
                self._queue.appendleft(Frame(first + count, ack, frame.messages[count:]))
                return Frame(first, ack, frame.messages[:count])
        return frame

    def _wait(self, is_waiting: bool) -> None:
        if is_waiting != self.is_waiting:
            self.is_waiting = is_waiting
            self._want_write(is_waiting)

    def _give_up(self) -> None:
        self.is_broken = True
        self._queue.clear()
        self._wait(False)
