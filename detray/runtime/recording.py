"""The service's recorder: where a trace goes, when it is flushed, when a flight is kept."""

from __future__ import annotations

import os
from _thread import allocate_lock
from collections.abc import Callable
from time import monotonic_ns, time_ns

from detray import __version__
from detray.core.global_scheduler import GlobalScheduler
from detray.core.local import LocalScheduler
from detray.runtime.boot import BootConfig
from detray.runtime.log_channel import DriverChannels
from detray.runtime.session import flight_path
from detray.runtime.wakeups import Wakeups
from detray.trace.recorder import Recorder, new_header

_FLUSH_NS = 1_000_000_000
_WRITING_S = 2.0
_FLIGHTS_MAX = 10
"""Flight recorders written out per session: whoever crashes for ever is told enough by ten."""

Background = Callable[[Callable[[], None]], None]
"""Runs something off the loop."""


class Recording:
    """Keeps what the cores were told. Trouble with files is told to the user, never raised."""

    def __init__(
        self,
        boot: BootConfig,
        cores: tuple[LocalScheduler, GlobalScheduler],
        *,
        life: str = "",
        wakeups: Wakeups,
        log: DriverChannels,
        in_background: Background,
    ) -> None:
        """In a cluster only the local core is recorded; `life` names its process in the header."""
        self._boot = boot
        self._life = life
        self._cores = cores if boot.cluster is None else cores[:1]
        self._wakeups = wakeups
        self._log = log
        self._in_background = in_background
        self._flights = 0
        self._copy = b""
        """What is being handed out in pieces."""
        self._writing = allocate_lock()
        """Held while a flight recorder is being written out."""
        self._has_timer = False
        self._told_problem = False
        self._recorder = self._open()
        self.step = self._recorder.step
        self.step_raised = self._recorder.step_raised

    def keep_fresh(self) -> None:
        """Have a trace file brought up to date within a second; called after each wake-up."""
        if self._recorder.path and not self._has_timer:
            self._has_timer = True
            self._wakeups.call_at(monotonic_ns() + _FLUSH_NS, self._flush)

    def read(self) -> bytes:
        """The trace so far."""
        try:
            return self._recorder.read_all()
        except OSError as error:
            self._log.notify("error", "trace", f"the trace cannot be read: {error}")
            return b""

    def piece(self, offset: int, size_bytes: int) -> bytes:
        """A part of the trace as it was when its first piece was asked for; b"" at its end."""
        if offset == 0:
            self._copy = self.read()
        piece = self._copy[offset : offset + size_bytes]
        if not piece:
            self._copy = b""
        return piece

    def dump(self, reason: str) -> None:
        """Write the flight recorder out, off the loop; one at a time, and not for ever."""
        if self._recorder.path:
            self._recorder.flush()
            return
        if self._flights == _FLIGHTS_MAX or not self._writing.acquire(blocking=False):
            return
        path = self._next_flight()
        flight = self._recorder.freeze(reason)

        def write() -> None:
            try:
                flight.write(path)
            except OSError:
                pass  # The disk is full: the run goes on without.
            self._writing.release()

        self._in_background(write)
        self._log.notify("info", "flight", f"{reason}: the flight recorder is in {path}")

    def dump_now(self, reason: str) -> str:
        """Write it out here and now, before everything ends; the path. Raises OSError."""
        return str(self._recorder.dump(self._next_flight(), reason))

    def close(self, reason: str) -> None:
        """End the trace in order; a flight recorder that is being written gets some time."""
        self._writing.acquire(timeout=_WRITING_S)
        self._recorder.close(reason)
        self._tell_problem()

    def _open(self) -> Recorder:
        boot = self._boot
        header = new_header(
            local=boot.local,
            head=boot.global_ if boot.cluster is None else None,
            cluster=boot.cluster.cluster if boot.cluster else "",
            life=self._life,
            entrypoint=boot.entrypoint,
            wall_ns=time_ns(),
            monotonic_ns=monotonic_ns(),
            detray_version=__version__,
        )
        path = boot.record
        if path and boot.cluster is not None:
            path = free_path(path)
        try:
            return Recorder(header, self._cores, path or None, boot.flight_bytes)
        except OSError as error:
            self._log.notify("error", "trace", f"nothing is recorded to {boot.record}: {error}")
            return Recorder(header, self._cores, None, boot.flight_bytes)

    def _flush(self) -> None:
        self._has_timer = False
        self._recorder.flush()
        self._tell_problem()

    def _tell_problem(self) -> None:
        problem = self._recorder.problem
        if problem and not self._told_problem:
            self._told_problem = True
            self._log.notify("error", "trace", problem)

    def _next_flight(self) -> str:
        self._flights += 1
        return flight_path(self._boot.session_dir, self._flights)


def free_path(path: str) -> str:
    """`path`, or with a number after it if a file of that name is there.

    A process of a cluster that comes back has the orders of its life before, and must not write
    over what that one recorded.
    """
    number, free = 1, path
    while os.path.exists(free):
        number += 1
        free = f"{path}.{number}"
    return free
