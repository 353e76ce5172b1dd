"""Conditions: sentences that name a moment of a trace, and finding it.

    task NAME submitted | sent | finished | failed | cancelled | lost     (NAME may be left out)
    worker N [on node M] started | ready | lost                           (N may be left out)
    driver N [on node M] connected | lost
    object NAME created | freed
    node N joined | buried
    stimulus CLASS, effect CLASS        a core was told such a message, or ordered it
    failure                             anything that went wrong for anybody
    invariant                           a state that must not be
    step N, time 1.5 s

NAME is an id or its beginning, a short name, or a function (then any of its tasks). A task has
failed, or was cancelled, when it ended so for good; it is lost when the worker or node that ran it
is. The moment is always after the step in which it happened.

Most sentences are answered by what was noted when the trace was opened, and by looking at few
steps. A function, and `invariant`, need every step on the way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.effects import Effect
from detray.core.head_messages import NodeAdmitted, NodeAnnounced, NodeBuried
from detray.core.invariants import InvariantBroken
from detray.core.peer_messages import RunDelivered, RunDone, RunErred, RunLost
from detray.core.states import Delivered, Failed
from detray.core.stimuli import GlobalStimulus, LocalStimulus
from detray.core.tables import Tables
from detray.errors import Failure
from detray.ids import TASK_ID_BYTES, ObjectID, TaskID, return_object
from detray.trace.format import TraceError
from detray.trace.links import LINK_MESSAGES, nodes_of
from detray.trace.play import Played
from detray.trace.replaying import check_invariants

if TYPE_CHECKING:
    from detray.trace.reading import RecordedStep
    from detray.trace.travel.seeking import Replay

Test = Callable[["Replay"], object]
"""Whether it holds at the position of a replay."""


class Condition(NamedTuple):
    """Where to look (`steps`: numbers from .. up to, the wanted order), and what must hold there.

    `holds` is given the number of the step and may move the replay; None: the steps are it.
    """

    steps: Callable[[Replay, int, int, bool], Iterable[int]]
    holds: Callable[[Replay, int], bool] | None = None


LISTING = (__doc__ or "").split("\n\n")[1]
"""The sentences that there are."""


def find(replay: Replay, condition: str | Test, backwards: bool) -> bool:
    """Go to the next moment at which the condition holds, or the last one before; else stay.

    Raises TraceError if it is a sentence that makes no sense.
    """
    origin = replay.at
    is_found = False
    try:
        if callable(condition):
            seek = _find_back if backwards else _find_on
            is_found = seek(replay, condition)
        else:
            low, high = (replay.first, origin - 1) if backwards else (origin, replay.end)
            parsed = parse(replay, condition)
            for number in parsed.steps(replay, low, high, backwards):
                if parsed.holds is None or parsed.holds(replay, number):
                    replay.goto(number + 1)
                    is_found = True
                    break
    finally:
        if not is_found:
            replay.goto(origin)
    return is_found


def parse(replay: Replay, sentence: str) -> Condition:
    """What a sentence means in this trace. Raises TraceError."""
    words = " ".join(sentence.split())
    for pattern, make in _SENTENCES:
        found = re.fullmatch(pattern, words, re.IGNORECASE)
        if found:
            return make(replay, found)
    raise TraceError(f"{sentence!r} says nothing of a trace; what can be said:\n{LISTING}")


# ------------------------------------------------------------------ functions


def _find_on(replay: Replay, test: Test) -> bool:
    while replay.at < replay.end:
        replay.step()
        if test(replay):
            return True
    return False


def _find_back(replay: Replay, test: Test) -> bool:
    """Window by window, each from its beginning: the last moment in it is the one."""
    high = replay.at - 1
    while high > replay.first:
        low = replay.mark_before(high - 1)
        replay.goto(low)
        found = -1
        while replay.at < high:
            replay.step()
            if test(replay):
                found = replay.at
        if found >= 0:
            replay.goto(found)
            return True
        high = low
    return False


# ------------------------------------------------------------------ ways to look


def _among(numbers: Sequence[int]) -> Callable[[Replay, int, int, bool], Iterable[int]]:
    """These steps."""

    def steps(replay: Replay, low: int, high: int, backwards: bool) -> Iterable[int]:
        found = [number for number in numbers if low <= number < high]
        return reversed(found) if backwards else found

    return steps


def _reading(
    numbers: Sequence[int], test: Callable[[RecordedStep], bool]
) -> Callable[[Replay, int, int, bool], Iterable[int]]:
    """Those of these steps whose recording passes a test."""

    def steps(replay: Replay, low: int, high: int, backwards: bool) -> Iterator[int]:
        for step in _read(replay, _among(numbers)(replay, low, high, backwards)):
            if test(step):
                yield step.number

    return steps


def _read(replay: Replay, numbers: Iterable[int]) -> Iterator[RecordedStep]:
    """The recordings of steps; those close together, in order, are read in one go."""
    ahead: Iterator[RecordedStep] = iter(())
    at: int | None = None
    for number in numbers:
        if at is None or not at <= number < at + _CLOSE:
            ahead, at = replay.trace.steps(number), number
        for step in ahead:
            at = step.number + 1
            if step.number == number:
                yield step
                break


_CLOSE = 500


def _mentioning(
    items: Sequence[bytes], numbers: Sequence[int], test: Callable[[RecordedStep], bool]
) -> Callable[[Replay, int, int, bool], Iterable[int]]:
    """Steps that pass a test, and in which one of `items` must be mentioned."""
    if len(items) != 1:
        return _reading(numbers, test)

    def steps(replay: Replay, low: int, high: int, backwards: bool) -> Iterator[int]:
        for step in replay.trace.mentions(items[0], low, high, backwards):
            if test(step):
                yield step.number

    return steps


def _tables(replay: Replay, step: int, core: int) -> Any:  # Any: of whichever kind of core
    """The tables of a core before a step; None if they are not known."""
    replay.goto(step)
    return getattr(replay.cores.get(core), "tables", None)


def _core_of(replay: Replay, number: int) -> int:
    return next(replay.trace.steps(number)).core


# ------------------------------------------------------------------ tasks


def _task(replay: Replay, found: re.Match[str]) -> Condition:
    name, what = found["name"], found["what"].lower()
    items = replay.contents.find_tasks(name) if name else None
    return _TASK[what](replay, items)


def _submitted(replay: Replay, items: list[TaskID] | None) -> Condition:
    numbers = replay.contents.told(st.TaskSubmitted)
    if items is None:
        return Condition(_among(numbers))
    wanted = frozenset(items)
    return Condition(
        _mentioning(items, numbers, lambda step: _tells(step, (st.TaskSubmitted,), wanted))
    )


def _tells(step: RecordedStep, kinds: tuple[type, ...], tasks: frozenset[TaskID]) -> bool:
    """True if a core is told, in a message of one of these classes, of one of these tasks."""
    told: list[Any] = list(step.stimuli())  # Any: those of `kinds` have a task
    return any(type(item) in kinds and item.task in tasks for item in told)


def _sent(replay: Replay, items: list[TaskID] | None) -> Condition:
    numbers = replay.contents.ordered(ef.RunTask, RunDelivered)
    if items is None:
        return Condition(_among(numbers))
    wanted = frozenset(items)

    def holds(replay: Replay, number: int) -> bool:
        replay.goto(number + 1)
        for effect in _effects(replay.last):
            message = getattr(effect, "message", effect)
            if isinstance(message, ef.RunTask | RunDelivered) and message.task in wanted:
                return True
        return False

    if replay.trace.keeps_effects and len(items) == 1:
        return Condition(_mentioning(items, numbers, lambda step: True), holds)
    return Condition(_among(numbers), holds)


def _effects(played: Played | None) -> Sequence[Any]:  # Any: effects
    if played is None:
        return ()
    return played.effects if played.is_played else played.step.effects() or ()


def _finished(replay: Replay, items: list[TaskID] | None) -> Condition:
    kinds = (st.RunFinished, RunDone)
    numbers = replay.contents.told(*kinds)

    def holds(replay: Replay, number: int) -> bool:
        """The report may be stale: the task must have ended in that step."""
        told = [s.task for s in _stimuli(replay, number) if isinstance(s, kinds)]
        wanted = [task for task in told if items is None or task in items]
        return bool(wanted) and _have_ended(replay, number, wanted)

    if items is None:
        return Condition(_among(numbers), holds)
    wanted = frozenset(items)
    return Condition(_mentioning(items, numbers, lambda step: _tells(step, kinds, wanted)), holds)


def _stimuli(replay: Replay, number: int) -> list[Any]:  # Any: stimuli
    return next(replay.trace.steps(number)).stimuli()


def _have_ended(replay: Replay, number: int, tasks: Iterable[TaskID]) -> bool:
    """True if one of the tasks is there before the step and not after it, or nobody can tell."""
    core = _core_of(replay, number)
    before = _tables(replay, number, core)
    if not isinstance(before, Tables):
        return True
    there = [task for task in tasks if task in before.tasks]
    after = _tables(replay, number + 1, core)
    return after is not None and any(task not in after.tasks for task in there)


def _failed(replay: Replay, items: list[TaskID] | None) -> Condition:
    return _ended_badly(replay.contents.failed, items, is_cancelled=False)


def _cancelled(replay: Replay, items: list[TaskID] | None) -> Condition:
    return _ended_badly(replay.contents.cancelled, items, is_cancelled=True)


def _ended_badly(
    numbers: Sequence[int], items: list[TaskID] | None, *, is_cancelled: bool
) -> Condition:
    if items is None:
        return Condition(_among(numbers))

    def holds(replay: Replay, number: int) -> bool:
        stimuli = _stimuli(replay, number)
        well = {s.task for s in stimuli if isinstance(s, st.RunFinished | RunDone)}
        core = _core_of(replay, number)
        before = _tables(replay, number, core)
        there = [task for task in items if task in before.tasks and task not in well]
        after = _tables(replay, number + 1, core)
        for task in there:
            if task in after.tasks:
                continue
            row = after.objects.get(return_object(task, 0))
            state = row.state if row is not None else None
            if not isinstance(state, Failed):
                return True  # nobody held its value: the row went with the task
            if (state.failure == Failure.CANCELLED) == is_cancelled:
                return True
        return False

    return Condition(_among(numbers), holds)


def _lost(replay: Replay, items: list[TaskID] | None) -> Condition:
    numbers = replay.contents.told(st.WorkerLost, RunLost, NodeBuried)

    def holds(replay: Replay, number: int) -> bool:
        core = _core_of(replay, number)
        tables = _tables(replay, number, core)
        if not isinstance(tables, Tables):
            return False
        for s in _stimuli(replay, number):
            if isinstance(s, RunLost) and (items is None or s.task in items):
                return True
            if isinstance(s, st.WorkerLost) and s.client in tables.workers:
                runs = tables.workers[s.client].runs
                if any(items is None or run.task in items for run in runs):
                    return True
            if isinstance(s, NodeBuried) and any(
                isinstance(task.state, Delivered) and task.state.node == s.node
                for name in (tables.tasks if items is None else items)
                if (task := tables.tasks.get(name)) is not None
            ):
                return True
        return False

    return Condition(_among(numbers), holds)


_TASK: dict[str, Callable[[Replay, list[TaskID] | None], Condition]] = {
    "submitted": _submitted,
    "sent": _sent,
    "finished": _finished,
    "failed": _failed,
    "cancelled": _cancelled,
    "lost": _lost,
}

# ------------------------------------------------------------------ clients and nodes


def _client(replay: Replay, found: re.Match[str]) -> Condition:
    what = found["what"].lower()
    sign = -1 if found["kind"].lower() == "driver" else 1
    client = sign * int(found["number"]) if found["number"] else None
    node = int(found["node"]) if found["node"] else None
    nodes = nodes_of(replay.trace)

    def test(step: RecordedStep) -> bool:
        if node is not None and nodes[step.core] != node:
            return False
        clients = [getattr(s, "client", None) for s in step.stimuli() if type(s) is kind]
        return bool(clients) if client is None else client in clients

    if what == "started":
        return _started(replay, client, node, nodes)
    kind: type = {
        ("worker", "ready"): st.WorkerReady,
        ("worker", "lost"): st.WorkerLost,
        ("driver", "connected"): st.DriverConnected,
        ("driver", "lost"): st.ClientLost,
    }[found["kind"].lower(), what]
    return Condition(_reading(replay.contents.told(kind), test))


def _started(
    replay: Replay, client: int | None, node: int | None, nodes: Sequence[int]
) -> Condition:
    def holds(replay: Replay, number: int) -> bool:
        if node is not None and nodes[_core_of(replay, number)] != node:
            return False
        replay.goto(number + 1)
        return any(
            isinstance(effect, ef.StartWorker) and client in (None, effect.client)
            for effect in _effects(replay.last)
        )

    return Condition(_among(replay.contents.ordered(ef.StartWorker)), holds)


def _node(replay: Replay, found: re.Match[str]) -> Condition:
    joined = (NodeAdmitted, NodeAnnounced)
    kinds = joined if found["what"].lower() == "joined" else (NodeBuried,)
    node = int(found["number"]) if found["number"] else None

    def holds(replay: Replay, number: int) -> bool:
        replay.goto(number + 1)
        messages = [*_stimuli(replay, number), *_effects(replay.last)]
        inner = [getattr(message, "message", message) for message in messages]
        return any(isinstance(item, kinds) and node in (None, item.node) for item in inner)

    contents = replay.contents
    numbers = sorted({*contents.told(*kinds), *contents.ordered(*kinds)})
    return Condition(_among(numbers), holds)


# ------------------------------------------------------------------ objects


def _object(replay: Replay, found: re.Match[str]) -> Condition:
    item = replay.contents.find_object(found["name"])
    if found["what"].lower() == "created":
        return _created(replay, item)
    return Condition(lambda replay, low, high, back: _freed(replay, item, low, high, back))


def _created(replay: Replay, item: ObjectID) -> Condition:
    task = TaskID(item[:TASK_ID_BYTES])

    def test(step: RecordedStep) -> bool:
        for s in step.stimuli():
            if isinstance(s, st.ObjectPut | st.BlockSealed) and s.object == item:
                return True
            if isinstance(s, st.RunFinished | RunDone) and s.task == task:
                index = int.from_bytes(item[TASK_ID_BYTES:], "big")
                return index < len(s.returns)
        return False

    return Condition(_mentioning([task], (), test))


def _freed(replay: Replay, item: ObjectID, low: int, high: int, backwards: bool) -> Iterator[int]:
    """Steps after which a core that knew the object knows it no more.

    From one mark to the next: where it was neither known nor mentioned, nothing is played.
    """
    marks = [*replay.marks_between(low, high), high]
    windows = list(zip([low, *marks], marks, strict=False))
    for begin, end in reversed(windows) if backwards else windows:
        if begin >= end:
            continue
        is_mentioned = next(replay.trace.mentions(item, begin, end), None) is not None
        knowing = _knowing(replay, item, begin)
        if not is_mentioned and (not knowing or knowing == _knowing(replay, item, end)):
            continue
        found = []
        replay.goto(begin)
        for step in _read(replay, range(begin, end)):
            was_known = _knows(replay, item, step.core)
            replay.step()
            if was_known and not _knows(replay, item, step.core):
                found.append(step.number)
        yield from reversed(found) if backwards else found


def _knowing(replay: Replay, item: ObjectID, step: int) -> list[int]:
    """The cores that know an object before a step."""
    replay.goto(step)
    return [core for core in replay.cores if _knows(replay, item, core)]


def _knows(replay: Replay, item: ObjectID, core: int) -> bool:
    tables = getattr(replay.cores.get(core), "tables", None)
    return isinstance(tables, Tables) and item in tables.objects


# ------------------------------------------------------------------ all else


def _message(replay: Replay, found: re.Match[str]) -> Condition:
    is_stimulus = found["kind"].lower() == "stimulus"
    classes = _STIMULI if is_stimulus else _EFFECTS
    name = found["name"]
    kind = classes.get(name.lower())
    if kind is None:
        near = get_close_matches(name.lower(), classes, n=3)
        names = ", ".join(classes[word].__name__ for word in near or sorted(classes)[:8])
        raise TraceError(f"there is no {found['kind'].lower()} {name}: perhaps {names}")
    numbers = replay.contents.told(kind) if is_stimulus else replay.contents.ordered(kind)
    return Condition(_among(numbers))


_STIMULI = {
    kind.__name__.lower(): kind for kind in (*get_args(LocalStimulus), *get_args(GlobalStimulus))
}
_EFFECTS = {kind.__name__.lower(): kind for kind in (*get_args(Effect), *LINK_MESSAGES)}


def _failure(replay: Replay, found: re.Match[str]) -> Condition:
    contents = replay.contents
    bad = (st.RunFailed, RunErred, RunLost, NodeBuried, st.WorkerStartFailed, st.ObjectCorrupted)
    expected = _reading(
        contents.told(st.WorkerLost),
        lambda step: any(isinstance(s, st.WorkerLost) and not s.expected for s in step.stimuli()),
    )
    lost = expected(replay, replay.first, replay.end, False)
    reported = contents.ordered(ef.DumpRecorder, NodeBuried)
    return Condition(_among(sorted({*contents.failed, *contents.told(*bad), *lost, *reported})))


def _invariant(replay: Replay, found: re.Match[str]) -> Condition:
    def steps(replay: Replay, low: int, high: int, backwards: bool) -> Iterator[int]:
        numbers = range(low, high)
        for number in reversed(numbers) if backwards else numbers:
            replay.goto(number + 1)
            if broken(replay, _core_of(replay, number)):
                yield number

    return Condition(steps)


def broken(replay: Replay, core: int) -> str:
    """Which invariant of a core does not hold here, and what was seen; "" if all hold."""
    try:
        check_invariants(replay.cores.get(core))
    except InvariantBroken as error:
        return str(error)
    return ""


def _step(replay: Replay, found: re.Match[str]) -> Condition:
    return Condition(_among([int(found["number"]) - 1]))


def _time(replay: Replay, found: re.Match[str]) -> Condition:
    ns = int(float(found["number"]) * _UNITS[(found["unit"] or "s").lower()])

    def steps(replay: Replay, low: int, high: int, backwards: bool) -> Iterator[int]:
        numbers = range(low, high)
        for number in reversed(numbers) if backwards else numbers:
            since_ns = replay.time_of(number)
            if since_ns <= ns if backwards else since_ns >= ns:
                yield number

    return Condition(steps)


_UNITS = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9, "min": 6e10, "h": 3.6e12}
_ON = r"(?: (?P<number>\d+))?(?:,? on)?(?: node (?P<node>\d+))?"
_SENTENCES: list[tuple[str, Callable[[Replay, re.Match[str]], Condition]]] = [
    (
        r"(?:the )?tasks?(?: (?P<name>(?!(?:is|was|has) ).+?))?(?: (?:is|was|has))? (?P<what>"
        + "|".join(_TASK)
        + ")",
        _task,
    ),
    (rf"(?P<kind>worker){_ON}(?: is| was)? (?P<what>started|ready|lost)", _client),
    (rf"(?P<kind>driver){_ON}(?: is| was)? (?P<what>connected|lost)", _client),
    (r"object (?P<name>.+?)(?: is| was)? (?P<what>created|freed)", _object),
    (r"node(?: (?P<number>\d+))?(?: is| was| has)? (?P<what>joined|buried)", _node),
    (r"(?P<kind>stimulus|effect) (?P<name>\w+)", _message),
    (r"(?:any )?(?:failure|error)s?", _failure),
    (r"(?:broken )?invariants?(?: is)?(?: broken)?", _invariant),
    (r"step (?P<number>\d+)", _step),
    (r"time (?P<number>\d+(?:\.\d+)?) ?(?P<unit>ns|us|ms|s|min|h)?", _time),
]
