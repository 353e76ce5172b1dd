"""Frames: how messages, asides and chunks travel on a proved connection.

    u32 length   bytes of the body (little endian, like all numbers of frames)
    u32 code     the kind, mixed with the length
    u64 digest   xxh3 of the body
    body

Two kinds of code differ in at least two bytes, so a header with one wrong byte is found out before
its length is believed. The digest finds wrong bytes of the body, which TCP's 16-bit sum lets pass
now and then. None of this keeps anybody out: that is the token's business, and TLS's.

A chunk's data follows the frame that announces it, outside of the frame: the reader receives it
straight to where it belongs (`Intake.redirect`).
"""

from __future__ import annotations

import struct

import msgspec
from xxhash import xxh3_64_intdigest

from detray.runtime.frames import UNDECODABLE

MESSAGES = int.from_bytes(b"msgs", "little")
"""Session frame: u64 first, u64 ack, u32 bytes of msgpack; an array of messages; their payload."""
ASIDE = int.from_bytes(b"asid", "little")
"""A small msgpack array outside of the session."""
CHUNK = int.from_bytes(b"data", "little")
"""Part of a block; so many bytes follow (`blocks.py`)."""
BLOCKS = int.from_bytes(b"blks", "little")
"""What the receiver of blocks tells their sender."""
GOODBYE = int.from_bytes(b"bye!", "little")
"""A `Refusal`: this link is over."""
_KINDS = frozenset((MESSAGES, ASIDE, CHUNK, BLOCKS, GOODBYE))

FRAME_BYTES_MAX = 1 << 31
SMALL_BYTES_MAX = 1 << 16
"""Of frames that announce chunks, answer them, or say goodbye."""
_LIMITS = {MESSAGES: FRAME_BYTES_MAX, ASIDE: 1 << 28, CHUNK: 1 << 10, BLOCKS: 1 << 24,
           GOODBYE: SMALL_BYTES_MAX}  # fmt: skip
"""By kind: the largest body. What is longer is garbage."""

HEADER = struct.Struct("<IIQ")
_MIX = 0x9E3779B1
_WORD = 0xFFFFFFFF
_BUFFER_BYTES = 1 << 18
_BUFFER_KEPT_BYTES = 1 << 22
_PEEK_BYTES = 256
"""While data comes we read a little more than a header beside it: what is read here of the next
chunk must be copied."""


class LinkGarbage(Exception):
    """What came cannot be meant for us; the argument says why, in one line."""


def frame_header(kind: int, body: bytes) -> bytes:
    """What goes before a body."""
    size = len(body)
    return HEADER.pack(size, kind ^ (size * _MIX & _WORD), xxh3_64_intdigest(body))


def encode_frame(kind: int, body: bytes) -> bytes:
    """One frame, ready to send."""
    return frame_header(kind, body) + body


def array_of(encoded: list[bytes]) -> bytes:
    """One msgpack array of elements that are encoded already."""
    count = len(encoded)
    if count < 16:
        head = bytes((0x90 | count,))
    elif count < 1 << 16:
        head = b"\xdc" + count.to_bytes(2, "big")
    else:
        head = b"\xdd" + count.to_bytes(4, "big")
    return head + b"".join(encoded)


class Intake:
    """Cuts what a connection brings into frames, and leads the data of chunks to its place."""

    __slots__ = ("_buffer", "_end", "_is_bulk", "_start", "_target", "_view", "_wanted")

    def __init__(self) -> None:
        self._start = self._end = self._wanted = 0
        self._target: memoryview | None = None
        self._is_bulk = False
        self._allocate(_BUFFER_BYTES)

    @property
    def is_redirected(self) -> bool:
        """True while data of a chunk is missing."""
        return self._target is not None

    def room(self) -> memoryview:
        """Where the next bytes go; say how many came with `took`."""
        if self._target is not None:
            return self._target
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > _BUFFER_KEPT_BYTES:
                self._allocate(_BUFFER_BYTES)
        size = len(self._buffer)
        if self._end == size or (self._start and self._start + self._wanted > size):
            self._make_room()
        if self._is_bulk:
            missing = self._wanted - (self._end - self._start)
            return self._view[self._end : self._end + max(missing, _PEEK_BYTES)]
        return self._view[self._end :]

    def took(self, count: int) -> None:
        """So many bytes were put into `room()`."""
        if self._target is None:
            self._end += count
        elif count == len(self._target):
            self._target = None
        else:
            self._target = self._target[count:]

    def feed(self, data: bytes) -> None:
        """Take bytes that came before this reader was there; only when it is empty."""
        self._wanted = len(data)
        self._make_room()
        self._view[self._end : self._end + len(data)] = data
        self._end += len(data)
        self._wanted = 0

    def next(self) -> tuple[int, memoryview] | None:
        """The next complete frame: kind and body. None if more bytes are needed first.

        The body is valid until the next `room`. Raises LinkGarbage if no frame begins so.
        """
        start = self._start
        if self._target is not None or self._end - start < HEADER.size:
            return None
        size, code, digest = HEADER.unpack_from(self._buffer, start)
        kind = code ^ (size * _MIX & _WORD)
        if kind not in _KINDS:
            raise LinkGarbage("what came is no frame")
        if size > _LIMITS[kind]:
            raise LinkGarbage(f"a frame of {size} bytes, where {_LIMITS[kind]} are allowed")
        stop = start + HEADER.size + size
        if stop > self._end:
            self._wanted = HEADER.size + size
            return None
        self._wanted = 0
        self._start = stop
        body = self._view[start + HEADER.size : stop]
        if xxh3_64_intdigest(body) != digest:
            raise LinkGarbage("a frame's digest is wrong: bytes were changed on the way")
        if kind in (MESSAGES, ASIDE):
            self._is_bulk = False
        return kind, body

    def redirect(self, target: memoryview) -> bool:
        """The next `len(target)` bytes go there; what has come of them is copied. True if more are
        needed.
        """
        self._is_bulk = True
        here = min(self._end - self._start, len(target))
        if here:
            target[:here] = self._view[self._start : self._start + here]
            self._start += here
        self._target = target[here:] if here < len(target) else None
        return here < len(target)

    def divert(self, scratch: memoryview) -> None:
        """What is missing of the chunk goes into `scratch` instead, to be forgotten."""
        if self._target is not None:
            self._target = scratch[: len(self._target)]

    def drop(self) -> None:
        """No data comes any more: whose memory it went to has it back."""
        self._target = None

    def _make_room(self) -> None:
        """Space for more: memory follows what has come, not what was announced."""
        rest = bytes(self._view[self._start : self._end])
        size = min(max(self._wanted, _BUFFER_BYTES), max(4 * len(rest), _BUFFER_BYTES))
        size = max(size, len(rest) + _BUFFER_BYTES // 2)
        if size > len(self._buffer) or self._start == 0:
            self._allocate(size)
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def _allocate(self, size: int) -> None:
        # A new buffer, not a longer one: views of the old one may still be out.
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)


_encode = msgspec.msgpack.Encoder().encode
_decode_aside = msgspec.msgpack.Decoder(list).decode


def encode_aside(body: list[object]) -> bytes:
    """An aside as a frame. Raises TypeError for what msgpack does not have."""
    return encode_frame(ASIDE, _encode(body))


def decode_aside(body: memoryview | bytes) -> list[object]:
    """The body of an aside. Raises LinkGarbage."""
    try:
        return _decode_aside(body)
    except UNDECODABLE as error:
        raise LinkGarbage(f"an aside that cannot be decoded: {error}") from None
