"""Frames: how messages and their payload travel on a stream socket.

    u32 total   bytes that follow this field (little endian)
    u32 meta    bytes of msgpack: an array of messages
    meta        the messages; a trace appends these bytes as they are
    payload     the messages' payload slices, in order, without padding

The reader keeps one buffer and receives into it: `recv(256 KiB)` costs 14 us more for each wake-up
than `recv_into` (docs/performance.md).
"""

from __future__ import annotations

import socket
import struct

import msgspec

_HEADER = struct.Struct("<II")
_unpack_header = _HEADER.unpack_from
FRAME_BYTES_MAX = 1 << 32
_BUFFER_BYTES = 1 << 17


def joined(metas: list[memoryview]) -> bytes:
    """One array of messages out of several, without decoding any. Raises FrameError."""
    count = 0
    parts: list[bytes | memoryview] = [b""]
    for meta in metas:
        first = meta[0] if meta else 0
        if 0x90 <= first <= 0x9F:
            count += first & 15
            parts.append(meta[1:])
        elif first == 0xDC and len(meta) >= 3:
            count += meta[1] << 8 | meta[2]
            parts.append(meta[3:])
        elif first == 0xDD and len(meta) >= 5:
            count += int.from_bytes(meta[1:5], "big")
            parts.append(meta[5:])
        else:
            raise FrameError("a frame whose messages are no array")
    parts[0] = b"\xdd" + count.to_bytes(4, "big")
    return b"".join(parts)


UNDECODABLE = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
"""What decoding garbage raises: beside msgspec's own, bad UTF-8 and arrays in arrays in arrays."""


class FrameError(Exception):
    """The peer sent bytes that are not a frame; the connection cannot go on."""


def frame(meta: bytes, payloads: list[bytes] | None = None) -> bytes:
    """One frame, ready to send."""
    if not payloads:
        return _HEADER.pack(4 + len(meta), len(meta)) + meta
    size = sum(map(len, payloads))
    return b"".join((_HEADER.pack(4 + len(meta) + size, len(meta)), meta, *payloads))


class FrameReader:
    """Cuts what a stream socket brings into frames.

    The views that `next` returns are valid until the next `receive`: copy what must live longer.
    """

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._wanted = 0
        self._frame_bytes_max = frame_bytes_max

    def receive(self, sock: socket.socket) -> int:
        """Read once from `sock`; bytes read, 0 at its end. Raises what `recv_into` raises."""
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > 1 << 22:
                self._allocate(_BUFFER_BYTES)
        elif self._end == len(self._buffer) or self._start + self._wanted > len(self._buffer):
            self._make_room(self._wanted)
        self._wanted = 0
        count = sock.recv_into(self._view[self._end :])
        self._end += count
        return count

    def next(self) -> tuple[memoryview, memoryview] | None:
        """The next complete frame as (meta, payload), None if more bytes are needed first.

        Raises FrameError if the header cannot be true.
        """
        start, end = self._start, self._end
        if end - start < 8:
            return None
        total, meta_size = _unpack_header(self._buffer, start)
        if meta_size + 4 > total or total > self._frame_bytes_max:
            raise FrameError(f"frame header says {total} bytes, {meta_size} of them messages")
        stop = start + 4 + total
        if stop > end:
            self._wanted = total + 4
            return None
        self._start = stop
        payload_start = start + 8 + meta_size
        view = self._view
        return view[start + 8 : payload_start], view[payload_start:stop]

    def take_all(self) -> tuple[list[memoryview], list[memoryview]]:
        """All complete frames that `receive` brought: their metas, and their payloads.

        Raises FrameError like `next`, once the frames before the false header have been taken.
        """
        metas: list[memoryview] = []
        payloads: list[memoryview] = []
        buffer, view, limit = self._buffer, self._view, self._frame_bytes_max
        start, end = self._start, self._end
        while end - start >= 8:
            total, meta_size = _unpack_header(buffer, start)
            if meta_size + 4 > total or total > limit:
                if metas:
                    break
                raise FrameError(f"frame header says {total} bytes, {meta_size} of them messages")
            stop = start + 4 + total
            if stop > end:
                self._wanted = total + 4
                break
            payload_start = start + 8 + meta_size
            metas.append(view[start + 8 : payload_start])
            payloads.append(view[payload_start:stop])
            start = stop
        self._start = start
        return metas, payloads

    @property
    def is_empty(self) -> bool:
        """True if no byte is left over: the stream could end here without losing anything."""
        return self._start == self._end

    def _make_room(self, needed: int) -> None:
        rest = bytes(self._view[self._start : self._end])
        size = max(needed, len(rest) * 2, _BUFFER_BYTES)
        if size > len(self._buffer) or self._start == 0:
            self._allocate(size)
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def _allocate(self, size: int) -> None:
        # A new buffer, not a longer one: views of the old one may still be out.
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
