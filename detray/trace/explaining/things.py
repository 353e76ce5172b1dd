"""Why an object is (not) there; why a worker, a node or a head ended, and what went with it."""

from __future__ import annotations

from collections.abc import Iterator

from detray.ids import NodeID, ObjectID, TaskID, return_object
from detray.trace.explaining.causes import Explainer
from detray.trace.explaining.parts import KEPT, RETURNS_MAX
from detray.trace.explaining.tree import CAUSES_MAX, EVENT, TIME, Cause, Why
from detray.trace.explaining.words import reason_text
from detray.trace.format import TraceError
from detray.trace.gathering.lives import (
    ARRIVED,
    CANCELLED,
    CORRUPT,
    EVICTED,
    FAILED,
    FINISHED,
    FREED,
    KNOWN,
    LOST,
    MADE_AGAIN,
    MISSING,
    PROMOTED,
    SENT,
    SPILLED,
    Attempt,
    Copy,
    LifeMove,
    ObjectLife,
    TaskLife,
)
from detray.trace.names import first_line, short, why_stopped
from detray.trace.quantities import size_text, time_text
from detray.trace.telling.story import StorySubject

DIED = "the node died"
"""Why a copy ended, beside the kinds of moves."""

# ------------------------------------------------------------------ objects


def explain_object(x: Explainer, item: ObjectID) -> Why:
    """When it came and from what; or why it is lost, failed, freed, or not there yet."""
    life = x.history.objects.get(item)
    producer = x.producer(item)
    events = tuple(_events(x, life))
    name = x.value_named(item)
    if producer is not None and producer.state in (FAILED, CANCELLED):
        inner = x.explain_task(producer)
        return Why(name, f"has no value: {inner.conclusion}", causes=(*events, *inner.causes))
    ruin = x.history.ruins.get(item)
    if ruin is not None:
        text = f"has no value: {first_line(ruin.text)}"
        return Why(name, text + x.at(ruin.at_ns), causes=events)
    if producer is not None and not x.timeline.has_ended(producer):
        again = " any more" if life is not None and life.created_ns >= 0 else " yet"
        inner = x.explain_task(producer)
        text = f"is not there{again}: {x.named(producer.id)} {inner.conclusion}"
        return Why(name, text, causes=(*events, *inner.causes))
    if life is None:
        return Why(name, "is not known to have been made: the trace shows only that it was wanted")
    text = _how_it_came(x, life, producer)
    times: tuple[Cause, ...] = ()
    if producer is not None:
        inner = x.explain_task(producer)
        text += f", which {inner.conclusion}"
        times = inner.causes
    return Why(name, text + _how_it_is(x, life), causes=(*events, *times))


def _how_it_came(x: Explainer, life: ObjectLife, producer: TaskLife | None) -> str:
    size = f", {size_text(life.size_bytes)}" if life.size_bytes >= 0 else ""
    if life.created_ns < 0:
        return f"was made before the trace, or by what is not in it{size}"
    at = x.at(life.created_ns)
    if producer is not None:
        return f"was made{at}{size}, by {x.named(producer.id)}{_again(x, life, producer)}"
    who = reason_text(x, life.client, life.core) if life.client else "somebody"
    by = x.history.tasks.get(life.producer)
    inside = f" in {x.named(by.id)}" if by is not None else ""
    return f"was put{at}{size}, by {who}{inside}"


def _again(x: Explainer, life: ObjectLife, producer: TaskLife) -> str:
    """That it was lost and made again, if it was."""
    made = [move for move in life.moves if move.kind == MADE_AGAIN]
    if not made:
        return ""
    lost = [part for part in x.timeline.parts(producer) if part.kind == KEPT and part.text]
    why = f" ({lost[-1].text})" if lost else ""
    return f", was lost{why} and made again{x.at(made[-1].at_ns)}"


def _how_it_is(x: Explainer, life: ObjectLife) -> str:
    if life.freed_ns >= 0:
        return f"; it was freed{x.at(life.freed_ns)}, when nobody could reach it any more"
    copies = copies_of(x, life)
    if any(copy.until_ns < 0 for copy in copies):
        return ""
    if copies and copies[-1].why == FREED:
        return f"; it was freed{x.at(copies[-1].until_ns)}, when nobody could reach it any more"
    return "; the trace shows no copy that is left" if copies else ""


def copies_of(x: Explainer, life: ObjectLife) -> list[Copy]:
    """Where its bytes lay, in the order in which the copies came."""
    history = x.history
    open_copies: dict[NodeID, tuple[int, int]] = {}
    done: list[Copy] = []

    def begin(core: int, node: NodeID, ns: int) -> None:
        open_copies.setdefault(node, (core, ns))

    def end(node: NodeID, ns: int, why: str) -> None:
        found = open_copies.pop(node, None)
        if found is not None:
            core, since_ns = found
            done.append(Copy(core, node, since_ns, max(ns, since_ns), why))

    if life.created_ns >= 0 and not _is_hearsay(x, life):
        begin(life.core, history.node_of(life.core), life.created_ns)
    for move in life.moves:
        node = history.node_of(move.core)
        if move.kind == KNOWN and move.node >= 0 and history.core_of(move.node) < 0:
            begin(-1, move.node, move.at_ns)  # its own recording is not there
        if move.kind in (ARRIVED, MADE_AGAIN):
            begin(move.core, node, move.at_ns)
        elif move.kind == SPILLED and node in open_copies:
            core, _ = open_copies[node]
            end(node, move.at_ns, SPILLED)
            begin(core, node, move.at_ns)  # on disk
        elif move.kind in (EVICTED, MISSING):
            dead_ns = _death_ns(x, move.node)
            is_dead = 0 <= dead_ns <= move.at_ns
            end(move.node, dead_ns if is_dead else move.at_ns, DIED if is_dead else move.kind)
        elif move.kind in (CORRUPT, FREED):
            end(node, move.at_ns, move.kind)
    if life.freed_ns >= 0:
        end(history.node_of(life.freed_core), life.freed_ns, FREED)
    for node in list(open_copies):
        if _death_ns(x, node) >= 0:
            end(node, _death_ns(x, node), DIED)
    done += [Copy(core, node, ns) for node, (core, ns) in open_copies.items()]
    return sorted(done, key=lambda copy: copy.since_ns)


def _is_hearsay(x: Explainer, life: ObjectLife) -> bool:
    """True if the trace has it only from its owner, and it was made and kept elsewhere."""
    first = life.moves[0] if life.moves else None
    return (
        first is not None
        and first.kind == KNOWN
        and (first.core, first.at_ns) == (life.core, life.created_ns)
        and first.node != x.history.node_of(life.core)
    )


def _death_ns(x: Explainer, node: NodeID) -> int:
    member = x.history.members.get(node)
    return member.buried_ns if member is not None else -1


_WORDS = {
    SPILLED: "it was moved to disk{on}",
    CORRUPT: "what the disk gave back{on} was not what had been written",
    EVICTED: "{node} needed the room and dropped its copy",
    MISSING: "{node} had no copy of it",
    PROMOTED: "the copy{on} became the primary one",
    ARRIVED: "its bytes came from {node}{to}",
    KNOWN: "{on_node} learned where it is: at {node}",
    MADE_AGAIN: "attempt {attempt} of its task made it again{on}",
}


def _events(x: Explainer, life: ObjectLife | None) -> Iterator[Cause]:
    """What happened to an object, in order; losses with what came of them."""
    if life is None:
        return
    said: dict[str, list[int]] = {}
    for move in life.moves:
        if move.kind not in (KNOWN, FREED):
            said.setdefault(_said(x, move), []).append(move.at_ns)
    for copy in copies_of(x, life):
        where = x.history.where(copy.core)
        if copy.why == DIED:
            reason = x.history.members[copy.node].reason
            said[f"node {copy.node} died with its copy: {reason}"] = [copy.until_ns]
        elif copy.why == FREED:
            said.setdefault(f"the copy{where} was freed", []).append(copy.until_ns)
    if life.dropped_ns >= 0:
        who = reason_text(x, life.dropped_by, life.dropped_core)
        said[f"{who} needed it no more"] = [life.dropped_ns]
    told = sorted((times[0], text, times) for text, times in said.items())
    for ns, text, times in told[: 2 * CAUSES_MAX]:
        often = f" ({len(times)} times, the last{x.at(times[-1])})" if len(times) > 1 else ""
        yield Cause(EVENT, text + often, started_ns=x.since(ns))
    if len(told) > 2 * CAUSES_MAX:
        yield Cause(EVENT, f"and {len(told) - 2 * CAUSES_MAX} events more")


def _said(x: Explainer, move: LifeMove) -> str:
    here = x.history.where(move.core)
    return _WORDS[move.kind].format(
        on=here,
        to=here.replace(" on ", " to ", 1),
        node=f"node {move.node}" if move.node >= 0 else "its node",
        on_node=here.removeprefix(" on ") or "this node",
        attempt=move.attempt,
    )


# ------------------------------------------------------------------ workers and drivers


def explain_client(x: Explainer, subject: StorySubject) -> Why:
    """Why a worker, or a driver, ended, and what went with it."""
    history = x.history
    for (core, client), worker in history.workers.items():
        if client != subject.client or subject.node not in (NodeID(-1), history.node_of(core)):
            continue
        name = f"{x.worker_named(core, client)} (pid {worker.pid})"
        ran = [row for row in x.timeline.runs.get(core, ()) if row[3].worker == client]
        lost = tuple(_lost_run(x, task, number) for task, number in worker.lost_runs)
        begun_ns = worker.asked_ns if worker.asked_ns >= 0 else worker.ready_ns
        if worker.lost_ns < 0:
            text = f"was alive when the trace ended; it had run {_many(len(ran), 'task')}"
            return Why(name, text, x.since(begun_ns), causes=lost)
        how = f"died{x.at(worker.lost_ns)}: {first_line(worker.reason)}"
        if not worker.reason:
            how = f"left{x.at(worker.lost_ns)} as it was told{x.at(worker.exit_ns)}"
        elif worker.reason.startswith("it could not"):
            how = worker.reason.removeprefix("it ")
        elif worker.killed_ns >= 0:
            how = f"was killed by order of its node: {first_line(worker.reason)}"
        text = f"{how}; it had run {_many(len(ran), 'task')}"
        text += f", and {len(lost)} {_runs(len(lost))} lost with it" if lost else ""
        if worker.unclaimed:
            text += f"; {worker.unclaimed} more {_runs(worker.unclaimed)} taken back unbegun"
        return Why(name, text, x.since(begun_ns), x.since(worker.lost_ns), causes=lost)
    for (core, client), program in history.programs.items():
        if client == subject.client and subject.node in (NodeID(-1), history.node_of(core)):
            name = f"driver {-client}{history.where(core)} ({program.entrypoint})"
            text = "was there when the trace ended"
            if program.lost_ns >= 0:
                text = f"ended{x.at(program.lost_ns)}: {program.reason}"
            begun_ns, lost_ns = x.since(program.started_ns), x.since(program.lost_ns)
            return Why(name, text, begun_ns, lost_ns)
    raise TraceError(f"the trace knows nothing of {subject}")


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _runs(count: int) -> str:
    return "run was" if count == 1 else "runs were"


def _lost_run(x: Explainer, task: TaskID, number: int) -> Cause:
    """A run that was lost, and what came of its task."""
    life = x.history.tasks[task]
    later = [run for run in life.attempts if run.number > number]
    text = f"attempt {number} of {x.named(task)} was lost; {_fate(x, life, later)}"
    run = next((run for run in life.attempts if run.number == number), None)
    ns = -1
    if run is not None:
        ns = run.sent_ns if run.sent_ns >= 0 else run.delivered_ns
    return Cause(EVENT, text, started_ns=x.since(ns), about=short(task))


def _fate(x: Explainer, life: TaskLife, later: list[Attempt]) -> str:
    if life.state == FINISHED and later:
        return f"attempt {later[-1].number} finished{x.at(x.timeline.ended_ns(life))}"
    if life.state in (FAILED, CANCELLED):
        verb = "failed" if life.state == FAILED else "was cancelled"
        return f"the task {verb}: {first_line(life.error)}"
    if life.state == FINISHED:
        return "the task had finished all the same"
    return "the task had not ended when the trace ended"


# ------------------------------------------------------------------ nodes and heads


def explain_node(x: Explainer, subject: StorySubject) -> Why:
    """Why a node died or left, what was lost with it, what was made again; or a head's lives."""
    if subject.node < 0:
        return _explain_head(x)
    member = x.history.members.get(subject.node)
    core = x.history.core_of(subject.node)
    if member is None and core < 0:
        raise TraceError(f"the trace knows nothing of {subject}")
    name = str(subject) + (f" ({member.name})" if member is not None and member.name else "")
    if member is None or (member.buried_ns < 0 and member.stopped_ns < 0):
        runs = len(x.timeline.runs.get(core, ()))
        text = f"was a member when the trace ended; the trace shows {runs} runs there"
        return Why(name, text, x.since(member.joined_ns) if member is not None else -1)
    causes = [*_lost_with(x, subject.node), *_objects_lost_with(x, subject.node)]
    text = f"was declared dead{x.at(member.buried_ns)}: {member.reason}"
    if member.stopped_ns >= 0:
        text = f"was told to stop{x.at(member.stopped_ns)}{why_stopped(member.stop_reason)}"
    elif member.fenced_ns >= 0:
        when = x.at(member.fenced_ns) if member.fenced_ns >= member.buried_ns else ""
        text += f"; it learned of that{when} and ended what it ran"
    elif member.last_ns >= 0:
        silent_ns = member.buried_ns - member.last_ns
        if silent_ns > 0:
            text += f"; its last step in the trace was {time_text(silent_ns)} before"
        else:
            text += "; it went on meanwhile, as its recording shows"
    lost = sum("was lost" in cause.text for cause in causes)
    if lost:
        text += f"; {lost} {_runs(lost)} lost with it"
    end_ns = member.stopped_ns if member.stopped_ns >= 0 else member.buried_ns
    return Why(
        name, text, x.since(member.joined_ns), x.since(end_ns), causes=tuple(causes)
    )  # fmt: skip


def _lost_with(x: Explainer, node: NodeID) -> Iterator[Cause]:
    """Runs that were lost with a node, and tasks that it owned."""
    owned: list[TaskLife] = []
    for life in x.history.tasks.values():
        if x.history.node_of(life.core) == node and life.state in (FAILED, CANCELLED):
            owned += [life] if f"node {node}, its owner," in life.error else []
        for run in life.attempts:
            if run.node == node and run.state == LOST and run.error.startswith(f"node {node} died"):
                yield _lost_run(x, life.id, run.number)
    if owned:
        text = f"{len(owned)} tasks that it owned ended with it, such as {x.named(owned[0].id)}"
        yield Cause(EVENT, text, about=short(owned[0].id))


def _objects_lost_with(x: Explainer, node: NodeID) -> Iterator[Cause]:
    """Objects that lay there, and what came of them."""
    for life in x.history.tasks.values():
        again = [run for run in life.attempts if run.number]
        if not again or not any(run.state == FINISHED for run in life.attempts[:-1]):
            continue
        for index in range(min(life.num_returns, RETURNS_MAX)):
            item = return_object(life.id, index)
            known = x.history.objects.get(item)
            if known is None:
                continue
            for copy in copies_of(x, known):
                if copy.node == node and copy.why == DIED:
                    last = life.attempts[-1]
                    how = "was made again" if last.state == FINISHED else "is being made again"
                    if last.state not in (FINISHED, SENT):
                        how = "could not be made again"
                    text = f"{x.value_named(item)} lay there and {how} by attempt {last.number}"
                    yield Cause(EVENT, text, started_ns=x.since(copy.until_ns), about=short(item))


def _explain_head(x: Explainer) -> Why:
    heads = list(x.history.heads.values())
    if not heads:
        raise TraceError("the trace holds no head: its recording is not there")
    causes = []
    for head in heads:
        epoch = f"the head of epoch {head.epoch}" if head.epoch else "the head"
        length_ns = head.last_ns - head.first_ns
        text = f"{epoch} spoke"
        first, last = x.since(head.first_ns), x.since(head.last_ns)
        causes.append(Cause(TIME, text, length_ns, first, last, "head"))
    for change in x.history.head_changes[:CAUSES_MAX]:
        where = x.history.where(change.core).removeprefix(" on ") or "this node"
        text = f"{where} learned that the head of epoch {change.epoch} speaks"
        causes.append(Cause(EVENT, text, started_ns=x.since(change.at_ns)))
    buried = [node for node in x.history.members.values() if node.buried_ns >= 0]
    for node in buried:
        text = f"it declared node {node.node} dead: {node.reason}"
        causes.append(
            Cause(EVENT, text, started_ns=x.since(node.buried_ns), about=f"node {node.node}")
        )
    lives = "one life" if len(heads) == 1 else f"{len(heads)} lives"
    text = f"had {lives} in the trace and declared {len(buried)} nodes dead"
    first, last = min(head.first_ns for head in heads), max(head.last_ns for head in heads)
    return Why("head", text, x.since(first), x.since(last), causes=tuple(causes))
