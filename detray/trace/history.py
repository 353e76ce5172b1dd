"""What happened to tasks, objects and workers, gathered from a trace.

A history is told by the stimuli; the effects add when a run was sent and what a lost worker had
begun. Where effects are unknown (a flight recorder that cannot be replayed) the history says less,
never something else. A task that was submitted on one node and ran on another is one life: both
tell of it, and if only one of them is in the trace, that one's word must do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from detray.core.effects import DefineTemplate, GetAnswered, RunTask, SendToPeer
from detray.core.head_messages import JobAdmitted, NodeBuried
from detray.core.payloads import template_number
from detray.core.peer_messages import (
    RunDelivered,
    RunDone,
    RunErred,
    RunLost,
    RunReturned,
    TemplateShipped,
)
from detray.core.stimuli import (
    BlockRequested,
    BlockSealed,
    CancelRequested,
    DriverConnected,
    GetRequested,
    ObjectPut,
    RunFailed,
    RunFinished,
    RunsRetracted,
    TaskSubmitted,
    TemplateDefined,
    WorkerLost,
    WorkerReady,
)
from detray.core.tables import HERE, Tables
from detray.errors import Failure
from detray.ids import (
    NO_CLIENT,
    ClientID,
    JobNumber,
    NodeID,
    ObjectID,
    TaskID,
    child_prefix,
    job_of,
    return_object,
    root_task,
    task_of,
)
from detray.trace.format import Header, LocalCore
from detray.trace.links import nodes_of
from detray.trace.lives import (
    CANCELLED,
    FAILED,
    FINISHED,
    LOST,
    SENT,
    UNKNOWN_CORE,
    WAITING,
    ObjectLife,
    Program,
    TaskLife,
    Wait,
    WorkerLife,
)
from detray.trace.names import core_names
from detray.trace.play import Makers, Opening, Told, schedulers, tell
from detray.trace.reading import Trace

NO_JOB = JobNumber(0)
BEFORE = "(before the trace)"
Run = tuple[TaskID, int]
"""A task and the number of its attempt."""
Seat = tuple[int, ClientID]
"""A client by the number of its core and its own."""


class History:
    """Everything in a trace by its id, in the order of first mention; clients by their seat."""

    def __init__(self, nodes: Sequence[NodeID] = (), names: Sequence[str] = ()) -> None:
        """`nodes` and `names` are the cores'; names are said only if there are several."""
        self.tasks: dict[TaskID, TaskLife] = {}
        self.objects: dict[ObjectID, ObjectLife] = {}
        self.workers: dict[Seat, WorkerLife] = {}
        self.programs: dict[Seat, Program] = {}
        self.waits: list[Wait] = []
        self.first_ns: dict[int, int] = {}
        """When each core took its first step, by its own clock."""
        self.nodes = nodes
        self.names = names
        self.core = 0
        """Whose step it is."""
        self._templates: dict[tuple[int, int], tuple[str, int]] = {}
        self._shipped: dict[tuple[NodeID, int], tuple[str, int]] = {}
        self._queues: dict[Seat, list[Run]] = {}
        self._blocks: dict[ObjectID, int] = {}
        self._open_waits: dict[tuple[int, ClientID, int], Wait] = {}
        self._unowned_puts: list[tuple[Seat, ObjectLife]] = []

    def where(self, core: int) -> str:
        """ " on node 1" for a core of that name; "" if there is only one that runs anything."""
        return f" on {self.names[core]}" if self.names and core >= 0 else ""

    def node_of(self, core: int) -> NodeID:
        """The node of a core, -1 if it is not known."""
        return self.nodes[core] if 0 <= core < len(self.nodes) else NodeID(-1)

    def begin(self, core: int, tables: Tables) -> None:
        """Take over what a restored scheduler knows, where a trace begins in the middle."""
        self.core = core
        for number, template in tables.templates.items():
            self._templates[core, number] = template.name, template.num_returns
        for task in tables.tasks.values():
            known = self.tasks.get(task.spec.task)
            if known is None or known.name == BEFORE:
                life = self._add(task.spec, task.template, -1)
                life.core = core if task.owner == HERE else UNKNOWN_CORE
        for worker in tables.workers.values():
            self.worker(worker.id).pid = tables.clients[worker.id].pid
            for run in worker.runs:
                self._send(self.task(run.task), run.attempt, worker.id, -1)

    def task(self, item: TaskID, now_ns: int = -1) -> TaskLife:
        """The life of a task; one that is first heard of now has a beginning that is not known."""
        life = self.tasks.get(item)
        if life is None:
            life = self.tasks[item] = TaskLife(item, BEFORE, TaskID(b""), now_ns, core=self.core)
        return life

    def worker(self, client: ClientID) -> WorkerLife:
        """The life of a worker of the core whose step it is, begun if it was not known."""
        return self.workers.setdefault((self.core, client), WorkerLife(client, self.core))

    def take(
        self, core: int, now_ns: int, stimuli: Iterable[Any], effects: Iterable[Any] | None
    ) -> None:
        """One step of a local scheduler."""
        self.core = core
        self.first_ns.setdefault(core, now_ns)
        for stimulus in stimuli:
            handler = _ON_STIMULUS.get(type(stimulus))
            if handler is not None:
                handler(self, stimulus, now_ns)
        for effect in effects or ():
            handler = _ON_EFFECT.get(type(effect))
            if handler is not None:
                handler(self, effect, now_ns)

    def close(self) -> None:
        """Draw the conclusions that need the whole trace."""
        self._find_put_owners()
        for life in self.tasks.values():
            if life.state != WAITING:
                continue
            parent = self.tasks.get(life.parent)
            if life.cancel_asked or (parent is not None and parent.cancel_asked):
                life.state = CANCELLED
            elif any(self._has_failed(item) for item in life.args):
                life.state, life.error = FAILED, "an argument failed"

    def use_dates(self, header: Header) -> None:
        """Turn all times into nanoseconds since 1970, which can be compared between machines.

        As well as their clocks agree on the date, that is. To be called once, after `close`.
        """

        def dated(core: int, ns: int) -> int:
            return header.date_ns(core, ns) if ns >= 0 and core >= 0 else ns

        for life in self.tasks.values():
            life.submitted_ns = dated(life.core, life.submitted_ns)
            for run in life.attempts:
                run.sent_ns = dated(run.core, run.sent_ns)
                run.started_ns = dated(run.core, run.started_ns)
                run.ended_ns = dated(run.core, run.ended_ns)
        for item in self.objects.values():
            item.created_ns = dated(item.core, item.created_ns)
        for wait in self.waits:
            wait.started_ns = dated(wait.core, wait.started_ns)
            wait.ended_ns = dated(wait.core, wait.ended_ns)
        for program in self.programs.values():
            program.started_ns = dated(program.core, program.started_ns)
        for worker in self.workers.values():
            worker.ready_ns = dated(worker.core, worker.ready_ns)
            worker.lost_ns = dated(worker.core, worker.lost_ns)
        self.first_ns = {core: dated(core, ns) for core, ns in self.first_ns.items()}

    def _has_failed(self, item: ObjectID) -> bool:
        producer = self.tasks.get(task_of(item))
        return producer is not None and producer.state in (FAILED, CANCELLED)

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

    # -------------------------------------------------------------- stimuli

    def _on_driver(self, m: DriverConnected, now_ns: int) -> None:
        program = Program(m.client, NO_JOB, m.entrypoint, m.pid, now_ns, self.core)
        self.programs[self.core, m.client] = program

    def _on_job(self, m: JobAdmitted, now_ns: int) -> None:
        program = self.programs.get((self.core, m.client))
        if program is not None:
            program.job = m.job

    def _on_template(self, m: TemplateDefined, now_ns: int) -> None:
        number = template_number(m.client, m.template)
        self._templates[self.core, number] = m.name, m.num_returns

    def _on_submitted(self, m: TaskSubmitted, now_ns: int) -> None:
        self._add(m, template_number(m.client, m.template), now_ns)

    def _add(self, m: TaskSubmitted, template: int, now_ns: int) -> TaskLife:
        name, returns = self._templates.get((self.core, template), ("task", 1))
        life = TaskLife(m.task, name, m.parent, now_ns, returns, m.args, m.refs, core=self.core)
        known = self.tasks.get(m.task)
        if known is not None:
            life.attempts, life.state, life.error = known.attempts, known.state, known.error
        self.tasks[m.task] = life
        return life

    def _on_put(self, m: ObjectPut, now_ns: int) -> None:
        self._put(m.client, m.object, m.size_bytes, now_ns, m.refs)

    def _on_block(self, m: BlockRequested, now_ns: int) -> None:
        self._blocks[m.object] = m.size_bytes

    def _on_sealed(self, m: BlockSealed, now_ns: int) -> None:
        self._put(m.client, m.object, self._blocks.pop(m.object, 0), now_ns, m.refs)

    def _put(
        self,
        client: ClientID,
        item: ObjectID,
        size_bytes: int,
        now_ns: int,
        refs: tuple[ObjectID, ...],
    ) -> None:
        life = ObjectLife(item, TaskID(b""), size_bytes, now_ns, True, refs, self.core)
        self.objects[item] = life
        if client < 0:
            life.producer = root_task(job_of(item))
        else:
            self._unowned_puts.append(((self.core, client), life))

    def _on_finished(self, m: RunFinished, now_ns: int) -> None:
        life = self.task(m.task)
        self._end_run(life, m, FINISHED, "")
        for index, part in enumerate(m.returns):
            item = return_object(m.task, index)
            self._blocks.pop(item, None)
            self.objects[item] = ObjectLife(
                item, m.task, part.size_bytes, m.ended_ns, refs=part.refs, core=self.core
            )

    def _on_failed(self, m: RunFailed, now_ns: int) -> None:
        state = CANCELLED if m.kind == Failure.CANCELLED else FAILED
        self._end_run(self.task(m.task), m, state, m.summary)

    def _end_run(self, life: TaskLife, m: RunFinished | RunFailed, state: str, error: str) -> None:
        run = life.attempt(m.attempt, m.client)
        run.core, run.worker, run.node = self.core, m.client, self.node_of(self.core)
        run.started_ns, run.ended_ns, run.state, run.error = m.started_ns, m.ended_ns, state, error
        life.state, life.error = state, error
        queue = self._queues.get((self.core, m.client), [])
        if (life.id, m.attempt) in queue:
            queue.remove((life.id, m.attempt))

    def _on_retracted(self, m: RunsRetracted, now_ns: int) -> None:
        self._unsend(m.client, m.count)

    def _on_ready(self, m: WorkerReady, now_ns: int) -> None:
        worker = self.worker(m.client)
        worker.pid, worker.ready_ns = m.pid, now_ns

    def _on_lost(self, m: WorkerLost, now_ns: int) -> None:
        worker = self.worker(m.client)
        worker.lost_ns, worker.reason = now_ns, "" if m.expected else m.reason
        self._unsend(m.client, m.unclaimed)
        for task, number in self._queues.pop((self.core, m.client), []):
            life = self.tasks[task]
            run = life.attempt(number, m.client)
            run.state, run.error, run.ended_ns = LOST, m.reason, now_ns
            life.state, life.error = FAILED, m.reason

    def _unsend(self, client: ClientID, count: int) -> None:
        """The last `count` runs sent to a worker were never begun."""
        queue = self._queues.get((self.core, client), [])
        for _ in range(min(count, len(queue))):
            task, number = queue.pop()
            life = self.tasks[task]
            life.attempts.remove(life.attempt(number, client))
            life.state = WAITING

    def _on_cancel(self, m: CancelRequested, now_ns: int) -> None:
        self.task(task_of(m.object)).cancel_asked = True

    def _on_get(self, m: GetRequested, now_ns: int) -> None:
        wait = Wait(m.client, m.blocks, now_ns, -1, len(m.objects), self.core, m.objects, m.needed)
        self._open_waits[self.core, m.client, m.request] = wait

    # -------------------------------------------------------------- what other nodes say

    def _on_shipped(self, m: TemplateShipped, now_ns: int) -> None:
        self._shipped[m.node, m.template] = m.name, m.num_returns

    def _on_delivered(self, m: RunDelivered, now_ns: int) -> None:
        if m.task not in self.tasks:  # its owner's recording is not in the trace
            name, returns = self._shipped.get((m.node, m.template), ("task", 1))
            args = tuple(argument.object for argument in m.args)
            refs = tuple(item for item, _ in m.refs)
            self.tasks[m.task] = TaskLife(m.task, name, m.parent, -1, returns, args, refs)
        self.task(m.task).attempt(m.attempt, NO_CLIENT).node = self.node_of(self.core)

    def _on_done(self, m: RunDone, now_ns: int) -> None:
        life = self.task(m.task)
        self._end_elsewhere(life, m.attempt, m.node, FINISHED, "")
        for index, part in enumerate(m.returns):
            item = return_object(m.task, index)
            if part.size_bytes >= 0 and item not in self.objects:
                refs = tuple(inner for inner, _ in part.refs)
                self.objects[item] = ObjectLife(
                    item, m.task, part.size_bytes, now_ns, refs=refs, core=self.core
                )

    def _on_erred(self, m: RunErred, now_ns: int) -> None:
        state = CANCELLED if m.kind == Failure.CANCELLED else FAILED
        self._end_elsewhere(self.task(m.task), m.attempt, m.node, state, m.summary)

    def _on_run_lost(self, m: RunLost, now_ns: int) -> None:
        self._end_elsewhere(self.task(m.task), m.attempt, m.node, LOST, m.reason)

    def _on_returned(self, m: RunReturned, now_ns: int) -> None:
        life = self.task(m.task)
        run = life.attempt(m.attempt, NO_CLIENT)
        if run.state == SENT and not run.worker:
            life.attempts.remove(run)
            life.state = WAITING

    def _end_elsewhere(
        self, life: TaskLife, number: int, node: NodeID, state: str, error: str
    ) -> None:
        """A run ended on another node, which may have told so itself."""
        run = life.attempt(number, NO_CLIENT)
        if run.state == SENT:
            run.node, run.state, run.error = node, state, error
            life.state, life.error = (FAILED if state == LOST else state), error

    def _on_buried(self, m: NodeBuried, now_ns: int) -> None:
        reason = f"node {m.node} died: {m.reason}"
        for life in self.tasks.values():
            last = life.last
            if last is not None and last.node == m.node and last.state == SENT:
                last.state, last.error = LOST, reason
                life.state, life.error = FAILED, reason

    # -------------------------------------------------------------- effects

    def _on_define(self, e: DefineTemplate, now_ns: int) -> None:
        self._templates.setdefault((self.core, e.template), (e.name, e.num_returns))

    def _on_run(self, e: RunTask, now_ns: int) -> None:
        self._send(self.task(e.task), e.attempt, e.client, now_ns)

    def _send(self, life: TaskLife, number: int, client: ClientID, now_ns: int) -> None:
        run = life.attempt(number, client)
        run.core, run.node = self.core, self.node_of(self.core)
        run.sent_ns, run.worker, run.state, life.state = now_ns, client, SENT, SENT
        self._queues.setdefault((self.core, client), []).append((life.id, number))

    def _on_sent(self, e: SendToPeer, now_ns: int) -> None:
        m = e.message
        if type(m) is RunDelivered:
            life = self.task(m.task)
            run = life.attempt(m.attempt, NO_CLIENT)
            run.node, run.core, life.state = e.node, UNKNOWN_CORE, SENT

    def _on_answer(self, e: GetAnswered, now_ns: int) -> None:
        if e.more:
            return
        wait = self._open_waits.pop((self.core, e.client, e.request), None)
        if wait is not None and now_ns > wait.started_ns:
            wait.ended_ns, wait.timed_out = now_ns, e.timed_out
            self.waits.append(wait)


Handler = Callable[[History, Any, int], None]  # Any: each takes the message type that is its key
_ON_STIMULUS: dict[type, Handler] = {
    DriverConnected: History._on_driver,
    JobAdmitted: History._on_job,
    TemplateDefined: History._on_template,
    TaskSubmitted: History._on_submitted,
    ObjectPut: History._on_put,
    BlockRequested: History._on_block,
    BlockSealed: History._on_sealed,
    RunFinished: History._on_finished,
    RunFailed: History._on_failed,
    RunsRetracted: History._on_retracted,
    WorkerReady: History._on_ready,
    WorkerLost: History._on_lost,
    CancelRequested: History._on_cancel,
    GetRequested: History._on_get,
    TemplateShipped: History._on_shipped,
    RunDelivered: History._on_delivered,
    RunDone: History._on_done,
    RunErred: History._on_erred,
    RunLost: History._on_run_lost,
    RunReturned: History._on_returned,
    NodeBuried: History._on_buried,
}
_ON_EFFECT: dict[type, Handler] = {
    DefineTemplate: History._on_define,
    RunTask: History._on_run,
    GetAnswered: History._on_answer,
    SendToPeer: History._on_sent,
}


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
    if not isinstance(trace.header.cores[item.step.core], LocalCore):
        return False
    history.take(item.step.core, item.step.now_ns, item.stimuli, item.effects)
    return True


def history_of(trace: Trace, makers: Makers = schedulers) -> History:
    """Gather the history of a trace. Raises TraceError."""
    history = new_history(trace)
    for item in tell(trace, makers):
        follow(history, trace, item)
    history.close()
    return history
