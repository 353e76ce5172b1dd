"""ObjectRef: the name of a value that a task will return, or that somebody put.

Theory of operation
-------------------
A process has at most one *session*: a client that talks to its node's service. `bind(client)` makes
new references report to that client, `unbind()` ends it. A reference remembers where it reports its
own end (`_drop`, the client's append-only queue), so references that outlive their session can
neither confuse a later one nor be used in it.

Pickling: the serializer of detray (`detray/serialization/pickling.py`) meets references itself and
lists them, so that the message that carries the bytes grants them. Any other pickler gets
`__reduce__` below: nobody then knows how many copies of the bytes there are, so the object is kept
until the job ends. Such bytes name the object, the node that owns it and the session that both
belong to; whoever loads them, on any node, claims the object from its owner (PROTOCOL D 14). Loaded
in another session they give a reference that says so when it is used.

This module stands below the runtime and imports nothing of detray but names and errors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar, final

from detray.errors import NotStartedError, OutOfBandRefError, StaleRefError
from detray.ids import JobNumber, NodeID, ObjectID, TaskID, job_of, task_of

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

T_co = TypeVar("T_co", covariant=True)


class ReferenceCounter(Protocol):
    """What references need of the client that they belong to."""

    def created(self, item: ObjectID, /) -> object:
        """Count one more Python reference to `item` in this process."""

    def dropped(self, item: ObjectID, /) -> object:
        """Note that one is gone. Called from `__del__`: only appends to a queue."""

    @property
    def session(self) -> str:
        """What tells this session, or cluster, from all others."""

    def pin_forever(self, item: ObjectID, /) -> NodeID:
        """Hold `item` until the job ends; the node that owns it (-1: nobody here knows it)."""

    def claim(self, item: ObjectID, owner: NodeID, /) -> object:
        """Count a reference to `item`, owned by node `owner`, that no message granted."""


def _no_session(item: ObjectID, /) -> None:
    """Stand in for a client's counters while there is no session."""


_session: Any = None  # Any: the client's class lives above this module.
_created: Callable[[ObjectID], object] = _no_session
_dropped: Callable[[ObjectID], object] = _no_session
_warned_out_of_band = False


def bind(client: ReferenceCounter) -> None:
    """Make `client` the session of this process: new references report to it."""
    global _session, _created, _dropped, _warned_out_of_band
    _session = client
    _created = client.created
    _dropped = client.dropped
    _warned_out_of_band = False


def count_by(created: Callable[[ObjectID], object], dropped: Callable[[ObjectID], object]) -> None:
    """Within the session another of its processes goes on here: references are its own now.

    For engines whose processes share one interpreter. References of the others are foreign here.
    """
    global _created, _dropped
    _created, _dropped = created, dropped


def unbind() -> None:
    """End this process's session: its references stay what they are but cannot be used any more."""
    global _session, _created, _dropped
    _session = None
    _created = _dropped = _no_session


def bound() -> Any:
    """The client of this process, or None. (Any: its class lives above this module.)"""
    return _session


@final
class ObjectRef(Generic[T_co]):
    """A reference to an immutable value that exists already or will, somewhere in the cluster.

    `detray.get(ref)` waits for the value; passed to a remote function as an argument of its own it
    is replaced by its value, inside another value it stays a reference. While any reference to an
    object exists in any process, the object is kept.
    """

    __slots__ = ("__weakref__", "_drop", "_id")

    def __init__(self, item: ObjectID) -> None:
        """Make one more reference to `item`: for detray itself; programs get theirs from calls."""
        self._id = item
        self._drop = _dropped
        _created(item)

    def __del__(self) -> None:
        self._drop(self._id)

    def __hash__(self) -> int:
        return hash(self._id)

    def __eq__(self, other: object) -> bool:
        return other.__class__ is ObjectRef and self._id == other._id

    def __repr__(self) -> str:
        return f"ObjectRef({self._id.hex()})"

    def __copy__(self) -> ObjectRef[T_co]:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> ObjectRef[T_co]:
        return self

    def __getitem__(self, index: object) -> NoReturn:
        # Python asks for item 0 when somebody unpacks or iterates, so this is where we can help.
        raise TypeError(
            f"{self!r} is a reference, not its value: it can be neither iterated, unpacked nor "
            "indexed. Call detray.get(ref) for the value, or declare the task with "
            "@detray.remote(num_returns=n) to get n references"
        )

    def __bool__(self) -> bool:
        return True

    def hex(self) -> str:
        """The id in hexadecimal digits."""
        return self._id.hex()

    def binary(self) -> ObjectID:
        """The id's twenty bytes."""
        return self._id

    def size(self) -> int:
        """How many bytes the id has."""
        return len(self._id)

    def task_id(self) -> TaskID:
        """The id of the task that returns this object; for a put, the slot it was put in."""
        return task_of(self._id)

    def job_id(self) -> JobNumber:
        """The number of the job that created the object."""
        return job_of(self._id)

    def is_nil(self) -> bool:
        """True for the reference to nothing."""
        return self._id == NIL_ID

    @staticmethod
    def nil() -> ObjectRef[None]:
        """A reference to nothing, equal only to itself."""
        return ObjectRef(NIL_ID)

    def future(self) -> Future[T_co]:
        """A `concurrent.futures.Future` that gets the value, or the exception of the task."""
        from concurrent.futures import Future

        future: Future[T_co] = Future()
        future.set_running_or_notify_cancel()
        session_of(self).add_done_callback(self._id, _Deliver(self, future))
        return future

    def as_future(self) -> asyncio.Future[T_co]:
        """An `asyncio.Future` of the running loop; cancelling it does not cancel the task."""
        import asyncio

        return asyncio.wrap_future(self.future())

    def __await__(self) -> Generator[Any, None, T_co]:
        return self.as_future().__await__()

    def _on_completed(self, callback: Callable[[Any], object]) -> None:
        """Call `callback` with the value, or with the exception, once it is there (as in Ray)."""
        self.future().add_done_callback(
            lambda future: callback(future.exception() or future.result())
        )

    def __reduce__(self) -> tuple[Callable[..., ObjectRef[Any]], tuple[ObjectID, NodeID, str]]:
        client = session_of(self)
        _warn_out_of_band(self)
        owner = client.pin_forever(self._id)
        return claim_ref, (self._id, owner, client.session)


NIL_ID = ObjectID(b"\xff" * 20)
NO_OWNER = NodeID(-1)
"""What a pickled reference says that nobody knew when it was pickled."""


class _Deliver:
    """Hands a value to a future; keeps the reference alive until then."""

    __slots__ = ("_future", "_ref")

    def __init__(self, ref: ObjectRef[Any], future: Future[Any]) -> None:
        self._ref = ref
        self._future = future

    def __call__(self, value: object, error: BaseException | None = None) -> None:
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(value)


def session_of(ref: ObjectRef[Any]) -> Any:
    """The client of this process, if `ref` belongs to its session.

    Raises NotStartedError if there is no session, StaleRefError if `ref` is of an earlier one.
    """
    if ref._drop is _dropped and _session is not None:
        return _session
    raise stale(ref)


def stale(ref: ObjectRef[Any]) -> Exception:
    """The error for a reference that this process's session does not know."""
    drop = ref._drop
    if type(drop) is _Foreign:
        return StaleRefError(
            f"{ref!r} was pickled in the session {drop.session!r}, which this process is no part of"
            f"{'' if _session is None else f' (it belongs to {_session.session!r})'}. A pickled "
            "reference can be used while its session lives, by that session's processes"
        )
    if _session is None:
        return NotStartedError(
            f"{ref!r} cannot be used: detray is not running in this process "
            "(detray.shutdown() ended the session that it came from)"
        )
    return StaleRefError(
        f"{ref!r} belongs to an earlier session, which detray.shutdown() ended together with its "
        "objects. Make the object again in this session"
    )


def is_current(ref: ObjectRef[Any]) -> bool:
    """True if `ref` belongs to the session that this process has now."""
    return ref._drop is _dropped


class _Foreign:
    """Where a reference of another session reports its end: nowhere."""

    __slots__ = ("session",)

    def __init__(self, session: str) -> None:
        self.session = session

    def __call__(self, item: ObjectID, /) -> None:
        """Nobody counts it."""


def claim_ref(item: ObjectID, owner: NodeID = NO_OWNER, session: str = "") -> ObjectRef[Any]:
    """Rebuild a reference from bytes that the user's own pickling made.

    One of another session cannot be used: its id may name another object here. Raises
    NotStartedError without a session, StaleRefError for bytes of a detray that did not yet say
    which session and which owner a reference has.
    """
    if not session:
        raise StaleRefError(
            f"a pickle contains ObjectRef({item.hex()}) in the form of an older detray, which does "
            "not say which session it belongs to. Pickle it again with the detray that loads it"
        )
    if _session is None:
        raise NotStartedError(
            f"a pickle contains ObjectRef({item.hex()}), but detray is not running in this "
            "process: call detray.init() first, in the job that the reference belongs to"
        )
    if session != _session.session:
        foreign: ObjectRef[Any] = ObjectRef.__new__(ObjectRef)
        foreign._id = item
        foreign._drop = _Foreign(session)
        return foreign
    _session.claim(item, owner)
    return ObjectRef(item)


def _warn_out_of_band(ref: ObjectRef[Any]) -> None:
    for name in (
        "DETRAY_allow_out_of_band_object_ref_serialization",
        "RAY_allow_out_of_band_object_ref_serialization",
    ):
        if os.environ.get(name, "1") == "0":
            raise OutOfBandRefError(
                f"{ref!r} is pickled outside of detray's own messages, and {name}=0 forbids that. "
                "Pass the reference as an argument, or inside one, of a remote call or detray.put"
            )
    global _warned_out_of_band
    if not _warned_out_of_band:
        import warnings

        _warned_out_of_band = True
        warnings.warn(
            f"{ref!r} is pickled outside of detray's own messages (pickle.dumps or the like): "
            "detray cannot see who holds the bytes and keeps the object until the job ends. "
            "Pass references as arguments, or inside of values, where you can",
            stacklevel=4,
        )
