"""The exceptions under the names that Ray gives them, for programs written for Ray.

The classes are those of `detray.errors`; names that detray has no use for exist so that an `except`
clause with them compiles, in the place of the tree where Ray has them.
"""

from __future__ import annotations

from detray.errors import (
    DeadlockError,
    DetrayError,
    EngineError,
    GetTimeoutError,
    NodeDiedError,
    NotStartedError,
    ObjectFetchTimedOutError,
    ObjectFreedError,
    ObjectLostError,
    ObjectReconstructionFailedError,
    ObjectReconstructionFailedLineageEvictedError,
    ObjectReconstructionFailedMaxAttemptsExceededError,
    ObjectStoreFullError,
    OutOfBandRefError,
    OutOfDiskError,
    OutOfMemoryError,
    OwnerDiedError,
    ReferenceCountingAssertionError,
    RuntimeEnvSetupError,
    SerializationError,
    ServiceDiedError,
    StaleRefError,
    TaskCancelledError,
    TaskError,
    TaskUnschedulableError,
    UserError,
    WorkerCrashedError,
    WorkerStartError,
    WorldError,
)

RayError = DetrayError
RayTaskError = TaskError
RaySystemError = EngineError
LocalRayletDiedError = ServiceDiedError
OufOfBandObjectRefSerializationException = OutOfBandRefError


class UserCodeException(DetrayError):
    """Code of the user raised outside of a task."""


class RayActorError(DetrayError):
    """An actor died (actors come with a later version)."""


class ActorDiedError(RayActorError):
    """An actor died and will not come back."""


class ActorUnavailableError(RayActorError):
    """An actor cannot be reached for the time being."""


class ActorHandleNotFoundError(DetrayError):
    """A handle to an actor is not known."""


class ActorUnschedulableError(DetrayError):
    """No node can ever host the actor."""


class ActorPlacementGroupRemoved(DetrayError):  # Ray's name
    """The placement group that the actor lived in was removed."""


class TaskPlacementGroupRemoved(DetrayError):  # Ray's name
    """The placement group that the task asked for was removed."""


class PendingCallsLimitExceeded(DetrayError):  # Ray's name
    """An actor has more calls waiting than it allows."""


class AsyncioActorExit(DetrayError):  # Ray's name
    """An asynchronous actor left by itself."""


class RpcError(DetrayError):
    """A message to another process failed."""


class PlasmaObjectNotAvailable(DetrayError):  # Ray's name
    """A value is not in this node's store."""


class UnserializableException(DetrayError):  # Ray's name
    """An exception could not be rebuilt where it was read."""


class ObjectRefStreamEndOfStreamError(DetrayError):
    """A generator task has no further item."""


class CrossLanguageError(DetrayError):
    """A task in another language failed (detray runs Python only)."""


class RayChannelError(EngineError):
    """A channel of a compiled graph failed (detray has none)."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """A channel of a compiled graph timed out (detray has none)."""


class RayCgraphCapacityExceeded(EngineError):  # Ray's name
    """A compiled graph has too many calls in flight (detray has none)."""


__all__ = [
    "ActorDiedError",
    "ActorHandleNotFoundError",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "AsyncioActorExit",
    "CrossLanguageError",
    "DeadlockError",
    "DetrayError",
    "EngineError",
    "GetTimeoutError",
    "LocalRayletDiedError",
    "NodeDiedError",
    "NotStartedError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectReconstructionFailedLineageEvictedError",
    "ObjectReconstructionFailedMaxAttemptsExceededError",
    "ObjectRefStreamEndOfStreamError",
    "ObjectStoreFullError",
    "OufOfBandObjectRefSerializationException",
    "OutOfBandRefError",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "PlasmaObjectNotAvailable",
    "RayActorError",
    "RayCgraphCapacityExceeded",
    "RayChannelError",
    "RayChannelTimeoutError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "ReferenceCountingAssertionError",
    "RpcError",
    "RuntimeEnvSetupError",
    "SerializationError",
    "ServiceDiedError",
    "StaleRefError",
    "TaskCancelledError",
    "TaskError",
    "TaskPlacementGroupRemoved",
    "TaskUnschedulableError",
    "UnserializableException",
    "UserCodeException",
    "UserError",
    "WorkerCrashedError",
    "WorkerStartError",
    "WorldError",
]
