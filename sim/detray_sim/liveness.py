"""Liveness: when faults end, what can finish must finish; if it does not, this says why.

The wait-for graph is read off the tables of all living nodes: each unfinished task waits for an
argument, a copy on its way, a resource, a worker, the head's or another node's word, or runs and
waits in a get. Each of these must have somebody who ends it. `diagnose` follows them and says for
each task what it waits for; where nobody will ever end a wait, that is a missing wake-up, and a
violation. A cluster may be stuck for one reason: demands that no node left can meet. These and what
hangs on them (`supposing.py` says exactly what does), are no violation. Runs that hold scarce
resources and wait for each other are one: some get of them must fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from detray.core.states import (
    Assigned,
    Delivered,
    Elsewhere,
    Fetching,
    Gone,
    Pending,
    Placing,
    Ready,
    Waiting,
)
from detray.core.tables import HERE, Get, Object, Tables, Task, Worker
from detray.ids import NodeID, ObjectID, TaskID, is_put, task_of
from detray_sim.supposing import Supposed

LINES_MAX = 40
AT_REST = frozenset(("object", "resource", "head", "infeasible"))
"""Kinds of waits in which nothing is under way."""


class Wait(msgspec.Struct, frozen=True):
    """One edge of the wait-for graph. `kind` says what is waited for.

    "object", "resource", "infeasible", "peer", "head", "worker": somebody will end it, or it is
    legitimate; "missing": nobody will.
    """

    node: int
    task: bytes
    kind: str
    text: str
    target: bytes = b""

    def __str__(self) -> str:
        return f"node {self.node}: {self.task.hex()[-12:]} {self.text}"


class Diagnosis(msgspec.Struct, frozen=True):
    """Why a cluster does not get on."""

    waits: tuple[Wait, ...]
    can_go_on: bool = False
    """Something could go on as the cluster stands."""
    has_circle: bool = False
    """Something could not, even if a node joined for each demand that none meets."""

    @property
    def missing(self) -> list[Wait]:
        """The wake-ups that nobody will give."""
        return [wait for wait in self.waits if wait.kind == "missing"]

    @property
    def is_legitimate(self) -> bool:
        """True if all of it hangs on demands that cannot be met."""
        kinds = {wait.kind for wait in self.waits}
        return "infeasible" in kinds and self._is_settled and not self.has_circle

    @property
    def is_untold_deadlock(self) -> bool:
        """True if runs hold what others wait for in a circle, and nobody fails a get of them.

        Each wait has somebody who would end it, and some of these can never go on.
        """
        return bool(self.waits) and self._is_settled and self.has_circle

    @property
    def _is_settled(self) -> bool:
        """True if nothing moves, and nothing could."""
        return not self.can_go_on and {wait.kind for wait in self.waits} <= AT_REST

    @property
    def lines(self) -> list[str]:
        """The graph as text, missing wake-ups first."""
        ordered = self.missing + [wait for wait in self.waits if wait.kind != "missing"]
        lines = [f"[{wait.kind}] {wait}" for wait in ordered[:LINES_MAX]]
        if len(ordered) > LINES_MAX:
            lines.append(f"and {len(ordered) - LINES_MAX} more")
        return lines


def diagnose(
    tables: Mapping[NodeID, Tables], placing: Mapping[TaskID, object] | None = None
) -> Diagnosis:
    """What every unfinished task and every get waits for.

    `tables` of the nodes that live; `placing`: requests that wait at the head (None: not known).
    """
    waits: list[Wait] = []
    for node, t in tables.items():
        view = _View(node, t, tables, placing)
        for task in t.tasks.values():
            waits += view.task(task)
        for client in t.clients.values():
            for get in client.gets.values():
                waits += view.get(get)
    now, then = Supposed(tables, joins=False), Supposed(tables, joins=True)
    return Diagnosis(tuple(waits), now.went_on > 0, not then.is_all)


class _View:
    """One node's tables, among those of the others."""

    def __init__(
        self,
        node: NodeID,
        t: Tables,
        tables: Mapping[NodeID, Tables],
        placing: Mapping[TaskID, object] | None,
    ) -> None:
        self.node = node
        self.t = t
        self.tables = tables
        self.placing = placing

    def wait(self, task: Task, kind: str, text: str, target: bytes = b"") -> Wait:
        """An edge from a task."""
        name = self.t.templates[task.template].name if task.template in self.t.templates else "?"
        state = type(task.state).__name__.lower()
        return Wait(self.node, task.spec.task, kind, f"({name}, {state}) {text}", target)

    # -------------------------------------------------------------------------- tasks

    def task(self, task: Task) -> Iterator[Wait]:
        """What a task waits for."""
        match task.state:
            case Waiting():
                yield from self._waiting(task)
            case Fetching():
                yield from self._fetching(task)
            case Ready():
                yield self._ready(task)
            case Placing():
                yield self._placing(task)
            case Delivered(node=node):
                yield self._delivered(task, NodeID(node))
            case Assigned(worker=number):
                yield from self._assigned(task, number)

    def _waiting(self, task: Task) -> Iterator[Wait]:
        rows = [self.t.objects.get(item) for item in task.spec.args]
        pending = [row for row in rows if row and type(row.state) in (Pending, Gone)]
        # What was there once and got lost is made again when the rest is here, not before.
        awaited = [row for row in pending if task.spec.task in row.takers]
        for row in awaited or pending:
            yield self._pending(task, row)
        if not pending:
            yield self.wait(task, "missing", "waits though all its arguments are there")

    def _pending(self, task: Task, row: Object) -> Wait:
        """An argument without a value: somebody must be making it, or be asked for it."""
        item = row.id
        shared = row.shared
        if shared is not None and shared.home != HERE:
            return self._foreign(task, row)
        producer = task_of(item)
        if is_put(item) or producer not in self.t.tasks:
            return self.wait(task, "missing", f"waits for {_name(item)}, which nobody makes", item)
        return self.wait(task, "object", f"waits for {_name(item)}, which is being made", item)

    def _foreign(self, task: Task, row: Object) -> Wait:
        """An object of another node: it must know that we want it."""
        shared = row.shared
        assert shared is not None
        item, home = row.id, shared.home
        owner = self.tables.get(home)
        if owner is None or home not in self.t.peers:
            return self.wait(
                task, "missing", f"waits for {_name(item)} of a node that is no more", item
            )
        if not shared.is_wanted and item not in self.t.pulls:
            return self.wait(
                task, "missing", f"waits for {_name(item)}, its owner was not asked", item
            )
        owned = owner.objects.get(item)
        watchers = owned.shared.watchers if owned is not None and owned.shared is not None else {}
        if shared.is_wanted and self.node not in watchers:
            return self.wait(
                task, "missing", f"waits for {_name(item)}, whose owner forgot that", item
            )
        return self.wait(task, "object", f"waits for {_name(item)} of node {home}", item)

    def _fetching(self, task: Task) -> Iterator[Wait]:
        absent = 0
        for item in task.spec.args:
            row = self.t.objects.get(item)
            if row is None or type(row.state) not in (Elsewhere, Pending, Gone):
                continue
            absent += 1
            pull = self.t.pulls.get(item)
            if pull is None:
                if type(row.state) is Elsewhere:
                    yield self.wait(task, "missing", f"needs {_name(item)}, not pulled", item)
                else:
                    yield self._pending(task, row)
            elif pull.due_ns:
                yield self.wait(task, "peer", f"pauses before it asks for {_name(item)} again")
            elif pull.source == HERE and not self.t.block_queue and not self.t.moves:
                yield self.wait(task, "missing", f"needs {_name(item)}, its pull has no source")
            else:
                yield self.wait(task, "peer", f"needs {_name(item)} from node {pull.source}", item)
        if not absent:
            yield self.wait(task, "missing", "fetches though all its arguments are here")

    def _ready(self, task: Task) -> Wait:
        t = self.t
        template = t.templates[task.template]
        shape = t.shapes[template.shape]
        for index, amount in shape.amounts:
            if t.pool.available[index] < amount:
                name = t.pool.names[index]
                holders = [w.id for w in t.workers.values() if w.shape >= 0]
                kind = "resource" if name != "CPU" else "worker"
                return self.wait(task, kind, f"waits for {name}, workers {holders} hold some")
        if t.starting:
            return self.wait(task, "worker", "waits for a worker that starts")
        if len(t.workers) >= t.config.policy.workers_max:
            return self.wait(task, "resource", "waits for a worker: there are as many as may be")
        if t.start_retry_ns > t.now_ns:
            return self.wait(task, "worker", "waits until a worker may be started again")
        return self.wait(task, "missing", "is ready, there is room, and nothing happens")

    def _placing(self, task: Task) -> Wait:
        if isinstance(task.state, Placing) and task.state.offers is not None:
            return self.wait(task, "infeasible", "asks for what no node can give")
        if self.placing is not None and task.spec.task not in self.placing:
            return self.wait(task, "missing", "waits for a place, and the head does not know")
        return self.wait(task, "head", "waits for the head to name a place")

    def _delivered(self, task: Task, node: NodeID) -> Wait:
        other = self.tables.get(node)
        if other is None:
            if node in self.t.peers:
                return self.wait(task, "missing", f"was sent to node {node}, which is no more")
            return self.wait(task, "missing", f"was sent to node {node}, which was buried")
        row = other.tasks.get(task.spec.task)
        if row is None and task.spec.task not in other.parked:
            return self.wait(task, "missing", f"was sent to node {node}, which does not have it")
        return self.wait(task, "object", f"is at node {node}")

    def _assigned(self, task: Task, number: int) -> Iterator[Wait]:
        worker = next((w for w in self.t.workers.values() if w.id == number), None)
        if worker is None:
            yield self.wait(task, "missing", f"is at worker {number}, which does not exist")
        elif not worker.blocked or not worker.runs or worker.runs[0].task != task.spec.task:
            yield self._running(task, worker)

    def _running(self, task: Task, worker: Worker) -> Wait:
        if worker.runs and worker.runs[0].task != task.spec.task:
            if worker.blocked and not worker.retracting:
                return self.wait(task, "missing", f"is queued behind a blocked run of {worker.id}")
            return self.wait(task, "worker", f"is queued at worker {worker.id}")
        return self.wait(task, "worker", f"runs at worker {worker.id}")

    # -------------------------------------------------------------------------- gets

    def get(self, get: Get) -> Iterator[Wait]:
        """What a get waits for."""
        who = b"get%d/%d" % (get.client, get.request)
        pending = []
        for item in get.objects:
            row = self.t.objects.get(item)
            if row is not None and type(row.state) in (Pending, Gone, Elsewhere):
                pending.append(row)
        if get.remaining > 0 and not pending:
            yield Wait(self.node, who, "missing", "a get waits though all is there")
        for row in pending:
            yield self._get_item(who, row)
        if get.remaining <= 0 and (get.client, get.request) not in self.t.resuming:
            yield Wait(self.node, who, "missing", "a get is complete and not answered")

    def _get_item(self, who: bytes, row: Object) -> Wait:
        item, shared = row.id, row.shared
        if shared is not None and shared.home != HERE:
            if shared.home not in self.tables:
                text = f"a get waits for {_name(item)} of a node that is no more"
                return Wait(self.node, who, "missing", text, item)
            if not shared.is_wanted and item not in self.t.pulls:
                text = f"a get waits for {_name(item)}, its owner was not asked"
                return Wait(self.node, who, "missing", text, item)
        elif type(row.state) is Elsewhere:
            if item not in self.t.pulls:
                text = f"a get waits for {_name(item)}, which is not pulled"
                return Wait(self.node, who, "missing", text, item)
        elif is_put(item) or task_of(item) not in self.t.tasks:
            text = f"a get waits for {_name(item)}, which nobody makes"
            return Wait(self.node, who, "missing", text, item)
        return Wait(self.node, who, "object", f"a get waits for {_name(item)}", item)


def _name(item: ObjectID) -> str:
    return f"object {item.hex()[-16:]}"
