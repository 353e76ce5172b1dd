"""Runs: what workers report, what comes back from them, how they are lost and cancelled.

Rules (PROTOCOL N11, N13, D 26 to 32)
-------------------------------------
- Reports come in the order of the worker's queue; anything else is stale: it changes nothing and
  gives back what it brought.
- Taken back or provably unbegun, a run keeps its attempt and its budget. The one that had begun is
  charged.
- Cancel and completion race at the worker; its first report wins.
- A dead worker's attempts take their unfinished, otherwise unreferenced children with them.
"""

from __future__ import annotations

from detray.core import dispatch, objects, places, reports, resources
from detray.core.effects import CopyPayload, DumpRecorder, InterruptRun, KillWorker
from detray.core.gets import leave, retract
from detray.core.links import tell
from detray.core.payloads import error_key, value_key
from detray.core.peer_messages import RunCancelled
from detray.core.states import PENDING, Assigned, Delivered, Failed, Inline, Stored
from detray.core.step import Step
from detray.core.stimuli import (
    CancelRequested,
    Return,
    RunFailed,
    RunFinished,
    RunsRetracted,
    WorkerLost,
    WorkerReady,
    WorkerStartFailed,
)
from detray.core.tables import HERE, Client, Object, Run, Task, Template, Worker
from detray.core.tasks import can_retry, end_task, fail_task, pending_returns, requeue, retry
from detray.errors import Failure
from detray.ids import (
    ClientID,
    NodeID,
    ObjectID,
    TaskID,
    first_return,
    is_put,
    return_object,
    task_of,
)


def on_worker_ready(s: Step, m: WorkerReady) -> None:
    """A worker may be used."""
    worker = s.t.workers.get(m.client)
    if worker is None or worker.ready:
        s.count("stale")
        return
    worker.ready = True
    s.t.starting.pop(m.client, None)
    s.t.start_failures = 0
    s.t.clients[m.client].pid = m.pid
    dispatch.become_idle(s, worker)


def on_worker_start_failed(s: Step, m: WorkerStartFailed) -> None:
    """Forget the worker; try again later."""
    if s.t.workers.pop(m.client, None) is None:
        s.count("stale")
        return
    s.t.starting.pop(m.client, None)
    s.t.clients.pop(m.client, None)
    dispatch.note_start_failure(s, m.reason)


# ------------------------------------------------------------------ reports


def on_run_finished(s: Step, m: RunFinished) -> None:
    """Seal the returns and end the task."""
    t = s.t
    worker, run = _front(s, m.client, m.task, m.attempt)
    if worker is None or run is None:
        _give_back(s, m)
        return
    task = t.tasks[m.task]
    template = t.templates[run.template]
    note_duration(template, m.ended_ns - m.started_ns)
    _pop_front(s, worker, run)
    returns = m.returns
    if len(returns) != template.num_returns:
        text = f"its worker reported {len(returns)} returns instead of {template.num_returns}"
        _give_back(s, m)
        fail_task(s, task, Failure.SERIALIZATION, text)
        return
    if task.owner != HERE:
        reports.report_done(s, task, m)
    elif len(returns) == 1 and not (m.attempt or returns[0].in_block):
        row = t.objects[first_return(m.task)]
        objects.seal(s, row, Inline(returns[0].size_bytes), returns[0].refs)
    else:
        _seal_returns(s, m)
    end_task(s, task, template)
    t.finished += 1
    if task.owner != HERE:
        t.finished_for_others += 1
        t.run_ns = moving_mean(t.run_ns, m.ended_ns - m.started_ns)


def _seal_returns(s: Step, m: RunFinished) -> None:
    for index, part in enumerate(m.returns):
        item = return_object(m.task, index)
        row = s.t.objects.get(item)
        if row is None or row.state is not PENDING:
            _discard(s, m, item, part)
            continue
        if row.shared is not None:
            row.shared.attempt = m.attempt
        if part.in_block:
            _seal_block(s, m.client, row, part)
        else:
            if m.attempt and part.size_bytes:
                _adopt(s, value_key(row.id, m.attempt), row.id)
            objects.seal(s, row, Inline(part.size_bytes), part.refs)


def _discard(s: Step, m: RunFinished, item: ObjectID, part: Return) -> None:
    """A return that is alive already, or wanted by nobody: the run was for another one."""
    if part.in_block:
        block = s.t.clients[m.client].blocks.pop(item, None)
        if block is not None and block.segment >= 0:
            places.free_block(s, block.segment, block.offset, block.size_bytes)
    elif part.size_bytes:
        s.drops.append(value_key(item, m.attempt))


def _seal_block(s: Step, client: ClientID, row: Object, part: Return) -> None:
    block = s.t.clients[client].blocks.pop(row.id, None)
    if block is None or block.segment < 0:
        objects.seal(s, row, Failed(Failure.OBJECT_LOST, "sealed without a block"))
        return
    objects.seal(s, row, Stored(block.segment, block.offset, block.size_bytes), part.refs)


def on_run_failed(s: Step, m: RunFailed) -> None:
    """Retry what may be retried; else the returns fail with the error."""
    worker, run = _front(s, m.client, m.task, m.attempt)
    key = error_key(m.task, m.attempt)
    if m.size_bytes:
        s.drops.append(key)
    if worker is None or run is None:
        s.count("stale")
        return
    task = s.t.tasks[m.task]
    template = s.t.templates[run.template]
    note_duration(template, m.ended_ns - m.started_ns)
    _pop_front(s, worker, run)
    if task.owner != HERE:
        reports.report_failed(s, task, m)
        end_task(s, task, template)
        return
    if m.retryable and template.retry_application_errors and can_retry(task):
        retry(s, task)
        return
    for row in pending_returns(s, task, template):
        if m.size_bytes:
            s.out.append(CopyPayload(key, row.id))
        objects.seal(s, row, Failed(m.kind, m.summary, m.size_bytes), m.refs)
    end_task(s, task, template)
    s.count("cancelled" if m.kind == Failure.CANCELLED else "failed")


def _adopt(s: Step, key: bytes, item: ObjectID) -> None:
    s.out.append(CopyPayload(key, item))
    s.drops.append(key)


def _front(
    s: Step, client: ClientID, task: TaskID, attempt: int
) -> tuple[Worker | None, Run | None]:
    """The worker and its front run, if the report is about that."""
    t = s.t
    worker = t.workers.get(client)
    if worker is not None and worker.runs:
        run = worker.runs[0]
        if run.task == task and run.attempt == attempt and task in t.tasks:
            return worker, run
    return None, None


def _pop_front(s: Step, worker: Worker, run: Run) -> None:
    """The front run is over; the next one inherits the allocation, or the worker is idle."""
    del worker.runs[0]
    worker.expected_ns -= run.expected_ns
    worker.progress_ns = s.t.now_ns
    worker.stalled = False
    if worker.blocked:
        end_blocked(s, worker)
    if worker.runs:
        if not worker.is_open:
            dispatch.reopen(s, worker)
    elif not worker.retracting:
        dispatch.become_idle(s, worker)


def end_blocked(s: Step, worker: Worker) -> None:
    """The run ended while it was registered as blocked (interrupted in its get, its job over)."""
    key = (worker.id, worker.blocked)
    get = s.t.clients[worker.id].gets.get(worker.blocked)
    if key in s.t.resuming:
        s.t.resuming.remove(key)
    if get is not None:
        leave(s, get)
    worker.blocked = 0
    s.t.blocked_count -= 1
    resources.retake_cpu(s.t.pool, s.t.shapes[worker.shape].amounts)


def note_duration(template: Template, duration_ns: int) -> None:
    """A run of the template took so long."""
    template.duration_ns = moving_mean(template.duration_ns, duration_ns)


def moving_mean(mean_ns: int, duration_ns: int) -> int:
    """It rises fast and falls slowly: too deep a queue is the worse mistake. -1: none before."""
    duration_ns = max(duration_ns, 0)
    if mean_ns < 0:
        return duration_ns
    if duration_ns > mean_ns:
        return (mean_ns + duration_ns) >> 1
    return (mean_ns * 7 + duration_ns) >> 3


def _give_back(s: Step, m: RunFinished) -> None:
    """A report that changes nothing: drop the bytes and blocks it brought (PROTOCOL T2)."""
    s.count("stale")
    client = s.t.clients[m.client]
    for index, part in enumerate(m.returns):
        item = return_object(m.task, index)
        if part.in_block:
            block = client.blocks.pop(item, None)
            if block is not None and block.segment >= 0:
                places.free_block(s, block.segment, block.offset, block.size_bytes)
        else:
            row = s.t.objects.get(item)
            if row is None or row.state is PENDING or m.attempt:
                s.drops.append(value_key(item, m.attempt))


def on_runs_retracted(s: Step, m: RunsRetracted) -> None:
    """The last `count` runs sent are ours again; cancelled ones end, begun ones are interrupted."""
    worker = s.t.workers.get(m.client)
    if worker is None:
        s.count("stale")
        return
    worker.retracting = False
    _take_back(s, worker, min(m.count, len(worker.runs)))
    for run in worker.runs:
        task = s.t.tasks.get(run.task)
        if task is not None and task.cancelled and not run.interrupted:
            _interrupt(s, worker, run, task)
    if not worker.runs:
        dispatch.become_idle(s, worker)


def _take_back(s: Step, worker: Worker, count: int) -> None:
    """Requeue the last `count` runs, the last first, so that their order is kept.

    The worker received their messages, or will: it returns their grants and pins by itself.
    """
    for _ in range(count):
        run = worker.runs.pop()
        worker.expected_ns -= run.expected_ns
        worker.templates[run.template] -= 1
        worker.spent = False
        task = s.t.tasks.get(run.task)
        if task is not None and type(task.state) is Assigned:
            requeue(s, task)


# ------------------------------------------------------------------ loss


def on_worker_lost(s: Step, m: WorkerLost) -> None:
    """Requeue what the worker had not begun, charge what it had, end its waits and grants."""
    t = s.t
    worker = t.workers.pop(m.client, None)
    client = t.clients.get(m.client)
    if worker is None or client is None:
        s.count("stale")
        return
    client.connected = False
    forget_requests(client)
    t.starting.pop(m.client, None)
    if m.client in t.idle_since:
        del t.idle_since[m.client]
        t.idle[worker.lane].remove(m.client)
    for get in list(client.gets.values()):
        leave(s, get)
        key = (get.client, get.request)
        if key in t.resuming:
            t.resuming.remove(key)
    runs = worker.runs
    _take_back(s, worker, min(m.unclaimed, len(runs)))
    if worker.shape >= 0:
        amounts = t.shapes[worker.shape].amounts
        resources.give_back(t.pool, amounts, worker.units, except_cpu=bool(worker.blocked))
        dispatch.close_for_more(s, worker)
    if worker.blocked:
        t.blocked_count -= 1
    begun = [task for run in runs if (task := t.tasks.get(run.task)) is not None]
    for item in list(client.held or ()):
        objects.end_grants(s, t.objects[item], m.client)
    for task in begun:
        _charge(s, task, m)
    if not worker.ready:
        dispatch.note_start_failure(s, m.reason)
    elif not m.expected and not worker.leaving:
        s.count("workers lost")
        how = m.reason.partition("\n")[0]
        s.out.append(DumpRecorder(f"worker {m.client} (pid {client.pid}) {how}"))


def _charge(s: Step, task: Task, m: WorkerLost) -> None:
    """The attempt had begun and is lost; its orphaned children go first."""
    for child in task.children or ():
        orphan = s.t.tasks.get(child)
        if orphan is not None and not _is_referenced(s, orphan):
            # Not recursively: its own end asks the same of each of its children.
            cancel_task(s, orphan, force=True, recursive=False)
    task.children = None
    if can_retry(task):
        retry(s, task)
        return
    template = s.t.templates[task.template]
    pid = s.t.clients[m.client].pid
    failure = Failure.WORKER_CRASHED
    if "out-of-memory" in m.reason:
        failure = Failure.OUT_OF_MEMORY
    how, line_end, stack = m.reason.partition("\n")
    text = (
        f"the worker (pid {pid}) that ran {template.name} ({task.spec.task.hex()}) died:"
        f" {how}; attempt {task.attempt} of max_retries={template.max_retries}{line_end}{stack}"
    )
    if task.cancelled:
        text = f"{template.name} was cancelled with force: its worker (pid {pid}) died: {how}"
        failure = Failure.WORKER_CRASHED if task.forced else Failure.CANCELLED
    if task.owner != HERE:
        reports.report_lost(s, task, failure, text)
        end_task(s, task, template)
        return
    fail_task(s, task, failure, text)


def _is_referenced(s: Step, task: Task) -> bool:
    if task.owner != HERE:
        return False
    rows = s.t.objects
    count = s.t.templates[task.template].num_returns
    returns = [rows.get(return_object(task.spec.task, index)) for index in range(count)]
    return any(row is not None and objects.is_held(row) for row in returns)


def forget_requests(client: Client) -> None:
    """The connection is gone: blocks it still waits for need not be found (granted ones stay)."""
    client.blocks = {item: block for item, block in client.blocks.items() if block.segment >= 0}


def release_process(s: Step, client: ClientID) -> None:
    """The process and its forks are gone: end its pins and unsealed blocks, forget it."""
    row = s.t.clients.get(client)
    if row is None:
        return
    for item, count in list(row.pins.items()):
        objects.unpin(s, s.t.objects[item], client, count)
    for block in row.blocks.values():
        if block.segment >= 0:
            places.free_block(s, block.segment, block.offset, block.size_bytes)
    row.blocks = {}
    s.t.block_queue = [key for key in s.t.block_queue if key[0] != client]


# ------------------------------------------------------------------ cancel


def on_cancel_requested(s: Step, m: CancelRequested) -> None:
    """Cancel the producer of an object; done, put and unknown ones are left alone."""
    row: Object | None = s.t.objects.get(m.object)
    if row is None or is_put(m.object):
        return
    task = s.t.tasks.get(task_of(m.object))
    if task is not None:
        cancel_task(s, task, force=m.force, recursive=m.recursive)


def cancel_task(s: Step, task: Task, *, force: bool, recursive: bool) -> None:
    """Cancel a task wherever it is; iterative over its descendants."""
    queue = [task]
    for item in queue:
        if recursive:
            for child in item.children or ():
                row = s.t.tasks.get(child)
                if row is not None:
                    queue.append(row)
        _cancel_one(s, item, force=force, recursive=recursive)


def _cancel_one(s: Step, task: Task, *, force: bool, recursive: bool) -> None:
    state = task.state
    if type(state) is Delivered and task.spec.task in s.t.tasks:
        task.cancelled = True
        task.cancelled_below = task.cancelled_below or recursive
        task.forced = task.forced or force
        node = NodeID(state.node)
        tell(s, node, RunCancelled, task.spec.task, task.attempt, force, recursive)
        return
    if type(state) is not Assigned:
        if task.spec.task in s.t.tasks:
            fail_task(s, task, Failure.CANCELLED, "cancelled before it began")
        return
    task.cancelled = True
    task.cancelled_below = task.cancelled_below or recursive
    task.forced = task.forced or force
    worker = s.t.workers[ClientID(state.worker)]
    if worker.retracting or worker.leaving:
        return
    # Which runs have begun only the kernel knows: take back all that have not, then look.
    retract(s, worker, len(worker.runs))
    if not worker.retracting:
        for run in worker.runs:
            if run.task == task.spec.task:
                _interrupt(s, worker, run, task)


def _interrupt(s: Step, worker: Worker, run: Run, task: Task) -> None:
    run.interrupted = True
    if task.forced:
        worker.leaving = True
        dispatch.close_for_more(s, worker)
        s.out.append(KillWorker(worker.id))
    else:
        s.out.append(InterruptRun(worker.id, run.task, run.attempt))
