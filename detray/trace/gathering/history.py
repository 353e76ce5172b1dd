"""What happened to tasks, objects, workers and nodes, gathered from a trace.

A history is told by the stimuli; the effects add when a run was sent, what a lost worker had begun,
what a node asked others for. Where effects are unknown (a flight recorder that cannot be replayed)
the history says less, never something else. A task that was submitted on one node and ran on
another is one life: both tell of it, and if only one of them is in the trace, that one's word must
do.

Which message says what of whom is in `history_tasks`, `history_objects` and `history_nodes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from detray.core.states import Assigned, Delivered, Fetching, Placing
from detray.core.tables import HERE, Tables, Task
from detray.ids import (
    NO_CLIENT,
    NO_OBJECT,
    NO_TASK,
    ClientID,
    JobNumber,
    NodeID,
    ObjectID,
    TaskID,
    child_prefix,
    task_of,
)
from detray.trace.format import Header, LocalCore
from detray.trace.gathering import endings
from detray.trace.gathering import nodes as history_nodes
from detray.trace.gathering import objects as history_objects
from detray.trace.gathering import tasks as history_tasks
from detray.trace.gathering.lives import (
    ASKED,
    DELIVERED,
    KNOWN,
    MADE_AGAIN,
    SENT,
    UNKNOWN_CORE,
    HeadChange,
    HeadLife,
    LifeMove,
    NodeLife,
    ObjectLife,
    Program,
    RoomWait,
    Ruin,
    TaskLife,
    Transfer,
    Wait,
    WorkerLife,
)
from detray.trace.links import nodes_of
from detray.trace.names import core_names, is_a_put
from detray.trace.play import Makers, Opening, Told, schedulers, tell
from detray.trace.reading import Trace

BEFORE = "(before the trace)"
Run = tuple[TaskID, int]
"""A task and the number of its attempt."""
Seat = tuple[int, ClientID]
"""A client by the number of its core and its own."""
Kind = tuple[str, int, tuple[tuple[str, int], ...], int, bool]
"""What a template says: name, returns, demand, retries, whether errors are retried."""


class History:
    """Everything in a trace by its id, in the order of first mention; clients by their seat."""

    def __init__(self, nodes: Sequence[NodeID] = (), names: Sequence[str] = ()) -> None:
        """`nodes` and `names` are the cores'; names are said only if there are several."""
        self.tasks: dict[TaskID, TaskLife] = {}
        self.objects: dict[ObjectID, ObjectLife] = {}
        self.workers: dict[Seat, WorkerLife] = {}
        self.programs: dict[Seat, Program] = {}
        self.waits: list[Wait] = []
        """Those that were answered, not in the step that asked."""
        self.open_waits: dict[tuple[int, ClientID, int], Wait] = {}
        """Those that the trace shows no answer to."""
        self.room_waits: list[RoomWait] = []
        self.transfers: list[Transfer] = []
        self.ruins: dict[ObjectID, Ruin] = {}
        """Objects whose failure a client was told, and of what."""
        self.members: dict[NodeID, NodeLife] = {}
        """Nodes by number."""
        self.heads: dict[int, HeadLife] = {}
        """By number of core."""
        self.head_changes: list[HeadChange] = []
        self.closed_jobs: dict[JobNumber, tuple[int, int, str]] = {}
        """Jobs that were over: at what core, when, why."""
        self.first_ns: dict[int, int] = {}
        """When each core took its first step, by its own clock."""
        self.last_ns: dict[int, int] = {}
        """And its last."""
        self.nodes = nodes
        self.names = names
        self.core = 0
        """Whose step it is."""
        self.kinds: dict[tuple[int, int], Kind] = {}
        """Templates by core and number there."""
        self.shipped: dict[tuple[NodeID, int], Kind] = {}
        """Templates by owner and number at the owner."""
        self.queues: dict[Seat, list[Run]] = {}
        """Runs that were sent to workers and did not end, in order."""
        self.away: dict[NodeID, dict[TaskID, None]] = {}
        """Tasks whose latest attempt is at a node that is not the owner's."""
        self.block_bytes: dict[ObjectID, int] = {}
        """Of blocks that were asked for and not sealed yet."""
        self.room_asked: dict[tuple[int, ObjectID], RoomWait] = {}
        self.under_way: dict[tuple[int, ObjectID], Transfer] = {}
        self._unowned_puts: list[tuple[Seat, ObjectLife]] = []

    def where(self, core: int) -> str:
        """ " on node 1" for a core of that name; "" if there is only one that runs anything."""
        return f" on {self.names[core]}" if self.names and core >= 0 else ""

    def node_of(self, core: int) -> NodeID:
        """The node of a core, -1 if it is not known."""
        return self.nodes[core] if 0 <= core < len(self.nodes) else NodeID(-1)

    def core_of(self, node: NodeID) -> int:
        """The core of a node, -1 if it is not in the trace."""
        return self.nodes.index(node) if node >= 0 and node in self.nodes else UNKNOWN_CORE

    def begin(self, core: int, tables: Tables) -> None:
        """Take over what a restored scheduler knows, where a trace begins in the middle."""
        self.core = core
        for number, template in tables.templates.items():
            self.kinds[core, number] = (
                template.name, template.num_returns, template.demand, template.max_retries,
                template.retry_application_errors,
            )  # fmt: skip
        for task in tables.tasks.values():
            known = self.tasks.get(task.spec.task)
            if known is None or known.name == BEFORE:
                self._begin_task(core, task)
        for worker in tables.workers.values():
            self.worker(worker.id).pid = tables.clients[worker.id].pid
            for run in worker.runs:
                history_tasks.send(self, self.task(run.task), run.attempt, worker.id, -1)

    def _begin_task(self, core: int, task: Task) -> None:
        """What its owner, or the node that runs it, tells of a task that it has."""
        life = history_tasks.add(self, task.spec, task.template, -1)
        state = task.state
        if task.owner != HERE:
            life.core = self.core_of(task.owner)
            life.attempt(task.attempt, NO_CLIENT).node = self.node_of(core)
            if isinstance(state, Assigned | Fetching):
                life.state = SENT
            return
        life.core = core
        life.submitted_ns = task.entered_ns or -1
        life.cancel_asked = task.cancelled
        if isinstance(state, Placing):
            life.note(LifeMove(ASKED, state.asked_ns, core, task.attempt))
        elif isinstance(state, Delivered):
            node = NodeID(state.node)
            life.note(LifeMove(DELIVERED, -1, core, task.attempt, node))
            life.attempt(task.attempt, NO_CLIENT).node = node
            life.state = SENT
            self.away.setdefault(node, {})[life.id] = None

    def task(self, item: TaskID, now_ns: int = -1) -> TaskLife:
        """The life of a task; one that is first heard of now has a beginning that is not known."""
        life = self.tasks.get(item)
        if life is None:
            life = self.tasks[item] = TaskLife(item, BEFORE, TaskID(b""), now_ns, core=self.core)
        return life

    def value(self, item: ObjectID) -> ObjectLife:
        """The life of an object; one that is first heard of now was made elsewhere, or before."""
        life = self.objects.get(item)
        if life is None:
            producer = NO_TASK if is_a_put(item) else task_of(item)
            life = self.objects[item] = ObjectLife(item, producer, -1, -1, is_a_put(item))
        return life

    def worker(self, client: ClientID) -> WorkerLife:
        """The life of a worker of the core whose step it is, begun if it was not known."""
        seat = (self.core, client)
        life = self.workers.get(seat)
        if life is None:
            life = self.workers[seat] = WorkerLife(client, self.core)
        return life

    def member(self, node: NodeID) -> NodeLife:
        """The life of a node."""
        life = self.members.get(node)
        if life is None:
            life = self.members[node] = NodeLife(node, self.core_of(node))
        return life

    def note_put(self, client: ClientID, life: ObjectLife) -> None:
        """A worker put it: who that was is found out in the end."""
        self._unowned_puts.append(((self.core, client), life))

    def take(
        self, core: int, now_ns: int, stimuli: Iterable[Any], effects: Iterable[Any] | None
    ) -> None:
        """One step of a local scheduler."""
        self.core = core
        self.first_ns.setdefault(core, now_ns)
        self.last_ns[core] = now_ns
        for stimulus in stimuli:
            handler = _ON_STIMULUS.get(type(stimulus))
            if handler is not None:
                handler(self, stimulus, now_ns)
        for effect in effects or ():
            handler = _ON_EFFECT.get(type(effect))
            if handler is not None:
                handler(self, effect, now_ns)

    def take_head(self, core: int, now_ns: int, epoch: int, effects: Iterable[Any] | None) -> None:
        """One step of a global scheduler."""
        life = self.heads.get(core)
        if life is None:
            life = self.heads[core] = HeadLife(core, epoch, now_ns, now_ns)
        life.last_ns = now_ns
        for effect in effects or ():
            handler = _ON_HEAD_EFFECT.get(type(effect))
            if handler is not None:
                handler(self, effect, core, now_ns)

    # ------------------------------------------------------------------ conclusions

    def close(self) -> None:
        """Draw the conclusions that need the whole trace."""
        self._find_put_owners()
        for core, ns in self.last_ns.items():
            if self.node_of(core) in self.members:
                self.members[self.node_of(core)].last_ns = ns
        endings.conclude(self)
        for life in self.tasks.values():
            if life.args:
                self._find_last_argument(life)
            else:
                life.ready_ns = life.submitted_ns

    @cached_property
    def references(self) -> dict[TaskID, list[TaskLife | None]]:
        """By task, who refers to a result of it; to be asked when all steps were taken."""
        return endings.references(self)

    def _find_last_argument(self, life: TaskLife) -> None:
        if life.submitted_ns < 0:
            return
        ready_ns, last = life.submitted_ns, NO_OBJECT
        for item in life.args:
            known_ns = self.known_ns(item, life.core)
            if known_ns > ready_ns:
                ready_ns, last = known_ns, item
            elif known_ns < 0 and task_of(item) in self.tasks and not is_a_put(item):
                return  # it never came, as far as the trace tells
        life.ready_ns, life.last_arg = ready_ns, last

    def known_ns(self, item: ObjectID, core: int) -> int:
        """When a core first knew that an object has a value, by its own clock; -1 if not known."""
        known = self.objects.get(item)
        if known is None:
            return -1
        if known.core == core and known.sealed_ns >= 0:
            return known.sealed_ns
        for move in known.moves:
            if move.core == core and move.kind in (KNOWN, MADE_AGAIN):
                return move.at_ns
        return -1

    def _find_put_owners(self) -> None:
        """A worker's put names its task by the hash in its id; only runs there can have made it."""
        seats = {seat for seat, _ in self._unowned_puts}
        prefixes = {
            child_prefix(life.id, attempt.number, 0): life.id
            for life in self.tasks.values()
            for attempt in life.attempts
            if (attempt.core, attempt.worker) in seats
        }
        for _, item in self._unowned_puts:
            item.producer = prefixes.get(item.id[:12], TaskID(b""))

    # ------------------------------------------------------------------ dates

    def use_dates(self, header: Header) -> None:
        """Turn all times into nanoseconds since 1970, which can be compared between machines.

        As well as their clocks agree on the date, that is. To be called once, after `close`.
        """
        shifts = [header.date_ns(core, 0) for core in range(len(header.cores))]

        def dated(core: int, ns: int) -> int:
            return ns + shifts[core] if ns >= 0 and core >= 0 else ns

        for life in self.tasks.values():
            _date_task(life, dated)
        for item in self.objects.values():
            item.created_ns = dated(item.core, item.created_ns)
            item.sealed_ns = dated(item.core, item.sealed_ns)
            item.freed_ns = dated(item.freed_core, item.freed_ns)
            item.dropped_ns = dated(item.dropped_core, item.dropped_ns)
            for move in item.moves:
                move.at_ns = dated(move.core, move.at_ns)
        self._date_clients(dated)
        self._date_nodes(dated)
        for transfer in self.transfers:
            transfer.began_ns = dated(transfer.core, transfer.began_ns)
            transfer.ended_ns = dated(transfer.core, transfer.ended_ns)
        self.ruins = {
            item: Ruin(item, ruin.failure, ruin.text, dated(ruin.core, ruin.at_ns), ruin.core)
            for item, ruin in self.ruins.items()
        }
        self.first_ns = {core: dated(core, ns) for core, ns in self.first_ns.items()}
        self.last_ns = {core: dated(core, ns) for core, ns in self.last_ns.items()}

    def _date_clients(self, dated: Dated) -> None:
        waits: Iterable[Wait | RoomWait] = (*self.waits, *self.open_waits.values())
        for wait in (*waits, *self.room_waits):
            wait.started_ns = dated(wait.core, wait.started_ns)
            wait.ended_ns = dated(wait.core, wait.ended_ns)
        for program in self.programs.values():
            program.started_ns = dated(program.core, program.started_ns)
            program.lost_ns = dated(program.core, program.lost_ns)
        for worker in self.workers.values():
            for name in ("asked_ns", "ready_ns", "exit_ns", "killed_ns", "lost_ns"):
                setattr(worker, name, dated(worker.core, getattr(worker, name)))
        self.closed_jobs = {
            job: (core, dated(core, ns), why) for job, (core, ns, why) in self.closed_jobs.items()
        }

    def _date_nodes(self, dated: Dated) -> None:
        for node in self.members.values():
            node.joined_ns = dated(node.joined_core, node.joined_ns)
            node.buried_ns = dated(node.buried_core, node.buried_ns)
            for name in ("stopped_ns", "fenced_ns", "last_ns"):
                setattr(node, name, dated(node.core, getattr(node, name)))
        for head in self.heads.values():
            head.first_ns = dated(head.core, head.first_ns)
            head.last_ns = dated(head.core, head.last_ns)
        for change in self.head_changes:
            change.at_ns = dated(change.core, change.at_ns)


Dated = Callable[[int, int], int]


def _date_task(life: TaskLife, dated: Dated) -> None:
    life.submitted_ns = dated(life.core, life.submitted_ns)
    life.ready_ns = dated(life.core, life.ready_ns)
    life.over_ns = dated(life.over_core, life.over_ns)
    for move in life.moves:
        move.at_ns = dated(move.core, move.at_ns)
        move.since_ns = dated(move.core, move.since_ns)
    for run in life.attempts:
        run.sent_ns = dated(run.core, run.sent_ns)
        run.started_ns = dated(run.core, run.started_ns)
        run.ended_ns = dated(run.core, run.ended_ns)
        run.received_ns = dated(run.core, run.received_ns)
        run.delivered_ns = dated(life.core, run.delivered_ns)
        run.closed_ns = dated(life.core, run.closed_ns)


_ON_STIMULUS = {
    **history_tasks.ON_STIMULUS,
    **history_objects.ON_STIMULUS,
    **history_nodes.ON_STIMULUS,
}
_ON_EFFECT = {
    **history_tasks.ON_EFFECT,
    **history_objects.ON_EFFECT,
    **history_nodes.ON_EFFECT,
}
_ON_HEAD_EFFECT = history_nodes.ON_HEAD_EFFECT


def new_history(trace: Trace) -> History:
    """An empty history that knows the names of the nodes in `trace`. Raises TraceError."""
    nodes = nodes_of(trace)
    is_one = len(trace.header.local_cores()) < 2
    return History(nodes, () if is_one else core_names(trace.header, nodes))


def follow(history: History, trace: Trace, item: Opening | Told) -> bool:
    """Take over what `tell` gives; True if it was a step of a local scheduler."""
    if isinstance(item, Opening):
        for core in item.fresh:
            tables = getattr(item.cores[core], "tables", None)
            if isinstance(tables, Tables):
                history.begin(core, tables)
        return False
    core = item.step.core
    info = trace.header.cores[core]
    if isinstance(info, LocalCore):
        history.take(core, item.step.now_ns, item.stimuli, item.effects)
        return True
    history.take_head(core, item.step.now_ns, info.epoch, item.effects)
    return False


def history_of(trace: Trace, makers: Makers = schedulers) -> History:
    """Gather the history of a trace. Raises TraceError."""
    history = new_history(trace)
    for item in tell(trace, makers):
        follow(history, trace, item)
    history.close()
    return history
