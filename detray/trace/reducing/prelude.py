"""Preludes: what a core could be told to be where a snapshot has it, when its past is gone.

A flight recorder lets its first steps go, and begins with a snapshot; a rehearsal plays fresh
cores. So what the snapshot shows is told as if it had just come: nodes are announced, drivers
connect, values are put, unfinished tasks are submitted, workers come up, the runs that stood still
in a get ask for it. The core decides anew what becomes of that, so it comes near the state and need
not be equal to it: times that have passed, attempts, values on disk and at other nodes are not
told.

Whether it comes near enough is not decided here. A prelude with the recorded steps behind it is as
good as the recording if it violates the same expectation in the same way (`shrinking.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec.structs import replace

from detray.core import head_messages as hm
from detray.core import peer_messages as pm
from detray.core import stimuli as st
from detray.core.states import READY, Assigned, Delivered, Inline, Stored
from detray.core.tables import DRIVER, HERE, OBSERVER, Client, Object, Tables, Task, Template
from detray.ids import (
    ClientID,
    JobNumber,
    NodeID,
    TaskID,
    TemplateID,
    job_of,
    return_object,
    root_task,
)

TOOK_NS = 5_000
SPILLED_BYTES = 1_000
"""The size that a value on disk is given, for it is put into memory."""
_NOBODY = NodeID(-1)


class Saying(NamedTuple):
    """One stimulus: `actor` is the run that says it, `node` the other node that does."""

    stimulus: Any  # Any: of all kinds, None for a step that says nothing
    actor: TaskID = TaskID(b"")
    node: NodeID = _NOBODY


Step = list[Saying]


def prelude(tables: Tables, has_run: bool = False) -> list[Step]:
    """The steps that come before those of a core that began with these tables.

    With `has_run` its workers have run something first: as many as there were are up and idle.
    """
    return [step for step in _Prelude(tables).steps(has_run) if step]


class _Prelude:
    """Reads the tables of a node. What they say need not be true: it may be anybody's file."""

    def __init__(self, tables: Tables) -> None:
        self._t = tables
        self._drivers: dict[JobNumber, ClientID] = {}
        """By job, who says what nobody says who is there."""
        for client in tables.clients.values():
            if client.kind == DRIVER and client.connected and client.job:
                self._drivers.setdefault(client.job, client.id)
        workers = sorted(row.id for row in tables.workers.values() if row.ready)
        self._ready = [Saying(st.WorkerReady(client, 1_000 + client)) for client in workers]
        """They come up when there is something to run; what they run may submit more."""
        self._fronts = {
            worker.runs[0].task: worker.id for worker in tables.workers.values() if worker.runs
        }
        self._told: set[int] = set()
        """Templates of other nodes."""
        self._shipped = {
            ours: (node, theirs)
            for node, peer in tables.peers.items()
            for theirs, ours in peer.known_templates.items()
        }

    def steps(self, has_run: bool) -> Iterator[Step]:
        """All of it, in an order in which it could have come."""
        yield from self._members()
        yield [Saying(m) for m in self._definitions()]
        yield from self._values()
        if has_run:
            yield from self._runs_before()
        yield from self._tasks()
        yield from self._blocks()

    # -------------------------------------------------------------- who is there

    def _members(self) -> Iterator[Step]:
        t = self._t
        clients = [row for row in t.clients.values() if row.connected]
        drivers = [row for row in clients if row.kind == DRIVER]
        if t.reporting or not drivers:
            yield [Saying(st.NodeStarted())]
        yield [Saying(_connected(row)) for row in drivers]
        yield [Saying(hm.NodeAdmitted(0, t.node, t.incarnation, t.epoch))]
        yield [
            Saying(hm.NodeAnnounced(0, row.id, 1, row.name, row.totals, row.address))
            for row in t.peers.values()
            if row.name
        ]
        yield [Saying(hm.JobAdmitted(0, row.id, row.job)) for row in drivers if row.job]
        yield [Saying(hm.JobOpened(0, job, node, "")) for job, node in t.jobs_elsewhere.items()]
        yield [Saying(_connected(row)) for row in clients if row.kind == OBSERVER]

    # -------------------------------------------------------------- what there is to run

    def _definitions(self) -> Iterator[Any]:  # Any: definitions
        """Every template under the number of its client, and under its own for whoever is left."""
        exported = set()
        for template in self._t.templates.values():
            author = self._driver(template.function)
            if template.number in self._shipped or author is None:
                continue
            if template.function not in exported:
                exported.add(template.function)
                yield st.FunctionExported(author, template.function, template.name, 10)
            own = template.number >> 32
            client = ClientID(own // 2 if own % 2 == 0 else -(own // 2) - 1)
            yield _defined(client, TemplateID(template.number & 0xFFFF_FFFF), template)
            yield _defined(author, TemplateID(template.number), template)

    def _driver(self, item: bytes) -> ClientID | None:
        return self._drivers.get(job_of(item))

    # -------------------------------------------------------------- values

    def _values(self) -> Iterator[Step]:
        """Puts: who made a value does not matter any more. What is inside is put before."""
        rows = [row for row in self._t.objects.values() if _is_here(row)]
        rows.sort(key=lambda row: bool(row.refs))
        blocks: Step = []
        seals: Step = []
        puts: Step = []
        for row in rows:
            author = self._driver(row.id)
            if author is None:
                continue
            match row.state:
                case Stored(segment=0, size_bytes=size_bytes):
                    blocks.append(Saying(st.BlockRequested(author, row.id, size_bytes)))
                    seals.append(Saying(st.BlockSealed(author, row.id, row.refs)))
                case Stored():
                    puts.append(Saying(st.ObjectPut(author, row.id, SPILLED_BYTES, row.refs)))
                case Inline(size_bytes=size_bytes):
                    puts.append(Saying(st.ObjectPut(author, row.id, size_bytes, row.refs)))
                case _:
                    pass
        yield from (puts, blocks, seals)
        pinned = [(job, item) for job, items in self._t.job_pins.items() for item in items]
        yield [
            Saying(st.RefPinned(self._drivers[job], item))
            for job, item in pinned
            if job in self._drivers
        ]

    def _blocks(self) -> Iterator[Step]:
        """Those that are being written."""
        for client in self._t.clients.values():
            actor = self._front(client.id)
            yield [
                Saying(st.BlockRequested(client.id, item, block.size_bytes), actor)
                for item, block in client.blocks.items()
            ]

    def _front(self, client: ClientID) -> TaskID:
        """The run that a worker has begun."""
        worker = self._t.workers.get(client)
        return worker.runs[0].task if worker is not None and worker.runs else TaskID(b"")

    # -------------------------------------------------------------- tasks

    def _runs_before(self) -> Iterator[Step]:
        """A task for each worker, that it finishes: so it is there."""
        lanes = Counter(worker.lane for worker in self._t.workers.values() if worker.ready)
        tasks: list[Task] = []
        for lane, count in lanes.items():
            for template in self._t.templates.values():
                if self._made_up(template, lane, 0) is not None:
                    rows = (self._made_up(template, lane, len(tasks) + n) for n in range(count))
                    tasks += [row for row in rows if row is not None]
                    break
        yield [told for row in tasks for told in self._submitted(row)]
        yield self._come_up()
        for row in tasks:
            task, count = row.spec.task, self._t.templates[row.template].num_returns
            done = st.RunFinished(ClientID(1), task, 0, 0, TOOK_NS, (st.Return(5),) * count)
            yield [Saying(done, task)]
        for row in tasks:
            author = self._driver(row.spec.task)
            if author is not None:
                yield [Saying(st.RefsDropped(author, (return_object(row.spec.task, 0),), (1,)))]

    def _made_up(self, template: Template, lane: int, number: int) -> Task | None:
        """A task of that template that never was, if it can run in that kind of worker."""
        if not 0 <= template.shape < len(self._t.shapes) or template.waits:
            return None
        shape = self._t.shapes[template.shape]
        job = job_of(template.function)
        shipped = self._shipped.get(template.number)
        if (
            shape.lane != lane
            or not shape.feasible
            or (shipped is None and job not in self._drivers)
        ):
            return None
        task = TaskID(job.to_bytes(4, "big") + b"\xff" * 8 + number.to_bytes(4, "big"))
        author = self._drivers.get(job, ClientID(0))
        spec = st.TaskSubmitted(author, task, TemplateID(template.number), root_task(job), 1, 20)
        owner = HERE if shipped is None else shipped[0]
        return Task(spec, template.number, 0, READY, 0, owner=owner)

    def _tasks(self) -> Iterator[Step]:
        """By depth: those with a worker, the others, then the gets of those that submitted them."""
        depths: dict[int, list[Task]] = {}
        for task in self._t.tasks.values():
            depths.setdefault(task.spec.depth, []).append(task)
        gets: dict[int, list[Client]] = {}
        for client in self._t.clients.values():
            if client.gets:
                run = self._t.tasks.get(self._front(client.id))
                depth = run.spec.depth if run is not None else 0
                gets.setdefault(depth, []).append(client)
        for depth in sorted({0, *depths, *(depth + 1 for depth in gets)}):
            rows = sorted(depths.get(depth, ()), key=lambda row: row.number)
            assigned = [told for row in rows if _is_assigned(row) for told in self._submitted(row)]
            yield assigned
            if assigned:
                yield self._come_up()
            yield [told for row in rows if not _is_assigned(row) for told in self._submitted(row)]
            yield [
                Saying(hm.Placed(0, row.spec.task, row.attempt, NodeID(row.state.node), 1))
                for row in rows
                if isinstance(row.state, Delivered)
            ]
            for asking in gets.get(depth - 1, ()):
                yield list(self._gets(asking))
        yield self._come_up()
        yield [Saying(None)]

    def _come_up(self) -> Step:
        """All workers do; later those that are ordered meanwhile, in a step that says nothing."""
        ready, self._ready = self._ready, []
        return ready or [Saying(None)]

    def _submitted(self, row: Task) -> Iterator[Saying]:
        spec = row.spec
        if row.owner != HERE:
            yield from self._delivered(row)
            return
        parent = self._fronts.get(spec.parent)
        if spec.client > 0 and parent is not None:
            yield Saying(replace(spec, client=parent), spec.parent)
            return
        client = self._t.clients.get(spec.client)
        if spec.client < 0 and client is not None and client.connected:
            yield Saying(spec)
            return
        author = self._driver(spec.task)
        if author is not None:
            yield Saying(replace(spec, client=author, template=TemplateID(row.template)))

    def _delivered(self, row: Task) -> Iterator[Saying]:
        """Another node's. What it takes was there, or on its way: it is not told."""
        template = self._t.templates.get(row.template)
        if template is None or row.template not in self._shipped:
            return
        node, number = self._shipped[row.template]
        if row.template not in self._told:
            self._told.add(row.template)
            function = template.function
            yield Saying(pm.FunctionShipped(0, node, function, template.name, 10), node=node)
            shipped = pm.TemplateShipped(
                0, node, number, template.function, template.name, template.num_returns,
                template.demand, template.max_retries, template.retry_application_errors,
                template.max_calls, 0, template.strategy,
            )  # fmt: skip
            yield Saying(shipped, node=node)
        run = pm.RunDelivered(
            0, node, row.spec.task, row.attempt, number, row.spec.parent, row.spec.depth,
            row.spec.size_bytes,
        )  # fmt: skip
        yield Saying(run, node=node)

    def _gets(self, client: Client) -> Iterator[Saying]:
        actor = self._front(client.id)
        for get in client.gets.values():
            left_ns = max(1, get.deadline_ns - self._t.now_ns)
            timeout_ns = left_ns if get.deadline_ns >= 0 else -1
            blocks = actor if get.worker else TaskID(b"")
            yield Saying(
                st.GetRequested(
                    client.id, get.request, get.objects, get.needed, get.fail_fast, get.fetch,
                    timeout_ns, blocks, get.also,
                ),
                actor,
            )  # fmt: skip


def _connected(row: Client) -> Any:  # Any: of two kinds
    if row.kind == OBSERVER:
        return st.ObserverConnected(row.id, row.pid)
    return st.DriverConnected(row.id, row.pid, row.namespace, row.entrypoint)


def _defined(client: ClientID, number: TemplateID, template: Template) -> st.TemplateDefined:
    return st.TemplateDefined(
        client,
        number,
        template.function,
        template.name,
        template.num_returns,
        template.demand,
        template.max_retries,
        template.retry_application_errors,
        template.max_calls,
        0,
        template.strategy,
    )


def _is_here(row: Object) -> bool:
    """True for a value of this node's own."""
    return row.shared is None or row.shared.home == HERE


def _is_assigned(row: Task) -> bool:
    return isinstance(row.state, Assigned)
