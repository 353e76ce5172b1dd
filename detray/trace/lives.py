"""The lives of tasks, objects, workers and programs: rows of a `history.History`.

`core` is always the number of the local scheduler where it happened; times are of its clock.
"""

from __future__ import annotations

import msgspec

from detray.ids import ClientID, JobNumber, NodeID, ObjectID, TaskID

WAITING, SENT, FINISHED = "waiting", "sent", "finished"
FAILED, CANCELLED = "failed", "cancelled"
LOST = "lost"
"""An attempt whose worker, or node, ended."""
UNKNOWN_CORE = -1
"""Where a thing of which only others speak has its place: in no core of the trace."""


class Attempt(msgspec.Struct):
    """One run of a task; times are -1 where they are not known. `state`: a task's, or LOST."""

    number: int
    worker: ClientID
    sent_ns: int = -1
    started_ns: int = -1
    ended_ns: int = -1
    state: str = SENT
    error: str = ""
    core: int = UNKNOWN_CORE
    node: NodeID = NodeID(-1)
    """Where it was sent; -1 where that is not known."""


class TaskLife(msgspec.Struct):
    """A task from its submission on."""

    id: TaskID
    name: str
    parent: TaskID
    submitted_ns: int
    num_returns: int = 1
    args: tuple[ObjectID, ...] = ()
    refs: tuple[ObjectID, ...] = ()
    attempts: list[Attempt] = []
    state: str = WAITING
    error: str = ""
    cancel_asked: bool = False
    core: int = UNKNOWN_CORE

    @property
    def last(self) -> Attempt | None:
        """The latest attempt."""
        return self.attempts[-1] if self.attempts else None

    def attempt(self, number: int, worker: ClientID) -> Attempt:
        """The attempt of that number, made if it was not known."""
        for known in reversed(self.attempts):
            if known.number == number:
                return known
        self.attempts.append(Attempt(number, worker))
        return self.attempts[-1]


class ObjectLife(msgspec.Struct):
    """A value. `producer` is the task that returned or put it, b"" if not known."""

    id: ObjectID
    producer: TaskID
    size_bytes: int
    created_ns: int
    is_put: bool = False
    refs: tuple[ObjectID, ...] = ()
    core: int = UNKNOWN_CORE


class WorkerLife(msgspec.Struct):
    """A worker process; times are -1 where they are not known."""

    id: ClientID
    core: int
    pid: int = 0
    ready_ns: int = -1
    lost_ns: int = -1
    reason: str = ""


class Wait(msgspec.Struct):
    """A client's `get` or `wait`. `task`: the run that stood still meanwhile (b"": the driver)."""

    client: ClientID
    task: TaskID
    started_ns: int
    ended_ns: int
    count: int
    core: int
    objects: tuple[ObjectID, ...] = ()
    needed: int = 0
    """How many of `objects` had to be there."""
    timed_out: bool = False


class Program(msgspec.Struct):
    """A driver: `job` is 0 until the head has given it a number."""

    client: ClientID
    job: JobNumber
    entrypoint: str
    pid: int
    started_ns: int
    core: int
