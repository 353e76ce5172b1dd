"""Failures as the cores know them. (The exception tree follows.)"""

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
