"""What programs call: put, get, wait, cancel, and what there is to see of the cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from detray import object_ref
from detray.errors import DetrayError, SerializationError, UserError, WorldError
from detray.ids import ObjectID, node_name
from detray.object_ref import ObjectRef, is_current, session_of, stale
from detray.options import UNIT
from detray.serialization.values import serialize
from detray.startup import node_labels, require, require_started, running

if TYPE_CHECKING:
    import networkx

    from detray.trace.reading import Trace

T = TypeVar("T")


@overload
def get(object_refs: ObjectRef[T], *, timeout: float | None = None, progress: bool = False) -> T:
    """One reference: its value."""


@overload
def get(
    object_refs: list[ObjectRef[T]], *, timeout: float | None = None, progress: bool = False
) -> list[T]:
    """Several references: their values."""


def get(object_refs: Any, *, timeout: float | None = None, progress: bool = False) -> Any:
    """Wait for the value of a reference, or the values of a list of references, in its order.

    Arrays in the values are read-only views into shared memory. `timeout` is in seconds, 0 asks
    whether the values are there. With `progress`, a bar (or lines, where standard error is no
    terminal) shows how many have arrived.

    Raises the exception of the first task that failed, as soon as one has: an instance of TaskError
    and of the class that the task raised. GetTimeoutError after `timeout`; ValueError if
    `object_refs` is neither a reference nor a list, TypeError if its items are not references.
    """
    if timeout is not None:
        _check_timeout(timeout)
    if type(object_refs) is ObjectRef:
        if progress:
            return _get_with_progress([object_refs], timeout)[0]
        try:
            return session_of(object_refs).get_one(object_refs._id, timeout)
        except (UserError, WorldError) as error:
            error.__traceback__ = None  # our frames say nothing about what went wrong
            raise
    if not isinstance(object_refs, list):
        raise ValueError(
            f"Invalid type of object refs, {type(object_refs)}, is given. 'object_refs' must "
            f"either be an ObjectRef or a list of ObjectRefs.{_advice(object_refs)}"
        )
    if progress:
        return _get_with_progress(object_refs, timeout)
    client = require()
    try:
        return client.get_many(_ids_of(object_refs, "get"), timeout)
    except (UserError, WorldError) as error:
        error.__traceback__ = None
        raise


def put(value: T, *, _owner: object = None) -> ObjectRef[T]:
    """Store a value as it is now and return a reference to it.

    Raises TypeError for a reference or a value that cannot be pickled, ObjectStoreFullError or
    OutOfDiskError if there is no room for it, not even on disk.
    """
    if _owner is not None:
        raise NotImplementedError("put(_owner=...): owners are actors, which come later")
    if type(value) is ObjectRef:
        raise TypeError(
            f"Calling 'put' on {value!r} is not allowed: it is a reference already. Put a list "
            "that holds it if you need a reference to the reference"
        )
    client = require()
    try:
        data = serialize(value)
    except DetrayError:
        raise
    except Exception as problem:
        from detray.serializability import offending_member

        what = offending_member(value, "the value") or str(problem)
        raise SerializationError(f"Could not serialize the value to put: {what}") from problem
    return ObjectRef(client.put(data))


def wait(
    object_refs: list[ObjectRef[T]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    """Wait until `num_returns` values are available, and split the list into (ready, others).

    At most `num_returns` references are returned as ready, even if more are; a task that failed
    counts as ready; both lists keep the order of `object_refs`. After `timeout` seconds there may
    be fewer. `fetch_local` makes no difference on one node.

    Raises TypeError if `object_refs` is no list of references, ValueError if a reference is in it
    twice or `num_returns` does not lie between 1 and its length.
    """
    given: Any = object_refs  # Any: callers without a type checker pass other things
    if not isinstance(given, list):
        single = "a single ObjectRef" if type(given) is ObjectRef else type(given)
        raise TypeError(f"wait() expected a list of ObjectRefs, got {single}.{_advice(given)}")
    if timeout is not None:
        _check_timeout(timeout)
    client = require()
    items = _ids_of(object_refs, "wait")
    if not items:
        return [], []
    if len(set(items)) != len(items):
        raise ValueError("Wait requires a list of unique object refs.")
    if not isinstance(num_returns, int):
        raise TypeError(f"num_returns must be an int, not {num_returns!r}")
    if num_returns <= 0:
        raise ValueError(f"Invalid number of objects to return {num_returns}: it must be positive.")
    if num_returns > len(items):
        raise ValueError(
            f"num_returns cannot be greater than the number of ray_waitables provided: "
            f"{num_returns} of {len(items)}."
        )
    available = client.wait(items, num_returns, timeout, fetch_local)
    ready: list[ObjectRef[T]] = []
    others: list[ObjectRef[T]] = []
    for ref in object_refs:
        if len(ready) < num_returns and ref._id in available:
            ready.append(ref)
        else:
            others.append(ref)
    return ready, others


def cancel(ref: ObjectRef[Any], *, force: bool = False, recursive: bool = True) -> None:
    """Cancel the task that returns `ref`: `get` then raises TaskCancelledError.

    A task that waits never runs. One that runs is interrupted by a KeyboardInterrupt, which it may
    catch, or with `force` its worker is killed (`get` raises WorkerCrashedError). Finished tasks
    are left alone. With `recursive`, tasks that it submitted are cancelled as well. Raises
    TypeError for other things than references.
    """
    if type(ref) is not ObjectRef:
        raise TypeError(f"cancel() only supports object refs, got {type(ref)}")
    session_of(ref).cancel(ref._id, force, recursive)


def sleep(seconds: float) -> None:
    """Do nothing for so long; in a simulated cluster, so much virtual time.

    Raises ValueError for a negative number.
    """
    if seconds < 0:
        raise ValueError(f"detray.sleep takes 0 or more seconds, not {seconds}")
    client = object_ref.bound()
    if client is None:
        time.sleep(seconds)
    else:
        client.sleep(seconds)


def kill(actor: object, *, no_restart: bool = True) -> NoReturn:
    """Actors are not in this version."""
    raise NotImplementedError(
        "kill() ends actors, which come with a later version of detray. "
        "detray.cancel(ref, force=True) ends a running task"
    )


def get_actor(name: str, namespace: str | None = None) -> NoReturn:
    """Actors are not in this version."""
    raise NotImplementedError("get_actor(): actors come with a later version of detray")


# ------------------------------------------------------------------ what there is to see


def cluster_resources() -> dict[str, float]:
    """What the cluster has in all: resource name to amount, memory in bytes."""
    found: dict[str, float] = {"object_store_memory": 0.0}
    for report in _living():
        for name, amount in _amounts(report["total"]).items():
            found[name] = found.get(name, 0.0) + amount
        found["object_store_memory"] += report["store"]["size_bytes"]
    return found


def available_resources() -> dict[str, float]:
    """What no running task holds at the moment; names of which nothing is left are missing."""
    found: dict[str, float] = {}
    for report in _living():
        amounts = _amounts(report["available"])
        left = report["store"]["size_bytes"] - report["store"]["used_bytes"]
        if left:
            amounts["object_store_memory"] = float(left)
        for name, amount in amounts.items():
            found[name] = found.get(name, 0.0) + amount
    return found


def nodes() -> list[dict[str, Any]]:
    """The nodes of the cluster, one dict each, in the shape that Ray gives them.

    Dead ones are listed with Alive False, after the living.
    """
    return [_node(report) for report in require_started().reports()]


def timeline(filename: str | os.PathLike[str] | None = None) -> list[dict[str, Any]] | None:
    """What ran when and where, as Chrome trace events (https://ui.perfetto.dev shows them).

    Writes them to `filename` as JSON, or returns them if there is none. Covers the session from its
    start, or as far back as the flight recorder reaches. Raises RuntimeError in a task.
    """
    from detray.trace.timeline import chrome_events

    events = chrome_events(_trace())
    if filename is None:
        return events
    import json

    with open(filename, "w") as file:
        json.dump(events, file)
    return None


def graph(filename: str | os.PathLike[str] | None = None) -> networkx.MultiDiGraph:
    """The tasks and objects of this job as a networkx graph (`detray.trace.graphs.graph` says how).

    In a cluster it shows what this program's node knows: all that the program submitted, and what
    its tasks submitted on that node (`detray trace collect` brings together what all nodes know).
    With `filename` it is drawn there as well: .svg, .dot or another suffix that
    `detray.trace.drawings.drawing` knows. Raises ImportError without networkx, RuntimeError in a
    task.
    """
    from detray.trace.graphs.graph import build

    found = build(_trace())
    # Ids begin with the job's number: a node of a cluster tells of all jobs that it has seen.
    job = f"{require_started().job:08x}"
    found.remove_nodes_from([name for name in found if not name.startswith(job)])
    if filename is not None:
        from detray.trace.drawings.drawing import draw

        draw(found, filename)
    return found


# ------------------------------------------------------------------ inside


def _living() -> list[dict[str, Any]]:
    return [report for report in require_started().reports() if report.get("alive", True)]


def _node(report: dict[str, Any]) -> dict[str, Any]:
    resources = _amounts(report["total"])
    resources["object_store_memory"] = float(report["store"]["size_bytes"])
    is_alive = bool(report.get("alive", True))
    host, port = _host_and_port(report.get("address", ""))
    return {
        "NodeID": node_name(report["node"]),
        "Alive": is_alive,
        "alive": is_alive,
        "NodeManagerAddress": host,
        "NodeManagerHostname": os.uname().nodename if host == "127.0.0.1" else host,
        "NodeManagerPort": port,
        "ObjectManagerPort": port,
        "ObjectStoreSocketName": "",
        "RayletSocketName": "",
        "MetricsExportPort": 0,
        "NodeName": report["name"],
        "RuntimeEnvAgentPort": 0,
        "DeathReason": 0,
        "DeathReasonMessage": report.get("reason", ""),
        "Resources": resources if is_alive else {},
        "Labels": {**node_labels(report["node"]), **report.get("labels", {})},
    }


def _host_and_port(address: str) -> tuple[str, int]:
    """Of a node; one of a private session listens nowhere."""
    if not address:
        return "127.0.0.1", 0
    from detray.runtime.net.address import parse_address

    return parse_address(address)


def _trace() -> Trace:
    from detray.trace.reading import Trace

    return Trace(running().session.trace(), name="this session")


def _get_with_progress(refs: list[ObjectRef[Any]], timeout: float | None) -> list[Any]:
    from detray.progress import get_with_progress

    return get_with_progress(require(), _ids_of(refs, "get"), timeout)


def _check_timeout(timeout: Any) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(
            f"The 'timeout' argument must be greater than or equal to 0, not {timeout}"
        )


def _advice(given: Any) -> str:
    """What to do instead, for what is often given where references belong."""
    if callable(given) and hasattr(given, "remote"):
        return f" It is a remote function: call {given.__name__}.remote(...) for a reference."
    if isinstance(given, ObjectRef):
        return " Say [ref]."
    if isinstance(given, list):
        return " Lists in lists are not looked into: make it one list."
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | dict):
        return " Say list(...) of it."
    return ""


def _ids_of(refs: Sequence[Any], what: str) -> list[ObjectID]:
    """The ids of references of this session."""
    for ref in refs:
        if type(ref) is not ObjectRef:
            raise TypeError(
                f"Attempting to call `{what}` on the value {ref!r:.200}, which is not an "
                f"ObjectRef.{_advice(ref)}"
            )
        if not is_current(ref):
            raise stale(ref)
    return [ref._id for ref in refs]


def _amounts(units: dict[str, int]) -> dict[str, float]:
    return {name: amount / UNIT for name, amount in units.items() if amount}


__all__ = [
    "available_resources",
    "cancel",
    "cluster_resources",
    "get",
    "get_actor",
    "graph",
    "kill",
    "nodes",
    "object_ref",
    "put",
    "sleep",
    "timeline",
    "wait",
]
