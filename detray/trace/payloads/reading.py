"""Reading payload files: check the frames, then hand out what was said, and where values lie.

Rules
-----
- Opening checks every frame: what is damaged is refused before anything is used, what was cut off
  by a crash is readable up to the cut.
- Nothing here unpickles, and no input makes it raise anything but `TraceError` (or OSError).
- The file is mapped, not read: what is not asked for costs no memory.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import msgspec

from detray.core.payloads import INCOMING
from detray.core.stimuli import Stimulus
from detray.ids import ObjectID
from detray.trace.format import OPTIONAL_FRAMES, TraceError
from detray.trace.frames import FrameDamage, decoded, frames_of, read_frames
from detray.trace.payloads.format import (
    BLOCK_FRAME,
    BLOCK_HEAD,
    CHUNK_HEAD,
    END_FRAME,
    ENTRY_HEAD,
    HEADER_FRAME,
    PAYLOAD_MAGIC,
    PAYLOAD_VERSION,
    PREAMBLE,
    PROCESSES_MAX,
    SAID_FRAME,
    PayloadEnd,
    PayloadHeader,
)
from detray.trace.plain_text import one_line

BlockKey = tuple[ObjectID, int]
"""A large value: its object, and the attempt that made it (a put's is 0)."""


class KeptMessage(NamedTuple):
    """A message, the process that heard it, and its payload by key, in order."""

    process: int
    message: Any  # Any: a stimulus that a client or another node sent
    payload: list[tuple[bytes, memoryview]]


class SaidChunk(NamedTuple):
    """A frame of messages that one process heard, not yet taken apart."""

    process: int
    entries: int
    data: memoryview


class Piece(NamedTuple):
    """A part of a large value of `size` bytes, which begins at `start`."""

    object: ObjectID
    attempt: int
    size: int
    start: int
    data: memoryview


class _Block:
    """A large value that was found so far: its pieces, in order, without gaps."""

    __slots__ = ("end", "pieces", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.end = 0
        self.pieces: list[memoryview] = []


class Payloads:
    """An open payload file. `complete` is False if it was cut off, `note` then says where.

    `reason` tells why it ended, `lacks` what its recorder could not keep.
    """

    def __init__(
        self, data: bytes | memoryview, name: str = "payloads", salvage: bool = False
    ) -> None:
        """Raises TraceError; with `salvage`, damage only ends the file instead."""
        self.name = name
        self.reason = ""
        self.lacks = ""
        self.chunks: list[SaidChunk] = []
        self._blocks: dict[BlockKey, _Block] = {}
        self.header: PayloadHeader
        _check_preamble(memoryview(data), name)
        self.complete, self.note = read_frames(
            frames_of(memoryview(data), PREAMBLE.size),
            name=name,
            begin=self._begin,
            take=self._take,
            salvage=salvage,
        )

    def said(self) -> Iterator[KeptMessage]:
        """Every message that was kept, in order of arrival at its process. Raises TraceError."""
        for process, count, chunk in self.chunks:
            try:
                yield from self._messages(process, count, chunk)
            except (
                struct.error,
                msgspec.MsgspecError,
                ValueError,
                OverflowError,
                RecursionError,
            ) as error:
                raise TraceError(
                    f"{self.name}: messages make no sense: {one_line(str(error))}"
                ) from None

    @property
    def blocks(self) -> dict[BlockKey, int]:
        """The large values that were kept in full, and their sizes."""
        return {key: b.size for key, b in self._blocks.items() if b.end == b.size}

    def block(self, item: ObjectID, attempt: int) -> bytes:
        """A large value's bytes. Raises KeyError."""
        found = self._blocks[item, attempt]
        if found.end != found.size:
            raise KeyError(item)
        return b"".join(found.pieces)

    def pieces(self) -> Iterator[Piece]:
        """The large values as they lie in the file, in order."""
        for (item, attempt), block in self._blocks.items():
            start = 0
            for piece in block.pieces:
                yield Piece(item, attempt, block.size, start, piece)
                start += len(piece)

    def _messages(self, process: int, count: int, chunk: memoryview) -> Iterator[KeptMessage]:
        at = 0
        for _ in range(count):
            meta_size, size = ENTRY_HEAD.unpack_from(chunk, at)
            at += ENTRY_HEAD.size
            end = at + meta_size + size
            if end > len(chunk):
                raise ValueError("they end early")
            payload = chunk[at + meta_size : end]
            yield from _slices(process, _DECODER.decode(chunk[at : at + meta_size]), payload)
            at = end
        if at != len(chunk):
            raise ValueError("bytes follow the last one")

    # -------------------------------------------------------------- opening

    def _begin(self, kind: int, payload: memoryview) -> None:
        self.header = _header(kind, payload)

    def _take(self, kind: int, payload: memoryview) -> bool:
        """One frame behind the header; True for the end."""
        if kind == SAID_FRAME:
            if len(payload) < CHUNK_HEAD.size:
                raise FrameDamage("a frame of messages is too short")
            process, count = CHUNK_HEAD.unpack_from(payload)
            self._check_process(process)
            self.chunks.append(SaidChunk(process, count, payload[CHUNK_HEAD.size :]))
        elif kind == BLOCK_FRAME:
            self._take_block(payload)
        elif kind == END_FRAME:
            end = decoded(payload, PayloadEnd)
            self.reason, self.lacks = end.reason, end.note
        elif kind < OPTIONAL_FRAMES:
            raise FrameDamage(f"unknown frame kind {kind}")
        return kind == END_FRAME

    def _take_block(self, payload: memoryview) -> None:
        if len(payload) < BLOCK_HEAD.size:
            raise FrameDamage("a frame of a large value is too short")
        process, item, attempt, size, start = BLOCK_HEAD.unpack_from(payload)
        self._check_process(process)
        piece = payload[BLOCK_HEAD.size :]
        key = ObjectID(item), attempt
        block = self._blocks.get(key)
        if start == 0:
            # Once more: the value was made again after it was lost; or a ring lost a beginning.
            block = self._blocks[key] = _Block(size)
        if block is None or start != block.end or size != block.size or start + len(piece) > size:
            if start == 0 or block is not None:
                raise FrameDamage("the pieces of a large value do not fit together")
            return  # A ring let the first pieces go.
        block.pieces.append(piece)
        block.end += len(piece)

    def _check_process(self, process: int) -> None:
        if process >= len(self.header.processes):
            raise FrameDamage("a frame is of a process that the header does not list")


def open_payloads(path: str | os.PathLike[str], salvage: bool = False) -> Payloads:
    """Map a payload file and check it. Raises OSError, TraceError."""
    with open(path, "rb") as file:
        return read_payloads(file, str(path), salvage)


def read_payloads(file: IO[bytes], name: str, salvage: bool = False) -> Payloads:
    """The same of an open file, which may be closed afterwards. Raises OSError, TraceError."""
    size = os.fstat(file.fileno()).st_size
    data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    return Payloads(memoryview(data), name, salvage)


def _check_preamble(data: memoryview, name: str) -> None:
    start = bytes(data[: len(PAYLOAD_MAGIC)])
    if start != PAYLOAD_MAGIC and not (
        len(data) < PREAMBLE.size and PAYLOAD_MAGIC.startswith(start)
    ):
        raise TraceError(
            f"{name} is not a detray payload file: it does not begin with {PAYLOAD_MAGIC!r}"
        )
    if len(data) < PREAMBLE.size:
        raise TraceError(f"{name} is empty or was cut off before its first frame")
    version = int(PREAMBLE.unpack_from(data)[1])
    if version != PAYLOAD_VERSION:
        raise TraceError(
            f"{name} has payload format {version}; this detray reads {PAYLOAD_VERSION}. Read it "
            "with the detray that wrote it, or a later one"
        )


def _header(kind: int, payload: memoryview) -> PayloadHeader:
    if kind != HEADER_FRAME:
        raise FrameDamage("the first frame is no header")
    header = decoded(payload, PayloadHeader)
    if header.format_version != PAYLOAD_VERSION:
        raise FrameDamage(f"the header is of format {header.format_version}")
    if not 0 < len(header.processes) <= PROCESSES_MAX:
        raise FrameDamage(f"the header lists {len(header.processes)} processes")
    return header


_DECODER = msgspec.msgpack.Decoder(list[Stimulus])


def _slices(process: int, messages: list[Stimulus], payload: memoryview) -> Iterator[KeptMessage]:
    """Each message with its part of the payload. Raises ValueError if the sizes are wrong."""
    start = 0
    for message in messages:
        keys_of = INCOMING.get(type(message))
        parts: list[tuple[bytes, memoryview]] = []
        for key, size in keys_of(message) if keys_of else ():
            if size < 0 or start + size > len(payload):
                raise ValueError("they announce more payload than there is")
            parts.append((key, payload[start : start + size]))
            start += size
        yield KeptMessage(process, message, parts)
    if start != len(payload):
        raise ValueError("there is more payload than they announce")
