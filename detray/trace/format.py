"""The trace format: what the bytes of a trace file are (docs/traces.md: the same at more length).

    magic      8 bytes
    version    u32
    frame *    u8 kind, u32 length, u32 index, u32 head check, u32 check, then `length` bytes

The head check is the CRC-32 of (previous frame's check as u32, kind, length, index), and the check
carries that on over the bytes. A frame that was changed, moved, repeated or left out is noticed at
that frame; one whose head is right and whose bytes end early was cut off, not changed.
All integers are little endian. The first frame is a header. A steps frame holds whole steps:

    u64 first step number, u32 number of steps, then for each:
    u8 core, u8 flags, u16 m, u16 g, u64 now_ns, 8 bytes digest, (m + g) x u32 sizes, m + g blobs

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

MAGIC = b"\x89detray\n"
FORMAT_VERSION = 1
CORES = 2
"""Numbers of the cores of a trace: 0 the local scheduler, 1 the global scheduler (the head)."""
LOCAL, HEAD = 0, 1

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
STEP_HEAD = struct.Struct("<BBHHQ8s")
FRAME_BYTES_MAX = 1 << 30
WITH_EFFECTS = 1
RAISED = 2
CHUNK_BYTES = 64 << 10
"""A steps frame is closed once it holds this much."""

NO_DIGEST = bytes(8)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Whose trace it is: enough to make the cores anew.

    `wall_ns` and `monotonic_ns` were read together when recording began: they turn a step's
    `now_ns` into a date.
    """

    format_version: int = FORMAT_VERSION
    core_revision: int
    detray_version: str
    python_version: str
    entrypoint: str
    wall_ns: int
    monotonic_ns: int
    local: LocalConfig
    head: GlobalConfig


class SegmentStart(msgspec.Struct, frozen=True, kw_only=True):
    """The state before step `first_step`, where a part of a trace begins that may stand alone.

    `digests` are the cores' digests so far. `snapshots` are the cores' states by core number, or
    nothing: then steps can be replayed only if the steps before were (PROTOCOL N18), and `note`
    says why.
    """

    first_step: int
    digests: tuple[bytes, ...]
    snapshots: tuple[bytes, ...] = ()
    note: str = ""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The last frame of a trace that was ended in order."""

    steps: int
    reason: str


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

    def head(self, kind: int, payload: bytes) -> bytes:
        """The bytes that go before `payload`, for those who do not want it copied."""
        index = self._index
        size = len(payload)
        before = head_check(self._check, kind, size, index)
        self._check = crc32(payload, before)
        self._index = index + 1
        return FRAME_HEAD.pack(kind, size, index, before, self._check)


def head_check(before: int, kind: int, size: int, index: int) -> int:
    """The head check of a frame that follows one whose check was `before`."""
    return crc32(CHECKED.pack(before, kind, size, index))
