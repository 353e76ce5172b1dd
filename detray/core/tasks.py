"""Tasks: submission, dependencies, readiness, and their end.

A task starts when all its top-level references are available (`Task.missing` counts those that are
not) and fails at once when one of them failed. What it takes it holds until it is done: top-level
and nested references as `Object.uses`. A demand this node can never meet is put to the head.
"""

from __future__ import annotations

from msgspec.structs import replace

from detray.core import objects
from detray.core.effects import CopyPayload, FailRequest
from detray.core.head_messages import (
    DemandInfeasible,
    Placed,
    PlacementRequested,
    PlacementWithdrawn,
)
from detray.core.lifecycle import move_task
from detray.core.payloads import template_number
from detray.core.states import PENDING, READY, WAITING, Assigned, Failed, Placing
from detray.core.step import Step
from detray.core.stimuli import (
    TaskSubmitted,
)
from detray.core.tables import Object, Shape, Task, Template
from detray.errors import Failure
from detray.ids import ClientID, ObjectID, TaskID, first_return, job_of, return_object


def on_task_submitted(s: Step, m: TaskSubmitted) -> None:
    """Enter a task, its returns and its dependencies."""
    t = s.t
    client, name = m.client, m.task
    template = t.templates.get(template_number(client, m.template))
    if template is None or name in t.tasks or not _create_returns(s, name, client, template):
        reason = "the task is already there" if template else f"no template {m.template}"
        s.out.append(FailRequest(client, f"TaskSubmitted {name.hex()}", reason))
        return
    t.next_number = number = t.next_number + 1
    if client < 0 and not (m.args or m.refs):
        shape = t.shapes[template.shape]
        if shape.feasible:
            # Most submissions: nothing to wait for, nobody above it.
            t.tasks[name] = Task(m, template.number, number, READY, template.max_retries)
            push_ready(shape, m.depth, name)
            return
    task = t.tasks[name] = Task(m, template.number, number, WAITING, template.max_retries)
    failed = _take_arguments(s, task) if m.args or m.refs else None
    if client > 0 and _join_parent(s, task):
        fail_task(s, task, Failure.CANCELLED, CANCELLED_PARENT)
    elif failed is not None:
        fail_task_like(s, task, failed)
    elif not task.missing:
        make_ready(s, task, template)


def _create_returns(s: Step, task: TaskID, client: ClientID, template: Template) -> bool:
    """The task's returns as pending objects; False, and none of them, if one is there already."""
    rows = s.t.objects
    if template.num_returns == 1:
        item = first_return(task)
        if item in rows:
            return False
        rows[item] = Object(item, PENDING, client, 1)
        if client > 0:
            objects.note_held(s, client, item)
        return True
    returns = [return_object(task, index) for index in range(template.num_returns)]
    if not rows.keys().isdisjoint(returns):
        return False
    for item in returns:
        objects.create(s, item, client)
    return True


CANCELLED_PARENT = "the task that submitted it was cancelled recursively"


def _join_parent(s: Step, task: Task) -> bool:
    """List the task as its parent's child; True if it is born cancelled."""
    parent = s.t.tasks.get(task.spec.parent)
    if parent is None or parent is task:
        return False
    if parent.children is None:
        parent.children = []
    parent.children.append(task.spec.task)
    return parent.cancelled_below


def _take_arguments(s: Step, task: Task) -> ObjectID | None:
    """Hold what the task takes and count what is missing; the first failed argument, if any."""
    rows = s.t.objects
    failed = None
    for ref in task.spec.args:
        row = rows.get(ref)
        if row is None:
            failed = failed or ref
            continue
        row.uses += 1
        if row.state is PENDING:
            row.takers += (task.spec.task,)
            task.missing += 1
        elif type(row.state) is Failed:
            failed = failed or ref
    known = [ref for ref in task.spec.refs if ref in rows]
    for ref in known:
        rows[ref].uses += 1
    if len(known) < len(task.spec.refs):
        # What is unknown now is not held, so it must not be let go of either.
        task.spec = replace(task.spec, refs=tuple(known))
    return failed


def wake_takers(s: Step, row: Object) -> None:
    """An object became available: tell the tasks that wait for it."""
    takers, row.takers = row.takers, ()
    failed = type(row.state) is Failed
    for taker in takers:
        task = s.t.tasks.get(taker)
        if task is None:
            continue
        if failed:
            fail_task_like(s, task, row.id)
            continue
        task.missing -= 1
        if not task.missing and task.state is WAITING:
            make_ready(s, task, s.t.templates[task.template])


def make_ready(s: Step, task: Task, template: Template) -> None:
    """All arguments are here: queue it, or ask the head if it can never run here."""
    shape = s.t.shapes[template.shape]
    if shape.feasible:
        move_task(task, READY)
        spec = task.spec
        push_ready(shape, spec.depth, spec.task)
        return
    move_task(task, Placing(s.t.now_ns))
    s.t.placing[task.spec.task] = None
    s.to_head(
        PlacementRequested(
            s.next_link_seq(),
            s.t.node,
            task.spec.task,
            task.attempt,
            template.name,
            template.demand,
        )
    )


def push_ready(shape: Shape, depth: int, task: TaskID) -> None:
    """Behind all of its depth."""
    queue = shape.ready.get(depth)
    if queue is None:
        queue = shape.ready[depth] = []
        shape.heads[depth] = 0
    queue.append(task)
    shape.count += 1


def push_ready_front(shape: Shape, depth: int, task: TaskID) -> None:
    """Before all of its depth: it came back from a worker."""
    queue = shape.ready.setdefault(depth, [])
    head = shape.heads.setdefault(depth, 0)
    if head:
        shape.heads[depth] = head - 1
        queue[head - 1] = task
    else:
        queue.insert(0, task)
    shape.count += 1


def requeue(s: Step, task: Task) -> None:
    """From a worker back to the front of the ready queue; a cancelled one ends here."""
    move_task(task, READY)
    template = s.t.templates[task.template]
    push_ready_front(s.t.shapes[template.shape], task.spec.depth, task.spec.task)
    if task.cancelled:
        fail_task(s, task, Failure.CANCELLED, "cancelled before it began")


def retry(s: Step, task: Task) -> None:
    """Open the next attempt, charging the budget."""
    task.attempt += 1
    if task.retries > 0:
        task.retries -= 1
    s.count("retried")
    requeue(s, task)


def can_retry(task: Task) -> bool:
    """True while the retry budget lasts; -1 is for ever."""
    return task.retries != 0 and not task.cancelled


def fail_task(s: Step, task: Task, failure: Failure, text: str) -> None:
    """End the task; its returns fail for a reason that the core itself knows."""
    template = s.t.templates[task.template]
    state = Failed(failure, text)
    for index in range(template.num_returns):
        row = s.t.objects[return_object(task.spec.task, index)]
        objects.seal(s, row, state)
    s.count("cancelled" if failure == Failure.CANCELLED else "failed")
    end_task(s, task, template)


def fail_task_like(s: Step, task: Task, argument: ObjectID) -> None:
    """End the task; its returns fail as the argument did, with the same error inside."""
    source = s.t.objects.get(argument)
    if source is None:
        fail_task(s, task, Failure.OBJECT_LOST, f"argument {argument.hex()}: {objects.LOST_TEXT}")
        return
    assert type(source.state) is Failed
    template = s.t.templates[task.template]
    for index in range(template.num_returns):
        row = s.t.objects[return_object(task.spec.task, index)]
        if source.state.size_bytes:
            s.out.append(CopyPayload(argument, row.id))
        objects.seal(s, row, source.state, source.refs)
    s.count("failed")
    end_task(s, task, template)


def end_task(s: Step, task: Task, template: Template) -> None:
    """The task is done, well or badly: it holds nothing any more and leaves the table."""
    spec = task.spec
    state = task.state
    if type(state) is Assigned:
        pass
    elif state is READY:
        s.t.shapes[template.shape].count -= 1
    elif type(state) is Placing:
        s.t.placing.pop(spec.task, None)
        s.to_head(PlacementWithdrawn(s.next_link_seq(), s.t.node, spec.task, task.attempt))
    elif state is WAITING and task.missing:
        _leave_takers(s, spec)
    del s.t.tasks[spec.task]
    if spec.args:
        objects.drop_uses(s, spec.args)
    if spec.refs:
        objects.drop_uses(s, spec.refs)
    if spec.size_bytes:
        s.drops.append(spec.task)


def _leave_takers(s: Step, spec: TaskSubmitted) -> None:
    for ref in spec.args:
        row = s.t.objects.get(ref)
        if row is not None and spec.task in row.takers:
            row.takers = tuple(taker for taker in row.takers if taker != spec.task)


# ------------------------------------------------------------------ placement by the head


def on_placed(s: Step, m: Placed) -> None:
    """The head named a node; with one node that is this one, once its totals suffice."""
    task = s.t.tasks.get(m.task)
    if task is None or task.attempt != m.attempt or type(task.state) is not Placing:
        s.count("stale")
        return
    assert m.node == s.t.node, "placement on another node before nodes can talk"
    s.t.placing.pop(m.task, None)
    move_task(task, READY)
    push_ready(s.t.shapes[s.t.templates[task.template].shape], task.spec.depth, m.task)


def on_demand_infeasible(s: Step, m: DemandInfeasible) -> None:
    """No node can run it as the cluster stands: fail it, or wait and report (PROTOCOL N20)."""
    task = s.t.tasks.get(m.task)
    if task is None or task.attempt != m.attempt or type(task.state) is not Placing:
        s.count("stale")
        return
    if s.t.config.infeasible == "raise":
        fail_task(s, task, Failure.INFEASIBLE, _infeasible_text(s, task, m.offers))
        return
    move_task(task, Placing(task.state.asked_ns, m.offers))
    due = task.state.asked_ns + s.t.config.policy.infeasible_grace_ns
    s.t.infeasible_ns = min(due, s.t.infeasible_ns) if s.t.infeasible_ns else due


def report_infeasible(s: Step) -> None:
    """Report demands that have waited for a node longer than the grace period, once for each."""
    t = s.t
    if not t.infeasible_ns or t.now_ns < t.infeasible_ns:
        return
    t.infeasible_ns = 0
    grace = t.config.policy.infeasible_grace_ns
    for item in t.placing:
        task = t.tasks[item]
        state = task.state
        if type(state) is not Placing or state.offers is None or state.reported:
            continue
        due = state.asked_ns + grace
        if due > t.now_ns:
            t.infeasible_ns = min(due, t.infeasible_ns) if t.infeasible_ns else due
            continue
        move_task(task, Placing(state.asked_ns, state.offers, True))
        key = (job_of(item), t.templates[task.template].demand)
        if key not in t.reported:
            t.reported.append(key)
            text = _infeasible_text(s, task, state.offers)
            hint = (
                " It waits until such a node joins; init(infeasible='raise') makes this an error."
            )
            s.notify(key[0], "warning", "infeasible", text + hint)


def _infeasible_text(s: Step, task: Task, offers: tuple[tuple[str, int], ...]) -> str:
    template = s.t.templates[task.template]
    return (
        f"task {template.name} ({task.spec.task.hex()}) asks for {format_demand(template.demand)},"
        f" and no node of this cluster can ever meet that: the largest has {format_demand(offers)}."
    )


def format_demand(demand: tuple[tuple[str, int], ...]) -> str:
    """A demand as users write it: {CPU: 0.5, GPU: 1}; whole bytes for memory."""
    parts = []
    for name, amount in demand:
        whole, rest = divmod(amount, 10_000)
        text = str(whole) if not rest else f"{whole}.{rest:04d}".rstrip("0")
        parts.append(f"{name}: {text}")
    return "{" + ", ".join(parts) + "}"
