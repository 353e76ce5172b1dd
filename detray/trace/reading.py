"""Reading traces: check the frames, then hand out the steps one by one.

Rules
-----
- Opening reads and checks every frame, decoding none but the header: what is damaged is refused
  before anything is shown, what was cut off by a crash is readable up to the cut.
- Nothing here unpickles, and no input makes it raise anything but `TraceError` (or OSError).
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from detray.core.effects import DefineTemplate, Effect
from detray.core.stimuli import Stimulus
from detray.trace.format import (
    CHUNK_HEAD,
    CORES_MAX,
    END_FRAME,
    FORMAT_VERSION,
    HEADER_FRAME,
    MAGIC,
    OPTIONAL_FRAMES,
    PREAMBLE,
    RAISED,
    SEGMENT_FRAME,
    STEP_HEAD,
    STEP_HEAD_1,
    STEPS_FRAME,
    WITH_EFFECTS,
    End,
    Header,
    Header1,
    SegmentStart,
    TraceError,
)
from detray.trace.frames import FrameDamage, decoded, frames_of, read_frames
from detray.trace.plain_text import one_line

if TYPE_CHECKING:
    import networkx

    from detray.trace.travel.seeking import Replay

T = TypeVar("T")


class RecordedStep(NamedTuple):
    """One `handle` of one core, as recorded.

    `groups` are the encoded effects, None if only their digest was kept. `error` is what the core
    raised instead of returning, "" as a rule.
    """

    number: int
    core: int
    now_ns: int
    digest: bytes
    metas: tuple[bytes, ...]
    groups: tuple[bytes, ...] | None
    error: str

    def stimuli(self) -> list[Stimulus]:
        """What the core was told. Raises TraceError."""
        return [item for meta in self.metas for item in _decode(_STIMULI, meta, self.number)]

    def effects(self) -> list[Effect] | None:
        """What the core ordered, sorted by destination; None if not kept. Raises TraceError."""
        if self.groups is None:
            return None
        return [item for group in self.groups for item in _effects(group, self.number)]


class Chunk(NamedTuple):
    """A steps frame, its steps not yet taken apart."""

    first_step: int
    steps: int
    data: memoryview


class Trace:
    """An open trace: `header`, `starts` (where cores begin in the middle) and the steps.

    `complete` is False if recording did not end in order; `note` then says where the trace is cut
    and how much of the file could not be read. `reason` tells why it was written; with `goes_on`
    the cores went on after that.
    """

    def __init__(self, data: bytes, name: str = "trace", salvage: bool = False) -> None:
        """Raises TraceError; with `salvage`, damage only ends the trace instead."""
        self.name = name
        self.goes_on = False
        self.reason = ""
        self.starts: list[SegmentStart] = []
        self._chunks: list[Chunk] = []
        self._next_step: int | None = None
        self.header: Header
        version = _check_preamble(memoryview(data), name)

        def begin(kind: int, payload: memoryview) -> None:
            self.header = _header(kind, payload, version)

        self.complete, self.note = read_frames(
            frames_of(memoryview(data), PREAMBLE.size),
            name=name,
            begin=begin,
            take=self._take,
            salvage=salvage,
        )

    @property
    def first_step(self) -> int:
        """Number of the first step held; above 0 if a flight recorder let earlier ones go."""
        if self._chunks:
            return self._chunks[0].first_step
        return self.starts[0].first_step if self.starts else 0

    @property
    def step_count(self) -> int:
        """How many steps are held."""
        return sum(chunk.steps for chunk in self._chunks)

    def graph(self) -> networkx.MultiDiGraph:
        """Its tasks and objects, as `detray.graph()` gives them (`detray.trace.graphs.graph`).

        Raises TraceError, ImportError without networkx.
        """
        from detray.trace.graphs.graph import build

        return build(self)

    def steps(self, from_step: int = 0) -> Iterator[RecordedStep]:
        """The steps in the order in which they happened, from that number on. Raises TraceError.

        Those before are not read, but for a few that share a frame with the first.
        """
        layout = STEP_HEAD_1 if self.header.format_version == 1 else STEP_HEAD
        cores = len(self.header.cores)
        first = bisect_right(self._chunks, from_step, key=_first_step) - 1
        for chunk in islice(self._chunks, max(0, first), None):
            try:
                yield from _steps_of(chunk, layout, cores, from_step)
            except (struct.error, IndexError) as error:
                raise TraceError(
                    f"{self.name}: the steps from {chunk.first_step} on make no sense: {error}"
                ) from None

    def mentions(
        self, needle: bytes, low: int, high: int, backwards: bool = False
    ) -> Iterator[RecordedStep]:
        """The steps from `low` up to `high` (without it) whose bytes contain `needle`.

        Frames without it are not taken apart. Raises TraceError.
        """
        first = max(0, bisect_right(self._chunks, low, key=_first_step) - 1)
        last = bisect_left(self._chunks, high, key=_first_step)
        places = range(first, last)
        for place in reversed(places) if backwards else places:
            chunk = self._chunks[place]
            if needle not in bytes(chunk.data):
                continue
            end = min(high, chunk.first_step + chunk.steps)
            count = end - max(low, chunk.first_step)
            steps = islice(self.steps(max(low, chunk.first_step)), max(0, count))
            found = [
                step
                for step in steps
                if any(needle in blob for blob in (*step.metas, *(step.groups or ())))
            ]
            yield from reversed(found) if backwards else found

    def replay(self, *, progress: Callable[[int, int], None] | None = None) -> Replay:
        """A position in this trace with the state there, which can go anywhere (`Replay`).

        The trace is played once for it; `progress` is told how many steps were, of how many.
        Raises TraceError.
        """
        from detray.trace.travel.seeking import Replay

        return Replay(self, progress=progress)

    @cached_property
    def keeps_effects(self) -> bool:
        """True if every step that did not raise is there with its effects. Raises TraceError."""
        return all(step.groups is not None or step.error for step in self.steps())

    @property
    def end_step(self) -> int:
        """Number of the step that would come next."""
        return self._next_step or 0

    def _take(self, kind: int, payload: memoryview) -> bool:
        """One frame behind the header; True for the end."""
        if kind == STEPS_FRAME:
            self._take_steps(payload)
        elif kind == SEGMENT_FRAME:
            self._take_start(decoded(payload, SegmentStart))
        elif kind == END_FRAME:
            end = decoded(payload, End)
            if end.steps != (self._next_step or 0):
                raise FrameDamage(
                    f"it ends at step {self._next_step}, its last frame says {end.steps}"
                )
            self.reason, self.goes_on = end.reason, end.goes_on
        elif kind < OPTIONAL_FRAMES:
            raise FrameDamage(f"unknown frame kind {kind}")
        return kind == END_FRAME

    def _take_steps(self, payload: memoryview) -> None:
        if len(payload) < CHUNK_HEAD.size:
            raise FrameDamage("a steps frame is too short")
        first, count = CHUNK_HEAD.unpack_from(payload)
        if first != (self._next_step or 0):
            raise FrameDamage(f"steps from {first} follow where {self._next_step or 0} is due")
        self._next_step = first + count
        self._chunks.append(Chunk(first, count, payload[CHUNK_HEAD.size :]))

    def _take_start(self, start: SegmentStart) -> None:
        if not start.cores:
            every = tuple(range(len(self.header.cores)))
            start = msgspec.structs.replace(start, cores=every)
        count = len(start.cores)
        if len(start.digests) != count or len(start.snapshots) not in (0, count):
            raise FrameDamage("a segment does not open with the state of its cores")
        if not all(0 <= core < len(self.header.cores) for core in start.cores):
            raise FrameDamage("a segment opens for a core that the header does not list")
        if self._next_step is None:
            self._next_step = start.first_step
        elif self._next_step != start.first_step:
            raise FrameDamage(
                f"a segment at {start.first_step} follows where {self._next_step} is due"
            )
        self.starts.append(start)


def open_trace(path: str | os.PathLike[str], salvage: bool = False) -> Trace:
    """Read a trace file. Raises OSError, TraceError; with `salvage`, damage only ends it."""
    with open(path, "rb") as file:
        start = file.read(PREAMBLE.size)
        _check_preamble(memoryview(start), str(path))  # before all of something else is read
        data = start + file.read()
    return Trace(data, str(path), salvage)


def _check_preamble(data: memoryview, name: str) -> int:
    if data[: len(MAGIC)] != MAGIC:
        if len(data) < PREAMBLE.size and MAGIC.startswith(data):
            raise TraceError(f"{name} is empty or was cut off before its first frame")
        raise TraceError(f"{name} is not a detray trace: it does not begin with {MAGIC!r}")
    if len(data) < PREAMBLE.size:
        raise TraceError(f"{name} was cut off before its first frame")
    version = int(PREAMBLE.unpack_from(data)[1])
    if version > FORMAT_VERSION or version < 1:
        raise TraceError(
            f"{name} has trace format {version}; this detray reads 1 to {FORMAT_VERSION}. "
            "Read it with the detray that wrote it, or a later one"
        )
    return version


def _header(kind: int, payload: memoryview, version: int) -> Header:
    if kind != HEADER_FRAME:
        raise FrameDamage("the first frame is no header")
    if version == 1:
        return decoded(payload, Header1).today()
    header = decoded(payload, Header)
    if header.format_version != version:
        raise FrameDamage(f"the header is of format {header.format_version}, the file of {version}")
    if not 0 < len(header.cores) <= CORES_MAX:
        raise FrameDamage(f"the header lists {len(header.cores)} cores")
    if not all(0 <= core.process < len(header.processes) for core in header.cores):
        raise FrameDamage("the header has a core without its process")
    return header


_STIMULI = msgspec.msgpack.Decoder(list[Stimulus])
_EFFECTS = msgspec.msgpack.Decoder(list[Effect])


def _decode(decoder: msgspec.msgpack.Decoder[list[T]], blob: bytes, number: int) -> list[T]:
    try:
        return decoder.decode(blob)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TraceError(
            f"step {number} holds a message that makes no sense: {one_line(str(error))}"
        ) from None


def _effects(blob: bytes, number: int) -> list[Effect]:
    try:
        return _EFFECTS.decode(blob)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode(_EFFECTS, _as_revision_2(blob, number), number)


def _as_revision_2(blob: bytes, number: int) -> bytes:
    """Effects of core revision 1, whose templates had CPUs (1/10,000) where the demand is now."""
    messages = _decode(_MESSAGES, blob, number)
    for message in messages:
        if message[:1] == [_DEFINE_TEMPLATE] and len(message) > 6 and isinstance(message[6], int):
            message[6] = [("CPU", message[6])] if message[6] else []
    return msgspec.msgpack.encode(messages)


_MESSAGES = msgspec.msgpack.Decoder(list[list[Any]])  # Any: whatever was written there
_DEFINE_TEMPLATE = DefineTemplate.__struct_config__.tag


@lru_cache(maxsize=256)
def _sizes(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")


def _first_step(chunk: Chunk) -> int:
    return chunk.first_step


def _steps_of(
    chunk: Chunk, head: struct.Struct, cores: int, from_step: int
) -> Iterator[RecordedStep]:
    data, at = chunk.data, 0
    for number in range(chunk.first_step, chunk.first_step + chunk.steps):
        core, flags, stimuli, groups, now_ns, digest = head.unpack_from(data, at)
        layout = _sizes(stimuli + groups)
        sizes = layout.unpack_from(data, at + head.size)
        at += head.size + layout.size
        if core >= cores or flags & ~(WITH_EFFECTS | RAISED) or at + sum(sizes) > len(data):
            raise IndexError(f"step {number} of core {core} is not laid out as it should be")
        if number < from_step:
            at += sum(sizes)
            continue
        blobs = []
        for size in sizes:
            blobs.append(bytes(data[at : at + size]))
            at += size
        yield _step(number, core, flags, now_ns, digest, blobs, stimuli)
    if at != len(data):
        raise IndexError("bytes follow the last step")


def _step(
    number: int,
    core: int,
    flags: int,
    now_ns: int,
    digest: bytes,
    blobs: list[bytes],
    stimuli: int,
) -> RecordedStep:
    metas, rest = tuple(blobs[:stimuli]), tuple(blobs[stimuli:])
    error = b"".join(rest).decode(errors="replace") if flags & RAISED else ""
    groups = rest if flags & WITH_EFFECTS and not flags & RAISED else None
    return RecordedStep(number, core, now_ns, digest, metas, groups, error)
