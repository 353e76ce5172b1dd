"""Deadlocks: proven cycles among blocked runs, told apart from mere waiting.

Rule (PROTOCOL N10, N20): a run blocked in `get` gives back CPU only. Runs that hold devices or
custom resources can therefore wait for each other; so can runs that wait for each other's results.
When no run of the node can go on and nothing is under way that could change that (or now and then
while others do go on), what can still finish is computed to a fixed point; the blocked gets that
are left can never be answered. The youngest of them fails with the cycle as its text, which frees
what it held. What may still leave this node (`placing.may_leave`) is not judged here: what is free
elsewhere, and who may join, the head knows (`waits.py`).
"""

from __future__ import annotations

from detray.core import placing, resources, waits
from detray.core.gets import fail_get
from detray.core.resources import format_demand
from detray.core.states import PENDING, Assigned, Delivered, Fetching, Placing
from detray.core.step import Step
from detray.core.tables import HERE, Get, Task, Worker
from detray.errors import Failure
from detray.ids import ClientID, ObjectID, TaskID, task_of

CYCLE_LINES_MAX = 12
FEW_TASKS = 20_000
"""With more tasks the search runs less often: it looks at all of them."""


def resolve(s: Step) -> None:
    """Fail the youngest blocked get of a proven deadlock, if there is one."""
    t = s.t
    if t.deadlock_ns and t.now_ns < t.deadlock_ns and not _is_quiet(s):
        return
    if not t.blocked_count:
        t.deadlock_ns = 0
        return
    few = len(t.tasks) <= FEW_TASKS
    t.deadlock_ns = t.now_ns + t.config.policy.deadlock_check_ns * (1 if few else 20)
    stuck = _never_answered(s)
    if stuck:
        youngest = max(stuck, key=lambda get: get.number)
        fail_get(s, youngest, Failure.DEADLOCK, _describe(s, youngest, stuck))
        s.count("deadlocks")
    else:
        waits.notice_stall(s)


def _is_quiet(s: Step) -> bool:
    """True if no run goes on and nothing is under way: a deadlock need not wait for the timer."""
    t = s.t
    if t.resuming or t.starting or t.moves or t.block_queue or t.start_retry_ns > t.now_ns:
        return False
    return not any(w.retracting or (w.runs and not w.blocked) for w in t.workers.values())


def _never_answered(s: Step) -> list[Get]:
    """The blocked gets that nothing on this node will ever answer.

    Runs that go on are taken to finish and to give back what they hold.
    """
    t = s.t
    free = list(t.pool.available)
    done: dict[TaskID, None] = {}
    gets = {}
    open_workers = []
    for worker in t.workers.values():
        if worker.blocked and (worker.id, worker.blocked) not in t.resuming:
            gets[worker.id] = t.clients[worker.id].gets[worker.blocked]
            open_workers.append(worker)
        elif worker.runs:
            _finish(s, worker, free, done)
    while True:
        before = len(done), len(open_workers)
        for worker in list(open_workers):
            if _can_answer(s, gets[worker.id], done):
                open_workers.remove(worker)
                _finish(s, worker, free, done)
        has_process = len(open_workers) < max(len(t.workers), t.config.policy.workers_max)
        for task in t.tasks.values():
            if task.spec.task not in done and _can_run(s, task, free, done, has_process):
                done[task.spec.task] = None
        if (len(done), len(open_workers)) == before:
            return [gets[worker.id] for worker in open_workers]


def _finish(s: Step, worker: Worker, free: list[int], done: dict[TaskID, None]) -> None:
    """Suppose that a worker ends all its runs."""
    for run in worker.runs:
        done[run.task] = None
    for index, amount in s.t.shapes[worker.shape].amounts:
        if index > resources.CPU:
            free[index] += amount


def _can_answer(s: Step, get: Get, done: dict[TaskID, None]) -> bool:
    if get.deadline_ns >= 0:
        return True
    coming = 0
    for item in get.objects:
        if _can_come(s, item, done):
            coming += 1
            if get.fail_fast and _is_pending(s, item):
                return True  # it may still fail, which answers the get as well
    return coming >= get.needed


def _can_come(s: Step, item: ObjectID, done: dict[TaskID, None]) -> bool:
    return not _is_pending(s, item) or task_of(item) in done or _is_foreign(s, item)


def _is_foreign(s: Step, item: ObjectID) -> bool:
    """True for another node's object: whether its value can come is not known here."""
    row = s.t.objects[item]
    return row.shared is not None and row.shared.home != HERE


def _is_pending(s: Step, item: ObjectID) -> bool:
    row = s.t.objects.get(item)
    return row is not None and row.state is PENDING


def _can_run(
    s: Step, task: Task, free: list[int], done: dict[TaskID, None], has_process: bool
) -> bool:
    """True if the task's arguments can come and its demand can be met some time."""
    t = s.t
    if type(task.state) is Placing:
        return True  # a node that can run it may join
    if isinstance(task.state, Delivered | Fetching):
        return True  # other nodes have the word: no cycle is proven from here alone
    if type(task.state) is Assigned:
        begun = t.workers[ClientID(task.state.worker)].runs[0]
        if begun.task == task.spec.task:
            return False
        # Pre-sent behind a run that is blocked: it is on its way back (PROTOCOL N11).
    if not all(_can_come(s, ref, done) for ref in task.spec.args):
        return False
    if placing.may_leave(s, task):
        return True  # the head will be asked, who knows what is free elsewhere, and who may join
    shape = t.shapes[t.templates[task.template].shape]
    # CPU and slots come back whenever runs block or finish; only what blocked runs keep can lack.
    fits = all(free[index] >= amount for index, amount in shape.amounts if index > resources.CPU)
    return has_process and fits


def _describe(s: Step, youngest: Get, stuck: list[Get]) -> str:
    t = s.t
    lines = []
    for get in stuck[:CYCLE_LINES_MAX]:
        run = t.workers[get.worker].runs[0]
        holds = t.shapes[t.workers[get.worker].shape].demand
        kept = tuple(part for part in holds if part[0] != "CPU")
        line = f"  {t.templates[run.template].name} ({run.task.hex()}) waits in get"
        if kept:
            line += f", holding {format_demand(kept)},"
        missing = next((i for i in get.objects if _is_pending(s, i)), None)
        if missing is not None:
            line += f" for {missing.hex()}{_producer(s, missing)}"
        lines.append(line)
    if len(stuck) > CYCLE_LINES_MAX:
        lines.append(f"  and {len(stuck) - CYCLE_LINES_MAX} more")
    name = t.templates[t.workers[youngest.worker].runs[0].template].name
    return (
        f"deadlock: these runs wait for each other and none can go on; the get in {name} fails"
        " because it began last:\n" + "\n".join(lines)
    )


def _producer(s: Step, item: ObjectID) -> str:
    task = s.t.tasks.get(task_of(item))
    if task is None:
        return ""
    template = s.t.templates[task.template]
    state = type(task.state).__name__.lower()
    return f" of {template.name}, which is {state} and asks for {format_demand(template.demand)}"
