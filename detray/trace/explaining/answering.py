"""Why: what is asked about, and who explains things of its kind."""

from __future__ import annotations

from detray.ids import TASK_ID_BYTES, ClientID, ObjectID, TaskID
from detray.trace.explaining.causes import Explainer
from detray.trace.explaining.parts import Timeline
from detray.trace.explaining.things import explain_client, explain_node, explain_object
from detray.trace.explaining.tree import DEPTH, DEPTH_MAX, Why
from detray.trace.format import TraceError
from detray.trace.gathering.endings import FAILED_ARGUMENT, ORPHANED
from detray.trace.gathering.history import History, history_of
from detray.trace.gathering.lives import FAILED, SENT, WAITING, TaskLife
from detray.trace.play import Makers, schedulers
from detray.trace.reading import Trace
from detray.trace.telling.story import StorySubject, find_subject


def why(
    trace: Trace, about: str | StorySubject = "", *, depth: int = DEPTH, makers: Makers = schedulers
) -> Why:
    """Why `about` (an id or a name, as for `detray story`) was as it was.

    Without one: why the first task failed that failed by itself; if none did, why a task never
    ended; if all ended well, why the last to end did not end earlier.

    Raises TraceError if the trace does not know it, or cannot be read; ValueError for a depth below
    1 or above `tree.DEPTH_MAX`.
    """
    if not 1 <= depth <= DEPTH_MAX:
        raise ValueError(
            f"a depth of {depth:,}: causes are followed over 1 to {DEPTH_MAX} levels. Ask about "
            "what the last level names to go further back"
        )
    history = history_of(trace, makers)
    subject = about
    if not subject:
        subject = StorySubject(_most_telling(trace, history).id, ClientID(0))
    if not isinstance(subject, StorySubject):
        subject = find_subject(trace, subject, makers, history)
    history.use_dates(trace.header)
    timeline = Timeline(history)
    explainer = Explainer(timeline, depth)
    if not subject.item:
        if subject.client:
            return explain_client(explainer, subject)
        return explain_node(explainer, subject)
    if len(subject.item) == TASK_ID_BYTES and TaskID(subject.item) in history.tasks:
        return explainer.explain_task(history.tasks[TaskID(subject.item)])
    return explain_object(explainer, ObjectID(subject.item))


def _most_telling(trace: Trace, history: History) -> TaskLife:
    """The task to ask about if nobody says which."""
    lives = list(history.tasks.values())
    failed = [life for life in lives if life.state == FAILED and life.error not in _INHERITED]
    stuck = [life for life in lives if life.state in (WAITING, SENT)]
    if failed:
        return min(failed, key=lambda life: (_over_ns(life), life.id))
    if stuck and trace.complete and not trace.goes_on:
        return stuck[-1]
    if not lives:
        raise TraceError(f"{trace.name} holds no task to ask about")
    return max(lives, key=lambda life: (_over_ns(life), life.id))


_INHERITED = (FAILED_ARGUMENT, ORPHANED)
"""Errors of tasks that failed because another did."""


def _over_ns(life: TaskLife) -> int:
    return max(life.over_ns, life.last.ended_ns if life.last is not None else -1)
