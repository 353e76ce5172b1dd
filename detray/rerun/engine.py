"""The serial engine: recorded tasks run in this process, one inside the other.

Theory of operation
-------------------
A task runs with the arguments that it had. What it asks of detray is answered from the recording:
a reference has the value it had, a call of the same function with the same arguments has the result
it had, `wait` finds ready what it found ready. Ids are minted as they were, so everything has the
name it had. What was not kept (large values of tasks) is made again, by running its task here.

*Fresh* is what differs from the recording: a put with other contents, a call with other arguments,
and what comes of these. Fresh values are seen only by the task that made them and what it calls,
its `Scope`. All else is *made* once and serves everybody. A made value that is not what it was, by
its digest, is *tainted*: who runs with it is not judged.

Made values are kept up to a bound. Beyond, those go that no planned task needs and no reference in
this process names; what is needed again is made again.
"""

from __future__ import annotations

import os
import time
import traceback
from _thread import get_ident
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from detray.core.streams import RunContext
from detray.errors import Failure
from detray.ids import (
    NO_CLIENT,
    FunctionID,
    NodeID,
    ObjectID,
    TaskID,
    is_put,
    return_object,
    task_of,
)
from detray.rerun.bystander import Bystander
from detray.rerun.judging import (
    CANNOT,
    DIFFERS,
    SAME,
    UNKNOWN,
    Judgement,
    Outcome,
    differing,
    judge,
)
from detray.rerun.recorded import Answer, Call, CallTemplate, Recorded, Seat
from detray.runtime.execution import Environment
from detray.serialization.calls import decode_call
from detray.serialization.digests import digest
from detray.serialization.failures import error_from, serialize_error, summarize
from detray.serialization.returns import pickle_return, split_returns
from detray.serialization.values import Serialized, deserialize
from detray.trace.names import short

MADE_BYTES_MAX = 512 << 20
"""Values that were made again are kept up to this much, as far as nobody needs them."""

Invoke = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""Calls the user's function. (Any: the user's.)"""


class CannotRerun(BaseException):
    """A task cannot be run again: which, why, and what to do.

    Not an `Exception`: it passes through user code that catches everything.
    """


class Value(NamedTuple):
    """What an object turned out to be: bytes, or a failure (kind, text, pickled error)."""

    data: bytes | memoryview | None
    failure: tuple[int, str, bytes | memoryview | None] | None = None


class Scope:
    """What differs from the recording within one task and what it calls."""

    def __init__(self) -> None:
        self.fresh: dict[ObjectID, Value] = {}
        self.changed: set[ObjectID] = set()
        """Objects that are not what they were, made already or not."""
        self.pending: dict[TaskID, Call] = {}
        """Calls that were made, whose results are fresh and not made yet."""
        self.remarks: list[str] = []


class Turn:
    """A task that runs."""

    def __init__(self, call: Call, attempt: int, seat: Seat, scope: Scope) -> None:
        template = call.template
        self.call = call
        self.seat = seat
        self.scope = scope
        self.answers: deque[Answer] = deque()
        self.known: set[ObjectID] = set()
        """What it has seen to be available."""
        demand = template.demand if template else ()
        self.context = RunContext(
            call.task, attempt, call.depth, call.name, get_ident(), seat.units, demand
        )


class Engine:
    """Runs tasks of one recording. `tell` is given a line about everything that is made again."""

    def __init__(
        self, recorded: Recorded, *, deep: bool = False, tell: Callable[[str], None] = print
    ) -> None:
        """With `deep` calls are run, too, even where their results were kept."""
        self.recorded = recorded
        self.deep = deep
        self.tell = tell
        self.made: dict[ObjectID, bytes] = {}
        self.made_bytes = 0
        self.tainted: set[ObjectID] = set()
        self.judged: dict[TaskID, Judgement] = {}
        """The verdicts on all tasks that ran with what they had."""
        self.unmade: dict[TaskID, str] = {}
        """Tasks that were to make values again, and why they did not."""
        self.bystander = Bystander()
        self.wanted: Counter[ObjectID] = Counter()
        """How many planned tasks take a value."""
        self.live: Counter[ObjectID] = Counter()
        """References in this process."""
        self.exported: dict[FunctionID, tuple[str, bytes]] = {}
        self._frames: dict[int, list[Turn]] = {}
        self._newest: list[Turn] = []
        self.is_interrupted: Callable[[], bool] = _always
        """Whether a KeyboardInterrupt is the user's, not one that a task raised."""
        self._functions: dict[FunctionID, Any] = {}  # Any: the user's
        self._environment = Environment()
        self._stacked: Counter[ObjectID] = Counter()

    # -------------------------------------------------------------- who runs

    @property
    def frame(self) -> Turn:
        """The task whose code calls. Threads that it started speak for it."""
        mine = self._frames.get(get_ident())
        if not mine and not self._newest:
            raise RuntimeError("a thread of a task uses detray after the task has ended")
        return mine[-1] if mine else self._newest[-1]

    @contextmanager
    def _running(self, frame: Turn) -> Iterator[None]:
        mine = self._frames.setdefault(get_ident(), [])
        mine.append(frame)
        self._newest.append(frame)
        try:
            yield
        finally:
            mine.remove(frame)
            self._newest.remove(frame)
            if not mine:
                self._frames.pop(get_ident(), None)

    # -------------------------------------------------------------- running

    def run(
        self, task: TaskID, attempt: int | None = None, invoke: Invoke | None = None
    ) -> tuple[Outcome, Judgement]:
        """Run a recorded task with what it had, and compare. Raises CannotRerun."""
        call = self._call(task)
        number = self.recorded.latest(task) if attempt is None else attempt
        self.need(call.args)
        scope = Scope()
        self.bystander.began(task, number)
        try:
            outcome = self._perform(call, number, scope, invoke)
            judgement = judge(self.recorded, task, number, outcome)
            self._conclude(call, judgement, scope)
        except CannotRerun:
            self.bystander.ended()
            raise
        # Not if anything else was raised: that is where it ended.
        self.bystander.ended()
        if number == self.recorded.latest(task):
            self.take(task, outcome, judgement)
        return outcome, judgement

    def take(self, task: TaskID, outcome: Outcome, judgement: Judgement) -> None:
        """Keep what a run made, for others that take it; it may have run elsewhere."""
        self.judged[task] = judgement
        self.bystander.judged(task, judgement)
        for index, data in enumerate(outcome.returns or ()):
            item = return_object(task, index)
            if self.recorded.bytes_of(item) is None:
                self.keep(item, data, is_same=judgement.verdict in (SAME, UNKNOWN))

    def _conclude(self, call: Call, judgement: Judgement, scope: Scope) -> None:
        """What a verdict must also say."""
        judgement.remarks = scope.remarks
        if judgement.verdict == SAME and scope.remarks:
            judgement.verdict = DIFFERS
        spoilt = [item for item in (*call.args, *call.refs) if item in self.tainted]
        if spoilt and judgement.verdict != SAME:
            judgement.verdict = UNKNOWN
            judgement.text = (
                f"it ran with another {short(spoilt[0])} than it had (that could not be made as it "
                f"was), so it is not judged; {judgement.text}"
            )

    def _perform(
        self, call: Call, attempt: int, scope: Scope, invoke: Invoke | None = None
    ) -> Outcome:
        seat = self.recorded.seats.get((call.task, attempt)) or Seat(NodeID(0), NO_CLIENT, ())
        frame = Turn(call, attempt, seat, scope)
        frame.answers.extend(self.recorded.answers.get((call.task, attempt), ()))
        with self._running(frame):
            outcome = self._attempt(frame, invoke)
            if self.deep:
                for task in list(scope.pending):
                    self._run_pending(task, scope)
        return outcome

    def _attempt(self, frame: Turn, invoke: Invoke | None) -> Outcome:
        template = self._template(frame.call)
        function = self._function(template.function)
        args, kwargs = self._arguments(frame)
        self._environment.prepare(frame.context.demand, frame.context.units)
        phase = Failure.APPLICATION
        started_ns = time.monotonic_ns()
        try:
            value = invoke(function, args, kwargs) if invoke else function(*args, **kwargs)
            del args, kwargs
            duration_ns = time.monotonic_ns() - started_ns
            phase = Failure.SERIALIZATION
            returns = [part.to_bytes() for part in _parts(value, template)]
            return Outcome(returns, duration_ns=duration_ns)
        except CannotRerun:
            raise
        except KeyboardInterrupt as error:
            if self.is_interrupted():
                raise
            # The task raised it itself: where it ran that was a cancellation.
            return _failed(error, Failure.CANCELLED, template, time.monotonic_ns() - started_ns)
        except Exception as error:
            return _failed(error, phase, template, time.monotonic_ns() - started_ns)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
            return Outcome(died=f"exited with status {status & 0xFF}")
        except BaseException as error:  # nothing catches it in a worker, which ends
            text = "".join(traceback.format_exception(error)).rstrip()
            return Outcome(died="exited with status 1", stack=text)

    # -------------------------------------------------------------- what it needs

    def _call(self, task: TaskID) -> Call:
        call = self.recorded.calls.get(task)
        if call is None:
            lacks = self.recorded.payloads.lacks or self.recorded.payloads.note
            raise CannotRerun(
                f"the arguments of {self.name(task)} are not in {self.recorded.payloads.name}"
                + (f" ({lacks})" if lacks else "")
            )
        return call

    def _template(self, call: Call) -> CallTemplate:
        if call.template is None:
            raise CannotRerun(
                f"which function {short(call.task)} called is not in "
                f"{self.recorded.payloads.name}: the node that called it has it in its own "
                "payload file. `detray trace collect` brings them together"
            )
        return call.template

    def _function(self, item: FunctionID) -> Any:
        """The user's function, unpickled once. (Any: it is the user's.)"""
        if item in self._functions:
            return self._functions[item]
        exported = self.exported.get(item)
        recorded = self.recorded.functions.get(item)
        if exported is not None:
            name, definition = exported
        elif recorded is not None:
            name, definition = recorded.name, bytes(recorded.definition)
        else:
            raise CannotRerun(
                f"the function {short(item)} is not in {self.recorded.payloads.name}: the node "
                "that exported it has it in its own payload file. `detray trace collect` brings "
                "them together"
            )
        try:
            found = self._functions[item] = deserialize(definition)
        except Exception as problem:
            raise CannotRerun(_unloadable(f"the function {name!r}", problem)) from problem
        return found

    def _arguments(self, frame: Turn) -> tuple[tuple[Any, ...], dict[str, Any]]:
        call = frame.call
        found = [self.value(item, frame.scope) for item in call.args]
        for item, value in zip(call.args, found, strict=True):
            if value.failure is not None:
                raise CannotRerun(
                    f"{self.name(call.task)} never ran: its argument {short(item)} failed "
                    f"({value.failure[1] or Failure(value.failure[0]).name}). Rerun "
                    f"{self.name(task_of(item))}"
                )
        blob = call.blob
        if call.packed:
            blob = found.pop(0).data or b""
        try:
            return decode_call(bytes(blob), [deserialize(_bytes(value)) for value in found])
        except Exception as problem:
            what = f"the arguments of {self.name(call.task)}"
            raise CannotRerun(_unloadable(what, problem)) from problem

    def value(self, item: ObjectID, scope: Scope | None) -> Value:
        """An object's value, as code in that scope sees it; made here if need be.

        Raises CannotRerun.
        """
        found = self.at_hand(item, scope)
        if found is None:
            if scope is not None and task_of(item) in scope.pending and not is_put(item):
                self._run_pending(task_of(item), scope)
            else:
                self.need((item,))
            found = self.at_hand(item, scope)
        if found is None:
            raise CannotRerun(f"{short(item)} was to be made by its task, which did not make it")
        return found

    def at_hand(self, item: ObjectID, scope: Scope | None) -> Value | None:
        """A value that is there, None if it would have to be made."""
        if scope is not None:
            fresh = scope.fresh.get(item)
            if fresh is not None or (task_of(item) in scope.pending and not is_put(item)):
                return fresh
        data = self.recorded.bytes_of(item)
        if data is not None:
            return Value(data)
        made = self.made.get(item)
        if made is not None:
            return Value(made)
        failure = self.recorded.error_of(item)
        return Value(None, failure) if failure is not None else None

    def need(self, items: Iterable[ObjectID]) -> None:
        """Make values that were not kept, by running their tasks, arguments first.

        Raises CannotRerun.
        """
        wanted = [item for item in items if self.at_hand(item, None) is None]
        if not wanted:
            return
        self._stacked.update(wanted)
        stack = [self._maker(item) for item in reversed(wanted)]
        on_stack: dict[TaskID, None] = {}
        try:
            while stack:
                task = stack[-1]
                call = self._call(task)
                missing = [item for item in call.args if self.at_hand(item, None) is None]
                if missing and task not in on_stack:
                    on_stack[task] = None
                    self._stacked.update(call.args)
                    stack += [self._maker(item) for item in reversed(missing)]
                    continue
                stack.pop()
                self._make(task)
                if on_stack.pop(task, 0) is None:
                    self._stacked.subtract(call.args)
        finally:
            self._stacked.subtract(wanted)
            for task in on_stack:
                self._stacked.subtract(self.recorded.calls[task].args)

    def _make(self, task: TaskID) -> None:
        if task in self.judged and self.judged[task].verdict == CANNOT:
            raise CannotRerun(self.judged[task].text)
        if task in self.unmade:
            raise CannotRerun(self.unmade[task])
        self.tell(f"running {self.name(task)} again: its values were not kept")
        outcome, _ = self.run(task)
        if outcome.returns is None:
            raise CannotRerun(self.give_up(task, outcome))

    def give_up(self, task: TaskID, outcome: Outcome) -> str:
        """A task that was to make its values again ended so: why nobody asks it once more."""
        text = f"{self.name(task)} was to make a value again, but now {outcome.text}"
        self.unmade[task] = text
        self.bystander.unmade(task, text)
        return text

    def _maker(self, item: ObjectID) -> TaskID:
        maker = self.recorded.maker_of(item)
        if self.recorded.is_of_driver(item) and is_put(item):
            raise CannotRerun(
                f"{short(item)} was put by the program itself, and its value is not in "
                f"{self.recorded.payloads.name}"
                + (f" ({self.recorded.payloads.lacks})" if self.recorded.payloads.lacks else "")
            )
        if maker is None:
            raise CannotRerun(
                f"{short(item)} is not in {self.recorded.payloads.name}, and which task put it is "
                "not known"
            )
        return maker

    # -------------------------------------------------------------- what it makes

    def keep(self, item: ObjectID, data: bytes, *, is_same: bool) -> None:
        """Keep a value that was made, while there is room or somebody needs it."""
        self.bystander.kept(item, data, is_same=is_same)
        if item not in self.made:
            self.made[item] = data
            self.made_bytes += len(data)
        if not is_same:
            self.tainted.add(item)
        if self.made_bytes > MADE_BYTES_MAX:
            self._sweep(item)

    def _sweep(self, newest: ObjectID) -> None:
        for item in list(self.made):
            if self.made_bytes <= MADE_BYTES_MAX:
                return
            needed = self.wanted[item] > 0 or self._stacked[item] > 0 or self.live[item] > 0
            if item != newest and not needed:
                self.made_bytes -= len(self.made.pop(item))

    def put(self, value: Serialized) -> ObjectID:
        """What a task puts: the same as then, or fresh."""
        frame = self.frame
        scope = frame.scope
        context = frame.context
        stream = context.streams.get(get_ident()) or context.open_stream(get_ident())
        item = stream.next_put()
        data = value.to_bytes()
        part = self.recorded.part(item)
        then = self.recorded.bytes_of(item)
        if part is None:
            text = f"it puts {short(item)}, which it did not put then"
        elif then is not None:
            text = differing(then, data, f"what it puts as {short(item)}")
        elif part.digest and (part.size != len(data) or part.digest != digest(data)):
            text = f"what it puts as {short(item)} has another digest than then"
        else:
            text = ""
        inner_changed = not scope.changed.isdisjoint(value.refs)
        if text or inner_changed:
            scope.changed.add(item)
            scope.fresh[item] = Value(data)
        if text:
            scope.remarks.append(text)
        if then is None:
            self.keep(item, data, is_same=not text)
        return item

    def submit(
        self, template: CallTemplate, blob: bytes, args: tuple[ObjectID, ...],
        refs: tuple[ObjectID, ...], packed: bool,
    ) -> list[ObjectID]:  # fmt: skip
        """What a task calls: if it is what it called then, the result is known."""
        frame = self.frame
        scope, context = frame.scope, frame.context
        stream = context.streams.get(get_ident()) or context.open_stream(get_ident())
        index = stream.tasks
        stream.tasks = index + 1
        task = TaskID((stream.prefix or stream.name()) + index.to_bytes(4, "big"))
        items = [return_object(task, number) for number in range(template.num_returns)]
        call = Call(task, template, stream.parent, stream.depth, args, refs, packed, blob)
        then = self.recorded.calls.get(task)
        is_changed = not scope.changed.isdisjoint((*args, *refs))
        text = self._other_call(then, call)
        if text:
            scope.remarks.append(text)
        if text or is_changed:
            scope.pending[task] = call
            scope.changed.update(items)
        elif self.deep:
            scope.pending[task] = call
        return items

    def _other_call(self, then: Call | None, now: Call) -> str:
        """How a call differs from the one that was recorded; "" if it does not."""
        if then is None:
            return f"it calls {now.name} ({short(now.task)}), which it did not call then"
        if (
            then.name != now.name
            or self._template(then).num_returns != self._template(now).num_returns
        ):
            return f"it calls {now.name} as {short(now.task)}, which was {then.name} then"
        what = f"it calls {now.name} ({short(now.task)})"
        if (then.args, then.refs, then.packed) != (now.args, now.refs, now.packed):
            return f"{what} with other references than then"
        if bool(then.blob) != bool(now.blob):
            return f"{what} with other arguments than then"
        if not then.blob or then.blob == now.blob:
            return ""
        text = differing(then.blob, now.blob, "its arguments")
        return f"{what} with other arguments than then: {text}" if text else ""

    def _run_pending(self, task: TaskID, scope: Scope) -> None:
        """Run a call of the present task: with what it was called with now."""
        call = scope.pending.pop(task, None)
        if call is None:
            return
        items = [return_object(task, n) for n in range(self._template(call).num_returns)]
        if not scope.changed.isdisjoint((*items, *call.args)):
            outcome = self._perform(call, self.recorded.latest(task), scope)
        else:
            outcome, judgement = self.run(task)
            if judgement.verdict == SAME:
                return
            scope.remarks.append(f"{self.name(task)} differs: {judgement.text}")
            scope.changed.update(items)
        for index, item in enumerate(items):
            scope.fresh[item] = _fresh(outcome, index)

    def cancel(self, item: ObjectID) -> None:
        """A call that was not run yet will not be."""
        scope, task = self.frame.scope, task_of(item)
        call = scope.pending.pop(task, None)
        if call is not None:
            for number in range(self._template(call).num_returns):
                scope.fresh[return_object(task, number)] = Value(None, (Failure.CANCELLED, "", b""))

    # -------------------------------------------------------------- names

    def name(self, task: TaskID) -> str:
        """A task as people call it."""
        call = self.recorded.calls.get(task)
        life = self.recorded.history.tasks.get(task)
        name = call.name if call is not None else life.name if life is not None else "task"
        return f"{name} ({short(task)})"


def _always() -> bool:
    return True


def load(value: Value, item: ObjectID) -> Any:
    """A value, unpickled; raises the error of one that failed. (Any: the user's.)"""
    if value.failure is not None:
        kind, text, payload = value.failure
        raise error_from(kind, text, payload, item)
    return deserialize(_bytes(value))


def _bytes(value: Value) -> bytes:
    assert value.data is not None, "a failure was looked for"
    # A copy: the file is mapped where it likes, and arrays want to be aligned.
    return bytes(value.data)


def _fresh(outcome: Outcome, index: int) -> Value:
    if outcome.returns is not None:
        return Value(outcome.returns[index])
    if outcome.died:
        return Value(None, (Failure.WORKER_CRASHED, f"its worker {outcome.died}", None))
    return Value(None, (outcome.kind, outcome.summary, outcome.payload))


def _parts(value: Any, template: CallTemplate) -> list[Serialized]:
    if template.num_returns == 1:
        return [pickle_return(value)]
    return [pickle_return(p) for p in split_returns(value, template.name, template.num_returns)]


def _failed(
    error: BaseException, phase: Failure, template: CallTemplate, duration_ns: int
) -> Outcome:
    try:
        name, pid = template.name, os.getpid()
        whole, summary, text = serialize_error(error, function_name=name, pid=pid)
        payload = whole.to_bytes()
    except Exception:  # a user's __reduce__ or __str__
        payload, summary, text = b"", summarize(error), ""
    return Outcome(None, int(phase), summary, text, payload, duration_ns=duration_ns)


def _unloadable(what: str, problem: Exception) -> str:
    text = f"{what} cannot be unpickled here: {type(problem).__name__}: {problem}"
    if isinstance(problem, ImportError):
        name = problem.name or "the module"
        text += (
            f". {name} was importable when it was recorded: name its directory in PYTHONPATH, or "
            "install it"
        )
    return text
