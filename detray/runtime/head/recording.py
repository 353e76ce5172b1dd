"""The head's recorder: its trace file or flight recorder, and what is handed out of it.

What a head that restarted knows from its store is in none of its stimuli, so its recording begins
with its state (docs/traces.md).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from time import monotonic_ns, time_ns

import msgspec

from detray import __version__
from detray.core.effects import Effect
from detray.core.global_scheduler import GlobalScheduler
from detray.core.outbox import Outbox
from detray.core.stimuli import GlobalStimulus
from detray.runtime.boot import HeadBoot
from detray.runtime.copies import Readers, copy_trace
from detray.runtime.recording import free_path
from detray.runtime.session import flight_path
from detray.runtime.wakeups import Wakeups
from detray.trace.recorder import Recorder, begun_with, new_header

_FLUSH_NS = 1_000_000_000


class HeadRecording:
    """Keeps what the head's core was told. Trouble with files is noted, never raised."""

    def __init__(
        self, boot: HeadBoot, core: GlobalScheduler, *, life: str, wakeups: Wakeups
    ) -> None:
        self._boot = boot
        self._wakeups = wakeups
        self._encode = msgspec.msgpack.Encoder().encode
        self._outbox = Outbox()
        self._readers = Readers(lambda: copy_trace(self._recorder), wakeups)
        """Who is being handed it in pieces."""
        self._has_timer = False
        self._recorder = self._open(core, life)

    def step(self, now_ns: int, stimuli: Sequence[GlobalStimulus], effects: list[Effect]) -> None:
        """The core took a step."""
        metas = [self._encode(stimuli)] if stimuli else []
        self._recorder.step(0, now_ns, metas, self._outbox.encode_effects(effects))
        if self._recorder.path and not self._has_timer:
            self._has_timer = True
            self._wakeups.call_at(monotonic_ns() + _FLUSH_NS, self._flush)

    def step_raised(self, now_ns: int, stimuli: Sequence[GlobalStimulus], error: str) -> None:
        """The core raised, a bug of ours: the last step, written out at once."""
        self._recorder.step_raised(0, now_ns, [self._encode(stimuli)], error)
        try:
            path = self._recorder.dump(flight_path(self._boot.session_dir, 1), "the head crashed")
        except OSError as problem:
            path = f"lost: {problem}"
        _note(f"the head's recording is {path}")

    def piece(self, offset: int, size_bytes: int, reader: int = 0) -> bytes:
        """As `Readers.piece`; b"" if it cannot be read."""
        try:
            return self._readers.piece(reader, offset, size_bytes)
        except OSError as problem:
            _note(f"the trace cannot be read: {problem}")
            return b""

    def read(self) -> bytes:
        """The trace so far; b"" if its file cannot be read."""
        try:
            return self._recorder.read_all()
        except OSError as problem:
            _note(f"the trace cannot be read: {problem}")
            return b""

    def close(self, reason: str) -> None:
        """End the trace in order."""
        self._recorder.close(reason)
        self._tell_problem()

    def _open(self, core: GlobalScheduler, life: str) -> Recorder:
        boot = self._boot
        header = new_header(
            head=boot.global_,
            entrypoint="",
            wall_ns=time_ns(),
            monotonic_ns=monotonic_ns(),
            detray_version=__version__,
            cluster=boot.cluster.cluster,
            life=life,
            epoch=core.tables.durable.epoch,
        )
        start = begun_with([core])
        path = free_path(boot.record) if boot.record else None
        try:
            return Recorder(header, [core], path, boot.flight_bytes, start)
        except OSError as problem:
            _note(f"nothing is recorded to {boot.record}: {problem}")
            return Recorder(header, [core], None, boot.flight_bytes, start)

    def _flush(self) -> None:
        self._has_timer = False
        self._recorder.flush()
        self._tell_problem()

    def _tell_problem(self) -> None:
        problem, self._recorder.problem = self._recorder.problem, None
        if problem:
            _note(problem)


def _note(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
