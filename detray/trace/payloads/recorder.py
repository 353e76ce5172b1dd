"""The payload recorder: keeps the bytes that travel with messages, so that tasks can run again.

Rules
-----
- The service tells it each frame that arrived, before any core hears of it: what it points to is
  still there. Nothing is decoded or pickled here, and nothing is ever unpickled.
- With a path everything goes to that file. Without, the last bytes are kept in memory, and with
  them, whatever their age, all definitions of functions and templates: no task runs without.
- Large values are read where they lie, in shared memory, when they are sealed. Those of drivers are
  kept, as nothing can make them again; those of tasks if they are small (`TASK_BLOCK_BYTES_MAX`).
- A recorder never stops its run: a file that cannot be written is given up, and `problem` says why.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from detray.core.payloads import INCOMING
from detray.core.peer_messages import FunctionShipped, RunDelivered, RunDone, TemplateShipped
from detray.core.stimuli import (
    BlockAbandoned,
    BlockRequested,
    BlockSealed,
    FunctionExported,
    RunFinished,
    TaskSubmitted,
    TemplateDefined,
)
from detray.ids import ClientID, ObjectID, return_object
from detray.trace.format import FrameWriter
from detray.trace.opening import open_to_record
from detray.trace.payloads.format import (
    BLOCK_FRAME,
    BLOCK_HEAD,
    CHUNK_HEAD,
    END_FRAME,
    ENTRY_HEAD,
    HEADER_FRAME,
    PAYLOAD_MAGIC,
    PAYLOAD_VERSION,
    PIECE_BYTES,
    PREAMBLE,
    SAID_FRAME,
    PayloadEnd,
    PayloadHeader,
    payloads_path,
)
from detray.trace.replacing import write_whole

CHUNK_BYTES = 64 << 10
"""A frame of messages is closed once it holds this much."""
WRITE_BYTES = 256 << 10
"""A file is written in pieces of at least this much, or when it is flushed."""
RING_BYTES = 64 << 20
REQUESTED_MAX = 10_000
TASK_BLOCK_BYTES_MAX = 1 << 20
"""Larger values of tasks are not kept: running their task again makes them."""

Messages = Sequence[Any]  # Any: stimuli of clients, or messages of another node
FindBlock = Callable[[ClientID, ObjectID], memoryview | None]
"""The bytes of a block that a client was granted and has just sealed; None if there is none."""
_DEFINITIONS = frozenset((FunctionExported, TemplateDefined, FunctionShipped, TemplateShipped))
_WITHOUT_PAYLOAD = frozenset(
    (*_DEFINITIONS, TaskSubmitted, RunFinished, RunDelivered, RunDone, BlockRequested, BlockSealed)
)
"""Messages that are wanted even where no payload came along."""

_encode = msgspec.msgpack.Encoder().encode


class PayloadRecorder:
    """Records what arrives at one process, to the file `path` or in a ring of memory."""

    def __init__(
        self,
        header: PayloadHeader,
        find_block: FindBlock,
        path: str | os.PathLike[str] | None = None,
        ring_bytes: int = RING_BYTES,
    ) -> None:
        """Raises OSError if `path` cannot be opened for writing."""
        self.header = header
        self.problem: str | None = None
        self._find_block = find_block
        self._file = None if path is None else PayloadFile(path, header)
        self.written = self._file.path if self._file else None
        """The file that was begun, also if it was given up; None if payloads are kept in memory."""
        self._ring = None if self._file else PayloadRing(ring_bytes)
        self._entries: list[bytes] = []
        self._count = 0
        self._size = 0
        self._requested: dict[ObjectID, None] = {}
        """Blocks that were asked for, the newest: mostly there are none, and no report need be
        looked into. Who died before it wrote its block leaves its wish here."""

    @property
    def path(self) -> str | None:
        """The file being written, None if payloads are kept in memory, or no more."""
        return self._file.path if self._file else None

    @property
    def size_bytes(self) -> int:
        """What the file holds, or about what the ring does. Raises OSError."""
        if self.written:
            return os.stat(self.written).st_size
        return self._ring.size_bytes + self._size if self._ring else 0

    def take(self, meta: bytes, messages: Messages, payload: bytes | memoryview) -> None:
        """Record a frame: the array of messages as it came, the same decoded, their payload."""
        size = len(payload)
        kinds = set(map(type, messages))
        if (not size and kinds.isdisjoint(_WITHOUT_PAYLOAD)) or self.problem:
            return
        if self._ring is not None and not kinds.isdisjoint(_DEFINITIONS):
            admits = self._ring.admits_definition
            self._ring.define(definitions_in(messages, payload, admits))
        if self._ring is None or self._ring.admits(len(meta) + size):
            self._entries += (ENTRY_HEAD.pack(len(meta), size), meta, bytes(payload))
            self._count += 1
            self._size += len(meta) + size
        if self._size >= CHUNK_BYTES:
            self._close_chunk()
        if self._requested or BlockRequested in kinds:
            self._take_blocks(messages)

    def flush(self) -> None:
        """Hand the file what was recorded; a service calls it about once a second."""
        self._close_chunk()
        self._write(0)

    def freeze(self, reason: str) -> PayloadFlight:
        """What the ring holds now, to be written later or in another thread."""
        self._close_chunk()
        definitions, frames, note = self._ring.freeze() if self._ring else ([], [], "")
        end = PayloadEnd(reason=reason, note=note)
        return PayloadFlight(self.header, definitions, frames, end)

    def close(self, reason: str) -> None:
        """End the file in order."""
        self.flush()
        if self._file:
            self._file.end(PayloadEnd(reason=reason))
            self._note_problem()

    # -------------------------------------------------------------- large values

    def _take_blocks(self, messages: Messages) -> None:
        for m in messages:
            kind = type(m)
            if kind is BlockRequested:
                self._requested[m.object] = None
                if len(self._requested) > REQUESTED_MAX:
                    del self._requested[next(iter(self._requested))]
            elif kind is BlockAbandoned:
                self._requested.pop(m.object, None)
            elif kind is RunFinished:
                for index, part in enumerate(m.returns):
                    if part.in_block:
                        self._take_block(m.client, return_object(m.task, index), m.attempt)
            elif kind is BlockSealed:
                self._take_block(m.client, m.object, 0)

    def _take_block(self, client: ClientID, item: ObjectID, attempt: int) -> None:
        self._requested.pop(item, None)
        view = self._find_block(client, item)
        if view is None or (client > 0 and len(view) > TASK_BLOCK_BYTES_MAX):
            return
        self._close_chunk()
        if self._ring is not None:
            self._ring.add_block(item, attempt, view)
            return
        for start in range(0, len(view), PIECE_BYTES):
            head = BLOCK_HEAD.pack(0, item, attempt, len(view), start)
            if self._file:
                self._file.append(BLOCK_FRAME, (head, view[start : start + PIECE_BYTES]))
            self._write(0)

    # -------------------------------------------------------------- frames

    def _close_chunk(self) -> None:
        if not self._count:
            return
        chunk = b"".join((CHUNK_HEAD.pack(0, self._count), *self._entries))
        self._entries, self._count, self._size = [], 0, 0
        if self._ring is not None:
            self._ring.add(SAID_FRAME, chunk)
        elif self._file:
            self._file.append(SAID_FRAME, (chunk,))
            self._write(WRITE_BYTES)

    def _write(self, at_least: int) -> None:
        if self._file:
            self._file.write(at_least)
            self._note_problem()

    def _note_problem(self) -> None:
        """A file that failed is given up: what follows is not kept."""
        if self._file and self._file.problem:
            self.problem = f"the payloads in {self._file.path} end here: {self._file.problem}"
            self._file = None


def definitions_in(
    messages: Messages, payload: bytes | memoryview, admits: Callable[[int], bool]
) -> list[bytes]:
    """The definitions among messages whose size is admitted, as entries of their own."""
    entries = []
    start = 0
    for m in messages:
        keys_of = INCOMING.get(type(m))
        size = sum(size for _, size in keys_of(m)) if keys_of else 0
        if type(m) in _DEFINITIONS and admits(size):
            meta = _encode([m])
            part = bytes(payload[start : start + size])
            entries.append(b"".join((ENTRY_HEAD.pack(len(meta), size), meta, part)))
        start += size
    return entries


class PayloadFile:
    """A payload file that grows. Once `problem` is set it takes nothing any more."""

    def __init__(self, path: str | os.PathLike[str], header: PayloadHeader) -> None:
        """Raises OSError."""
        self.path = os.path.abspath(path)
        self.problem: str | None = None
        self._fd = open_to_record(self.path)
        self._frames = FrameWriter()
        self._buffer: list[bytes | memoryview] = [opening(self._frames, header)]
        self._buffered = len(self._buffer[0])

    def append(self, kind: int, parts: Sequence[bytes | memoryview]) -> None:
        """Add a frame; its parts are not copied before the next `write`."""
        head = self._frames.head(kind, *parts)
        self._buffer += (head, *parts)
        self._buffered += len(head) + sum(map(len, parts))

    def write(self, at_least: int) -> None:
        """Write what is buffered if it is at least so much."""
        if not self._buffered or self._buffered < at_least or self.problem:
            return
        rest: list[bytes | memoryview] = self._buffer
        self._buffer, self._buffered = [], 0
        try:
            # A large block is written from where it lies; small pieces are cheaper as one.
            for piece in joined_small(rest):
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._fd, view) :]
        except OSError as error:
            self.problem = error.strerror or str(error)
            os.close(self._fd)

    def end(self, end: PayloadEnd) -> None:
        """Write the end frame and close."""
        self.append(END_FRAME, (_encode(end),))
        self.write(0)
        if not self.problem:
            os.close(self._fd)


class PayloadRing:
    """The last frames within a bound, and definitions whatever their age, within as much again.

    What alone would push out most of what is there (a quarter of the bound) is not kept.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._frames: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._definitions: deque[bytes] = deque()
        self._definitions_size = 0
        self._gone = 0
        self._too_large = 0
        self._definitions_gone = 0

    @property
    def size_bytes(self) -> int:
        """Bytes held now."""
        return self._size + self._definitions_size

    def admits(self, size_bytes: int) -> bool:
        """False, and counted, for what is too large to be kept."""
        is_small = size_bytes <= self.bytes_max // 4
        self._too_large += not is_small
        return is_small

    def add(self, kind: int, payload: bytes) -> None:
        """Add a frame; the oldest ones go if there is no room."""
        self._frames.append((kind, payload))
        self._size += len(payload)
        while self._size > self.bytes_max and len(self._frames) > 1:
            self._size -= len(self._frames.popleft()[1])
            self._gone += 1

    def add_block(self, item: ObjectID, attempt: int, view: memoryview) -> None:
        """Add a large value, if it is not too large."""
        size = len(view)
        if not self.admits(size):
            return
        for start in range(0, size, PIECE_BYTES):
            head = BLOCK_HEAD.pack(0, item, attempt, size, start)
            self.add(BLOCK_FRAME, b"".join((head, view[start : start + PIECE_BYTES])))

    def define(self, entries: Sequence[bytes]) -> None:
        """Keep definitions."""
        for entry in entries:
            self._definitions.append(entry)
            self._definitions_size += len(entry)
        while self._definitions_size > self.bytes_max and len(self._definitions) > 1:
            self._definitions_size -= len(self._definitions.popleft())
            self._definitions_gone += 1

    def admits_definition(self, size_bytes: int) -> bool:
        """The same of a definition."""
        is_small = size_bytes <= self.bytes_max // 4
        self._definitions_gone += not is_small
        return is_small

    def freeze(self) -> tuple[list[bytes], list[tuple[int, bytes]], str]:
        """Definitions, frames, and what is missing, in words."""
        lacks = []
        if self._gone:
            lacks.append("the oldest payloads were let go")
        if self._too_large:
            lacks.append(f"{self._too_large} large values did not fit")
        if self._definitions_gone:
            lacks.append(f"{self._definitions_gone} definitions of functions were let go")
        return list(self._definitions), list(self._frames), "; ".join(lacks)


class PayloadFlight:
    """What a ring held at one moment. Its bytes are a complete payload file."""

    def __init__(
        self,
        header: PayloadHeader,
        definitions: list[bytes],
        frames: list[tuple[int, bytes]],
        end: PayloadEnd,
    ) -> None:
        self._header = header
        self._definitions = definitions
        self._frames = frames
        self._end = end

    def pieces(self) -> Iterator[bytes]:
        """The file, a piece at a time."""
        writer = FrameWriter()
        yield opening(writer, self._header)
        said = self._definitions
        if said:
            yield writer.frame(SAID_FRAME, CHUNK_HEAD.pack(0, len(said)) + b"".join(said))
        for kind, payload in self._frames:
            yield writer.head(kind, payload)
            yield payload
        yield writer.frame(END_FRAME, _encode(self._end))

    def write_beside(self, trace_path: str) -> str:
        """Write beside a trace, all of it or nothing; where. Raises OSError."""
        return write_whole(payloads_path(trace_path), self.pieces())


def opening(writer: FrameWriter, header: PayloadHeader) -> bytes:
    """What every payload file begins with."""
    return PREAMBLE.pack(PAYLOAD_MAGIC, PAYLOAD_VERSION) + writer.frame(
        HEADER_FRAME, _encode(header)
    )


def joined_small(parts: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same bytes in fewer pieces; large ones stay as they are."""
    small: list[bytes | memoryview] = []
    for part in parts:
        if len(part) < WRITE_BYTES:
            small.append(part)
            continue
        if small:
            yield b"".join(small)
            small = []
        yield part
    if small:
        yield b"".join(small)
