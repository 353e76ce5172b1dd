"""The recorder: keeps what the cores were told, cheaply enough to be always on.

Rules
-----
- Whoever drives the cores calls `step` after each `handle`, before any core handles the next step.
- Stimuli come as the bytes they were decoded from, effects as the bytes they were encoded to
  (`core/outbox.py`): nothing is encoded for the recorder.
- With a path, everything goes to that file, effects included. Without, the last steps are kept in
  memory (`flight.py`), with the digest of the effects only.
- A recorder never stops its run: a file that cannot be written is given up, and `problem` says why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from struct import Struct
from typing import Protocol

import msgspec

from detray.core.config import CORE_REVISION, GlobalConfig, LocalConfig
from detray.core.tables import Tables
from detray.trace.flight import RING_BYTES, Flight, Ring, chunk_of
from detray.trace.format import (
    CHUNK_BYTES,
    END_FRAME,
    NO_DIGEST,
    RAISED,
    SEGMENT_FRAME,
    STEPS_FRAME,
    WITH_EFFECTS,
    CoreInfo,
    End,
    FrameWriter,
    HeadCore,
    Header,
    LocalCore,
    ProcessInfo,
    SegmentStart,
    chained,
)
from detray.trace.opening import open_to_record

PIECE_BYTES = 256 << 10
"""A trace file is written in pieces of at least this much, or once a second (`flush`)."""
SNAPSHOT_ROWS_MAX = 5_000
"""Larger states are not encoded between two steps: that would be felt."""


class Snapshots(Protocol):
    """The part of a core that the recorder uses."""

    @property
    def state_size(self) -> int:
        """Rows in its tables."""

    def snapshot(self) -> bytes:
        """Its whole state, encoded."""


def new_header(
    *,
    local: LocalConfig | None = None,
    head: GlobalConfig | None = None,
    entrypoint: str,
    wall_ns: int,
    monotonic_ns: int,
    detray_version: str,
    cluster: str = "",
    life: str = "",
    epoch: int = 0,
) -> Header:
    """The header of a trace that one process begins now, by the given clocks.

    Its cores are those that have a configuration, numbered from 0: the local scheduler first.
    `cluster` and `life` are 32 hexadecimal digits each: the cluster's id, and this process's.
    """
    cores: list[CoreInfo] = []
    if local is not None:
        cores.append(LocalCore(name=local.node_name, config=local))
    if head is not None:
        cores.append(HeadCore(name="head", config=head, epoch=epoch))
    process = ProcessInfo(
        wall_ns=wall_ns,
        monotonic_ns=monotonic_ns,
        life=life,
        python_version="{}.{}.{}".format(*sys.version_info),
    )
    return Header(
        core_revision=CORE_REVISION,
        detray_version=detray_version,
        entrypoint=entrypoint,
        processes=(process,),
        cores=tuple(cores),
        cluster=cluster,
    )


def begun_with(cores: Sequence[Snapshots]) -> SegmentStart:
    """The state of all cores before their first step, for those that were not made empty.

    A head that restarted has one: what it read from its store is nowhere in its stimuli.
    """
    return SegmentStart(
        first_step=0,
        digests=(NO_DIGEST,) * len(cores),
        snapshots=tuple(core.snapshot() for core in cores),
        begins=True,
    )


class Recorder:
    """Records the steps of `cores` (by core number), to the file `path` or in a ring of memory."""

    def __init__(
        self,
        header: Header,
        cores: Sequence[Snapshots],
        path: str | os.PathLike[str] | None = None,
        ring_bytes: int = RING_BYTES,
        start: SegmentStart | None = None,
    ) -> None:
        """Raises OSError if `path` cannot be opened for writing.

        `start` is the state that cores begin with which were not made empty (`begun_with`).
        """
        self.header = header
        self.problem: str | None = None
        self._cores = tuple(cores)
        self._digests = [NO_DIGEST] * len(header.cores)
        self._steps: list[bytes] = []
        self._room = CHUNK_BYTES
        self._first_step = 0
        empty = SegmentStart(first_step=0, digests=tuple(self._digests))
        self._ring = Ring(start or empty, ring_bytes)
        self._file = None if path is None else TraceFile(path, header)
        if self._file and start is not None:
            self._file.open_segment(start)
        self._with_effects = path is not None

    @property
    def path(self) -> str | None:
        """The file being written, None if steps are kept in memory."""
        return self._file.path if self._file else None

    @property
    def step_count(self) -> int:
        """Steps recorded so far, of all cores together."""
        return self._first_step + len(self._steps)

    def step(
        self,
        core: int,
        now_ns: int,
        metas: Sequence[bytes | memoryview],
        groups: Sequence[bytes],
    ) -> None:
        """Record one step: what `core` was told at `now_ns`, and what it ordered."""
        self._digests[core] = digest = chained(self._digests[core], groups)
        if self._with_effects:
            self._append(core, WITH_EFFECTS, now_ns, digest, metas, groups)
        else:
            self._append(core, 0, now_ns, digest, metas, ())

    def step_raised(
        self, core: int, now_ns: int, metas: Sequence[bytes | memoryview], error: str
    ) -> None:
        """Record the step in which `core` raised: a bug, and the last that a replay will see."""
        digest = self._digests[core]
        self._append(core, RAISED, now_ns, digest, metas, (error.encode(errors="replace"),))

    def flush(self) -> None:
        """Hand the file what was recorded; a driver calls it about once a second."""
        if self._file:
            self._close_chunk()
            self._write(piece_bytes=0)

    def freeze(self, reason: str) -> Flight:
        """What the ring holds now, as a trace that can be written later or in another thread."""
        self._close_chunk()
        end = End(steps=self._first_step, reason=reason, goes_on=True)
        return Flight(self._header_now(), self._ring.freeze(), end)

    def dump(self, path: str | os.PathLike[str], reason: str) -> str:
        """Write out the flight recorder; returns where the trace is. Raises OSError.

        With a trace file of its own the recorder brings that one up to date instead.
        """
        if self._file:
            self.flush()
            return self._file.path
        return self.freeze(reason).write(path)

    def read_all(self) -> bytes:
        """The trace so far, as the bytes of a trace file. Raises OSError."""
        if self._file:
            self.flush()
            with open(self._file.path, "rb") as file:
                return file.read()
        return b"".join(self.freeze("asked for").pieces())

    def close(self, reason: str) -> None:
        """End the trace in order."""
        self.flush()
        if self._file:
            self._file.end(End(steps=self._first_step, reason=reason))
            self._note_problem()

    def _header_now(self) -> Header:
        """The header with the node's number, if the head has given it one meanwhile.

        What the ring still holds need not say it any more.
        """
        cores = list(self.header.cores)
        for number, core in enumerate(self._cores):
            info, tables = cores[number], getattr(core, "tables", None)
            if isinstance(info, LocalCore) and isinstance(tables, Tables):
                cores[number] = msgspec.structs.replace(info, node=tables.node)
        return msgspec.structs.replace(self.header, cores=tuple(cores))

    def _append(
        self,
        core: int,
        flags: int,
        now_ns: int,
        digest: bytes,
        metas: Sequence[bytes | memoryview],
        groups: Sequence[bytes],
    ) -> None:
        blobs = (*metas, *groups)
        layout = _HEADS.get(len(blobs)) or _head(len(blobs))
        sizes = map(len, blobs)
        head = layout.pack(core, flags, len(metas), len(groups), now_ns, digest, *sizes)
        step = b"".join((head, *blobs))
        self._steps.append(step)
        self._room -= len(step)
        if self._room <= 0:
            self._close_chunk()

    def _close_chunk(self) -> None:
        if not self._steps:
            return
        chunk = chunk_of(self._first_step, len(self._steps), self._steps)
        self._first_step += len(self._steps)
        self._steps = []
        self._room = CHUNK_BYTES
        if self._file:
            self._file.append(chunk)
            self._write(PIECE_BYTES)
        else:
            self._ring.append(chunk)
            self._turn_ring()

    def _turn_ring(self) -> None:
        if self._ring.wants_start or (self._ring.lacks_snapshot and self._is_small()):
            self._ring.open_segment(self._start())

    def _is_small(self) -> bool:
        return sum(core.state_size for core in self._cores) <= SNAPSHOT_ROWS_MAX

    def _start(self) -> SegmentStart:
        if self._is_small():
            snapshots, note = tuple(core.snapshot() for core in self._cores), ""
        else:
            snapshots, note = (), "the state was too large to be encoded between two steps"
        return SegmentStart(
            first_step=self._first_step,
            digests=tuple(self._digests),
            snapshots=snapshots,
            note=note,
        )

    def _write(self, piece_bytes: int) -> None:
        if self._file:
            self._file.write(piece_bytes)
            self._note_problem()

    def _note_problem(self) -> None:
        """A file that failed is given up; the ring takes the steps that follow."""
        if self._file and self._file.problem:
            self.problem = f"the trace {self._file.path} ends here: {self._file.problem}"
            self._file = None
            self._with_effects = False
            self._ring = Ring(self._start(), self._ring.bytes_max)


class TraceFile:
    """A trace file that grows. Once `problem` is set it takes nothing any more."""

    def __init__(self, path: str | os.PathLike[str], header: Header) -> None:
        """Raises OSError."""
        self.path = os.path.abspath(path)
        self.problem: str | None = None
        self._fd = open_to_record(self.path)
        self._frames = FrameWriter()
        self._buffer = [self._frames.opening(header)]
        self._buffered = len(self._buffer[0])
        # At once: a disk that is full a moment later still leaves a trace that says whose it is.
        self.write(0)

    def open_segment(self, start: SegmentStart) -> None:
        """Add the state that the steps which follow begin with."""
        frame = self._frames.frame(SEGMENT_FRAME, msgspec.msgpack.encode(start))
        self._buffer.append(frame)
        self._buffered += len(frame)

    def append(self, chunk: bytes) -> None:
        """Add a steps frame."""
        self._buffer += (self._frames.head(STEPS_FRAME, chunk), chunk)
        self._buffered += len(chunk)

    def write(self, piece_bytes: int) -> None:
        """Write what is buffered if it is at least `piece_bytes`."""
        if self._buffered and self._buffered >= piece_bytes and not self.problem:
            rest = memoryview(b"".join(self._buffer))
            self._buffer, self._buffered = [], 0
            try:
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
            except OSError as error:
                self.problem = str(error)
                os.close(self._fd)

    def end(self, end: End) -> None:
        """Write the end frame and close."""
        self._buffer.append(self._frames.frame(END_FRAME, msgspec.msgpack.encode(end)))
        self._buffered += 1
        self.write(0)
        if not self.problem:
            os.close(self._fd)


_HEADS: dict[int, Struct] = {}
"""The layout of a step's head by its number of blobs; grows to the few numbers that occur."""


def _head(blobs: int) -> Struct:
    layout = _HEADS[blobs] = Struct(f"<HBHHQ8s{blobs}I")
    return layout
