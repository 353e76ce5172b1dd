"""Lineage: finished tasks that can run again, and running them when their values are lost.

Rules (PROTOCOL N5, N6, D 21 to 24)
-----------------------------------
- Only what lies at other nodes can be lost while its owner lives. So a task is remembered while one
  of its returns is kept elsewhere and it may still be retried: its specification, and its arguments
  by a count in their rows (`Shared.lineage`). An argument that can itself be made again is kept as
  a record without bytes, any other with its value.
- A value is made again when somebody wants it. That is the task's next attempt and spends the same
  budget; it first waits for its own arguments, which may have to be made again before it.
- A re-run stores only the returns that have no copy: live values are never replaced.
- Lineage is bounded in bytes; the oldest is forgotten first, and the error says so.
"""

from __future__ import annotations

from detray.core import freeing
from detray.core.lending import shared_of
from detray.core.lifecycle import move_object
from detray.core.placing import away_of, route
from detray.core.states import PENDING, WAITING, Elsewhere, Gone
from detray.core.step import Step
from detray.core.tables import Object, Past, Task, Template
from detray.core.tasks import fail_task_like, take_arguments
from detray.core.values import fail_lost
from detray.ids import return_object, task_of

ROW_BYTES = 400
"""What a record takes beside its payload, roughly."""


def is_worth_remembering(s: Step, task: Task, template: Template) -> bool:
    """True if a return is kept elsewhere, and the task may run again."""
    if not task.retries or s.t.config.policy.lineage_off:
        return False
    for index in range(template.num_returns):
        row = s.t.objects.get(return_object(task.spec.task, index))
        if row is not None and type(row.state) is Elsewhere:
            return True
    return False


def remember(s: Step, task: Task, template: Template) -> None:
    """Keep what is needed to run a finished task again; called just before it ends."""
    spec = task.spec
    size_bytes = ROW_BYTES + spec.size_bytes
    past = Past(spec, template.number, task.attempt, task.retries, size_bytes)
    t = s.t
    t.pasts[spec.task] = past
    t.past_bytes += size_bytes
    for ref in (*spec.args, *spec.refs):
        shared_of(t.objects[ref]).lineage += 1
    while t.past_bytes > t.config.policy.lineage_bytes_max and len(t.pasts) > 1:
        s.count("lineage evicted")
        oldest = next(iter(t.pasts))
        for index in range(t.templates[t.pasts[oldest].template].num_returns):
            row = t.objects.get(return_object(oldest, index))
            if row is not None:
                shared_of(row).is_forgotten = True
        freeing.end_past(s, oldest)


def recover(s: Step) -> None:
    """Make lost objects again that somebody wants."""
    rebuilds, s.rebuilds = s.rebuilds, []
    for item in rebuilds:
        row = s.t.objects.get(item)
        if row is not None and type(row.state) is Gone:
            _recover(s, row)


def _recover(s: Step, row: Object) -> None:
    t = s.t
    name = task_of(row.id)
    past = t.pasts.get(name)
    template = t.templates.get(past.template) if past is not None else None
    if past is None or template is None:
        fail_lost(s, row, "its lineage was too large to keep, or its job is over")
        return
    if not past.retries:
        fail_lost(s, row, f"all {template.max_retries} retries of {template.name} are used up")
        freeing.forget_past_of(s, row)
        return
    lost = _lost_returns(s, past, template)
    retries = past.retries - 1 if past.retries > 0 else past.retries
    task = Task(
        past.spec, past.template, s.next_number(), WAITING, retries, attempt=past.attempt + 1
    )
    away_of(task).wanted = tuple(index for index, _ in lost)
    t.tasks[name] = task
    for _, item in lost:
        move_object(item, PENDING)
    s.count("rebuilt", len(lost))
    failed = take_arguments(s, task)
    _forget(s, past)
    if failed is not None:
        fail_task_like(s, task, failed)
    elif not task.missing:
        route(s, task, template)


def _lost_returns(s: Step, past: Past, template: Template) -> list[tuple[int, Object]]:
    found = []
    for index in range(template.num_returns):
        row = s.t.objects.get(return_object(past.spec.task, index))
        if row is not None and type(row.state) is Gone:
            found.append((index, row))
    return found


def _forget(s: Step, past: Past) -> None:
    """The record becomes a task again: its payload stays, its counts are the task's now."""
    del s.t.pasts[past.spec.task]
    s.t.past_bytes -= past.size_bytes
    for ref in (*past.spec.args, *past.spec.refs):
        freeing.drop_lineage(s, s.t.objects[ref])
