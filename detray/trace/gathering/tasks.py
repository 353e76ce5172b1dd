"""What messages say of tasks and their runs, entered into a `History`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detray.core.effects import DefineTemplate, RunTask, SendToHead, SendToPeer
from detray.core.head_messages import (
    DemandInfeasible,
    Placed,
    PlacementRefused,
    PlacementRequested,
    PlacementWithdrawn,
)
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
    CancelRequested,
    RunFailed,
    RunFinished,
    RunsRetracted,
    TaskSubmitted,
    TemplateDefined,
)
from detray.errors import Failure
from detray.ids import NO_CLIENT, ClientID, NodeID, task_of
from detray.trace.gathering import objects as history_objects
from detray.trace.gathering.lives import (
    ASKED,
    CANCEL_ASKED,
    CANCELLED,
    DELIVERED,
    FAILED,
    FINISHED,
    INFEASIBLE,
    LOST,
    PLACED,
    RECEIVED,
    RECURSIVELY,
    REFUSED,
    RETURNED,
    SENT,
    TAKEN_BACK,
    UNKNOWN_CORE,
    WAITING,
    WITHDRAWN,
    Attempt,
    LifeMove,
    TaskLife,
)
from detray.trace.names import amounts_text

if TYPE_CHECKING:
    from detray.trace.gathering.history import History, Kind

Handler = Callable[["History", Any, int], None]  # Any: each takes the message type that is its key
NO_KIND: Kind = ("task", 1, (), 0, False)


# ------------------------------------------------------------------ submission


def on_template(h: History, m: TemplateDefined, now_ns: int) -> None:
    """Submissions name their template by its number."""
    h.kinds[h.core, template_number(m.client, m.template)] = _kind(m)


def on_shipped(h: History, m: TemplateShipped, now_ns: int) -> None:
    """Runs of another node's tasks name the owner's number."""
    h.shipped[m.node, m.template] = _kind(m)


def _kind(m: TemplateDefined | TemplateShipped) -> Kind:
    return (m.name, m.num_returns, m.demand, m.max_retries, m.retry_application_errors)


def on_define(h: History, e: DefineTemplate, now_ns: int) -> None:
    """Where the definition came before the trace, what workers are taught must do."""
    key = (h.core, e.template)
    if key not in h.kinds:
        h.kinds[key] = (e.name, e.num_returns, e.demand, 0, e.retry_application_errors)


def on_submitted(h: History, m: TaskSubmitted, now_ns: int) -> None:
    """A task begins its life."""
    life = add(h, m, template_number(m.client, m.template), now_ns)
    if m.client > 0:
        for task, number in h.queues.get((h.core, m.client), ()):
            if task == m.parent:
                life.parent_attempt = number
                break


def add(h: History, m: TaskSubmitted, template: int, now_ns: int) -> TaskLife:
    """The life of a task of which the core whose step it is knows all."""
    name, returns, demand, retries, on_errors = h.kinds.get((h.core, template), NO_KIND)
    life = TaskLife(
        m.task, name, m.parent, now_ns, returns, m.args, m.refs, core=h.core,
        demand=demand, max_retries=retries, retries_errors=on_errors, depth=m.depth,
    )  # fmt: skip
    known = h.tasks.get(m.task)
    if known is not None:
        life.attempts, life.state, life.error = known.attempts, known.state, known.error
        life.moves = known.moves
    h.tasks[m.task] = life
    return life


def on_cancel(h: History, m: CancelRequested, now_ns: int) -> None:
    """Somebody wants the task cancelled; whether it still can be is another question."""
    life = h.task(task_of(m.object))
    life.cancel_asked = True
    words = ["by force"] if m.force else []
    words += [RECURSIVELY] if m.recursive else []
    life.note(
        LifeMove(
            CANCEL_ASKED, now_ns, h.core, _number(life), client=m.client, text=", ".join(words)
        )
    )


def _number(life: TaskLife) -> int:
    return life.attempts[-1].number if life.attempts else 0


# ------------------------------------------------------------------ at a worker


def on_run(h: History, e: RunTask, now_ns: int) -> None:
    """It is sent to a worker."""
    send(h, h.task(e.task), e.attempt, e.client, now_ns)


def send(h: History, life: TaskLife, number: int, client: ClientID, now_ns: int) -> None:
    """An attempt joins a worker's queue."""
    run = life.attempt(number, client)
    run.core, run.node = h.core, h.node_of(h.core)
    run.sent_ns, run.worker, run.state, life.state = now_ns, client, SENT, SENT
    h.queues.setdefault((h.core, client), []).append((life.id, number))


def on_finished(h: History, m: RunFinished, now_ns: int) -> None:
    """A worker reports a result."""
    life = h.task(m.task)
    _end_run(h, life, m, now_ns, FINISHED, "")
    history_objects.note_returns(h, life, m, now_ns)


def on_failed(h: History, m: RunFailed, now_ns: int) -> None:
    """A worker reports an error."""
    life = h.task(m.task)
    state = CANCELLED if m.kind == Failure.CANCELLED else FAILED
    run = _end_run(h, life, m, now_ns, state, m.summary)
    run.failure, run.traceback = m.kind, getattr(m, "traceback", "")
    if m.retryable and life.retries_errors and _may_retry(life, run):
        life.state = WAITING


def _end_run(
    h: History, life: TaskLife, m: RunFinished | RunFailed, now_ns: int, state: str, error: str
) -> Attempt:
    run = life.attempt(m.attempt, m.client)
    run.core, run.worker, run.node = h.core, m.client, h.node_of(h.core)
    run.started_ns, run.ended_ns = m.started_ns, m.ended_ns
    if life.core == h.core and run.closed_ns < 0:
        run.closed_ns = now_ns
    if run.state != LOST:  # else its owner has given it up meanwhile
        run.state, run.error = state, error
        if run is life.attempts[-1]:
            life.state, life.error = state, error
    queue = h.queues.get((h.core, m.client))
    if queue and (life.id, m.attempt) in queue:
        queue.remove((life.id, m.attempt))
    return run


def on_retracted(h: History, m: RunsRetracted, now_ns: int) -> None:
    """The last runs sent to a worker are taken back."""
    unsend(h, m.client, m.count, now_ns)


def unsend(h: History, client: ClientID, count: int, now_ns: int) -> None:
    """The last `count` runs sent to a worker were never begun."""
    queue = h.queues.get((h.core, client), [])
    for _ in range(min(count, len(queue))):
        task, number = queue.pop()
        life = h.tasks[task]
        run = life.attempt(number, client)
        life.note(
            LifeMove(TAKEN_BACK, now_ns, h.core, number, run.node, client, since_ns=run.sent_ns)
        )
        if run.state != SENT:
            continue
        if run.received_ns >= 0:  # it is still at the node that its owner handed it to
            run.worker, run.sent_ns = NO_CLIENT, -1
        else:
            life.attempts.remove(run)
            life.state = WAITING


def lose(h: History, life: TaskLife, run: Attempt, reason: str, now_ns: int) -> None:
    """An attempt ended with its worker or node; `now_ns` is its owner's time, -1 if unknown."""
    run.state, run.error = LOST, reason
    if run.closed_ns < 0:
        run.closed_ns = now_ns
    if run is life.attempts[-1]:
        life.state, life.error = (WAITING if _may_retry(life, run) else FAILED), reason


def _may_retry(life: TaskLife, run: Attempt) -> bool:
    """True if its owner opens another attempt, as far as the trace tells."""
    return not life.cancel_asked and (life.max_retries < 0 or run.number < life.max_retries)


# ------------------------------------------------------------------ at the owner: a place


def on_sent_to_head(h: History, e: SendToHead, now_ns: int) -> None:
    """The head is asked for a place, or told that none is needed."""
    m = e.message
    if type(m) is PlacementRequested:
        life = h.task(m.task)
        life.state = WAITING
        life.note(LifeMove(ASKED, now_ns, h.core, m.attempt))
    elif type(m) is PlacementWithdrawn and m.task in h.tasks:
        h.tasks[m.task].note(LifeMove(WITHDRAWN, now_ns, h.core, m.attempt, m.declined))


def on_placed(h: History, m: Placed, now_ns: int) -> None:
    """The head names a node."""
    text = f"{m.lease_ns / 1e9:g} s" if m.lease_ns else ""
    h.task(m.task).note(LifeMove(PLACED, now_ns, h.core, m.attempt, m.node, text=text))


def on_infeasible(h: History, m: DemandInfeasible, now_ns: int) -> None:
    """The head knows no node that could ever run it."""
    life = h.task(m.task)
    offers = dict(m.offers)
    if life.demand:
        offers = {name: offers.get(name, 0) for name, _ in life.demand}
    text = amounts_text(tuple(offers.items()))
    life.note(LifeMove(INFEASIBLE, now_ns, h.core, m.attempt, text=text))


def on_refused(h: History, m: PlacementRefused, now_ns: int) -> None:
    """The node that its strategy insists on cannot run it: it fails."""
    life = h.task(m.task)
    life.note(LifeMove(REFUSED, now_ns, h.core, m.attempt, text=m.reason))
    life.state, life.error = FAILED, m.reason


def on_sent_to_peer(h: History, e: SendToPeer, now_ns: int) -> None:
    """The owner hands an attempt to another node."""
    m = e.message
    if type(m) is RunDelivered:
        life = h.task(m.task)
        run = life.attempt(m.attempt, NO_CLIENT)
        run.node, run.core, run.delivered_ns, life.state = e.node, UNKNOWN_CORE, now_ns, SENT
        how = "leased" if m.is_leased else ""
        life.note(LifeMove(DELIVERED, now_ns, h.core, m.attempt, e.node, text=how))
        h.away.setdefault(e.node, {})[m.task] = None


# ------------------------------------------------------------------ at another node


def on_delivered(h: History, m: RunDelivered, now_ns: int) -> None:
    """An attempt reaches the node that is to run it."""
    if m.task not in h.tasks:  # its owner's recording is not in the trace
        name, returns, demand, retries, on_errors = h.shipped.get((m.node, m.template), NO_KIND)
        args = tuple(argument.object for argument in m.args)
        refs = tuple(item for item, _ in m.refs)
        h.tasks[m.task] = TaskLife(
            m.task, name, m.parent, -1, returns, args, refs, core=h.core_of(m.node),
            demand=demand, max_retries=retries, retries_errors=on_errors, depth=m.depth,
        )  # fmt: skip
    life = h.tasks[m.task]
    run = life.attempt(m.attempt, NO_CLIENT)
    node = h.node_of(h.core)
    run.node, run.received_ns = node, now_ns
    if run is life.attempts[-1] and run.state == SENT:
        life.state = SENT
    life.note(LifeMove(RECEIVED, now_ns, h.core, m.attempt, node))
    h.away.setdefault(node, {})[m.task] = None
    history_objects.note_arguments(h, m)


def on_done(h: History, m: RunDone, now_ns: int) -> None:
    """The owner hears of a result."""
    life = h.task(m.task)
    _close(h, life, m.attempt, m.node, now_ns, FINISHED, "")
    history_objects.note_returns_elsewhere(h, life, m, now_ns)


def on_erred(h: History, m: RunErred, now_ns: int) -> None:
    """The owner hears of an error."""
    life = h.task(m.task)
    state = CANCELLED if m.kind == Failure.CANCELLED else FAILED
    run = _close(h, life, m.attempt, m.node, now_ns, state, m.summary)
    run.failure = run.failure or m.kind
    is_last = run is life.attempts[-1] and run.state == FAILED
    if is_last and m.retryable and life.retries_errors and _may_retry(life, run):
        life.state = WAITING


def on_run_lost(h: History, m: RunLost, now_ns: int) -> None:
    """The owner hears that the worker died."""
    life = h.task(m.task)
    run = _close(h, life, m.attempt, m.node, now_ns, LOST, m.reason)
    run.failure = run.failure or m.kind
    if run.state == LOST and run is life.attempts[-1] and _may_retry(life, run):
        life.state = WAITING


def on_returned(h: History, m: RunReturned, now_ns: int) -> None:
    """The owner has an attempt back that never began."""
    life = h.task(m.task)
    run = life.attempt(m.attempt, NO_CLIENT)
    h.away.get(m.node, {}).pop(m.task, None)
    life.note(LifeMove(RETURNED, now_ns, h.core, m.attempt, m.node, text=m.reason))
    if run.state == SENT and run.closed_ns < 0 and run.started_ns < 0 and run.node == m.node:
        life.attempts.remove(run)
        life.state = WAITING


def _close(
    h: History, life: TaskLife, number: int, node: NodeID, now_ns: int, state: str, error: str
) -> Attempt:
    """A run ended on another node, which may have told so itself."""
    run = life.attempt(number, NO_CLIENT)
    h.away.get(node, {}).pop(life.id, None)
    if run.closed_ns < 0:
        run.closed_ns = now_ns
    if run.state == SENT:
        run.node, run.state, run.error = node, state, error
        if run is life.attempts[-1]:
            life.state, life.error = (FAILED if state == LOST else state), error
    return run


ON_STIMULUS: dict[type, Handler] = {
    TemplateDefined: on_template,
    TemplateShipped: on_shipped,
    TaskSubmitted: on_submitted,
    CancelRequested: on_cancel,
    RunFinished: on_finished,
    RunFailed: on_failed,
    RunsRetracted: on_retracted,
    Placed: on_placed,
    DemandInfeasible: on_infeasible,
    PlacementRefused: on_refused,
    RunDelivered: on_delivered,
    RunDone: on_done,
    RunErred: on_erred,
    RunLost: on_run_lost,
    RunReturned: on_returned,
}
ON_EFFECT: dict[type, Handler] = {
    DefineTemplate: on_define,
    RunTask: on_run,
    SendToHead: on_sent_to_head,
    SendToPeer: on_sent_to_peer,
}
