"""The simulated client: what the surface of detray calls, for whichever process has the baton.

All simulated processes share one interpreter, hence one client. It speaks for the seat that user
code sits on at the moment, and references are counted in the books of that seat's process.
"""

from __future__ import annotations

import gc
import random
from _thread import get_ident
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from detray import object_ref
from detray.core.client import Books
from detray.core.status import summary
from detray.core.step import Step
from detray.core.stimuli import TemplateDefined
from detray.core.streams import RunContext
from detray.errors import Failure, GetTimeoutError, ServiceDiedError
from detray.ids import FunctionID, JobNumber, NodeID, ObjectID, TemplateID, job_of
from detray.serialization.failures import error_from
from detray.serialization.values import Serialized, deserialize
from detray_sim import behaviour as do
from detray_sim.draws import draw
from detray_sim.engine.options import SimOptions
from detray_sim.engine.seats import DriverSeat, Seat, WorkerSeat
from detray_sim.values import real_bytes

if TYPE_CHECKING:
    from detray_sim.cluster import SimCluster

_COLLECTS_EVERY = 20_000
"""Python's cycle collector runs after so many hand-overs: when it runs must not be chance."""
_TIMEOUT_S_MAX = 1e9


class SimFunction:
    """An exported function."""

    __slots__ = ("definition", "name", "refs")

    def __init__(self, definition: bytes, name: str, refs: tuple[ObjectID, ...]) -> None:
        self.definition = definition
        self.name = name
        self.refs = refs


class SimClient:
    """The client of the process whose code runs. Its calls are those of `EngineClient`."""

    def __init__(self, cluster: SimCluster, options: SimOptions) -> None:
        self.cluster = cluster
        self.options = options
        self.seat: Seat = None  # type: ignore[assignment]  # `sit` comes before any use
        self.functions: dict[FunctionID, SimFunction] = {}
        self.make_body: Callable[[FunctionID, str, int, bytes], do.Body]
        """Makes the body that plays a function: (function, name, returns, classes to retry)."""
        self.created: Callable[[ObjectID], object]
        self.dropped: Callable[[ObjectID], object]
        self.progress_ns = 0
        """When user code last ran."""
        self.busy_until_ns = 0
        """Until then somebody sleeps, computes, or will give up waiting."""
        self.hand_overs = 0
        self.problem = ""
        """Why nothing can be done any more."""
        self._templates: list[do.Remote] = []
        self._reserved: set[FunctionID] = set()
        self._delays = 0

    # -------------------------------------------------------------- who speaks

    def sit(self, seat: Seat) -> None:
        """The code of another process goes on."""
        before, self.seat = self.seat, seat
        self.created, self.dropped = seat.created, seat.dropped
        object_ref.count_by(seat.created, seat.dropped)
        self.progress_ns = self.cluster.clock.now_ns
        self.hand_overs += 1
        if self.hand_overs % _COLLECTS_EVERY == 0:
            gc.collect()
        if self.options.seed_random and before is not seat:
            self._change_random(before, seat)

    def _change_random(self, before: Seat | None, seat: Seat) -> None:
        if before is not None:
            before.random = random.getstate()
        if seat.random is None:
            context = seat.context
            purpose = f"{context.task.hex()}/{context.attempt}"
            random.seed(draw(self.options.seed, "random", purpose, 0))
        else:
            random.setstate(seat.random)

    def _here(self) -> Seat:
        """The seat that calls, with what its last call brought let go of."""
        seat = self.seat
        if get_ident() != seat.ident:
            raise RuntimeError(
                "in the simulator a process has one thread: only the one that called detray.init, "
                "and in a task the one that runs it, may use detray"
            )
        seat.check()
        if self.problem:
            raise ServiceDiedError(f"detray cannot be used here any more: {self.problem}")
        seat.let_go()
        seat.asks += 1
        return seat

    def delay_ns(self, seat: Seat) -> int:
        """How much later than it could the code on a seat goes on."""
        bound = self.options.jitter_ns
        if not bound or self._delays == self.options.delays:
            return 0
        self._delays += 1
        context = seat.context
        purpose = f"{context.task.hex()}/{context.attempt}"
        return draw(self.options.seed, "jitter", purpose, seat.asks) * bound >> 64

    def end_carrier(self, seat: WorkerSeat) -> None:
        """The process of a seat is dead: its code ends, its references are its own to the last."""
        now = self.seat
        self.sit(seat)
        try:
            seat.carrier.kill()
        finally:
            self.sit(now)

    @property
    def job(self) -> JobNumber:
        """The job: there is one."""
        return job_of(ObjectID(self.seat.context.task))

    @property
    def node(self) -> NodeID:
        """The node that the code runs on."""
        return self.seat.process.host.node_id or NodeID(0)

    @property
    def books(self) -> Books:
        """Those of the process that the code runs in."""
        return self.seat.process.books

    @property
    def current(self) -> RunContext:
        """What runs there."""
        return self.seat.context

    @property
    def is_worker(self) -> bool:
        """True in a task."""
        return self.seat.is_worker

    # -------------------------------------------------------------- references

    @property
    def session(self) -> str:
        """The name of this session: a world of the same seed is the same one."""
        return f"sim-{self.options.seed}"

    def claim(self, item: ObjectID, owner: NodeID) -> None:
        """Count a reference that came by the user's own pickling."""
        self._here().perform(do.ClaimRef(item, owner))

    def pin_forever(self, item: ObjectID) -> NodeID:
        """Hold `item` until the job ends; its owner."""
        owner: NodeID = self._here().ask(do.PinRef(item))
        return owner

    # -------------------------------------------------------------- functions and tasks

    def reserve_function(self) -> FunctionID:
        """A name for a function that will be exported: to the surface only.

        It is the one that a real process would give: it lies in what is pickled.
        """
        function = self.seat.exports.next_export()
        while function in self._reserved:  # by a play of the same attempt on another node
            function = self.seat.exports.next_export()
        self._reserved.add(function)
        return function

    def export_function(
        self, function: FunctionID, definition: bytes, name: str, refs: tuple[ObjectID, ...]
    ) -> None:
        """Keep a pickled function; each process exports it when it first submits it."""
        self.functions[function] = SimFunction(definition, name, refs)

    def define_template(self, wanted: TemplateDefined, exceptions: bytes) -> TemplateID:
        """Fix what many submissions share: `wanted`, but for the client and the number."""
        function = wanted.function
        mark, definition = self.cluster.mark, self.functions[function].definition
        remote = do.Remote(
            self.make_body(function, wanted.name, wanted.num_returns, exceptions),
            name=wanted.name,
            num_returns=wanted.num_returns,
            demand=wanted.demand,
            max_retries=wanted.max_retries,
            retry_exceptions=wanted.retry_application_errors,
            max_calls=wanted.max_calls,
            refs=self.functions[function].refs,
            strategy=wanted.strategy,
            digest=mark(definition) if mark is not None else b"",
            pickled=(function, definition),
            classes=exceptions,
        )
        self._templates.append(remote)
        return TemplateID(len(self._templates) - 1)

    def submit(
        self,
        template: TemplateID,
        num_returns: int,
        blob: Serialized | None,
        args: tuple[ObjectID, ...] = (),
    ) -> list[ObjectID]:
        """Submit a call; the ids of its returns. Raises ObjectStoreFullError."""
        token = blob.to_bytes() if blob is not None else None
        operation = do.Submit(
            self._templates[template],
            args=args,
            refs=blob.refs if blob is not None else (),
            token=token,
            size_bytes=len(token) if token is not None else 0,
        )
        try:
            found: list[ObjectID] = self._here().perform(operation)
        except do.StoreRefused as refused:
            problem = error_from(refused.failure, refused.text, None, ObjectID(b""))
        else:
            return found
        raise problem

    def cancel(self, item: ObjectID, force: bool, recursive: bool) -> None:
        """Cancel the producer of `item`."""
        self._here().ask(do.CancelTask(item, force=force, recursive=recursive))

    # -------------------------------------------------------------- values

    def put(self, value: Serialized) -> ObjectID:
        """Store a value; its id. Raises ObjectStoreFullError and the like."""
        try:
            item: ObjectID = self._here().perform(do.PutValue(value.to_bytes(), value.refs))
        except do.StoreRefused as refused:
            problem = error_from(refused.failure, refused.text, None, ObjectID(b""))
        else:
            return item
        raise problem

    # Any: the values are the user's.
    def get_one(self, item: ObjectID, timeout: float | None = None) -> Any:
        """The value of one object; see `get_many`."""
        return self.get_many((item,), timeout)[0]

    def get_many(self, items: Sequence[ObjectID], timeout: float | None = None) -> list[Any]:
        """The values of `items`, in order.

        Raises the exception of the first that failed, as soon as one has; GetTimeoutError.
        """
        if not items:
            return []
        distinct = tuple(dict.fromkeys(items))
        operation = do.GetValues(distinct, timeout_ns=self._patience(timeout))
        try:
            gots: list[do.Got] = self._here().ask(operation)
        except do.ReadFailed as failed:
            problem: BaseException = error_of(failed.got)
        except do.ReadTimedOut as late:
            problem = GetTimeoutError(
                f"{len(late.missing)} of {len(distinct)} objects were not available within "
                f"{timeout} s; the first of them is ObjectRef({late.missing[0].hex()}). Their "
                "tasks go on: get them again, or cancel them"
            )
        else:
            values = {got.object: got for got in gots}
            return [value_of(values[item]) for item in items]
        raise problem

    def wait(
        self, items: Sequence[ObjectID], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> set[ObjectID]:
        """Those of the distinct `items` that are available, once enough are or time is up."""
        operation = do.WaitFor(tuple(items), num_returns, timeout_ns=self._patience(timeout))
        ready: set[ObjectID] = self._here().ask(operation)
        return ready

    def add_done_callback(self, item: ObjectID, callback: Callable[..., object]) -> None:
        """Wait for an object and call back: in virtual time, nobody else is kept waiting."""
        try:
            value = self.get_one(item)
        except Exception as error:
            callback(None, error)
        else:
            callback(value)

    # -------------------------------------------------------------- the rest

    def sleep(self, seconds: float) -> None:
        """Let so much virtual time pass; 0: let others go first."""
        ns = int(seconds * 1e9)
        self.is_busy_for(ns)
        self._here().ask(do.Sleep(ns))

    def end_process(self, reason: str) -> None:
        """End the process of the task that calls. Does not return."""
        self._here().ask(do.EndProcess(reason))

    def is_busy_for(self, ns: int) -> None:
        """Somebody does something that takes so long."""
        until_ns = self.cluster.clock.now_ns + ns
        if until_ns > self.busy_until_ns:
            self.busy_until_ns = until_ns

    def reports(self) -> list[dict[str, Any]]:
        """What each living node tells about itself."""
        return [
            summary(Step(node.core.tables))
            for node in self.cluster.nodes
            if node.is_alive and node.node_id is not None
        ]

    def _patience(self, timeout: float | None) -> int:
        if timeout is None or timeout > _TIMEOUT_S_MAX:
            return -1
        ns = int(timeout * 1e9)
        self.is_busy_for(ns)
        return ns


def value_of(got: do.Got) -> Any:  # Any: the user's value
    """The value that a reader got, unpickled."""
    return deserialize(real_bytes(got.value))


def error_of(got: do.Got) -> BaseException:
    """The exception to raise for an object that failed."""
    return error_from(Failure(got.failure), got.text, real_bytes(got.value) or None, got.object)


__all__ = ["DriverSeat", "SimClient", "SimFunction", "error_of", "value_of"]
