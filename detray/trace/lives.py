"""The lives of tasks, objects, workers and programs: rows of a `history.History`."""

from __future__ import annotations

import msgspec

from detray.ids import ClientID, JobNumber, ObjectID, TaskID

WAITING, SENT, FINISHED = "waiting", "sent", "finished"
FAILED, CANCELLED = "failed", "cancelled"
LOST = "lost"
"""An attempt whose worker ended."""


class Attempt(msgspec.Struct):
    """One run of a task; times are -1 where they are not known. `state`: a task's, or LOST."""

    number: int
    worker: ClientID
    sent_ns: int = -1
    started_ns: int = -1
    ended_ns: int = -1
    state: str = SENT
    error: str = ""


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


class WorkerLife(msgspec.Struct):
    """A worker process; times are -1 where they are not known."""

    id: ClientID
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


class Program(msgspec.Struct):
    """A driver: `job` is 0 until the head has given it a number."""

    client: ClientID
    job: JobNumber
    entrypoint: str
    pid: int
    started_ns: int
