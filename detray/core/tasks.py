"""Tasks: submission, dependencies, readiness, and their end.

A task starts when all its top-level references are available (`Task.missing` counts those that are
not) and fails at once when one of them failed. What it takes it holds until it is done: top-level
and nested references as `Object.uses`. A demand this node can never meet is put to the head.
"""

from __future__ import annotations

from msgspec.structs import replace

from detray.core import notices, objects, reports
from detray.core.effects import CopyPayload, FailRequest
from detray.core.gets import fail_get
from detray.core.head_messages import DemandInfeasible, PlacementRefused
from detray.core.lifecycle import move_task
from detray.core.links import tell
from detray.core.parking import drop_parked
from detray.core.payloads import template_number
from detray.core.peer_messages import RunCancelled
from detray.core.placing import (
    leave_takers,
    push_ready,
    push_ready_front,
    release_arguments,
    return_to_waiting,
    route,
    withdraw,
)
from detray.core.pulls import ARGUMENT
from detray.core.resources import format_demand
from detray.core.states import (
    FETCHING,
    PENDING,
    READY,
    WAITING,
    Assigned,
    Delivered,
    Elsewhere,
    Failed,
    Gone,
    Placing,
)
from detray.core.step import Step
from detray.core.stimuli import TaskSubmitted
from detray.core.strategy import format_strategy
from detray.core.tables import HERE, Object, Task, Template
from detray.core.values import want
from detray.errors import Failure
from detray.ids import ClientID, NodeID, ObjectID, TaskID, first_return, job_of, return_object


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
        plain = template.strategy is None and t.config.policy.hand_over != "always"
        if shape.feasible and plain and not template.waits:
            # Most submissions: nothing to wait for, nobody above it.
            t.tasks[name] = Task(
                m, template.number, number, READY, template.max_retries, entered_ns=t.now_ns
            )
            push_ready(shape, m.depth, name)
            return
    task = t.tasks[name] = Task(
        m, template.number, number, WAITING, template.max_retries, entered_ns=t.now_ns
    )
    failed = take_arguments(s, task) if m.args or m.refs else None
    if client > 0 and _join_parent(s, task):
        fail_task(s, task, Failure.CANCELLED, CANCELLED_PARENT)
    elif failed is not None:
        fail_task_like(s, task, failed)
    elif not task.missing:
        _send_on(s, task, template)


def _send_on(s: Step, task: Task, template: Template) -> None:
    """Nothing is missing: the task goes where it will run, or where it is asked for."""
    if template.waits:
        _wait_for_function(s, task, template)
        return
    reason = route(s, task, template)
    if reason:
        fail_task(s, task, Failure.INFEASIBLE, _refused_text(s, task, reason))


def _wait_for_function(s: Step, task: Task, template: Template) -> None:
    """The definition is on its way here (`definitions.py`)."""
    function = s.t.functions.get(template.function)
    if function is None:
        text = f"the function {template.name} cannot be had: who had defined it is gone"
        fail_task(s, task, Failure.OWNER_DIED, text)
        return
    function.takers += (task.spec.task,)
    task.missing = 1


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


def take_arguments(s: Step, task: Task) -> ObjectID | None:
    """Hold what the task takes and count what is missing; the first failed argument, if any."""
    rows = s.t.objects
    failed = None
    for ref in task.spec.args:
        row = rows.get(ref)
        if row is None:
            failed = failed or ref
            continue
        row.uses += 1
        if row.state is PENDING or type(row.state) is Gone:
            row.takers += (task.spec.task,)
            task.missing += 1
            if row.shared is not None:
                want(s, row, local=False, priority=ARGUMENT)
        elif type(row.state) is Failed:
            failed = failed or ref
    known = [ref for ref in task.spec.refs if ref in rows]
    for ref in known:
        rows[ref].uses += 1
    if len(known) < len(task.spec.refs):
        # What is unknown now is not held, so it must not be let go of either.
        task.spec = replace(task.spec, refs=tuple(known))
    return failed


def recount(s: Step, task: Task) -> None:
    """A waiting task that holds its arguments already: wait for what is lost, or go on."""
    rows = s.t.objects
    task.missing = 0
    for ref in task.spec.args:
        row = rows.get(ref)
        if row is None or type(row.state) is Failed:
            leave_takers(s, task.spec.task, task.spec.args)
            task.missing = 0
            fail_task_like(s, task, ref)
            return
        if row.state is PENDING or type(row.state) is Gone:
            row.takers += (task.spec.task,)
            task.missing += 1
            want(s, row, local=False, priority=ARGUMENT)
    if not task.missing:
        _send_on(s, task, s.t.templates[task.template])


def wake_takers(s: Step, row: Object) -> None:
    """An object became available: tell the tasks that wait for it."""
    takers, row.takers = row.takers, ()
    failed = type(row.state) is Failed
    elsewhere = type(row.state) is Elsewhere
    fetching = []
    for taker in takers:
        task = s.t.tasks.get(taker)
        if task is None:
            continue
        if failed:
            fail_task_like(s, task, row.id)
            continue
        if elsewhere and task.state is FETCHING:
            fetching.append(taker)
            continue
        task.missing -= 1
        if not task.missing and (task.state is WAITING or task.state is FETCHING):
            _go_on(s, task)
    if fetching:
        row.takers += tuple(fetching)
        want(s, row, local=True, priority=ARGUMENT)


def _go_on(s: Step, task: Task) -> None:
    """Nothing is missing any more, unless something was lost again meanwhile."""
    if task.state is FETCHING:
        return_to_waiting(s, task)
    if s.t.peers or task.owner != HERE:
        recount(s, task)
    else:
        _send_on(s, task, s.t.templates[task.template])


def requeue(s: Step, task: Task) -> None:
    """From a worker back to the front of the ready queue; a cancelled one ends here."""
    if task.cancelled:
        move_task(task, WAITING)
        fail_task(s, task, Failure.CANCELLED, "cancelled before it began")
        return
    if task.spec.args and (s.t.peers or task.owner != HERE):
        move_task(task, WAITING)
        recount(s, task)
        return
    move_task(task, READY)
    template = s.t.templates[task.template]
    push_ready_front(s.t.shapes[template.shape], task.spec.depth, task.spec.task)


def reopen(s: Step, task: Task) -> None:
    """Open the next attempt of a run that was lost at another node, charging the budget."""
    task.attempt += 1
    if task.retries > 0:
        task.retries -= 1
    s.count("retried")
    give_another_place(s, task)


def give_another_place(s: Step, task: Task) -> None:
    """The attempt is ours again: it ends if it was cancelled, else it is placed anew."""
    return_to_waiting(s, task)
    if task.away is not None:
        task.away.stays = False
    if task.cancelled:
        fail_task(s, task, Failure.CANCELLED, "cancelled before it began")
    else:
        recount(s, task)


def retry(s: Step, task: Task) -> None:
    """Open the next attempt, charging the budget."""
    task.attempt += 1
    if task.retries > 0:
        task.retries -= 1
    s.count("retried")
    if s.t.templates[task.template].strategy is not None and task.owner == HERE:
        move_task(task, WAITING)
        give_another_place(s, task)
    else:
        requeue(s, task)


def can_retry(task: Task) -> bool:
    """True while the retry budget lasts; -1 is for ever."""
    return task.retries != 0 and not task.cancelled


def pending_returns(s: Step, task: Task, template: Template) -> list[Object]:
    """The returns that have no value yet (all, unless the task runs again for a lost one)."""
    rows = s.t.objects
    found = []
    for index in range(template.num_returns):
        row = rows.get(return_object(task.spec.task, index))
        if row is not None and row.state is PENDING:
            found.append(row)
    return found


def fail_task(s: Step, task: Task, failure: int, text: str) -> None:
    """End the task; its returns fail for a reason that the core itself knows."""
    template = s.t.templates[task.template]
    if task.owner != HERE:
        reports.report_error(s, task, failure, text)
        end_task(s, task, template)
        return
    state = Failed(failure, text)
    for row in pending_returns(s, task, template):
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
    if task.owner != HERE:
        reports.report_failed_argument(s, task, argument, source)
        end_task(s, task, template)
        return
    for row in pending_returns(s, task, template):
        if source.state.size_bytes:
            s.out.append(CopyPayload(argument, row.id))
        objects.seal(s, row, source.state, source.refs)
    s.count("failed")
    end_task(s, task, template)


def end_task(s: Step, task: Task, template: Template) -> None:
    """The task is done, well or badly: it holds nothing any more and leaves the table."""
    _leave_stage(s, task, template)
    spec = task.spec
    del s.t.tasks[spec.task]
    if spec.args:
        objects.drop_uses(s, spec.args)
    if spec.refs:
        objects.drop_uses(s, spec.refs)
    if spec.size_bytes and spec.task not in s.t.pasts:
        s.drops.append(spec.task)


def _leave_stage(s: Step, task: Task, template: Template) -> None:
    """Undo what the task's state means for others."""
    spec = task.spec
    state = task.state
    if type(state) is Assigned:
        return
    if state is READY:
        s.t.shapes[template.shape].count -= 1
    elif type(state) is Placing:
        s.t.placing.pop(spec.task, None)
        withdraw(s, spec.task, task.attempt)
    elif type(state) is Delivered:
        tell(s, NodeID(state.node), RunCancelled, spec.task, task.attempt, True, True)
        drop_parked(s, spec.task)
    elif task.missing:
        leave_takers(s, spec.task, spec.args)
    if state is FETCHING:
        objects.break_promise(s, task)
    release_arguments(s, task)


def fail_roomless(s: Step) -> None:
    """Neither memory nor disk has room for an argument or a value that was to be fetched."""
    roomless, s.roomless = s.roomless, []
    for item in roomless:
        row = s.t.objects.get(item)
        if row is None:
            continue
        text = f"no room on this node for the bytes of {item.hex()}, not even on disk"
        for taker in row.takers:
            task = s.t.tasks.get(taker)
            if task is not None and task.state is FETCHING:
                fail_task(s, task, Failure.OUT_OF_DISK, text)
        for client, request in row.getters:
            get = s.t.clients[client].gets.get(request)
            if get is not None and get.fetch:
                fail_get(s, get, Failure.OUT_OF_DISK, text)


# ------------------------------------------------------------------ placement by the head


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


def on_placement_refused(s: Step, m: PlacementRefused) -> None:
    """The node that its strategy insists on cannot run it, now or ever: it fails."""
    task = s.t.tasks.get(m.task)
    if task is None or task.attempt != m.attempt or type(task.state) is not Placing:
        s.count("stale")
        return
    fail_task(s, task, Failure.INFEASIBLE, _refused_text(s, task, m.reason))


def _refused_text(s: Step, task: Task, reason: str) -> str:
    template = s.t.templates[task.template]
    node = template.strategy.node if template.strategy is not None else ""
    return (
        f"task {template.name} ({task.spec.task.hex()}) asks for {format_demand(template.demand)}"
        f" on the node {node} and no other (scheduling_strategy, soft=False): {reason}."
    )


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
        template = t.templates[task.template]
        text = _infeasible_text(s, task, state.offers)
        hint = " It waits until such a node joins; init(infeasible='raise') makes this an error."
        notices.notify(
            s, job_of(item), "warning", "infeasible", text + hint,
            template.demand, template.strategy,
        )  # fmt: skip


def _infeasible_text(s: Step, task: Task, offers: tuple[tuple[str, int], ...]) -> str:
    template = s.t.templates[task.template]
    where = format_strategy(template.strategy)
    return (
        f"task {template.name} ({task.spec.task.hex()}) asks for {format_demand(template.demand)}"
        f"{where and ' on '}{where}, and no node of this cluster can ever meet that:"
        f" the most of each that any has is {format_demand(offers)}."
    )
