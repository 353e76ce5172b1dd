"""A toy world around a node's two cores: simulated clients and workers without processes.

It keeps every rule of the runtime that the cores rely on (payload order, tokens, grants, pins) and
draws what real life decides (who goes first, who dies) from a seeded generator. Tests that need one
exact order use `tests.support.bench` instead.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.config import GlobalConfig, LocalConfig, Policy
from detray.core.global_scheduler import GlobalScheduler
from detray.core.invariants import check
from detray.core.local import LocalScheduler
from detray.core.payloads import INCOMING, OUTGOING
from detray.errors import Failure
from detray.ids import (
    ClientID,
    FunctionID,
    ObjectID,
    TaskID,
    child_prefix,
    child_task,
    function_id,
    put_object,
    return_object,
    root_task,
)  # fmt: skip


@dataclass
class SimWorker:
    """A worker: its queue, what it does, the grants and pins it received."""

    id: ClientID
    queue: deque[ef.RunTask] = field(default_factory=deque)
    current: ef.RunTask | None = None
    program: object = None
    waiting: int = 0
    leaving: bool = False
    grants: dict[ObjectID, int] = field(default_factory=dict)
    pins: dict[ObjectID, int] = field(default_factory=dict)
    requests: int = 0
    interrupted: set[tuple[TaskID, int]] = field(default_factory=set)


class World:
    """Cores, payload store, workers. `do` feeds a step; `settle` delivers what follows from it."""

    def __init__(
        self, cpus: int = 2, *, arena_bytes: int = 1 << 20, totals: dict[str, int] | None = None,
        policy: Policy | None = None, infeasible: str = "wait", prestart: int = 0,
        stop_with_last_driver: bool = True, labels: tuple[tuple[str, str], ...] = (),
    ) -> None:  # fmt: skip
        amounts = {"CPU": cpus * 10_000, **(totals or {})}
        self.config = LocalConfig(
            node_name="n", totals=tuple(sorted(amounts.items())), arena_bytes=arena_bytes,
            infeasible=infeasible, prestart_workers=prestart, policy=policy or Policy(),
            stop_with_last_driver=stop_with_last_driver, labels=labels,
        )  # fmt: skip
        self.local = LocalScheduler(self.config)
        self.head = GlobalScheduler(GlobalConfig())
        self.now_ns = 1_000
        self.payloads: dict[bytes, int] = {}
        self.log: list[tuple[int, list[st.Stimulus], list[ef.Effect]]] = []
        self.orders: list[ef.Effect] = []
        self.inbox: dict[int, list[ef.Effect]] = {}

    def do(self, *stimuli: st.Stimulus, advance_ns: int = 1_000) -> list[ef.Effect]:
        """One step of the local core and what the head answers; returns all other effects."""
        self.now_ns += advance_ns
        for m in stimuli:
            for key, size in INCOMING.get(type(m), lambda _: [])(m):
                self.payloads.setdefault(key, size)
        out = self._step(*stimuli)
        seen = []
        while True:
            up = [e.message for e in out if type(e) is ef.SendToHead]
            rest = [e for e in out if type(e) is not ef.SendToHead]
            self._perform(rest)
            seen += rest
            if not up:
                return seen
            down = self.head.handle(*up, now_ns=self.now_ns)
            if not down:
                return seen
            out = self._step(*[e.message for e in down])

    def _step(self, *stimuli: st.Stimulus) -> list[ef.Effect]:
        out = self.local.handle(*stimuli, now_ns=self.now_ns)
        self.log.append((self.now_ns, list(stimuli), out))
        check(self.local.tables)
        return out

    def _perform(self, effects: list[ef.Effect]) -> None:
        for e in effects:
            if type(e) is ef.CopyPayload:
                self.payloads[e.target] = self.payloads[e.source]
        for e in effects:
            for key in OUTGOING.get(type(e), lambda _: [])(e):
                assert key in self.payloads, f"{type(e).__name__} needs payload {key.hex()}"
        for e in effects:
            if type(e) is ef.DropPayloads:
                for key in e.keys:
                    assert key in self.payloads, f"dropped twice: {key.hex()}"
                    del self.payloads[key]

    # ---------------------------------------------------------- a driver

    def driver(self, client: int = -1) -> SimDriver:
        """Connect a driver and export one function."""
        return SimDriver(self, ClientID(client))


class SimDriver:
    """A driver that names things the way `core/client.py` does, with explicit steps."""

    def __init__(self, world: World, client: ClientID) -> None:
        self.world = world
        self.client = client
        out = world.do(st.DriverConnected(client, 100, "", "test"))
        welcome = next(e for e in out if type(e) is ef.Welcome)
        self.job = welcome.job
        self.started = [e for e in out if type(e) is ef.StartWorker]
        self.root = root_task(self.job)
        self.prefix = child_prefix(self.root, 0, 0)
        self.function: FunctionID = function_id(self.prefix, 0)
        self.counter = 0
        self.requests = 0
        self.templates: dict[tuple[object, ...], int] = {}
        world.do(st.FunctionExported(client, self.function, "f", 10))

    def template(
        self, *, cpus: int = 10_000, returns: int = 1, retries: int = 0, retry_app: bool = False,
        max_calls: int = 0, name: str = "f", **resources: int,
    ) -> int:  # fmt: skip
        """The number of a template with these options, defined once."""
        demand = {k: v for k, v in {"CPU": cpus, **resources}.items() if v}
        key = (tuple(sorted(demand.items())), returns, retries, retry_app, max_calls, name)
        if key not in self.templates:
            number = len(self.templates)
            self.templates[key] = number
            self.world.do(
                st.TemplateDefined(
                    self.client, number, self.function, name, returns, key[0], retries, retry_app,
                    max_calls,
                )
            )  # fmt: skip
        return self.templates[key]

    def task(self, template: int, args: tuple[ObjectID, ...] = (), refs: tuple[ObjectID, ...] = (),
             size: int = 0) -> st.TaskSubmitted:  # fmt: skip
        """The stimulus of a submission, not fed yet."""
        task = child_task(self.prefix, self.counter)
        self.counter += 1
        return st.TaskSubmitted(self.client, task, template, self.root, 1, size, args, refs)

    def put(self, size: int = 10, refs: tuple[ObjectID, ...] = ()) -> st.ObjectPut:
        """The stimulus of a small put."""
        item = put_object(self.prefix, self.counter)
        self.counter += 1
        return st.ObjectPut(self.client, item, size, refs)

    def get(self, *items: ObjectID, needed: int | None = None, fail_fast: bool = True,
            timeout_ns: int = -1, fetch: bool = True) -> st.GetRequested:  # fmt: skip
        """The stimulus of a get (default) or wait."""
        self.requests += 1
        count = len(items) if needed is None else needed
        return st.GetRequested(
            self.client, self.requests, items, count, fail_fast, fetch, timeout_ns, TaskID(b"")
        )

    def drop(self, *items: ObjectID, count: int = 1) -> st.RefsDropped:
        """The stimulus of dropping the last references."""
        return st.RefsDropped(self.client, items, (count,) * len(items))


def first_return(submitted: st.TaskSubmitted) -> ObjectID:
    """The first return of a submission."""
    return return_object(submitted.task, 0)


def finished(run: ef.RunTask, *sizes: int, duration_ns: int = 5_000) -> st.RunFinished:
    """A worker's report that a run ended well, with inline returns."""
    returns = tuple(st.Return(size) for size in (sizes or (5,)))
    return st.RunFinished(run.client, run.task, run.attempt, 0, duration_ns, returns)


def failed(run: ef.RunTask, *, retryable: bool = False, kind: int = Failure.APPLICATION,
           size: int = 7) -> st.RunFailed:  # fmt: skip
    """A worker's report that user code raised."""
    return st.RunFailed(
        run.client, run.task, run.attempt, 0, 5_000, kind, retryable, "ValueError: no", size
    )
