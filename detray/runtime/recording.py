"""The service's recorder: where a trace goes, when it is flushed, when a flight is kept.

Payloads, if they are wanted, go beside it: to a file beside the trace, or into a ring that is
written out beside a flight.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock
from collections.abc import Callable
from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING

from detray import __version__
from detray.core.global_scheduler import GlobalScheduler
from detray.core.local import LocalScheduler
from detray.ids import ClientID, ObjectID
from detray.runtime.boot import BootConfig
from detray.runtime.log_channel import DriverChannels
from detray.runtime.session import flight_path, session_name
from detray.runtime.wakeups import Wakeups
from detray.trace.recorder import Recorder, new_header

if TYPE_CHECKING:
    # Loaded only where payloads are recorded, or somebody fetches a recording.
    from detray.runtime.connections import Tap
    from detray.runtime.copies import Copies, Copy, Readers
    from detray.trace.payloads.recorder import PayloadFlight, PayloadRecorder

_FLUSH_NS = 1_000_000_000
_WRITING_S = 2.0
_FLIGHTS_MAX = 10
"""Flight recorders written out per session: whoever crashes for ever is told enough by ten."""

Background = Callable[[Callable[[], None]], None]
"""Runs something off the loop."""
View = Callable[[int, int, int], memoryview]
"""The bytes of a block by segment, offset and size. Raises OSError."""


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
        view: View,
    ) -> None:
        """In a cluster only the local core is recorded; `life` names its process in the header."""
        self._boot = boot
        # Payloads are told from those of other traces by it.
        self._life = life or (os.urandom(16).hex() if boot.record_payloads else "")
        self._view = view
        self._cores = cores if boot.cluster is None else cores[:1]
        self._local = cores[0]
        self._wakeups = wakeups
        self._log = log
        self._in_background = in_background
        self._flights = 0
        self._dump_reason = ""
        """Why the flight recorder is to be written out after this wake-up; "" if it is not."""
        self._readers: Readers | None = None
        """Who is being handed the trace in pieces."""
        self._copies: Copies | None = None
        self._writing = allocate_lock()
        """Held while a flight recorder is being written out."""
        self._has_timer = False
        self._told_problems: list[str] = []
        self._recorder = self._open()
        self.step = self._recorder.step
        self.step_raised = self._recorder.step_raised
        self._payloads = self._open_payloads() if boot.record_payloads else None

    @property
    def tap(self) -> Tap | None:
        """What wants to see all that arrives, with its payload; None if nobody does."""
        return self._payloads.take if self._payloads else None

    def keep_fresh(self) -> None:
        """Have a trace file brought up to date within a second; called after each wake-up."""
        if self._dump_reason:
            self._dump_flight()
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

    def piece(self, offset: int, size_bytes: int, reader: int = 0) -> bytes:
        """As `Readers.piece`; b"" if it cannot be read."""
        if self._readers is None:
            from detray.runtime.copies import Readers, copy_trace

            self._readers = Readers(lambda: copy_trace(self._recorder), self._wakeups)
        try:
            return self._readers.piece(reader, offset, size_bytes)
        except OSError as error:
            self._log.notify("error", "trace", f"the trace cannot be read: {error}")
            return b""

    @property
    def copies(self) -> Copies:
        """The copies of payloads that are being fetched."""
        if self._copies is None:
            from detray.runtime.copies import Copies

            self._copies = Copies(self._wakeups)
        return self._copies

    def payloads_size(self) -> int | None:
        """About how many bytes of payloads were kept, None if none are. Raises OSError."""
        if self._payloads is None:
            return None
        self._payloads.flush()
        return self._payloads.size_bytes

    def copy_payloads(self) -> Copy:
        """The payloads kept so far, to be handed out. Raises OSError."""
        from detray.runtime.copies import FileCopy, RingCopy

        if self._payloads is None:
            raise OSError("it records no payloads")
        self._payloads.flush()
        if self._payloads.written:
            return FileCopy(self._payloads.written)
        return RingCopy(self._payloads.freeze("asked for").pieces())

    def dump(self, reason: str) -> None:
        """Write the flight recorder out, off the loop; one at a time, and not for ever.

        A core orders it in the very step that is worth a look: after the wake-up it is recorded.
        """
        self._dump_reason = self._dump_reason or reason

    def _dump_flight(self) -> None:
        if self._recorder.path or self._flights == _FLIGHTS_MAX:
            self._dump_reason = ""
            if self._recorder.path:
                self._flush_files()
            return
        if not self._writing.acquire(blocking=False):
            return  # The one before is not written yet: a later wake-up tries again, or the end.
        reason, self._dump_reason = self._dump_reason, ""
        path = self._next_flight()
        flight = self._recorder.freeze(reason)
        payloads = self._frozen_payloads(reason)

        def write() -> None:
            try:
                flight.write(path)
                if payloads is not None:
                    payloads.write_beside(path)
            except OSError:
                pass  # The disk is full: the run goes on without.
            self._writing.release()

        self._in_background(write)
        text = f"{reason}: the flight recorder is in {path} (`detray why` reads it)"
        self._log.notify("info", "flight", text)

    def dump_now(self, reason: str) -> str:
        """Write it out here and now, before everything ends; the path. Raises OSError."""
        path = str(self._recorder.dump(self._next_flight(), reason))
        payloads = self._frozen_payloads(reason)
        if payloads is not None:
            payloads.write_beside(path)
        elif self._payloads is not None:
            self._payloads.flush()
        return path

    def close(self, reason: str) -> None:
        """End the trace in order; a flight recorder that is being written gets some time."""
        is_written = self._writing.acquire(timeout=_WRITING_S)
        if self._dump_reason and is_written:
            self._writing.release()
            self._dump_flight()
            self._writing.acquire(timeout=_WRITING_S)
        if self._payloads is not None:
            self._payloads.close(reason)
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
        self._flush_files()
        self._tell_problem()

    def _flush_files(self) -> None:
        """The payloads first: a task that the trace tells of has its arguments then."""
        if self._payloads is not None:
            self._payloads.flush()
        self._recorder.flush()

    def _tell_problem(self) -> None:
        for recorder in (self._recorder, self._payloads):
            problem = recorder.problem if recorder is not None else None
            if problem and problem not in self._told_problems:
                self._told_problems.append(problem)
                self._log.notify("error", "trace", problem)

    # -------------------------------------------------------------- payloads

    def _open_payloads(self) -> PayloadRecorder:
        """The recorder of payloads: to a file beside the trace, or in memory."""
        from detray.trace.payloads.format import PayloadHeader, PayloadProcess, payloads_path
        from detray.trace.payloads.recorder import PayloadRecorder

        boot = self._boot
        process = PayloadProcess(
            life=self._life,
            wall_ns=time_ns(),
            session=boot.cluster.cluster if boot.cluster else session_name(boot.session_dir),
            cwd=boot.cwd,
            argv=tuple(boot.argv),
            sys_path=tuple(boot.sys_path),
            python_version="{}.{}.{}".format(*sys.version_info),
        )
        header = PayloadHeader(detray_version=__version__, processes=(process,))
        path = payloads_path(self._recorder.path) if self._recorder.path else None
        ring_bytes = boot.flight_bytes
        try:
            return PayloadRecorder(header, self._find_block, path, ring_bytes)
        except OSError as error:
            self._log.notify("error", "trace", f"payloads are not recorded to {path}: {error}")
            return PayloadRecorder(header, self._find_block, None, ring_bytes)

    def _find_block(self, client: ClientID, item: ObjectID) -> memoryview | None:
        """The block that a client has just filled; it is there until a core hears of it."""
        writer = self._local.tables.clients.get(client)
        block = writer.blocks.get(item) if writer is not None else None
        if block is None or block.segment < 0:
            return None
        try:
            return self._view(block.segment, block.offset, block.size_bytes)
        except OSError:
            return None

    def _frozen_payloads(self, reason: str) -> PayloadFlight | None:
        """What the ring of payloads holds, None if there is none."""
        if self._payloads is None or self._payloads.path or self._payloads.problem:
            return None
        return self._payloads.freeze(reason)

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
