"""Which tasks of a recording there are to run again, and which one a user means."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from detray.ids import OBJECT_ID_BYTES, TaskID, job_of, root_task
from detray.rerun.recorded import Recorded
from detray.trace.format import TraceError
from detray.trace.names import matches, short

_CANDIDATES_MAX = 8
_FIRST = {"lost": 0, "failed": 1, "": 2, "cancelled": 2, "sent": 2, "waiting": 2, "finished": 3}
"""In which order tasks are listed, by how they ended: what went wrong first."""


class ListedTask(msgspec.Struct):
    """A task that was recorded. `why_not` says why it cannot run again, "" if it can."""

    id: str
    name: str
    function: str
    state: str
    error: str
    attempts: int
    argument_bytes: int
    duration_ns: int
    why_not: str = ""


def list_tasks(recorded: Recorded) -> list[ListedTask]:
    """Every task that was recorded, what went wrong first. Nothing is unpickled."""
    rows = [_row(recorded, task) for task in _known(recorded)]
    rows.sort(key=lambda row: _FIRST.get(row.state, 2))  # stable: else as they were submitted
    return rows


def _known(recorded: Recorded) -> Iterable[TaskID]:
    others = (task for task in recorded.history.tasks if task not in recorded.calls)
    return (*recorded.calls, *(t for t in others if t != root_task(job_of(t))))


def _row(recorded: Recorded, task: TaskID) -> ListedTask:
    call = recorded.calls.get(task)
    life = recorded.history.tasks.get(task)
    state, error = recorded.ending(task, recorded.latest(task))
    duration_ns = -1
    for run in life.attempts if life is not None else ():
        if run.number == recorded.latest(task) and run.started_ns >= 0 and run.ended_ns >= 0:
            duration_ns = run.ended_ns - run.started_ns
    return ListedTask(
        id=task.hex(),
        name=short(task),
        function=call.name if call else life.name if life else "",
        state=state or (life.state if life else ""),
        error=(error or (life.error if life else "")).partition("\n")[0],
        attempts=len(recorded.attempts(task)),
        argument_bytes=len(call.blob) if call else 0,
        duration_ns=duration_ns,
        why_not="" if call is not None else "its arguments were not kept",
    )


def find_task(recorded: Recorded, wanted: str) -> TaskID:
    """The task that a user means: an id or its beginning, a short name, the id of a value that it
    returned, or a function that was called once, or failed once.

    Raises TraceError if that is none, or several.
    """
    text = wanted.strip()
    known = list(_known(recorded))
    lower = text.lower()
    if len(lower) == 2 * OBJECT_ID_BYTES or "/" in lower:  # a return
        lower = lower.partition("/")[0][: 2 * 16]
    found = [task for task in known if matches(task, lower)]
    if not found:
        found = [task for task in known if _name(recorded, task) == text]
        troubled = [t for t in found if recorded.ending(t, recorded.latest(t))[0] in _TROUBLE]
        if len(found) > 1 and troubled:
            found = troubled
    if len(found) == 1:
        return found[0]
    trace = recorded.trace.name
    if not found:
        raise TraceError(
            f"{trace} knows no task {wanted!r}: `detray rerun {trace} --list` shows all"
        )
    names = ", ".join(map(short, found[:_CANDIDATES_MAX]))
    more = f" and {len(found) - _CANDIDATES_MAX:,} more" if len(found) > _CANDIDATES_MAX else ""
    raise TraceError(
        f"{wanted!r} may be any of {len(found):,}: {names}{more} "
        f"(`detray rerun {trace} --list` says how each ended)"
    )


_TROUBLE = ("failed", "lost")


def _name(recorded: Recorded, task: TaskID) -> str:
    call = recorded.calls.get(task)
    life = recorded.history.tasks.get(task)
    return call.name if call is not None else life.name if life is not None else ""
