"""Runs at other nodes: delivered by the owner, entered by the executor, reported, accepted.

Rules (PROTOCOL N4, N7, D 13, 26 to 31)
---------------------------------------
- The head proposes, the owner disposes: it takes the first place named for an attempt that it still
  wants placed, and declines every other. Run and cancel travel on one ordered link.
- Only the owner opens attempts; the executor reports one end of each. What comes for an attempt
  that is not open changes nothing and gives back what it brought.
- A result is accepted when the owner holds the references in it; if one is refused, the attempt is
  lost.
"""

from __future__ import annotations

from detray.core import leases, lineage, objects, placing, reports, resources
from detray.core.clients import shape_of
from detray.core.effects import CopyPayload
from detray.core.head_messages import Placed, RunsRecalled
from detray.core.lending import ASKED, borrow, home_of, lend, proxy, shared_of
from detray.core.lifecycle import move_task
from detray.core.links import tell
from detray.core.parking import drop_parked, refs_of, refuse
from detray.core.payloads import error_key, shipped_template_key, template_key, value_key
from detray.core.peer_messages import (
    Argument,
    FunctionShipped,
    Returned,
    RunCancelled,
    RunDelivered,
    RunDone,
    RunErred,
    RunLost,
    RunReturned,
    TemplateShipped,
)
from detray.core.runs import cancel_task, note_duration
from detray.core.states import (
    PENDING,
    READY,
    WAITING,
    Delivered,
    Elsewhere,
    Failed,
    Inline,
    Placing,
    Stored,
)
from detray.core.step import Step
from detray.core.stimuli import TaskSubmitted
from detray.core.tables import HERE, Object, Peer, Shape, Task, Template
from detray.core.tasks import (
    can_retry,
    end_task,
    fail_task,
    fail_task_like,
    give_another_place,
    pending_returns,
    reopen,
    take_arguments,
)
from detray.core.values import found_elsewhere, note_copy
from detray.errors import Failure
from detray.ids import (
    MAX_RETURNS,
    NO_CLIENT,
    NodeID,
    ObjectID,
    TaskID,
    TemplateID,
    job_of,
    return_object,
)

SHIPPED_TEMPLATES = 1 << 62
"""Templates of other nodes are numbered from here."""
STALLED_MAX = 4_096
"""So many of those that do not begin are looked at to be given back."""


# ------------------------------------------------------------------ the owner delivers


def on_placed(s: Step, m: Placed) -> None:
    """The head named a node for a task."""
    t = s.t
    task = t.tasks.get(m.task)
    if task is None or task.attempt != m.attempt or type(task.state) is not Placing:
        s.count("stale")
        placing.withdraw(s, m.task, m.attempt, m.node)
        return
    t.placing.pop(m.task, None)
    if m.node == t.node:
        t.received += 1
        placing.return_to_waiting(s, task)
        placing.away_of(task).stays = True
        _place_again(s, task)
    elif m.node not in t.peers or not _are_available(s, task):
        placing.withdraw(s, m.task, m.attempt, m.node)
        give_another_place(s, task)
    else:
        until_ns = t.now_ns + m.lease_ns if m.lease_ns else 0
        _deliver(s, task, t.peers[m.node], until_ns)


def deliver_leased(s: Step) -> None:
    """Send tasks to places that serve again."""
    t = s.t
    leased, s.leased = s.leased, []
    for name, attempt, lease in leased:
        task = t.tasks.get(name)
        if task is None or task.attempt != attempt or type(task.state) is not Placing:
            continue
        del t.placing[name]
        if lease.node in t.peers and _are_available(s, task):
            _deliver(s, task, t.peers[lease.node], lease.until_ns, is_leased=True)
        else:
            give_another_place(s, task)


def _place_again(s: Step, task: Task) -> None:
    if _are_available(s, task):
        template = s.t.templates[task.template]
        placing.enter_here(s, task, s.t.shapes[template.shape], first=True)
    else:
        give_another_place(s, task)


def _are_available(s: Step, task: Task) -> bool:
    rows = s.t.objects
    return all(
        ref in rows and isinstance(rows[ref].state, Inline | Stored | Elsewhere)
        for ref in task.spec.args
    )


def _deliver(s: Step, task: Task, peer: Peer, until_ns: int, *, is_leased: bool = False) -> None:
    """Send the run, and before it what the node needs to know for it."""
    spec = task.spec
    template = s.t.templates[task.template]
    _ship(s, template, peer)
    args = tuple([_argument(s, s.t.objects[ref], peer.id) for ref in spec.args])
    refs = lend(s, spec.refs, peer.id)
    away = task.away
    tell(
        s, peer.id, RunDelivered, spec.task, task.attempt, template.number, spec.parent,
        spec.depth, spec.size_bytes, args, refs, spec.packed,
        away.wanted if away is not None else (), away.refusals if away is not None else 0,
        is_leased,
    )  # fmt: skip
    move_task(task, Delivered(peer.id, until_ns))


def _ship(s: Step, template: Template, peer: Peer) -> None:
    if template.number in peer.templates:
        return
    peer.templates[template.number] = None
    function = s.t.functions[template.function]
    if function.id not in peer.functions:
        peer.functions[function.id] = None
        refs = lend(s, function.refs, peer.id)
        tell(s, peer.id, FunctionShipped, function.id, function.name, function.size_bytes, refs)
    tell(
        s, peer.id, TemplateShipped, template.number, template.function, template.name,
        template.num_returns, template.demand, template.max_retries,
        template.retry_application_errors, template.max_calls, template.size_bytes,
        template.strategy,
    )  # fmt: skip


def _argument(s: Step, row: Object, node: NodeID) -> Argument:
    """An argument as the executor will need it: its value, where it is, or whom to ask."""
    state = row.state
    home = home_of(s, row)
    if type(state) is Inline:
        attempt = row.shared.attempt if row.shared is not None else 0
        refs = lend(s, row.refs, node) if row.refs else ()
        return Argument(row.id, home, state.size_bytes, attempt, True, (), refs)
    if home != s.t.node:
        return Argument(row.id, home)
    shared = shared_of(row)
    size_bytes: int = state.size_bytes  # type: ignore[union-attr]  # Stored or Elsewhere
    nodes = note_copy(s, row, shared, node)
    return Argument(row.id, home, size_bytes, shared.attempt, False, nodes, lend(s, row.refs, node))


# ------------------------------------------------------------------ the executor enters


def on_template_shipped(s: Step, m: TemplateShipped) -> None:
    """A template for later runs, under a number of our own."""
    t = s.t
    key = shipped_template_key(m.node, m.template)
    if m.function not in t.functions or not 0 <= m.num_returns < MAX_RETURNS:
        s.count("stale")
        if m.size_bytes:
            s.drops.append(key)
        return
    number = SHIPPED_TEMPLATES + t.next_shipped
    t.next_shipped += 1
    t.peers[m.node].known_templates[m.template] = number
    if m.size_bytes:
        s.out.append(CopyPayload(key, template_key(number)))
        s.drops.append(key)
    lane = job_of(m.function) << 1 | any(name == "GPU" for name, _ in m.demand)
    t.templates[number] = Template(
        number, m.function, m.name, m.num_returns, m.demand,
        shape_of(s, lane, m.demand, m.strategy),
        m.max_retries, m.retry_application_errors, m.max_calls, m.size_bytes, strategy=m.strategy,
    )  # fmt: skip


def on_run_delivered(s: Step, m: RunDelivered) -> None:
    """Enter a run for another node's task."""
    t = s.t
    if not m.is_leased:  # the head counts the places that it named, one run for each
        t.received += 1
    number = t.peers[m.node].known_templates.get(m.template)
    for arg in m.args:
        _enter_argument(s, arg, m.node)
    refs = borrow(s, m.refs, m.node)
    template = t.templates.get(number) if number is not None else None
    if template is None or m.task in t.tasks:
        # Its job is over here, and soon there; or the message makes no sense.
        s.count("stale")
        if m.size_bytes and m.task not in t.tasks:
            s.drops.append(m.task)
        return
    items = tuple([arg.object for arg in m.args])
    spec = TaskSubmitted(
        NO_CLIENT, m.task, TemplateID(0), m.parent, m.depth, m.size_bytes, items, refs, m.packed
    )
    task = Task(
        spec, template.number, s.next_number(), WAITING, 0,
        attempt=m.attempt, owner=m.node, entered_ns=t.now_ns,
    )  # fmt: skip
    if m.wanted:
        placing.away_of(task).wanted = m.wanted
    if m.refusals:
        placing.away_of(task).refusals = m.refusals
    t.tasks[m.task] = task
    failed = take_arguments(s, task)
    if task.missing:
        # Arguments nobody here has heard of yet: it fetches all of them, in one go.
        placing.leave_takers(s, m.task, spec.args)
        task.missing = 0
    if failed is not None:
        fail_task_like(s, task, failed)
    elif m.is_leased and not leases.has_room(s, t.shapes[template.shape]):
        reports.report_returned(s, task, "no room for a run without the head's word")
        end_task(s, task, template)
    else:
        placing.enter_here(s, task, t.shapes[template.shape])


def _enter_argument(s: Step, arg: Argument, sender: NodeID) -> None:
    """The row of a top-level argument, with what the message tells of it."""
    refs = borrow(s, arg.refs, sender) if arg.refs else ()
    if arg.owner == s.t.node:
        row = s.t.objects.get(arg.object)
        if row is None:
            row = proxy(s, arg.object, arg.owner)
            shared_of(row).home = HERE
            objects.seal(s, row, Failed(Failure.OBJECT_LOST, objects.LOST_TEXT))
        shared_of(row)  # other nodes know it
        return
    row = proxy(s, arg.object, arg.owner)
    shared = shared_of(row)
    s.suspects.append(row.id)
    if row.state is not PENDING:
        # Bytes of an older attempt, which its owner gave up and somebody still looks at, serve too.
        return
    if arg.is_inline:
        shared.attempt = arg.attempt
        objects.seal(s, row, Inline(arg.size_bytes), refs)
    elif arg.nodes:
        found_elsewhere(s, row, shared, arg.attempt, arg.size_bytes, arg.nodes, refs)


def on_run_cancelled(s: Step, m: RunCancelled) -> None:
    """The owner wants the attempt ended."""
    task = s.t.tasks.get(m.task)
    if task is None or task.owner != m.node or task.attempt != m.attempt:
        s.count("stale")
        return
    cancel_task(s, task, force=m.force, recursive=m.recursive)


def on_runs_recalled(s: Step, m: RunsRecalled) -> None:
    """Others idle: what has not begun here goes back to be placed, the youngest first."""
    t = s.t
    left = m.count
    for shape in t.shapes:
        while left and shape.count and not shape.is_bound:
            depths = sorted(shape.ready)
            found = (_last_ready(s, shape.ready[depth], shape.heads[depth]) for depth in depths)
            task = next((task for task in found if task is not None), None)
            if task is None:
                break
            left -= 1
            if task.owner != HERE:
                reports.report_returned(s, task, "other nodes idle")
                end_task(s, task, t.templates[task.template])
            else:
                shape.count -= 1
                placing.release_arguments(s, task)
                hints = placing.find_hints(s, task)
                placing.ask(s, task, t.templates[task.template], hints)


def return_stalled(s: Step) -> None:
    """Runs that the head sent ahead and that do not begin go back, all but one a slot.

    It fills a node by how short runs there were; then a long one may come. None having begun for
    `patience_ns`, the youngest are placed anew, each once (PROTOCOL T20), and runs count as long.
    """
    t = s.t
    policy = t.config.policy
    count = sum(shape.count for shape in t.shapes)
    count -= policy.queue_rounds * max(1, t.pool.total[resources.CPU] // resources.UNIT)
    if count <= 0 or not policy.queue_rounds:
        t.halted_ns = 0
        return
    due_ns = (t.halted_ns or t.now_ns) + policy.patience_ns
    if t.halted_ns and due_ns <= t.now_ns:
        t.run_ns = max(t.run_ns, policy.patience_ns)
        t.halted_ns = 0  # it is looked at again after as long
        for shape in t.shapes:
            if count > 0 and shape.count and not shape.is_bound:
                count -= _return_youngest(s, shape, count)
        return
    t.halted_ns = t.halted_ns or t.now_ns
    t.offer_ns = min(t.offer_ns or due_ns, due_ns)


def _return_youngest(s: Step, shape: Shape, count: int) -> int:
    """Give back up to `count` runs of other nodes' tasks; how many. It looks at the last few."""
    returned = 0
    for depth in sorted(shape.ready):
        queue = shape.ready[depth]
        place = len(queue)
        least = max(shape.heads[depth], place - STALLED_MAX)
        while place > least and returned < count:
            place -= 1
            task = s.t.tasks.get(queue[place])
            if task is None or task.state is not READY or task.owner == HERE:
                continue
            if task.away is None or not task.away.refusals:
                del queue[place]  # or a later delivery of it would find itself in the queue
                returned += 1
                reports.report_returned(s, task, "it waits for long runs")
                end_task(s, task, s.t.templates[task.template])
    return returned


def _last_ready(s: Step, queue: list[TaskID], head: int) -> Task | None:
    for place in range(len(queue) - 1, head - 1, -1):
        task = s.t.tasks.get(queue[place])
        if task is None or task.state is not READY:
            continue
        if task.owner == HERE or task.away is None or not task.away.refusals:
            del queue[place]  # by its place: taken entries before `head` may bear the same name
            return task
    return None


# ------------------------------------------------------------------ the owner accepts


def _open(s: Step, m: RunDone | RunErred | RunLost | RunReturned) -> Task | None:
    """The task, if the report is about its open attempt, from the node that has it."""
    task = s.t.tasks.get(m.task)
    if task is not None and type(task.state) is Delivered and task.owner == HERE:
        current = task.state.node == m.node and task.attempt == m.attempt
        if current or s.t.config.policy.attempt_check_off:
            return task
    s.count("stale")
    return None


def on_run_done(s: Step, m: RunDone) -> None:
    """A run finished elsewhere: accept it, once the references in its results are held."""
    task = _open(s, m)
    if task is None or m.task in s.t.parked:
        refuse(s, m)
        return
    template = s.t.templates[task.template]
    leases.keep(s, task, template)
    note_duration(template, m.duration_ns)
    held = [borrow(s, part.refs, m.node) for part in m.returns if part.refs]
    if held and not s.t.config.policy.acceptance_check_off:
        for refs in held:
            objects.hold_contained(s, refs)
        s.t.parked[m.task] = m
        s.answered = True
        return
    _accept(s, task, m)


def accept_parked(s: Step) -> None:
    """Owners have answered: take the results whose references are all held, or none to be had."""
    s.answered = False
    for name, m in list(s.t.parked.items()):
        rows = [s.t.objects[ref] for ref in refs_of(s, m)]
        if any(row.shared is not None and row.shared.claims == ASKED for row in rows):
            continue
        del s.t.parked[name]
        task = s.t.tasks[name]
        if any(objects.is_orphan(row) for row in rows):
            refuse(s, m, is_borrowed=True)
            lose_run(s, task, Failure.OWNER_DIED, "a reference in its result had died")
        else:
            _accept(s, task, m)
        objects.drop_contained(s, tuple([row.id for row in rows]))


def _accept(s: Step, task: Task, m: RunDone) -> None:
    """Seal what is still wanted, remember how to make it again, end the task."""
    t = s.t
    template = t.templates[task.template]
    placing.return_to_waiting(s, task)
    if len(m.returns) != template.num_returns:
        refuse(s, m, is_borrowed=True)
        fail_task(s, task, Failure.SERIALIZATION, "it reported a wrong number of returns")
        return
    for index, part in enumerate(m.returns):
        _accept_return(s, m, return_object(m.task, index), part)
    if lineage.is_worth_remembering(s, task, template):
        lineage.remember(s, task, template)
    end_task(s, task, template)
    t.finished += 1


def _accept_return(s: Step, m: RunDone, item: ObjectID, part: Returned) -> None:
    row = s.t.objects.get(item)
    refs = tuple([ref for ref, _ in part.refs if ref in s.t.objects])
    key = value_key(item, m.attempt)
    has_payload = not part.is_kept and part.size_bytes > 0
    if row is None or row.state is not PENDING or part.size_bytes < 0:
        if part.is_kept:
            s.freed.setdefault(m.node, []).append(item)
        elif has_payload and (key != item or row is None):
            s.drops.append(key)
        return
    if part.is_kept:
        shared = shared_of(row)
        shared.attempt, shared.keeper = m.attempt, m.node
        objects.seal(s, row, Elsewhere(part.size_bytes), refs)
        return
    if m.attempt and has_payload:
        s.out.append(CopyPayload(key, item))
        s.drops.append(key)
    objects.seal(s, row, Inline(part.size_bytes), refs)


def on_run_erred(s: Step, m: RunErred) -> None:
    """A run failed elsewhere: retry what may be retried; else its returns fail with the error."""
    refs = borrow(s, m.refs, m.node)
    key = error_key(m.task, m.attempt)
    if m.size_bytes:
        s.drops.append(key)
    task = _open(s, m)
    if task is None:
        return
    drop_parked(s, m.task)
    template = s.t.templates[task.template]
    leases.keep(s, task, template)
    if m.retryable and template.retry_application_errors and can_retry(task):
        reopen(s, task)
        return
    placing.return_to_waiting(s, task)
    for row in pending_returns(s, task, template):
        if m.size_bytes:
            s.out.append(CopyPayload(key, row.id))
        objects.seal(s, row, Failed(m.kind, m.summary, m.size_bytes), refs)
    end_task(s, task, template)
    s.count("cancelled" if m.kind == Failure.CANCELLED else "failed")


def on_run_lost(s: Step, m: RunLost) -> None:
    """The worker that ran it died."""
    task = _open(s, m)
    if task is not None:
        lose_run(s, task, m.kind, m.reason)


def lose_run(s: Step, task: Task, failure: int, reason: str) -> None:
    """The open attempt had begun, or may have, and is lost: charge it."""
    drop_parked(s, task.spec.task)
    if can_retry(task):
        reopen(s, task)
        return
    placing.return_to_waiting(s, task)
    if task.cancelled and not task.forced:
        failure = Failure.CANCELLED
    fail_task(s, task, failure, reason)


def on_run_returned(s: Step, m: RunReturned) -> None:
    """It never began there; the attempt is placed again."""
    task = _open(s, m)
    if task is not None:
        leases.end_at(s, m.node)
        placing.away_of(task).refusals += 1
        give_another_place(s, task)
