"""What programs do, as generators: a body yields operations and is sent their results.

    def parent(run):                                  # a task's body, or a driver's
        child = (yield Submit(SQUARE, token=7))[0]    # ids of its returns
        (got,) = yield GetValues((child,))            # waits; raises ReadFailed in here
        yield Compute(5_000_000)                      # 5 ms of CPU time
        return [Result(100, token=got.value.token)]   # what the task returns

Rules
-----
- A body knows values as they travel: `bytes`, or a `Blob` with a token (`values.py`).
- It owns a use of each reference that it made or was handed, until `DropRefs` or its end.
- A body that ends with BodyFailed has raised as user code does; any other exception is a bug.
- A body without anything to wait for may be a plain function that returns `Work` or results.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from detray.core.strategy import Strategy
from detray.ids import FunctionID, ObjectID, TaskID
from detray_sim.values import Value

Demand = tuple[tuple[str, int], ...]
ONE_CPU: Demand = (("CPU", 10_000),)


class Result:
    """One value that a task returns. `refs` are the references inside it."""

    __slots__ = ("refs", "size_bytes", "token", "value")

    def __init__(
        self,
        size_bytes: int,
        token: Any = None,  # Any: whatever the program means by it
        refs: tuple[ObjectID, ...] = (),
        value: Value | None = None,
    ) -> None:
        self.size_bytes = len(value) if value is not None else size_bytes or 1
        self.token = token
        self.refs = refs
        self.value = value


class Work:
    """Compute for `ns`, then return `results`: the body of most tasks, without a generator."""

    __slots__ = ("ns", "results")

    def __init__(self, ns: int, results: Sequence[Result] = ()) -> None:
        self.ns = ns
        self.results = results


class Got:
    """What a reader got of one object: a value, or a failure (an `errors.Failure`) with its text.

    `refs` are the references inside. The error of user code is a value too.
    """

    __slots__ = ("failure", "object", "refs", "text", "value")

    def __init__(
        self,
        item: ObjectID,
        value: Value,
        refs: tuple[ObjectID, ...] = (),
        failure: int = 0,
        text: str = "",
    ) -> None:
        self.object = item
        self.value = value
        self.refs = refs
        self.failure = failure
        self.text = text

    def __repr__(self) -> str:
        return f"Got({self.object.hex()}, {self.value!r}, failure={self.failure}, {self.text!r})"


class Run:
    """What a body knows of its own run; for a driver `task` is the root of its job.

    `args` are the values of the top-level references, `refs` those nested in the arguments,
    `captured` those in the function's closure. `token` is what the submission said.
    """

    __slots__ = (
        "args",
        "attempt",
        "captured",
        "clock_ns",
        "depth",
        "node",
        "refs",
        "task",
        "token",
    )

    def __init__(
        self,
        task: TaskID,
        attempt: int,
        depth: int,
        node: int,
        token: Any,  # Any: the program's own
        args: tuple[Got, ...],
        refs: tuple[ObjectID, ...],
        captured: tuple[ObjectID, ...],
        clock_ns: Callable[[], int],
    ) -> None:
        self.task = task
        self.attempt = attempt
        self.depth = depth
        self.node = node
        """Index of the machine it runs on."""
        self.token = token
        self.args = args
        self.refs = refs
        self.captured = captured
        self.clock_ns = clock_ns
        """The world's time."""


# Any: what is sent into a body depends on the operation that it yielded.
Steps = Generator["Operation", Any, Sequence[Result]]
Body = Callable[[Run], "Steps | Work | Sequence[Result]"]


class Remote:
    """A remote function with its options; a process exports it with its first submission.

    `retryable` says which BodyFailed are worth a retry is asked of the exception, not of this.
    """

    __slots__ = (
        "body",
        "classes",
        "definition_bytes",
        "demand",
        "digest",
        "max_calls",
        "max_retries",
        "name",
        "num_returns",
        "pickled",
        "refs",
        "retry_exceptions",
        "strategy",
    )

    def __init__(
        self,
        body: Body,
        *,
        name: str = "f",
        num_returns: int = 1,
        demand: Demand = ONE_CPU,
        max_retries: int = 3,
        retry_exceptions: bool = False,
        max_calls: int = 0,
        definition_bytes: int = 200,
        refs: tuple[ObjectID, ...] = (),
        strategy: Strategy | None = None,
        digest: bytes = b"",
        pickled: tuple[FunctionID, bytes] | None = None,
        classes: bytes = b"",
    ) -> None:
        self.body = body
        self.name = name
        self.num_returns = num_returns
        self.demand = demand
        self.max_retries = max_retries
        self.retry_exceptions = retry_exceptions
        self.max_calls = max_calls
        self.definition_bytes = definition_bytes
        self.refs = refs
        """In its closure: held as long as the definition."""
        self.strategy = strategy
        self.digest = digest
        """Of the pickled definition, if there is one and a recording wants to know."""
        self.pickled = pickled
        """The id by which the program's code names it, and that definition."""
        self.classes = classes
        """The pickled exceptions of `retry_exceptions`, where these are real and listed."""


# ------------------------------------------------------------------ operations


class Compute:
    """Use the CPU for `ns`, on a machine of speed 1. Sends None."""

    __slots__ = ("ns",)

    def __init__(self, ns: int) -> None:
        self.ns = ns


class Sleep:
    """Do nothing for `ns`. Sends None."""

    __slots__ = ("ns",)

    def __init__(self, ns: int) -> None:
        self.ns = ns


class Submit:
    """Submit a task; sends the ids of its returns.

    `args` are awaited and read, `refs` handed over. `size_bytes` of pickled arguments carry
    `token`; more than fits inline become an object of their own.
    """

    __slots__ = ("args", "refs", "remote", "size_bytes", "token")

    def __init__(
        self,
        remote: Remote,
        *,
        args: tuple[ObjectID, ...] = (),
        refs: tuple[ObjectID, ...] = (),
        token: Any = None,  # Any: the program's own
        size_bytes: int = 0,
    ) -> None:
        self.remote = remote
        self.args = args
        self.refs = refs
        self.token = token
        self.size_bytes = size_bytes or (token is not None)


class PutValue:
    """Put a value; sends its id. Raises StoreRefused in the body if there is no room."""

    __slots__ = ("refs", "value")

    def __init__(self, value: Value, refs: tuple[ObjectID, ...] = ()) -> None:
        self.value = value
        self.refs = refs


class GetValues:
    """Wait for distinct objects and read them; sends a `Got` for each, in order.

    Raises ReadFailed in the body for the first that failed (`raises`; else all are waited for and
    the failures sent like values), ReadTimedOut when `timeout_ns` (-1: never) ran out.
    With `keeps` the body looks at what lies in blocks until its end, else only for a moment.
    """

    __slots__ = ("keeps", "objects", "raises", "timeout_ns")

    def __init__(
        self,
        objects: tuple[ObjectID, ...],
        *,
        timeout_ns: int = -1,
        raises: bool = True,
        keeps: bool = False,
    ) -> None:
        self.objects = objects
        self.timeout_ns = timeout_ns
        self.raises = raises
        self.keeps = keeps


class WaitFor:
    """Wait until `needed` of distinct objects are available; sends those that are, as a set."""

    __slots__ = ("needed", "objects", "timeout_ns")

    def __init__(
        self, objects: tuple[ObjectID, ...], needed: int = 1, *, timeout_ns: int = -1
    ) -> None:
        self.objects = objects
        self.needed = needed
        self.timeout_ns = timeout_ns


class DropRefs:
    """Let go of one use of each. Sends None."""

    __slots__ = ("objects",)

    def __init__(self, objects: Sequence[ObjectID]) -> None:
        self.objects = objects


class DropViews:
    """Stop looking at the blocks of what was read with `keeps`. Sends None."""

    __slots__ = ("objects",)

    def __init__(self, objects: Sequence[ObjectID]) -> None:
        self.objects = objects


class CancelTask:
    """Cancel what makes an object. Sends None."""

    __slots__ = ("force", "object", "recursive")

    def __init__(self, item: ObjectID, *, force: bool = False, recursive: bool = True) -> None:
        self.object = item
        self.force = force
        self.recursive = recursive


class PinRef:
    """Pickle a reference by itself: its object stays until the job ends. Sends its owner's node."""

    __slots__ = ("object",)

    def __init__(self, item: ObjectID) -> None:
        self.object = item


class ClaimRef:
    """Unpickle a reference that came outside of the system, from node `owner`. Sends None."""

    __slots__ = ("object", "owner")

    def __init__(self, item: ObjectID, owner: int = -1) -> None:
        self.object = item
        self.owner = owner


class EndProcess:
    """End the own process at once, as os._exit does. Sends nothing any more."""

    __slots__ = ("reason",)

    def __init__(self, reason: str = "exited with status 1") -> None:
        self.reason = reason


Operation = (
    Compute
    | Sleep
    | Submit
    | PutValue
    | GetValues
    | WaitFor
    | DropRefs
    | DropViews
    | CancelTask
    | PinRef
    | ClaimRef
    | EndProcess
)

# ------------------------------------------------------------------ what is raised in a body


class BodyError(Exception):
    """What an operation raises in a body."""


class ReadFailed(BodyError):
    """An object has no value; `got` says why."""

    def __init__(self, got: Got) -> None:
        super().__init__(got)
        self.got = got


class ReadTimedOut(BodyError):
    """Not everything was there in time; `missing` was not."""

    def __init__(self, missing: tuple[ObjectID, ...]) -> None:
        super().__init__(missing)
        self.missing = missing


class StoreRefused(BodyError):
    """There is no room for a value: (failure, text)."""

    def __init__(self, failure: int, text: str) -> None:
        super().__init__(failure, text)
        self.failure = failure
        self.text = text


class Interrupted(BodyError):
    """The run was cancelled; raised in the body at its next operation."""


class BodyFailed(Exception):
    """A body raises this as user code raises an exception.

    `retryable` is the worker's verdict on `retry_exceptions`. `token` travels as the pickled error
    of `size_bytes`.
    """

    def __init__(
        self,
        summary: str = "ValueError: no",
        *,
        retryable: bool = True,
        token: Any = None,  # Any: the program's own
        size_bytes: int = 300,
        refs: tuple[ObjectID, ...] = (),
        traceback: str = "",
    ) -> None:
        super().__init__(summary)
        self.summary = summary
        self.retryable = retryable
        self.token = token
        self.size_bytes = size_bytes
        self.refs = refs
        self.traceback = traceback
        """Its text, where real code raised."""
