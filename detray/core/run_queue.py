"""RunQueue: the runs that were sent to a worker, and which of them it may begin.

A worker begins the run at the front only with a token from its pipe. The service may take unbegun
runs back, always the last ones, by reading tokens itself; it then sends a marker after the runs it
sent before, and numbers the tokens it writes later with the next generation. A token of a
generation that the worker has not seen the marker of may stand for a run that is not received yet,
while the front run is one that was taken back: the worker receives first (docs/architecture.md,
"Tokens").
"""

from __future__ import annotations

from collections import deque

import msgspec

from detray.core.effects import DefineFunction, DefineTemplate, RunTask
from detray.ids import FunctionID, TaskID

INTERRUPTS_MAX = 1_024
"""Cancellations remembered for runs that have not begun; older ones are forgotten first."""


class QueuedRun(msgspec.Struct, frozen=True):
    """A run and its payload: pickled arguments (b"": none), then bytes per place of `args`."""

    message: RunTask
    blob: bytes
    values: tuple[bytes, ...]


class RunQueue:
    """What a worker was sent and has not used yet.

    `markers` counts the retractions seen. `definitions` and `templates` stay until the worker ends:
    there are as many as the job's functions.
    """

    __slots__ = ("definitions", "interrupts", "leaving", "markers", "runs", "templates")

    def __init__(self) -> None:
        self.runs: deque[QueuedRun] = deque()
        self.markers = 0
        self.definitions: dict[FunctionID, tuple[DefineFunction, bytes]] = {}
        self.templates: dict[int, tuple[DefineTemplate, bytes]] = {}
        self.interrupts: dict[tuple[TaskID, int], None] = {}
        self.leaving = False

    def is_current(self, generation: int) -> bool:
        """True if a token of this generation (modulo 256) stands for the run at the front.

        An older one does: it was written before a retraction that left it in the pipe.
        """
        return (generation - self.markers) & 0xFF == 0 or (generation - self.markers) & 0x80 != 0

    def retract(self, count: int) -> list[QueuedRun]:
        """A marker came: the last `count` runs are the service's again; they are returned."""
        self.markers += 1
        taken = [self.runs.pop() for _ in range(min(count, len(self.runs)))]
        taken.reverse()
        return taken

    def interrupt(self, task: TaskID, attempt: int) -> None:
        """Remember that this attempt is to be cancelled when its turn comes."""
        self.interrupts[task, attempt] = None
        if len(self.interrupts) > INTERRUPTS_MAX:
            del self.interrupts[next(iter(self.interrupts))]

    def forget_interrupt(self, task: TaskID, attempt: int) -> bool:
        """Take the note that this attempt is to be cancelled; False if there is none."""
        return self.interrupts.pop((task, attempt), self) is None
