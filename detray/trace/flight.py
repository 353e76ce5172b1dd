"""The flight recorder: the last steps of a run in bounded memory, ready to be written out.

The ring holds segments. Each opens with what is needed to replay from there: the cores' digests
and, if their state is small enough to encode between two steps, their snapshots (PROTOCOL N18).
When the ring is full the oldest segment goes. A segment that had to open without snapshots is
followed by a new one as soon as the state has become small.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator

import msgspec

from detray.trace.format import (
    CHUNK_HEAD,
    END_FRAME,
    SEGMENT_FRAME,
    STEPS_FRAME,
    End,
    FrameWriter,
    Header,
    SegmentStart,
)
from detray.trace.replacing import write_whole

RING_BYTES = 64 << 20
SEGMENTS = 8
"""Into how many segments a ring is cut: so much of it goes at a time."""


class _Segment:
    """Consecutive chunks of steps and the state before the first of them."""

    __slots__ = ("chunks", "size_bytes", "start")

    def __init__(self, start: SegmentStart) -> None:
        self.start = start
        self.chunks: list[bytes] = []
        self.size_bytes = sum(map(len, start.snapshots))

    def append(self, chunk: bytes) -> None:
        """Add a chunk: the payload of one steps frame."""
        self.chunks.append(chunk)
        self.size_bytes += len(chunk)


class Ring:
    """The last segments of a run, together at most about `bytes_max`."""

    __slots__ = ("_segments", "bytes_max", "segment_bytes")

    def __init__(self, start: SegmentStart, bytes_max: int = RING_BYTES) -> None:
        self.bytes_max = bytes_max
        self.segment_bytes = max(bytes_max // SEGMENTS, 1)
        self._segments = deque([_Segment(start)])

    @property
    def size_bytes(self) -> int:
        """Bytes held now."""
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def wants_start(self) -> bool:
        """True if the newest segment is full: the next chunk should open another one."""
        return self._segments[-1].size_bytes >= self.segment_bytes

    @property
    def lacks_snapshot(self) -> bool:
        """True if the newest segment cannot be replayed by itself."""
        start = self._segments[-1].start
        return not start.snapshots and start.first_step > 0

    def open_segment(self, start: SegmentStart) -> None:
        """Begin a segment at `start`; what no longer fits goes, the oldest first."""
        if self._segments[-1].chunks:
            self._segments.append(_Segment(start))
        else:
            self._segments[-1] = _Segment(start)
        while len(self._segments) > 1 and self.size_bytes + self.segment_bytes > self.bytes_max:
            self._segments.popleft()

    def append(self, chunk: bytes) -> None:
        """Add a chunk to the newest segment."""
        self._segments[-1].append(chunk)

    def freeze(self) -> list[tuple[SegmentStart, tuple[bytes, ...]]]:
        """What the ring holds now; later steps do not change it."""
        return [(segment.start, tuple(segment.chunks)) for segment in self._segments]


class Flight:
    """What a flight recorder held at one moment. Its bytes are a complete trace."""

    __slots__ = ("_end", "_header", "_parts")

    def __init__(
        self, header: Header, parts: list[tuple[SegmentStart, tuple[bytes, ...]]], end: End
    ) -> None:
        self._header = header
        self._parts = parts
        self._end = end

    def pieces(self) -> Iterator[bytes]:
        """The trace, a piece at a time."""
        writer = FrameWriter()
        yield writer.opening(self._header)
        for start, chunks in self._parts:
            if start.first_step or start.begins:
                yield writer.frame(SEGMENT_FRAME, msgspec.msgpack.encode(start))
            for chunk in chunks:
                yield writer.head(STEPS_FRAME, chunk)
                yield chunk
        yield writer.frame(END_FRAME, msgspec.msgpack.encode(self._end))

    def write(self, path: str | os.PathLike[str]) -> str:
        """Write the trace to `path`, all of it or nothing. Raises OSError.

        It may run in a thread of its own: nothing here changes any more.
        """
        return write_whole(path, self.pieces())


def chunk_of(first_step: int, count: int, steps: list[bytes]) -> bytes:
    """The payload of a steps frame."""
    return b"".join((CHUNK_HEAD.pack(first_step, count), *steps))
