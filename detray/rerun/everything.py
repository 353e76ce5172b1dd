"""Running every recorded task again: what `detray rerun --all` does.

Theory of operation
-------------------
Tasks run one after the other in a child process, a fork of this one, which tells what it does:
which task runs, what was made, what the verdict is. This process keeps all of it and runs nothing
itself. When a task kills the child (a signal, `os._exit`, no memory), or takes too long and has the
child killed, that is what is said of the task, and a new child, which knows all that was told, goes
on behind it. So each such end costs one task, and values that were made outlive who made them.

A task is blamed if it was the last to begin of those that had not ended: it may be one that another
needed to be made again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from detray.ids import ObjectID, TaskID
from detray.rerun.apart import MUTE, Child, Ended, Garbled, Send
from detray.rerun.bystander import Bystander
from detray.rerun.engine import CannotRerun, Engine
from detray.rerun.judging import CANNOT, DIFFERS, SAME, UNKNOWN, Judgement, Outcome, judge
from detray.rerun.recorded import Recorded
from detray.rerun.running import (
    Report,
    RerunError,
    Tell,
    check_trust,
    notes_on,
    open_recorded,
    report_on,
    surroundings,
    then_ns,
)

TIMEOUT_S = 60
TIMEOUT_TIMES = 20
"""A task may take so long, or so many times what it took then, unless somebody says otherwise."""
_CHILD_FAILED = "the rerun itself failed, not the task; the traceback on standard error says where"


_FACTS: dict[str, Any] = {
    "began": tuple[bytes, int],
    "ended": tuple[()],
    "judged": tuple[bytes, Judgement],
    "kept": tuple[bytes, bytes, bool],
    "unmade": tuple[bytes, str],
    "tell": tuple[str],
    "done": tuple[Report | None],
}
"""What a child tells with each word. (Any: types.)"""


class Summary(msgspec.Struct):
    """What came of all tasks: how many by verdict, and reports of those that are not the same."""

    tasks: int = 0
    same: int = 0
    differing: list[Report] = []
    unknown: list[Report] = []
    cannot: list[Report] = []
    skipped: int = 0
    """Tasks that never ran: cancelled, or an argument failed."""
    duration_ns: int = 0


def run_all(
    recorded: Recorded | str | os.PathLike[str],
    *,
    trust: bool = False,
    tell: Tell | None = None,
    progress: Callable[[int, int, int], None] | None = None,
    timeout_s: float | None = None,
    memory_bytes: int = 0,
) -> Summary:
    """Run every task again, one after the other, each with the inputs that it had.

    They run in child processes: one that kills its process, or takes more than `timeout_s` seconds
    (None: a minute, or twenty times what it took then), costs nobody else anything. With
    `memory_bytes` a task that needs more memory than that raises MemoryError. `progress` is called
    with how many are done, of how many, and how many differ.

    Raises RerunError, TraceError, OSError.
    """
    if not isinstance(recorded, Recorded):
        recorded = open_recorded(recorded)
    check_trust(recorded, trust)
    return _Everything(recorded, tell or _ignore, progress, timeout_s, memory_bytes).run()


class _Everything:
    """This process's side: what was told so far, and the child that goes on."""

    def __init__(
        self,
        recorded: Recorded,
        tell: Tell,
        progress: Callable[[int, int, int], None] | None,
        timeout_s: float | None,
        memory_bytes: int,
    ) -> None:
        self._tell = tell
        self._progress = progress
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._engine = Engine(recorded, tell=tell)
        self._tasks = list(recorded.calls)
        self._done = 0
        self._running: list[tuple[TaskID, int]] = []
        """Tasks that have begun in the child and not ended, each for the sake of the one before."""
        self._deadline = 0.0
        self._summary = Summary(tasks=len(self._tasks))
        for call in recorded.calls.values():
            self._engine.wanted.update((*call.args, *call.refs))

    def run(self) -> Summary:
        """Until every task has had its turn."""
        began_ns = time.monotonic_ns()
        idle_ends = 0
        while self._done < len(self._tasks):
            done = self._done
            ended = self._run_child()
            if self._running:
                self._blame(*self._running[-1], ended)
            elif self._done < len(self._tasks):
                # It died between two tasks: of what one of them left behind, or of us.
                idle_ends = idle_ends + 1 if self._done == done else 0
                if idle_ends:
                    why = ended.died + " (more memory may help)" * bool(self._memory_bytes)
                    raise RerunError(f"the process that runs tasks again ended idle: it {why}")
            self._running.clear()
        self._summary.duration_ns = time.monotonic_ns() - began_ns
        return self._summary

    def _run_child(self) -> Ended:
        """Have a child go on, until it has no more to do or ends; how it ended."""
        child = Child(self._work, self._memory_bytes)
        try:
            while True:
                patience_s = self._deadline - time.monotonic() if self._running else None
                message = child.receive(patience_s)
                if message is None:
                    return child.end()
                if message == ():
                    limit = f"{self._limit_s(*self._running[-1]):g} s"
                    return child.end(f"killed after {limit} (--timeout gives it more)")
                self._hear(message)
        except Garbled:
            return child.end(MUTE)
        finally:
            child.kill()

    # -------------------------------------------------------------- in the child

    def _work(self, send: Send) -> None:
        """What is left to do, told as it is done."""
        engine = self._engine
        engine.bystander = _Telling(send)
        engine.tell = lambda line: send("tell", line)
        before = set(threading.enumerate())
        with surroundings(engine, notes_on(engine.recorded)) as calm:
            # Nobody types Ctrl-C here: an interrupt is a task's own.
            engine.is_interrupted = lambda: False
            for task in self._tasks[self._done :]:
                report = _check_one(engine, task)
                calm()
                self._let_go(task)
                send("done", report)
        left = [t for t in threading.enumerate() if not t.daemon and t not in before]
        if left:
            send("tell", f"a task left {len(left)} threads that run: they end with this process")

    # -------------------------------------------------------------- what it tells

    def _hear(self, message: tuple[Any, ...]) -> None:  # Any: whatever came
        """Raises Garbled if that is nothing that `_Telling` and `_work` send."""
        try:
            kind, *facts = message
            facts = msgspec.convert(facts, _FACTS[kind])
        except (ValueError, TypeError, KeyError, msgspec.ValidationError):
            raise Garbled from None
        match kind, facts:
            case "began", (task, attempt) if task in self._engine.recorded.calls:
                self._running.append((TaskID(task), attempt))
                self._deadline = time.monotonic() + self._limit_s(*self._running[-1])
            case "ended", () if self._running:
                self._running.pop()
                if self._running:
                    self._deadline = time.monotonic() + self._limit_s(*self._running[-1])
            case "judged", (task, judgement):
                self._engine.judged[TaskID(task)] = judgement
            case "kept", (item, data, is_same):
                self._engine.keep(ObjectID(item), data, is_same=is_same)
            case "unmade", (task, text):
                self._engine.unmade[TaskID(task)] = text
            case "tell", (line,):
                self._tell(line)
            case "done", (report,) if self._done < len(self._tasks):
                self._let_go(self._tasks[self._done])
                self._enter(report)
            case _:
                raise Garbled

    def _enter(self, report: Report | None) -> None:
        """The next task is done: into the summary with it."""
        summary = self._summary
        self._done += 1
        if report is None:
            summary.skipped += 1
        elif report.verdict == SAME:
            summary.same += 1
        elif report.verdict == DIFFERS:
            summary.differing.append(report)
        elif report.verdict == UNKNOWN:
            summary.unknown.append(report)
        else:
            summary.cannot.append(report)
        if self._progress is not None:
            self._progress(self._done, summary.tasks, len(summary.differing))

    def _blame(self, task: TaskID, attempt: int, ended: Ended) -> None:
        """The child ended while this task ran."""
        engine = self._engine
        if ended.is_broken:
            outcome = Outcome(summary="what the rerun itself cannot bear")
            judgement = Judgement(CANNOT, _CHILD_FAILED)
        else:
            outcome = Outcome(died=ended.died, stack=ended.stack)
            judgement = judge(engine.recorded, task, attempt, outcome)
        engine.judged.setdefault(task, judgement)
        engine.give_up(task, outcome)
        if task == self._tasks[self._done]:
            self._let_go(task)
            self._enter(report_on(engine, task, attempt, outcome, judgement, []))

    def _let_go(self, task: TaskID) -> None:
        """It has had its turn: nobody keeps values for its sake."""
        call = self._engine.recorded.calls[task]
        self._engine.wanted.subtract((*call.args, *call.refs))

    def _limit_s(self, task: TaskID, attempt: int) -> float:
        if self._timeout_s is not None:
            return self._timeout_s
        took_s = then_ns(self._engine.recorded, task, attempt) / 1e9
        return max(TIMEOUT_S, round(TIMEOUT_TIMES * took_s))


class _Telling(Bystander):
    """Tells the parent what an engine does."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def began(self, task: TaskID, attempt: int) -> None:
        """As `Bystander` says."""
        self._send("began", task, attempt)

    def ended(self) -> None:
        """As `Bystander` says."""
        self._send("ended")

    def judged(self, task: TaskID, judgement: Judgement) -> None:
        """As `Bystander` says."""
        self._send("judged", task, judgement)

    def kept(self, item: ObjectID, data: bytes, *, is_same: bool) -> None:
        """As `Bystander` says."""
        self._send("kept", item, data, is_same)

    def unmade(self, task: TaskID, text: str) -> None:
        """As `Bystander` says."""
        self._send("unmade", task, text)


def _check_one(engine: Engine, task: TaskID) -> Report | None:
    """Run one of all, unless another needed its values and it ran already; None if it never ran."""
    recorded = engine.recorded
    number = recorded.latest(task)
    state, _ = recorded.ending(task, number)
    outcome = Outcome()
    judgement = engine.judged.get(task)
    if judgement is None:
        if state in ("", "cancelled", "waiting") or _never_ran(engine, task):
            return None
        try:
            outcome, judgement = engine.run(task, number)
        except CannotRerun as problem:
            judgement = engine.judged[task] = Judgement(CANNOT, str(problem))
            engine.bystander.judged(task, judgement)
    return report_on(engine, task, number, outcome, judgement, [])


def _never_ran(engine: Engine, task: TaskID) -> bool:
    """True if an argument failed: its task failed with it."""
    return any(
        (value := engine.at_hand(item, None)) is not None and value.failure is not None
        for item in engine.recorded.calls[task].args
    )


def _ignore(line: str) -> None:
    """What nobody wants to read."""
