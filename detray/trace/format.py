"""The trace format: what the bytes of a trace file are (docs/traces.md: the same at more length).

    magic      8 bytes
    version    u32
    frame *    u8 kind, u32 length, u32 index, u32 head check, u32 check, then `length` bytes

The head check is the CRC-32 of (previous frame's check as u32, kind, length, index), and the check
carries that on over the bytes. A frame that was changed, moved, repeated or left out is noticed at
that frame; one whose head is right and whose bytes end early was cut off, not changed.
All integers are little endian. The first frame is a header. A steps frame holds whole steps:

    u64 first step number, u32 number of steps, then for each:
    u16 core, u8 flags, u16 m, u16 g, u64 now_ns, 8 bytes digest, (m + g) x u32 sizes, m + g blobs

(format 1: u8 core.) The core is its place in the header's list of cores.

The m blobs are the stimuli, msgpack arrays of messages as they were given to the core; the g blobs,
present if the flag WITH_EFFECTS is set, are the effects as `core/outbox.py` groups and encodes
them. The digest is blake2b-8 of the digest of the same core's step before (eight zero bytes at
first) and of these groups; a step without effects repeats the digest before. With the flag RAISED
the core raised instead of returning, g is 1, and the blob is the error in UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from zlib import crc32

import msgspec

from detray.core.config import GlobalConfig, LocalConfig
from detray.errors import DetrayError
from detray.ids import NodeID

MAGIC = b"\x89detray\n"
FORMAT_VERSION = 2
LOCAL, HEAD = 0, 1
"""Numbers of the cores in the trace of a private session, which has one of each kind."""
CORES_MAX = 1 << 16

HEADER_FRAME = 1
STEPS_FRAME = 2
SEGMENT_FRAME = 3
END_FRAME = 4
OPTIONAL_FRAMES = 128
"""Kinds from here on may be skipped by a reader that does not know them; others may not."""

PREAMBLE = struct.Struct("<8sI")
FRAME_HEAD = struct.Struct("<BIIII")
CHECKED = struct.Struct("<IBII")
CHUNK_HEAD = struct.Struct("<QI")
STEP_HEAD = struct.Struct("<HBHHQ8s")
STEP_HEAD_1 = struct.Struct("<BBHHQ8s")
"""A step's head in format 1."""
FRAME_BYTES_MAX = 1 << 30
WITH_EFFECTS = 1
RAISED = 2
CHUNK_BYTES = 64 << 10
"""A steps frame is closed once it holds this much."""

NO_DIGEST = bytes(8)


class ProcessInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A process whose cores are in the trace. Its clock is its own: no other process has it.

    `wall_ns` and `monotonic_ns` were read together when its recording began: they turn a step's
    `now_ns` into a date. `life` is 32 hexadecimal digits that name this life of the process, "" if
    not known. `note` says what is missing of its recording, "" if nothing is.
    """

    wall_ns: int
    monotonic_ns: int
    life: str = ""
    python_version: str = ""
    note: str = ""


class LocalCore(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="local"):
    """A local scheduler. `node` is -1 if it was not known yet, `process` a place in that list.

    `unplayable` says why a fresh core cannot replay it, "" if it can.
    """

    name: str
    config: LocalConfig
    node: NodeID = NodeID(-1)
    process: int = 0
    unplayable: str = ""


class HeadCore(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="head"):
    """A global scheduler: one life of the head, of that epoch (0: it has none)."""

    name: str
    config: GlobalConfig
    epoch: int = 0
    process: int = 0
    unplayable: str = ""


CoreInfo = LocalCore | HeadCore


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Whose trace it is: enough to make the cores anew.

    `cluster` is the cluster's id, 32 hexadecimal digits, "" if it has none. `notes` say what was
    missing or wrong when recordings were brought together.
    """

    format_version: int = FORMAT_VERSION
    core_revision: int
    detray_version: str
    entrypoint: str
    processes: tuple[ProcessInfo, ...]
    cores: tuple[CoreInfo, ...]
    cluster: str = ""
    notes: tuple[str, ...] = ()

    @property
    def monotonic_ns(self) -> int:
        """When the first process began to record, by its own clock."""
        return self.processes[0].monotonic_ns

    def process_of(self, core: int) -> ProcessInfo:
        """The process of a core, by the core's number."""
        return self.processes[self.cores[core].process]

    def date_ns(self, core: int, now_ns: int) -> int:
        """A core's `now_ns` as nanoseconds since 1970, as far as its machine knows the date."""
        process = self.process_of(core)
        return now_ns - process.monotonic_ns + process.wall_ns

    def local_cores(self) -> list[tuple[int, LocalCore]]:
        """The local schedulers with their numbers."""
        return [(n, core) for n, core in enumerate(self.cores) if isinstance(core, LocalCore)]

    def head_cores(self) -> list[tuple[int, HeadCore]]:
        """The global schedulers with their numbers."""
        return [(n, core) for n, core in enumerate(self.cores) if isinstance(core, HeadCore)]


class Header1(msgspec.Struct, frozen=True, kw_only=True):
    """The header of format 1: one process, a local scheduler and a head."""

    format_version: int
    core_revision: int
    detray_version: str
    python_version: str
    entrypoint: str
    wall_ns: int
    monotonic_ns: int
    local: LocalConfig
    head: GlobalConfig

    def today(self) -> Header:
        """The same as a header is now."""
        process = ProcessInfo(
            wall_ns=self.wall_ns,
            monotonic_ns=self.monotonic_ns,
            python_version=self.python_version,
        )
        return Header(
            format_version=1,
            core_revision=self.core_revision,
            detray_version=self.detray_version,
            entrypoint=self.entrypoint,
            processes=(process,),
            cores=(
                LocalCore(name=self.local.node_name, config=self.local),
                HeadCore(name="head", config=self.head),
            ),
        )


class SegmentStart(msgspec.Struct, frozen=True, kw_only=True):
    """The state of `cores` before step `first_step`, where a part of their steps begins.

    `cores` are numbers; none means all. `digests` are these cores' digests so far, `snapshots`
    their states, in the same order, or nothing: then steps can be replayed only if the steps
    before were (PROTOCOL N18), and `note` says why. A core that no segment names before its first
    step begins with that step, made anew from its configuration. With `begins` these cores took no
    step before either, but had a state to begin with, as a head that restarted has.
    """

    first_step: int
    digests: tuple[bytes, ...]
    snapshots: tuple[bytes, ...] = ()
    note: str = ""
    cores: tuple[int, ...] = ()
    begins: bool = False


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The last frame of a trace that was ended in order.

    `goes_on`: the cores do not end here, only what was written down, as of a flight recorder.
    """

    steps: int
    reason: str
    goes_on: bool = False


class TraceError(DetrayError):
    """A file is no trace, or not one that can be read: which, where, and why."""


def chained(before: bytes, groups: Sequence[bytes]) -> bytes:
    """The digest of a step with these effects, after a step of the same core with `before`."""
    if not groups:
        return before
    return blake2b(b"".join((before, *groups)), digest_size=8).digest()


class FrameWriter:
    """Turns payloads into frames that are numbered and chained by their checks."""

    __slots__ = ("_check", "_index")

    def __init__(self) -> None:
        self._index = 0
        self._check = 0

    def opening(self, header: Header) -> bytes:
        """What every trace begins with."""
        return PREAMBLE.pack(MAGIC, FORMAT_VERSION) + self.frame(
            HEADER_FRAME, msgspec.msgpack.encode(header)
        )

    def frame(self, kind: int, payload: bytes) -> bytes:
        """The next frame."""
        return self.head(kind, payload) + payload

    def head(self, kind: int, *parts: bytes | memoryview) -> bytes:
        """The bytes that go before a payload in `parts`, for those who do not want it copied."""
        index = self._index
        size = sum(map(len, parts))
        before = check = head_check(self._check, kind, size, index)
        for part in parts:
            check = crc32(part, check)
        self._check = check
        self._index = index + 1
        return FRAME_HEAD.pack(kind, size, index, before, check)


def head_check(before: int, kind: int, size: int, index: int) -> int:
    """The head check of a frame that follows one whose check was `before`."""
    return crc32(CHECKED.pack(before, kind, size, index))
