"""Dispatch: which ready task goes to which worker, when workers start, when pre-sent runs return.

Rules (PROTOCOL N10, N11, T11, D 33, 34)
----------------------------------------
- Jobs whose tasks are ready take turns (`shares.py`), each turn an allocation with what a pipeline
  takes. One job alone is not held up by this.
- Within a job ready tasks are ordered by (deeper first, submission); a shape that does not fit
  now lets later ones pass, but not for ever: passed over too often it reserves what it needs,
  unless a blocked run could be waiting for what would be held back.
- A worker holds one allocation; runs of the same shape are pre-sent behind the running one for
  about `pipeline_ns` of expected work, idle workers first. Unknown functions are never pre-sent.
- A worker that finished nothing for `stall_check_ns` gives back what it has not begun.
"""

from __future__ import annotations

from detray.core import notices, objects, resources, shares
from detray.core.effects import (
    DefineFunction,
    DefineTemplate,
    ExitWorker,
    Place,
    RunTask,
    StartWorker,
)
from detray.core.gets import retract
from detray.core.lifecycle import move_task
from detray.core.placing import release_arguments
from detray.core.states import READY, Assigned
from detray.core.step import Step
from detray.core.tables import WORKER, Client, Run, Shape, Task, Template, Worker
from detray.core.tasks import fail_task
from detray.errors import Failure
from detray.ids import ClientID, JobNumber


def dispatch(s: Step) -> None:
    """Send ready tasks to workers until resources, workers or tasks run out."""
    t = s.t
    waiting = [shape for shape in t.shapes if shape.count]
    if not waiting:
        if t.shares:
            t.shares, t.share = {}, 0
        return
    if len(waiting) > 1:
        waiting.sort(key=lambda shape: _precedence(s, shape))
        job = waiting[0].lane >> 1
        if any(shape.lane >> 1 != job for shape in waiting):
            _dispatch_in_turn(s, waiting)
            return
    if t.shares:
        t.shares, t.share = {}, 0
    wanted: dict[int, int] = {}
    starved = False
    for rank, shape in enumerate(waiting):
        before = shape.count
        if not starved:
            _serve(s, shape, wanted, first=rank == 0)
        if shape.count == before:
            shape.passed_over += 1
            starved = starved or _is_starved(s, shape, wanted)
        else:
            shape.passed_over = 0
    for lane, count in wanted.items():
        _start_workers(s, lane, count)


def _dispatch_in_turn(s: Step, waiting: list[Shape]) -> None:
    """As `dispatch`, where several jobs wait: they take turns, each turn one allocation.

    A worker is sent as much as its pipeline takes, and charged for, when it gets its allocation;
    after that nothing more before it has given it back, or the first job would never let go.
    """
    t = s.t
    wanted: dict[int, int] = {}
    jobs: dict[JobNumber, list[Shape]] = {}
    before: dict[int, int] = {}
    for shape in waiting:
        jobs.setdefault(job_of_lane(shape.lane), []).append(shape)
        before[shape.number] = shape.count
    if not t.shares:
        shares.begin(t.shares, _held_cpu(s))
    shares.join(t.shares, t.share, jobs)
    starved = False
    while jobs and not starved:
        job = shares.choose(t.shares, jobs)
        shape = jobs[job][0]
        if shape.count and _serve_turn(s, shape, wanted):
            continue
        del jobs[job][0]
        if shape.count == before[shape.number]:
            starved = _is_starved(s, shape, wanted)
        if not jobs[job]:
            del jobs[job]
    is_passed = starved or any(shape.count < before[shape.number] for shape in waiting)
    for shape in waiting:
        if shape.count < before[shape.number]:
            shape.passed_over = 0
        elif is_passed:
            shape.passed_over += 1
    for lane, count in wanted.items():
        _start_workers(s, lane, count)


def _held_cpu(s: Step) -> dict[JobNumber, int]:
    """What the runs of each job hold: who has something in hand does not go first."""
    held: dict[JobNumber, int] = {}
    for worker in s.t.workers.values():
        if worker.shape >= 0:
            job = job_of_lane(worker.lane)
            cpu = resources.cpu_of(s.t.shapes[worker.shape].amounts)
            held[job] = held.get(job, 0) + max(cpu, shares.LEAST)
    return held


def _serve_turn(s: Step, shape: Shape, wanted: dict[int, int]) -> bool:
    """One allocation for a shape, with what its pipeline takes; False if there can be none now."""
    t = s.t
    idle = t.idle.get(shape.lane)
    has_room = resources.has_room(t.pool, shape.amounts)
    if not idle:
        if has_room:
            fitting = resources.count_fitting(t.pool, shape.amounts, shape.count)
            wanted[shape.lane] = wanted.get(shape.lane, 0) + fitting
        elif not any(worker.lane == shape.lane for worker in t.workers.values()):
            # Its turn would come, and find nobody to take it.
            wanted[shape.lane] = 1
        return False
    task = _pop(s, shape) if has_room else None
    if task is None:
        return False
    worker = _allocate(s, shape, task, idle)
    sent = 1
    if t.templates[task.template].duration_ns >= 0 and shape.count:
        open_for_more(s, worker)
        sent += _fill(s, shape, worker, shape.count // len(idle) + 1 if idle else shape.count)
        if sent > 1 and not t.stall_ns:
            t.stall_ns = t.now_ns + t.config.policy.stall_check_ns
    t.share = shares.charge(t.shares, job_of_lane(shape.lane), shape.demand, sent)
    return True


def _allocate(s: Step, shape: Shape, task: Task, idle: list[ClientID]) -> Worker:
    """Give an idle worker what the shape asks for, and the task to begin with."""
    t = s.t
    worker = t.workers[idle.pop()]
    t.idle_since.pop(worker.id, None)
    worker.shape = shape.number
    worker.units = resources.take(t.pool, shape.amounts)
    worker.progress_ns = t.now_ns
    _send(s, worker, task, t.templates[task.template])
    return worker


def _precedence(s: Step, shape: Shape) -> tuple[int, int]:
    task = _peek(s, shape)
    if task is None:
        return (1, shape.number)
    return (-task.spec.depth, task.number)


def _is_starved(s: Step, shape: Shape, wanted: dict[int, int]) -> bool:
    """True if what is left must be kept for this shape: nothing later may be dispatched."""
    return (
        shape.passed_over > s.t.config.policy.starvation_passes
        and not s.t.blocked_count
        and shape.lane not in wanted
    )


def _serve(s: Step, shape: Shape, wanted: dict[int, int], *, first: bool) -> None:
    """Dispatch from one shape: fresh allocations on idle workers, then behind running ones."""
    t = s.t
    idle = t.idle.get(shape.lane)
    while shape.count and resources.has_room(t.pool, shape.amounts):
        if not idle:
            fitting = resources.count_fitting(t.pool, shape.amounts, shape.count)
            wanted[shape.lane] = wanted.get(shape.lane, 0) + fitting
            break
        task = _pop(s, shape)
        if task is None:
            return
        worker = _allocate(s, shape, task, idle)
        if not shape.count:
            return
        if t.templates[task.template].duration_ns >= 0:
            open_for_more(s, worker)
    if first and shape.count:
        _fill_pipelines(s, shape)


def _fill_pipelines(s: Step, shape: Shape) -> None:
    """Pre-send to busy workers that hold an allocation of this shape, round robin."""
    t = s.t
    queue = t.open_workers.get(shape.number)
    sent = 0
    while queue and shape.count:
        share = shape.count // len(queue) + 1
        worker = t.workers[queue[0]]
        count = _fill(s, shape, worker, share)
        sent += count
        if count == share and len(queue) > 1:
            queue.append(queue.pop(0))
        elif shape.count:
            del queue[0]
            worker.is_open = False
    if sent and not t.stall_ns:
        t.stall_ns = t.now_ns + t.config.policy.stall_check_ns


def _fill(s: Step, shape: Shape, worker: Worker, share: int) -> int:
    """Pre-send up to `share` of the deepest ready tasks to one worker while it has room; how many.

    The inner loop of dispatch: what `_peek` and `_advance` do, over one list.
    """
    if worker.blocked or worker.retracting or worker.leaving or worker.stalled:
        return 0
    if _peek(s, shape) is None:
        return 0
    tasks, templates, policy = s.t.tasks, s.t.templates, s.t.config.policy
    depth = max(shape.ready)
    queue, head = shape.ready[depth], shape.heads[depth]
    budget_ns = policy.pipeline_ns - worker.expected_ns
    room = min(share, policy.pipeline_depth_max - len(worker.runs), len(queue) - head)
    sent = 0
    while sent < room and not worker.spent and head < len(queue):
        task = tasks.get(queue[head])
        head += 1
        if task is None or task.state is not READY:
            continue
        template = templates[task.template]
        expected_ns = template.duration_ns
        if not 0 <= expected_ns <= budget_ns:
            head -= 1
            break
        budget_ns -= expected_ns
        sent += 1
        _send(s, worker, task, template)
    shape.heads[depth] = head
    shape.count -= sent
    return sent


def open_for_more(s: Step, worker: Worker) -> None:
    """The worker made progress: it may be offered further runs of its shape."""
    if not worker.is_open and worker.runs and not worker.leaving:
        worker.is_open = True
        s.t.open_workers.setdefault(worker.shape, []).append(worker.id)


def reopen(s: Step, worker: Worker) -> None:
    """A run of several ended: take more once half of the queue is gone.

    Filling up after each single run would cost a frame and a token write for each.
    """
    policy = s.t.config.policy
    if (
        len(worker.runs) * 2 <= policy.pipeline_depth_max
        and worker.expected_ns * 2 <= policy.pipeline_ns
    ):
        open_for_more(s, worker)


def close_for_more(s: Step, worker: Worker) -> None:
    """The worker loses its allocation: nothing of that shape may follow."""
    if worker.is_open:
        worker.is_open = False
        s.t.open_workers[worker.shape].remove(worker.id)


def _peek(s: Step, shape: Shape) -> Task | None:
    """The shape's next task (deepest, then oldest), past stale entries; None if there is none."""
    tasks = s.t.tasks
    ready = shape.ready
    while ready:
        depth = max(ready) if len(ready) > 1 else next(iter(ready))
        queue, head = ready[depth], shape.heads[depth]
        while head < len(queue):
            task = tasks.get(queue[head])
            if task is not None and task.state is READY:
                shape.heads[depth] = head
                return task
            head += 1
        del shape.ready[depth], shape.heads[depth]
    return None


def _pop(s: Step, shape: Shape) -> Task | None:
    """Take the task that `_peek` shows."""
    task = _peek(s, shape)
    if task is not None:
        _advance(shape, task.spec.depth)
        shape.moved_ns = s.t.now_ns
    return task


def _advance(shape: Shape, depth: int) -> None:
    """Step over the task that `_peek` showed."""
    head = shape.heads[depth] + 1
    if head >= 4096 and head * 2 > len(shape.ready[depth]):
        del shape.ready[depth][:head]
        head = 0
    shape.heads[depth] = head
    shape.count -= 1


def _send(s: Step, worker: Worker, task: Task, template: Template) -> None:
    """Hand the task to the worker, teaching it first what it does not know."""
    spec = task.spec
    number = template.number
    calls = worker.templates.get(number)
    if calls is None:
        _teach(s, worker, template)
        calls = 0
    worker.templates[number] = calls + 1
    if template.max_calls and calls + 1 >= template.max_calls:
        worker.spent = True
    expected = template.duration_ns if template.duration_ns > 0 else 0
    worker.runs.append(Run(spec.task, task.attempt, number, expected))
    worker.expected_ns += expected
    s.t.halted_ns = 0
    move_task(task, Assigned(worker.id))
    args: tuple[Place, ...] = ()
    if spec.args:
        if task.away is not None:
            release_arguments(s, task)
        args = tuple([objects.place_of(s, ref, worker.id, fetch=True) for ref in spec.args])
    refs = objects.grant_all(s, spec.refs, worker.id) if spec.refs else ()
    if not (args or refs or worker.units):
        run = RunTask(
            worker.id, spec.task, task.attempt, template.number, spec.depth, spec.size_bytes
        )
    else:
        run = RunTask(
            worker.id, spec.task, task.attempt, template.number, spec.depth, spec.size_bytes,
            args, refs, spec.packed, worker.units,
        )  # fmt: skip
    s.out.append(run)


def _teach(s: Step, worker: Worker, template: Template) -> None:
    function = s.t.functions[template.function]
    if function.id not in worker.functions:
        worker.functions[function.id] = None
        refs = objects.grant_all(s, function.refs, worker.id)
        s.out.append(
            DefineFunction(worker.id, function.id, function.name, function.size_bytes, refs)
        )
    s.out.append(
        DefineTemplate(
            worker.id,
            template.number,
            template.function,
            template.name,
            template.num_returns,
            template.demand,
            template.retry_application_errors,
            template.size_bytes,
        )
    )


# ------------------------------------------------------------------ workers come and go


def job_of_lane(lane: int) -> JobNumber:
    """A lane is (job, whether its runs hold GPUs): workers are never shared across lanes."""
    return JobNumber(lane >> 1)


def _start_workers(s: Step, lane: int, wanted: int) -> None:
    """Order as many processes as could be used now, within the limits on starting."""
    t = s.t
    policy = t.config.policy
    if t.start_retry_ns > t.now_ns:
        return
    wanted -= sum(1 for worker in t.starting if t.workers[worker].lane == lane)
    room = min(policy.worker_starts_max - len(t.starting), policy.workers_max - len(t.workers))
    for _ in range(min(wanted, room)):
        start_worker(s, lane)


def start_worker(s: Step, lane: int) -> None:
    """Order one worker process."""
    t = s.t
    worker = ClientID(t.next_worker)
    t.next_worker += 1
    job = job_of_lane(lane)
    t.workers[worker] = Worker(worker, lane, progress_ns=t.now_ns, started_ns=t.now_ns)
    t.clients[worker] = Client(worker, WORKER, job=job, held={})
    t.starting[worker] = None
    s.out.append(StartWorker(worker, job))


def become_idle(s: Step, worker: Worker) -> None:
    """The worker has nothing to do: give back its allocation, retire it or keep it."""
    t = s.t
    if worker.shape >= 0:
        amounts = t.shapes[worker.shape].amounts
        resources.give_back(t.pool, amounts, worker.units, except_cpu=bool(worker.blocked))
        close_for_more(s, worker)
        worker.shape, worker.units = -1, ()
    if worker.leaving:
        return
    if worker.spent:
        retire(s, worker)
        return
    t.idle.setdefault(worker.lane, []).append(worker.id)
    t.idle_since[worker.id] = t.now_ns
    if not t.idle_ns:
        t.idle_ns = t.now_ns + t.config.policy.idle_worker_ns


def retire(s: Step, worker: Worker) -> None:
    """Tell an idle worker to leave."""
    worker.leaving = True
    s.out.append(ExitWorker(worker.id))


def retire_idle(s: Step) -> None:
    """End workers beyond the node's CPUs that were idle long enough (Ray's soft limit)."""
    t = s.t
    if not t.idle_ns or t.now_ns < t.idle_ns:
        return
    t.idle_ns = 0
    limit = max(1, -(-t.pool.total[resources.CPU] // resources.UNIT))
    excess = sum(not w.blocked and not w.leaving for w in t.workers.values()) - limit
    patience = t.config.policy.idle_worker_ns
    for lane_idle in t.idle.values():
        while lane_idle and excess > 0:
            worker = t.workers[lane_idle[0]]
            due = t.idle_since[worker.id] + patience
            if due > t.now_ns:
                t.idle_ns = min(due, t.idle_ns) if t.idle_ns else due
                break
            del lane_idle[0]
            del t.idle_since[worker.id]
            retire(s, worker)
            excess -= 1


def check_stalls(s: Step) -> None:
    """Take back what waits behind a run that is longer than expected."""
    t = s.t
    if not t.stall_ns or t.now_ns < t.stall_ns:
        return
    t.stall_ns = 0
    patience = t.config.policy.stall_check_ns
    for worker in t.workers.values():
        if len(worker.runs) < 2 or worker.retracting:
            continue
        due = worker.progress_ns + patience
        if due <= t.now_ns:
            worker.stalled = True
            retract(s, worker, len(worker.runs) - 1)
        else:
            t.stall_ns = min(due, t.stall_ns) if t.stall_ns else due


def note_start_failure(s: Step, reason: str) -> None:
    """A worker could not be started: wait, longer each time; give up when nothing else runs."""
    t = s.t
    t.start_failures += 1
    if t.start_failures == 2:
        # Once may be an accident; of a series the user hears while it is still going on.
        for job in {client.job: None for client in t.clients.values() if client.job}:
            text = f"worker processes fail to start: {reason}"
            notices.notify(s, job, "warning", "worker", text)
    t.start_retry_ns = t.now_ns + min(100_000_000 << min(t.start_failures, 6), 5_000_000_000)
    if t.start_failures < 5 or any(w.ready and not w.blocked for w in t.workers.values()):
        return
    for shape in t.shapes:
        while (task := _peek(s, shape)) is not None:
            name = t.templates[task.template].name
            text = f"no worker process could be started for {name}: {reason}"
            fail_task(s, task, Failure.START_FAILED, text)
