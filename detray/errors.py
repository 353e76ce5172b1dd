"""What can go wrong, split by whose fault it is. Every exception rebuilds from its `args`.

    DetrayError
    ├── UserError ─────────────────── the program asked for it
    │   ├── TaskError                   a task raised; also an instance of the class it raised
    │   ├── TaskCancelledError          detray.cancel, or KeyboardInterrupt in the task
    │   ├── GetTimeoutError             (TimeoutError) nothing arrived in time
    │   ├── DeadlockError               tasks that wait for each other in a circle
    │   ├── TaskUnschedulableError      no node can ever meet the demand
    │   ├── SerializationError          (TypeError) a value cannot be pickled
    │   ├── RuntimeEnvSetupError        an environment that cannot be made
    │   ├── StaleRefError               a reference of an earlier session
    │   └── OutOfBandRefError           a reference in a pickle of the user's, if that is forbidden
    ├── WorldError ────────────────── a process, a machine, memory or a disk gave out
    │   ├── WorkerCrashedError          the process that ran the task died
    │   ├── OutOfMemoryError            ... because memory ran out
    │   ├── WorkerStartError            no worker process could be started
    │   ├── NodeDiedError
    │   ├── ObjectLostError             the value is gone
    │   │   ├── ObjectFreedError
    │   │   ├── OwnerDiedError
    │   │   ├── ObjectFetchTimedOutError
    │   │   ├── ReferenceCountingAssertionError   (AssertionError)
    │   │   └── ObjectReconstructionFailedError
    │   │       ├── ObjectReconstructionFailedMaxAttemptsExceededError
    │   │       └── ObjectReconstructionFailedLineageEvictedError
    │   ├── ObjectStoreFullError
    │   └── OutOfDiskError
    └── EngineError ───────────────── us: detray is broken, gone, or not there yet
        ├── NotStartedError             no session, and automatic start is off
        └── ServiceDiedError            the node's service process ended

`detray.exceptions` has the same classes under Ray's names, and Ray's names for what detray has no
use for. `Failure` is what the cores know of all this; `detray/serialization/failures.py` turns one
into the other.
"""

from __future__ import annotations

from enum import IntEnum


class Failure(IntEnum):
    """Why an object has no value: what a core records and a client turns into an exception."""

    NONE = 0
    APPLICATION = 1
    """User code raised; the pickled exception is the payload."""
    CANCELLED = 2
    WORKER_CRASHED = 3
    DEADLOCK = 4
    INFEASIBLE = 5
    OBJECT_LOST = 6
    """Unknown, freed, or its bytes cannot be read any more."""
    STORE_FULL = 7
    OUT_OF_DISK = 8
    OWNER_DIED = 9
    NODE_DIED = 10
    START_FAILED = 11
    """No worker process could be started for it."""
    SERIALIZATION = 12
    """Arguments could not be unpickled in the worker, or a result not pickled."""
    OUT_OF_MEMORY = 13


class DetrayError(Exception):
    """Base of everything that detray raises for a reason of its own. (Ray: RayError)"""


# ------------------------------------------------------------------ the user


class UserError(DetrayError):
    """The program asked for something that cannot be, or ran into it by itself."""


class TaskError(UserError):
    """User code raised an exception inside a task; `get` raises it where the value was wanted.

    What `get` raises is an instance of this class *and* of the class that the task raised
    (`detray/dual.py` makes the class), with that exception's attributes and `args`. `str()` is
    the remote traceback. `cause` is the original exception, None if it could not be pickled.
    `pid` and `ip` say where it was raised; 0 and "" if that is not known.
    """

    function_name: str
    traceback_str: str
    cause: BaseException | None
    pid: int
    ip: str

    def __init__(
        self,
        function_name: str = "",
        traceback_str: str = "",
        cause: BaseException | None = None,
        pid: int = 0,
        ip: str = "",
    ) -> None:
        super().__init__(function_name, traceback_str, cause, pid, ip)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause = cause
        self.pid = pid
        self.ip = ip

    def __str__(self) -> str:
        return self.traceback_str

    def as_instanceof_cause(self) -> TaskError:
        """This error as an instance of its cause's class too, as far as Python allows it."""
        from detray.dual import as_instance_of_cause

        return as_instance_of_cause(self)


class TaskCancelledError(UserError):
    """The task was cancelled before it finished, or one that it needs was."""


class GetTimeoutError(UserError, TimeoutError):
    """A `get` gave up waiting; the tasks go on."""


class DeadlockError(UserError):
    """Tasks wait for each other in a circle; the message shows it."""


class TaskUnschedulableError(UserError):
    """No node of the cluster can ever meet what the task asks for."""


class SerializationError(UserError, TypeError):
    """A value cannot be pickled; the message names the member that stands in the way."""


class RuntimeEnvSetupError(UserError):
    """The environment that a task asks for cannot be made."""


class StaleRefError(UserError):
    """A reference belongs to a session that has ended."""


class OutOfBandRefError(UserError):
    """A reference was pickled by the user's own pickler although that is forbidden."""


# ------------------------------------------------------------------ the world


class WorldError(DetrayError):
    """Something outside of the program and of detray gave out."""


class WorkerCrashedError(WorldError):
    """The worker process died while it ran the task, as often as the task may be retried."""


class OutOfMemoryError(WorldError):
    """The worker process was killed because memory ran out."""


class WorkerStartError(WorldError):
    """The operating system refused to start a worker process."""


class NodeDiedError(WorldError):
    """The node that ran the task died."""


class ObjectLostError(WorldError):
    """The value existed and is gone."""


class ObjectFreedError(ObjectLostError):
    """The value was freed on purpose while references to it exist."""


class OwnerDiedError(ObjectLostError):
    """The node that owned the object died; what it owned ended with it."""


class ObjectFetchTimedOutError(ObjectLostError):
    """The value could not be fetched from another node in time."""


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The value was freed although somebody holds a reference."""


class ObjectReconstructionFailedError(ObjectLostError):
    """The value was lost and cannot be computed again."""


class ObjectReconstructionFailedMaxAttemptsExceededError(ObjectReconstructionFailedError):
    """... because its task ran as often as it may."""


class ObjectReconstructionFailedLineageEvictedError(ObjectReconstructionFailedError):
    """... because the record of how it was made was dropped to save memory."""


class ObjectStoreFullError(WorldError):
    """There is no room for a value, neither in memory nor on disk."""


class OutOfDiskError(WorldError):
    """The disk that values are spilled to is full."""


# ------------------------------------------------------------------ us


class EngineError(DetrayError):
    """detray itself is broken, gone, or not there yet. (Ray: RaySystemError)"""


class NotStartedError(EngineError):
    """There is no session in this process and none may be started by itself."""


class ServiceDiedError(EngineError):
    """The service process of this node ended; nothing that it kept can be reached any more."""
