"""What happened to tasks, objects and workers, gathered from a trace.

A history is told by the stimuli; the effects add when a run was sent and what a lost worker had
begun. Where effects are unknown (a flight recorder that cannot be replayed) the history says less,
never something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from detray.core.effects import DefineTemplate, GetAnswered, RunTask
from detray.core.head_messages import (
    JobAdmitted,
)
from detray.core.payloads import template_number
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
from detray.core.tables import Tables
from detray.errors import Failure
from detray.ids import (
    ClientID,
    JobNumber,
    ObjectID,
    TaskID,
    child_prefix,
    job_of,
    return_object,
    root_task,
    task_of,
)
from detray.trace.format import LOCAL
from detray.trace.lives import (
    CANCELLED,
    FAILED,
    FINISHED,
    LOST,
    SENT,
    WAITING,
    ObjectLife,
    Program,
    TaskLife,
    Wait,
    WorkerLife,
)
from detray.trace.play import Makers, Opening, schedulers, tell
from detray.trace.reading import Trace

NO_JOB = JobNumber(0)
Run = tuple[TaskID, int]
"""A task and the number of its attempt."""


class History:
    """Everything in a trace by its id, in the order of first mention."""

    def __init__(self) -> None:
        self.tasks: dict[TaskID, TaskLife] = {}
        self.objects: dict[ObjectID, ObjectLife] = {}
        self.workers: dict[ClientID, WorkerLife] = {}
        self.programs: dict[ClientID, Program] = {}
        self.waits: list[Wait] = []
        self.first_ns = 0
        self.last_ns = 0
        self._templates: dict[int, tuple[str, int]] = {}
        self._queues: dict[ClientID, list[Run]] = {}
        self._blocks: dict[ObjectID, int] = {}
        self._open_waits: dict[tuple[ClientID, int], Wait] = {}
        self._unowned_puts: list[tuple[ClientID, ObjectLife]] = []

    def begin(self, tables: Tables) -> None:
        """Take over what a restored scheduler knows, where a trace begins in the middle."""
        for number, template in tables.templates.items():
            self._templates[number] = template.name, template.num_returns
        for task in tables.tasks.values():
            self._add(task.spec, task.template, -1)
        for worker in tables.workers.values():
            self.worker(worker.id).pid = tables.clients[worker.id].pid
            for run in worker.runs:
                self._send(self.task(run.task), run.attempt, worker.id, -1)

    def task(self, item: TaskID, now_ns: int = -1) -> TaskLife:
        """The life of a task; one that is first heard of now has a beginning that is not known."""
        life = self.tasks.get(item)
        if life is None:
            life = self.tasks[item] = TaskLife(item, "(before the trace)", TaskID(b""), now_ns)
        return life

    def worker(self, client: ClientID) -> WorkerLife:
        """The life of a worker, begun if it was not known."""
        return self.workers.setdefault(client, WorkerLife(client))

    def take(self, now_ns: int, stimuli: Iterable[Any], effects: Iterable[Any] | None) -> None:
        """One step of the local scheduler."""
        self.first_ns = self.first_ns or now_ns
        self.last_ns = max(self.last_ns, now_ns)
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

    def _has_failed(self, item: ObjectID) -> bool:
        producer = self.tasks.get(task_of(item))
        return producer is not None and producer.state in (FAILED, CANCELLED)

    def _find_put_owners(self) -> None:
        """A worker's put names its task by the hash in its id; only runs there can have made it."""
        clients = {client for client, _ in self._unowned_puts}
        prefixes = {
            child_prefix(life.id, attempt.number, 0): life.id
            for life in self.tasks.values()
            for attempt in life.attempts
            if attempt.worker in clients
        }
        for _, item in self._unowned_puts:
            item.producer = prefixes.get(item.id[:12], TaskID(b""))

    # -------------------------------------------------------------- stimuli

    def _on_driver(self, m: DriverConnected, now_ns: int) -> None:
        self.programs[m.client] = Program(m.client, NO_JOB, m.entrypoint, m.pid, now_ns)

    def _on_job(self, m: JobAdmitted, now_ns: int) -> None:
        if m.client in self.programs:
            self.programs[m.client].job = m.job

    def _on_template(self, m: TemplateDefined, now_ns: int) -> None:
        self._templates[template_number(m.client, m.template)] = m.name, m.num_returns

    def _on_submitted(self, m: TaskSubmitted, now_ns: int) -> None:
        self._add(m, template_number(m.client, m.template), now_ns)

    def _add(self, m: TaskSubmitted, template: int, now_ns: int) -> TaskLife:
        name, returns = self._templates.get(template, ("task", 1))
        life = TaskLife(m.task, name, m.parent, now_ns, returns, m.args, m.refs)
        self.tasks[m.task] = life
        return life

    def _on_put(self, m: ObjectPut, now_ns: int) -> None:
        self._put(m.client, ObjectLife(m.object, TaskID(b""), m.size_bytes, now_ns, True, m.refs))

    def _on_block(self, m: BlockRequested, now_ns: int) -> None:
        self._blocks[m.object] = m.size_bytes

    def _on_sealed(self, m: BlockSealed, now_ns: int) -> None:
        size = self._blocks.pop(m.object, 0)
        self._put(m.client, ObjectLife(m.object, TaskID(b""), size, now_ns, True, m.refs))

    def _put(self, client: ClientID, item: ObjectLife) -> None:
        self.objects[item.id] = item
        if client < 0:
            item.producer = root_task(job_of(item.id))
        else:
            self._unowned_puts.append((client, item))

    def _on_finished(self, m: RunFinished, now_ns: int) -> None:
        life = self.task(m.task)
        self._end_run(life, m, FINISHED, "")
        for index, part in enumerate(m.returns):
            item = return_object(m.task, index)
            self._blocks.pop(item, None)
            self.objects[item] = ObjectLife(
                item, m.task, part.size_bytes, m.ended_ns, refs=part.refs
            )

    def _on_failed(self, m: RunFailed, now_ns: int) -> None:
        state = CANCELLED if m.kind == Failure.CANCELLED else FAILED
        self._end_run(self.task(m.task), m, state, m.summary)

    def _end_run(self, life: TaskLife, m: RunFinished | RunFailed, state: str, error: str) -> None:
        run = life.attempt(m.attempt, m.client)
        run.started_ns, run.ended_ns, run.state, run.error = m.started_ns, m.ended_ns, state, error
        life.state, life.error = state, error
        queue = self._queues.get(m.client, [])
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
        for task, number in self._queues.pop(m.client, []):
            life = self.tasks[task]
            run = life.attempt(number, m.client)
            run.state, run.error, run.ended_ns = LOST, m.reason, now_ns
            life.state, life.error = FAILED, m.reason

    def _unsend(self, client: ClientID, count: int) -> None:
        """The last `count` runs sent to a worker were never begun."""
        queue = self._queues.get(client, [])
        for _ in range(min(count, len(queue))):
            task, number = queue.pop()
            life = self.tasks[task]
            life.attempts.remove(life.attempt(number, client))
            life.state = WAITING

    def _on_cancel(self, m: CancelRequested, now_ns: int) -> None:
        self.task(task_of(m.object)).cancel_asked = True

    def _on_get(self, m: GetRequested, now_ns: int) -> None:
        wait = Wait(m.client, m.blocks, now_ns, -1, len(m.objects))
        self._open_waits[m.client, m.request] = wait

    # -------------------------------------------------------------- effects

    def _on_define(self, e: DefineTemplate, now_ns: int) -> None:
        self._templates.setdefault(e.template, (e.name, e.num_returns))

    def _on_run(self, e: RunTask, now_ns: int) -> None:
        self._send(self.task(e.task), e.attempt, e.client, now_ns)

    def _send(self, life: TaskLife, number: int, client: ClientID, now_ns: int) -> None:
        run = life.attempt(number, client)
        run.sent_ns, run.worker, life.state = now_ns, client, SENT
        self._queues.setdefault(client, []).append((life.id, number))

    def _on_answer(self, e: GetAnswered, now_ns: int) -> None:
        if e.more:
            return
        wait = self._open_waits.pop((e.client, e.request), None)
        if wait is not None and now_ns > wait.started_ns:
            wait.ended_ns = now_ns
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
}
_ON_EFFECT: dict[type, Handler] = {
    DefineTemplate: History._on_define,
    RunTask: History._on_run,
    GetAnswered: History._on_answer,
}


def history_of(trace: Trace, makers: Makers = schedulers) -> History:
    """Gather the history of a trace. Raises TraceError."""
    history = History()
    for item in tell(trace, makers):
        if isinstance(item, Opening):
            tables = getattr(item.cores[LOCAL], "tables", None)
            if item.is_fresh and isinstance(tables, Tables):
                history.begin(tables)
        elif item.step.core == LOCAL:
            history.take(item.step.now_ns, item.stimuli, item.effects)
    history.close()
    return history
