"""Where a task whose arguments are all available should run: here, or where the head says.

Rules (DESIGN 1, PROTOCOL N7, D 27)
-----------------------------------
- A node asks the head for what it can never run, for what it has no room for soon (`surplus`), and
  for what has much larger arguments elsewhere than here. Everything else never leaves the node.
- A task is in one place: in the ready queue here, or asked for (`Placing`). The owner may change
  its mind until the head has answered; then it declines the answer.
- What the head sends home stays home.
- A strategy is obeyed before all that: what must run here never leaves, whatever waits; what must
  run elsewhere, or is to be spread, is asked for.
"""

from __future__ import annotations

from detray.core import leases, objects, resources
from detray.core.head_messages import PlacementRequested, PlacementWithdrawn
from detray.core.lending import shared_of
from detray.core.lifecycle import move_task
from detray.core.pulls import ARGUMENT
from detray.core.states import FETCHING, READY, WAITING, Elsewhere, Inline, Placing, Stored
from detray.core.step import Step
from detray.core.strategy import AFFINITY, SPREAD, Strategy, is_labelled, is_named
from detray.core.tables import HERE, Away, Object, Shape, Task, Template
from detray.core.values import want
from detray.ids import NodeID, ObjectID, TaskID

Hints = tuple[tuple[NodeID, int], ...]
"""Bytes of a task's arguments by the node whose memory has them, in order of nodes."""
SKIPPED_MAX = 64
"""Tasks that must stay, looked at in search of one that may be offered."""


def away_of(task: Task) -> Away:
    """The part of the row that concerns other nodes; made when they first do."""
    away = task.away
    if away is None:
        away = task.away = Away()
    return away


def route(s: Step, task: Task, template: Template) -> str:
    """All arguments are available somewhere: queue the task here, or ask the head.

    Returns why the task must fail instead, "" as a rule.
    """
    t = s.t
    shape = t.shapes[template.shape]
    if task.owner != HERE or (task.away is not None and task.away.stays):
        enter_here(s, task, shape)
        return ""
    strategy = template.strategy
    if not shape.feasible:
        ask(s, task, template, find_hints(s, task) if strategy is not None else ())
        return ""
    if strategy is not None and _leaves(s, strategy, shape):
        if strategy.fails:
            return "it is busy, and the task is not to wait for it"
        ask(s, task, template, find_hints(s, task))
        return ""
    hand_over = t.config.policy.hand_over if not shape.is_bound else ""
    if hand_over == "always":
        ask(s, task, template, find_hints(s, task))
        return ""
    if hand_over == "surplus" and t.peers and task.spec.args:
        hints = find_hints(s, task)
        here = dict(hints).get(t.node, 0)
        if any(size >= here + t.config.policy.locality_bytes for _, size in hints):
            ask(s, task, template, hints)
            return ""
    enter_here(s, task, shape)
    return ""


def suits_here(s: Step, strategy: Strategy) -> bool:
    """True if this node has the labels, and no other is named."""
    t = s.t
    if strategy.kind == AFFINITY and not is_named(strategy, t.node):
        return False
    return is_labelled(strategy.hard, t.node, t.config.labels)


def _leaves(s: Step, strategy: Strategy, shape: Shape) -> bool:
    """True if the head is to choose a node for tasks that could run here."""
    t = s.t
    if strategy.spills or strategy.fails:
        # They name this node, and do not wait for it.
        is_busy = resources.count_fitting(t.pool, shape.amounts, shape.count + 1) <= shape.count
        return is_busy and (strategy.fails or bool(t.peers))
    if not t.peers:
        return False
    return strategy.kind == SPREAD or not is_labelled(strategy.soft, t.node, t.config.labels)


def may_leave(s: Step, task: Task) -> bool:
    """True if the head may still name another node for a task that has not begun.

    It is asked when the arguments are there, or once the task has been ready for a while in vain.
    """
    t = s.t
    if task.owner != HERE or (task.away is not None and task.away.stays):
        return False
    template = t.templates[task.template]
    shape, strategy, policy = t.shapes[template.shape], template.strategy, t.config.policy
    if not shape.feasible:
        return True
    if not t.peers:
        return False
    if task.state is READY:
        # `balance` offers it in time; what it has not offered by then, it does not.
        is_due = bool(shape.moved_ns) and shape.moved_ns + policy.patience_ns <= t.now_ns
        return policy.hand_over == "surplus" and not shape.is_bound and not is_due
    if strategy is not None and (strategy.spills or strategy.fails or _leaves(s, strategy, shape)):
        return True
    return policy.hand_over != "never" and not shape.is_bound


def find_hints(s: Step, task: Task) -> Hints:
    """Where the task's arguments lie already."""
    sums: dict[NodeID, int] = {}
    for ref in dict.fromkeys(task.spec.args):
        row = s.t.objects.get(ref)
        if row is None or isinstance(row.state, Inline):
            continue
        size_bytes = row.state.size_bytes if isinstance(row.state, Stored | Elsewhere) else 0
        for node in _holders(s, row):
            sums[node] = sums.get(node, 0) + size_bytes
    return tuple(sorted(sums.items()))


def _holders(s: Step, row: Object) -> list[NodeID]:
    holders = [s.t.node] if type(row.state) is Stored else []
    shared = row.shared
    if shared is not None:
        if shared.home == HERE and shared.keeper != HERE:
            holders.append(shared.keeper)
        holders += [node for node in shared.copies if node not in holders]
    return holders


def ask(s: Step, task: Task, template: Template, hints: Hints, *, is_surplus: bool = False) -> None:
    """Put the task to the head, unless a place that it named before will do."""
    t = s.t
    lease = leases.take(s, task, template, hints) if t.leases else None
    move_task(task, Placing(t.now_ns))
    t.placing[task.spec.task] = None
    t.shapes[template.shape].was_asked = True
    if lease is not None:
        s.leased.append((task.spec.task, task.attempt, lease))
    else:
        request_place(s, task, template, hints, is_surplus=is_surplus)


def request_place(
    s: Step, task: Task, template: Template, hints: Hints, *, is_surplus: bool = False
) -> None:
    """Say so; also to a new head, which knows nothing of what the old one was asked."""
    t = s.t
    s.to_head(
        PlacementRequested(
            s.next_link_seq(), t.node, task.spec.task, task.attempt, template.name,
            template.demand, hints, template.strategy, is_surplus,
            task.away is not None and task.away.refusals > 0,
        )
    )  # fmt: skip


def withdraw(s: Step, task: TaskID, attempt: int, declined: NodeID = HERE) -> None:
    """Tell the head that a place is not needed (or not taken) any more."""
    s.to_head(PlacementWithdrawn(s.next_link_seq(), s.t.node, task, attempt, declined))


def enter_here(s: Step, task: Task, shape: Shape, *, first: bool = False) -> None:
    """The task runs here: queue it, as soon as its arguments are in this node's memory.

    `first`: before all others of its depth.
    """
    spec = task.spec
    missing = []
    if spec.args and (s.t.peers or task.owner != HERE):
        missing = _count_arguments(s, task)
    if missing:
        move_task(task, FETCHING)
        if not any(objects.is_absent(row, local=False) for row in missing):
            away_of(task).promised = True
            shape.promised += 1
        task.missing = len(missing)
        for row in missing:
            row.takers += (spec.task,)
        for row in missing:
            want(s, row, local=True, priority=ARGUMENT)
        return
    move_task(task, READY)
    if first:
        push_ready_front(shape, spec.depth, spec.task)
    else:
        push_ready(shape, spec.depth, spec.task)
    s.is_fresh = True


def _count_arguments(s: Step, task: Task) -> list[Object]:
    """Keep what is here from being evicted; the rows, one per mention, of what is not."""
    missing = []
    rows = [s.t.objects[ref] for ref in task.spec.args]
    if not any(row.shared is not None for row in rows):
        return []
    away = away_of(task)
    for row in rows:
        if not away.counted:
            shared_of(row).needed += 1
        if objects.is_absent(row, local=True):
            missing.append(row)
    away.counted = True
    return missing


def release_arguments(s: Step, task: Task) -> None:
    """The task was dispatched, or leaves: its arguments may be evicted again."""
    away = task.away
    if away is None or not away.counted:
        return
    away.counted = False
    for ref in task.spec.args:
        row = s.t.objects.get(ref)
        if row is not None and row.shared is not None:
            row.shared.needed -= 1


def leave_takers(s: Step, task: TaskID, refs: tuple[ObjectID, ...]) -> None:
    """The task does not wait for these objects any more."""
    for ref in refs:
        row = s.t.objects.get(ref)
        if row is not None and task in row.takers:
            row.takers = tuple(taker for taker in row.takers if taker != task)


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


# ------------------------------------------------------------------ surplus


def balance(s: Step) -> None:
    """Offer the head what this node will not run soon; take some back when it runs dry."""
    t = s.t
    policy = t.config.policy
    if policy.hand_over != "surplus":
        return
    t.offer_ns = 0
    for shape in t.shapes:
        if shape.feasible and shape.count and not shape.is_bound:
            if not shape.moved_ns:
                shape.moved_ns = t.now_ns
            rounds = 0
            due_ns = shape.moved_ns + policy.patience_ns
            if due_ns > t.now_ns:
                rounds = resources.count_fitting_ever(t.pool, shape.amounts) * policy.surplus_rounds
                t.offer_ns = min(t.offer_ns or due_ns, due_ns)
            rounds = max(rounds, resources.count_fitting(t.pool, shape.amounts, shape.count))
            if shape.count > rounds and len(t.placing) < policy.asks_max:
                _offer(s, shape, min(shape.count - rounds, policy.asks_max - len(t.placing)))
        elif not shape.count:
            shape.moved_ns = 0
    if t.placing and not any(shape.count for shape in t.shapes):
        _take_back(s)


def _offer(s: Step, shape: Shape, count: int) -> None:
    """Ask the head to place the youngest ready tasks of a shape, the least deep first."""
    for depth in sorted(shape.ready):
        if count:
            count -= _offer_of(s, shape, depth, count)


def _offer_of(s: Step, shape: Shape, depth: int, count: int) -> int:
    """Those of one depth, of which all may be taken already; how many."""
    t = s.t
    wanted = count
    queue, head = shape.ready[depth], shape.heads[depth]
    kept: list[TaskID] = []
    while count and len(queue) > head and len(kept) < SKIPPED_MAX:
        name = queue.pop()
        task = t.tasks.get(name)
        if task is None or task.state is not READY:
            continue
        if task.owner != HERE or (task.away is not None and task.away.stays):
            kept.append(name)
            continue
        shape.count -= 1
        count -= 1
        release_arguments(s, task)
        hints = find_hints(s, task) if task.spec.args else ()
        ask(s, task, t.templates[task.template], hints, is_surplus=True)
    queue.extend(reversed(kept))
    return wanted - count


def _take_back(s: Step) -> None:
    """Nothing is left to run here: ask the head for nothing more than others can begin."""
    t = s.t
    rooms: dict[int, int] = {}
    for shape in t.shapes:
        if shape.was_asked and shape.feasible:
            room = resources.count_fitting(t.pool, shape.amounts, 1 << 20)
            if room:
                rooms[shape.number] = room
                shape.was_asked = False
    if rooms:
        # The youngest were offered first; the oldest go first here.
        for task in sorted(_asked_of(s, rooms), key=lambda task: task.number):
            template = t.templates[task.template]
            shape = t.shapes[template.shape]
            if rooms[shape.number]:
                rooms[shape.number] -= 1
                del t.placing[task.spec.task]
                withdraw(s, task.spec.task, task.attempt)
                enter_here(s, task, shape)


def _asked_of(s: Step, rooms: dict[int, int]) -> list[Task]:
    """The tasks of these shapes that wait at the head and may run here."""
    t = s.t
    found = []
    for item in t.placing:
        task = t.tasks[item]
        template = t.templates[task.template]
        if template.shape in rooms:
            shape = t.shapes[template.shape]
            shape.was_asked = True
            if template.strategy is None or not _leaves(s, template.strategy, shape):
                found.append(task)
    return found


def return_to_waiting(s: Step, task: Task) -> None:
    """Back to where arguments are counted: one of them may be lost, or the place is."""
    release_arguments(s, task)
    if task.state is FETCHING:
        objects.break_promise(s, task)
    if task.state is not WAITING:
        move_task(task, WAITING)
    task.missing = 0
