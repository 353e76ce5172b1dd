"""Failures as exceptions: from the worker where one is raised to the `get` that raises it again.

Theory of operation
-------------------
The worker pickles `(function name, pid, traceback text, cause, note, ip)`, the cause apart from the
rest so that the text can be read where the cause cannot. The reader rebuilds a `TaskError` from it
and makes it an instance of the cause's class as well (`detray/dual.py`). An exception that Python
cannot rebuild from its `args` (its `__init__` takes others) is rebuilt without `__init__`; one that
cannot be pickled, or whose class cannot have subclasses, is a plain `TaskError` with a note that
says why.
"""

from __future__ import annotations

from typing import Any

from detray import errors
from detray.dual import as_instance_of_cause, rebuild
from detray.errors import Failure, TaskError
from detray.ids import ObjectID
from detray.serialization.values import Serialized, SerializedParts, deserialize, serialize

SUMMARY_MAX = 200
TRACEBACK_MAX = 4_000
_LEFT_OUT = "\n  ... {} characters left out ...\n"

_KINDS: dict[int, tuple[type[errors.DetrayError], str]] = {
    Failure.CANCELLED: (errors.TaskCancelledError, "its task was cancelled"),
    Failure.WORKER_CRASHED: (errors.WorkerCrashedError, "the worker that ran its task died"),
    Failure.DEADLOCK: (errors.DeadlockError, "tasks wait for each other in a circle"),
    Failure.INFEASIBLE: (errors.TaskUnschedulableError, "no node can ever run its task"),
    Failure.OBJECT_LOST: (errors.ObjectLostError, "its value is lost"),
    Failure.STORE_FULL: (errors.ObjectStoreFullError, "there was no room for its value"),
    Failure.OUT_OF_DISK: (errors.OutOfDiskError, "the disk had no room for its value"),
    Failure.OWNER_DIED: (errors.OwnerDiedError, "the node that owned it died"),
    Failure.NODE_DIED: (errors.NodeDiedError, "the node that ran its task died"),
    Failure.START_FAILED: (errors.WorkerStartError, "no worker could be started for its task"),
    Failure.SERIALIZATION: (errors.SerializationError, "its value could not be pickled"),
    Failure.OUT_OF_MEMORY: (errors.OutOfMemoryError, "its task ran out of memory"),
    Failure.APPLICATION: (errors.TaskError, "its task raised an exception"),
}


def error_from(
    failure: int, text: str, payload: bytes | memoryview | None, object_id: ObjectID
) -> BaseException:
    """The exception to raise for an object that failed.

    `payload` is what `serialize_error` made in the worker, empty for failures that no user code
    raised; `text` is the core's account of those.
    """
    if payload:
        return _load_task_error(payload)
    kind, default = _KINDS.get(failure, (errors.EngineError, f"failure number {failure}"))
    text = text or f"ObjectRef({object_id.hex()}) has no value: {default}"
    return kind("", text) if kind is TaskError else kind(text)


def serialize_error(
    error: BaseException, *, function_name: str, pid: int, ip: str = ""
) -> tuple[Serialized, str, str]:
    """An exception that user code raised, as (payload, summary of at most 200 characters, text of
    the traceback)."""
    from detray.serialization.tracebacks import render

    text = render(error, function_name, pid, ip)
    cause = error
    while isinstance(cause, TaskError) and cause.cause is not None:
        cause = cause.cause
    pickled, note = _pickle_cause(cause)
    facts = (function_name, pid, text, pickled.to_bytes() if pickled else b"", note)
    record = (*facts, ip) if ip else facts  # Simulated nodes have none.
    whole = serialize(record)
    if pickled and pickled.refs:
        whole = SerializedParts(whole.to_bytes(), refs=pickled.refs)
    return whole, summarize(error), _shortened(text.partition("\n")[2])


def summarize(error: BaseException) -> str:
    """Type and message of an exception in one short line."""
    if isinstance(error, TaskError):
        # The text of one that came from another task ends with the line that matters.
        line = error.traceback_str.strip().rpartition("\n")[2]
    else:
        try:
            line = f"{type(error).__name__}: {error}"
        except Exception as broken:  # a user's __str__
            line = f"{type(error).__name__} (its __str__ raised {type(broken).__name__})"
    line = " ".join(line.split())
    return line if len(line) <= SUMMARY_MAX else line[: SUMMARY_MAX - 3] + "..."


def _shortened(text: str) -> str:
    """At most `TRACEBACK_MAX` characters: how it began, and how it ended."""
    excess = len(text) - TRACEBACK_MAX
    if excess <= 0:
        return text
    head, tail = TRACEBACK_MAX // 4, TRACEBACK_MAX * 3 // 4 - len(_LEFT_OUT) - 10
    return text[:head] + _LEFT_OUT.format(len(text) - head - tail) + text[-tail:]


def _load_task_error(payload: bytes | memoryview) -> TaskError:
    record: Any = deserialize(payload)  # Any: what serialize_error made
    function_name, pid, text, pickled, note, *more = record
    cause: BaseException | None = None
    if pickled:
        try:
            loaded = deserialize(pickled)
            cause = loaded if isinstance(loaded, BaseException) else None
        except Exception as problem:
            note = (
                f"(detray: the exception itself could not be unpickled here: "
                f"{type(problem).__name__}: {problem})"
            )
    error = TaskError(function_name, text, cause, pid, more[0] if more else "")
    if note:
        error.add_note(note)
    return as_instance_of_cause(error)


def _pickle_cause(cause: BaseException) -> tuple[Serialized | None, str]:
    """The pickled exception, or None and a note that says why there is none."""
    try:
        pickled = serialize(cause)
        if _comes_back(pickled, cause):
            return pickled, ""
        return serialize(_Rebuild(cause)), ""
    except Exception as problem:
        from detray.serializability import offending_member

        what = offending_member(cause) or f"{type(problem).__name__}: {problem}"
        return None, (
            f"(detray: the exception itself, a {type(cause).__qualname__}, cannot be pickled "
            f"and only its text was sent: {what})"
        )


def _comes_back(pickled: Serialized, cause: BaseException) -> bool:
    if pickled.refs:
        return True  # Loading would count references that nobody granted; trust it.
    try:
        return type(deserialize(pickled.to_bytes())) is type(cause)
    except Exception:
        return False


class _Rebuild:
    """Pickles an exception by class, `args` and attributes: its `__init__` takes others."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        error = self._error
        return rebuild, (type(error), error.args, dict(error.__dict__))
