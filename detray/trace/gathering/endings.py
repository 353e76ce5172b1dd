"""How tasks ended of whose end no message tells: conclusions that need the whole trace.

Most ends are reports. Others happen within a core: a task that had not begun is cancelled, one of
its arguments failed, the attempt that submitted it was lost, its job or its owner was over. What
follows here is what `core/tasks.py`, `core/runs.py` and `core/membership.py` do then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from detray.ids import TaskID, job_of, task_of
from detray.trace.gathering import tasks as history_tasks
from detray.trace.gathering.lives import (
    CANCEL_ASKED,
    CANCELLED,
    FAILED,
    LOST,
    RECURSIVELY,
    SENT,
    WAITING,
    Attempt,
    TaskLife,
)
from detray.trace.names import is_a_put

if TYPE_CHECKING:
    from detray.trace.gathering.history import History

ORPHANED = "the attempt that submitted it was lost"
FAILED_ARGUMENT = "an argument failed"
JOB_OVER = "its job was over"


def conclude(history: History) -> None:
    """Find the ends that can be found; to be called once, when all steps were taken."""
    lives = list(history.tasks.values())
    for life in lives:
        _bury(history, life)
    for life in reversed(lives):  # whoever refers to another was submitted after it
        if life.state in (WAITING, SENT):
            _end_orphan(history, life)
    for life in lives:
        if life.state == WAITING:
            _end_waiting(history, life)
        if life.state in (WAITING, SENT):
            _end_job(history, life)


def _bury(history: History, life: TaskLife) -> None:
    """What ran at a node that died is lost, what it owned is over (PROTOCOL N15)."""
    last = life.last
    if last is not None and last.state == SENT:
        there = history.members.get(last.node)
        if there is not None and there.buried_ns >= 0:
            reason = f"node {there.node} died: {there.reason}"
            history_tasks.lose(history, life, last, reason, -1)
    if life.state not in (WAITING, SENT):
        return
    owner = history.members.get(history.node_of(life.core))
    if owner is not None and owner.buried_ns >= 0:
        life.state, life.error = FAILED, f"node {owner.node}, its owner, died: {owner.reason}"
        life.over_ns, life.over_core = owner.buried_ns, owner.buried_core


def _end_orphan(history: History, life: TaskLife) -> None:
    """A lost attempt takes its unfinished, otherwise unreferenced children with it (D 32)."""
    parent = history.tasks.get(life.parent)
    if parent is None or life.parent_attempt < 0:
        return
    lost = next((run for run in parent.attempts if run.number == life.parent_attempt), None)
    if lost is None or lost.state != LOST or lost.node < 0 or _is_referenced(history, life):
        return
    since_ns = lost.ended_ns
    if since_ns < 0 or lost.core != life.core or _is_later(life, since_ns):
        return
    life.state, life.error = CANCELLED, ORPHANED
    life.over_ns, life.over_core = since_ns, lost.core


def _is_later(life: TaskLife, ns: int) -> bool:
    """True if the task got on after that moment: so it was not cancelled then."""
    last: Attempt | None = life.last
    return last is not None and last.core == life.core and last.sent_ns > ns


def _is_referenced(history: History, life: TaskLife) -> bool:
    """True if a value, or a task that goes on, has a reference to a result of it."""
    return any(
        user is None or user.state in (WAITING, SENT)
        for user in history.references.get(life.id, ())
    )


def references(history: History) -> dict[TaskID, list[TaskLife | None]]:
    """By task, who refers to a result of it: tasks, and None for values of whatever kind."""
    found: dict[TaskID, list[TaskLife | None]] = {}
    for life in history.tasks.values():
        for item in (*life.args, *life.refs):
            if not is_a_put(item):
                found.setdefault(task_of(item), []).append(life)
    for value in history.objects.values():
        for item in value.refs:
            if not is_a_put(item):
                found.setdefault(task_of(item), []).append(None)
    return found


def _end_waiting(history: History, life: TaskLife) -> None:
    """It never ran to an end: it was cancelled, or what it takes has failed."""
    asked = next(iter(life.moved(CANCEL_ASKED)), None)
    if asked is not None:
        life.state = CANCELLED
        life.over_ns, life.over_core = asked.at_ns, asked.core
        return
    for parent in _above(history, life):
        for move in parent.moved(CANCEL_ASKED):
            if RECURSIVELY in move.text:
                life.state = CANCELLED
                life.error = "the task that submitted it was cancelled recursively"
                life.over_ns, life.over_core = move.at_ns, move.core
                return
    if any(_has_failed(history, task_of(item)) for item in life.args if not is_a_put(item)):
        life.state, life.error = FAILED, FAILED_ARGUMENT


def _above(history: History, life: TaskLife) -> Iterator[TaskLife]:
    """The task that submitted it, the one that submitted that, and so on."""
    seen = {life.id}
    parent = history.tasks.get(life.parent)
    while parent is not None and parent.id not in seen:
        seen.add(parent.id)
        yield parent
        parent = history.tasks.get(parent.parent)


def _has_failed(history: History, task: TaskID) -> bool:
    """It did by itself: the end of a job takes producers and consumers in the same step."""
    producer = history.tasks.get(task)
    if producer is None or producer.error.startswith(JOB_OVER):
        return False
    return producer.state in (FAILED, CANCELLED)


def _end_job(history: History, life: TaskLife) -> None:
    """A job that is over takes all with it that had not ended."""
    closed = history.closed_jobs.get(job_of(life.id))
    if closed is None:
        return
    core, ns, reason = closed
    life.state, life.error = CANCELLED, f"{JOB_OVER}: {reason}"
    life.over_ns, life.over_core = ns, core
