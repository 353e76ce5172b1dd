"""Running one recorded task again: what `detray rerun` does. All of them: `everything.py`.

Loading payloads unpickles, and unpickling runs code of whoever wrote the file. So nothing is loaded
before somebody says `trust`; there is no way to tell one's own file from a stranger's that would
not have to be trusted itself.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgspec

from detray import object_ref
from detray.ids import TaskID
from detray.rerun.apart import escaped, packed, run_apart
from detray.rerun.choosing import find_task
from detray.rerun.client import RerunClient
from detray.rerun.engine import CannotRerun, Engine
from detray.rerun.judging import CANNOT, Judgement, Outcome, judge
from detray.rerun.recorded import Recorded
from detray.serialization.search_paths import travel_with
from detray.trace.format import TraceError
from detray.trace.names import short
from detray.trace.payloads.format import payloads_path
from detray.trace.payloads.reading import open_payloads
from detray.trace.reading import open_trace

Tell = Callable[[str], None]
_VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
"""What a run sets for its task."""


class RerunError(TraceError):
    """Something cannot be run again: which, why, and what to do."""


class Report(msgspec.Struct):
    """What came of one task. Times are in nanoseconds, -1 if not known."""

    id: str
    name: str
    function: str
    attempt: int
    verdict: str
    text: str
    remarks: list[str] = []
    then_ns: int = -1
    now_ns: int = -1
    traceback: str = ""
    stack: str = ""
    """Where its process died, as `faulthandler` tells."""
    notes: list[str] = []


def open_recorded(
    trace: str | os.PathLike[str],
    payloads: str | os.PathLike[str] | None = None,
    salvage: bool = False,
) -> Recorded:
    """A trace with its payloads, which are beside it unless named. Nothing is unpickled.

    Raises RerunError if there are none, TraceError, OSError.
    """
    path = os.fspath(trace)
    beside = os.fspath(payloads) if payloads is not None else payloads_path(path)
    opened = open_trace(path, salvage=salvage)
    if not os.path.exists(beside):
        raise RerunError(
            f"{path} has no payloads beside it ({beside}): tasks can run again only if their "
            "arguments were recorded. Record them with detray.init(record=PATH, "
            "record_payloads=True), or detray start --record FILE --record-payloads"
        )
    return Recorded(opened, open_payloads(beside, salvage=salvage))


def run(
    recorded: Recorded | str | os.PathLike[str],
    task: str,
    *,
    trust: bool = False,
    attempt: int | None = None,
    deep: bool = False,
    here: bool = True,
    pdb: bool = False,
    tell: Tell | None = None,
) -> Report:
    """Run one task again. `task` is an id, a short name, or a function that was called once.

    With `trust` the caller says that the code in the file may run: unpickling runs it. With `deep`
    what the task calls runs, too. Without `here` a task whose process died runs in a child process;
    with `pdb` it stops in the debugger.

    Raises RerunError if it cannot run, TraceError, OSError.
    """
    if not isinstance(recorded, Recorded):
        recorded = open_recorded(recorded)
    found = find_task(recorded, task)
    number = _attempt(recorded, found, attempt)
    check_trust(recorded, trust)
    notes = notes_on(recorded)
    tell = tell or notes.append
    engine = Engine(recorded, deep=deep, tell=tell)
    is_deadly = recorded.ending(found, number)[0] == "lost"
    with surroundings(engine, notes):
        try:
            if is_deadly and not here and not pdb:
                outcome, judgement = _run_apart(engine, found, number)
            elif pdb:
                from detray.rerun.debugger import call_under_pdb

                outcome, judgement = engine.run(found, number, call_under_pdb)
            else:
                outcome, judgement = engine.run(found, number)
        except CannotRerun as problem:
            raise RerunError(f"{engine.name(found)} cannot run again: {problem}") from None
    return report_on(engine, found, number, outcome, judgement, notes)


def _run_apart(engine: Engine, task: TaskID, attempt: int) -> tuple[Outcome, Judgement]:
    """Run in a child process; what others would make again is made there, too."""

    def work() -> bytes:
        try:
            return packed([*engine.run(task, attempt), ""])
        except CannotRerun as problem:
            return packed([Outcome(), Judgement(CANNOT, ""), str(problem)])

    ended = run_apart(work)
    if ended.data is None:
        outcome = Outcome(died=ended.died, stack=ended.stack)
        return outcome, judge(engine.recorded, task, attempt, outcome)
    outcome, judgement, problem = msgspec.msgpack.decode(
        ended.data, type=tuple[Outcome, Judgement, str]
    )
    if problem:
        raise CannotRerun(problem)
    return outcome, judgement


# ------------------------------------------------------------------ what has to be so


def check_trust(recorded: Recorded, trust: bool) -> None:
    """Refuse to load payloads that nobody trusts, or that cannot be loaded. Raises RerunError."""
    name = recorded.payloads.name
    if not trust:
        raise RerunError(
            f"{name} holds pickled functions and arguments, and to load them runs code that is in "
            "the file, with your rights. If you trust whoever recorded it, and everybody who could "
            "write to it since, say --trust (in Python: trust=True)"
        )
    here = "{}.{}".format(*sys.version_info)
    for process in recorded.payloads.header.processes:
        version = ".".join(process.python_version.split(".")[:2])
        if version and version != here:
            raise RerunError(
                f"{name} was recorded under Python {process.python_version}: functions are pickled "
                f"as bytecode, which Python {here} cannot run. Use Python {version}"
            )
    if object_ref.bound() is not None:
        raise RerunError(
            "this process has a session, and what runs again would mistake it for its own: call "
            "detray.shutdown() first, or rerun in another process"
        )


def _attempt(recorded: Recorded, task: TaskID, wanted: int | None) -> int:
    known = recorded.attempts(task)
    if wanted is None:
        return recorded.latest(task)
    if wanted not in known:
        there_are = ", ".join(map(str, known)) or "none"
        raise RerunError(f"{short(task)} has no attempt {wanted}: there are {there_are}")
    return wanted


def notes_on(recorded: Recorded) -> list[str]:
    """What a payload file lacks."""
    payloads = recorded.payloads
    found = [f"{payloads.name}: {payloads.note}"] if payloads.note else []
    return found + ([f"{payloads.name}: {payloads.lacks}"] if payloads.lacks else [])


@contextmanager
def surroundings(engine: Engine, notes: list[str]) -> Iterator[Callable[[], None]]:
    """What workers had: the session, the search path, the working directory, the arguments.

    Yields what takes back alarms, signal handlers and builtins that a task has set.
    """
    processes = engine.recorded.payloads.header.processes
    paths = [path for process in processes for path in process.sys_path]
    before = list(sys.path), os.getcwd(), sys.argv, {n: os.environ.get(n) for n in _VARIABLES}
    missing = [p for p in dict.fromkeys(paths) if p not in sys.path and os.path.exists(p)]
    sys.path[:0] = missing
    sys.argv = list(processes[0].argv) or sys.argv
    try:
        os.chdir(processes[0].cwd or ".")
    except OSError as problem:
        notes.append(f"its working directory {processes[0].cwd} is not there: {problem.strerror}")
    object_ref.bind(RerunClient(engine))
    try:
        with _signals(engine) as calm:
            yield calm
    finally:
        object_ref.unbind()
        travel_with(())
        sys.path[:], cwd, sys.argv, variables = before
        os.chdir(cwd)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _signals(engine: Engine) -> Iterator[Callable[[], None]]:
    """Tell Ctrl-C from a KeyboardInterrupt that a task raises; undo what tasks do to signals, and
    to the names that all code uses.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # Only the main thread may.
        return
    kept = {number: signal.getsignal(number) for number in _SIGNALS}
    names, recursion = dict(vars(builtins)), sys.getrecursionlimit()
    was_interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal was_interrupted
        was_interrupted = True
        signal.default_int_handler(number, frame)

    inside = dict(kept)
    if kept[signal.SIGINT] is signal.default_int_handler:
        inside[signal.SIGINT] = interrupt
        engine.is_interrupted = lambda: was_interrupted

    def calm(handlers: Mapping[signal.Signals, Any] = inside) -> None:  # Any: as signal has it
        signal.setitimer(signal.ITIMER_REAL, 0)
        vars(builtins).update(names)
        sys.setrecursionlimit(recursion)
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    calm()
    try:
        yield calm
    finally:
        calm(kept)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGPIPE)


def report_on(
    engine: Engine,
    task: TaskID,
    attempt: int,
    outcome: Outcome,
    judgement: Judgement,
    notes: list[str],
) -> Report:
    """What is told of a run."""
    recorded = engine.recorded
    return Report(
        id=task.hex(),
        name=short(task),
        function=recorded.calls[task].name,
        attempt=attempt,
        verdict=judgement.verdict,
        text=escaped(judgement.text),
        remarks=escaped(judgement.remarks),
        then_ns=then_ns(recorded, task, attempt),
        now_ns=outcome.duration_ns or -1,
        traceback=escaped(outcome.traceback),
        stack=escaped(outcome.stack),
        notes=notes,
    )


def then_ns(recorded: Recorded, task: TaskID, attempt: int) -> int:
    """How long a recorded attempt took, -1 if nobody knows."""
    life = recorded.history.tasks.get(task)
    for past in life.attempts if life is not None else ():
        if past.number == attempt and past.started_ns >= 0 and past.ended_ns >= 0:
            return past.ended_ns - past.started_ns
    return -1
