"""Writing a trace out of parts of others: their steps in a given order, their cores renumbered."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from struct import Struct

import msgspec

from detray.trace.format import (
    CHUNK_BYTES,
    CHUNK_HEAD,
    CORES_MAX,
    END_FRAME,
    RAISED,
    SEGMENT_FRAME,
    STEPS_FRAME,
    WITH_EFFECTS,
    End,
    FrameWriter,
    Header,
    SegmentStart,
    TraceError,
)
from detray.trace.reading import RecordedStep, Trace
from detray.trace.replacing import write_whole

Part = tuple[Trace, int]
"""A trace, and the number that its core 0 has in the whole."""
_STEP = Struct("<HBHHQ8s")


def write_merged(
    path: str | os.PathLike[str],
    header: Header,
    parts: Sequence[Part],
    order: array[int],
    reason: str,
) -> None:
    """Write the steps of `parts` to `path`, each next one from the part that `order` says.

    All of it or nothing. Raises OSError, TraceError.
    """
    if len(header.cores) > CORES_MAX:
        raise TraceError(f"a trace holds at most {CORES_MAX:,} cores, not {len(header.cores):,}")
    write_whole(path, _pieces(header, parts, order, reason))


def _pieces(
    header: Header, parts: Sequence[Part], order: array[int], reason: str
) -> Iterator[bytes]:
    writer = FrameWriter()
    yield writer.opening(header)
    cursors = [_Cursor(trace, first_core) for trace, first_core in parts]
    chunk: list[bytes] = []
    first, size = 0, 0
    for number, part in enumerate(order):
        step, starts = cursors[part].next()
        if chunk and (starts or size >= CHUNK_BYTES):
            yield writer.frame(STEPS_FRAME, CHUNK_HEAD.pack(first, len(chunk)) + b"".join(chunk))
            first, chunk, size = number, [], 0
        for start in starts:
            start = msgspec.structs.replace(start, first_step=number)
            yield writer.frame(SEGMENT_FRAME, msgspec.msgpack.encode(start))
        chunk.append(_packed(step, parts[part][1] + step.core))
        size += len(chunk[-1])
    if chunk:
        yield writer.frame(STEPS_FRAME, CHUNK_HEAD.pack(first, len(chunk)) + b"".join(chunk))
    yield writer.frame(END_FRAME, msgspec.msgpack.encode(End(steps=len(order), reason=reason)))


class _Cursor:
    """The steps of a part, each with the segments that open before it."""

    def __init__(self, trace: Trace, first_core: int) -> None:
        self._steps = trace.steps()
        self._starts = list(reversed(trace.starts))
        self._first_core = first_core

    def next(self) -> tuple[RecordedStep, list[SegmentStart]]:
        """The next step and its segments, whose cores have the numbers of the whole."""
        step = next(self._steps)
        starts = []
        while self._starts and self._starts[-1].first_step <= step.number:
            start = self._starts.pop()
            cores = tuple(self._first_core + core for core in start.cores)
            starts.append(msgspec.structs.replace(start, cores=cores))
        return step, starts


def _packed(step: RecordedStep, core: int) -> bytes:
    """The bytes of a step, as those of `core`."""
    flags, groups = 0, step.groups or ()
    if step.error:
        flags, groups = RAISED, (step.error.encode(errors="replace"),)
    elif step.groups is not None:
        flags = WITH_EFFECTS
    blobs = (*step.metas, *groups)
    head = _STEP.pack(core, flags, len(step.metas), len(groups), step.now_ns, step.digest)
    return b"".join((head, Struct(f"<{len(blobs)}I").pack(*map(len, blobs)), *blobs))
