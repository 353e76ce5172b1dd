"""Expectations: sentences about a run, checked after every step of a trace (docs/shrinking.md).

    expectation = expect("no task waits more than 5 s while a CPU is idle")
    violation = expectation.check(trace)  # None if it holds
    Replay(trace).until(expectation)

`RULES` is the whole grammar. A sentence becomes an `Expectation`, which makes a `Watch` for each
run that it is to see; a `Watcher` stands around the cores that are played and asks the watches.
"""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from detray.core.tables import Tables
from detray.trace.format import Header, TraceError
from detray.trace.names import matches, short
from detray.trace.play import Core, Maker, Makers, Opening, play, schedulers
from detray.trace.reading import Trace
from detray.trace.reducing.ledger import ENDS, SENT, Change, Ledger, LedgerRow
from detray.trace.reducing.watches import (
    Counted,
    EveryTaskEnds,
    Finding,
    InvariantsHold,
    NoNodeDies,
    Part,
    RunsBefore,
    RunsTooLong,
    TakesTooLong,
    TooMany,
    WaitsTooLong,
    Watch,
    arena_permille,
    waiting_tasks,
)

if TYPE_CHECKING:
    from detray.trace.travel.seeking import Replay

DEFAULT = "no invariant breaks"
_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "min": 60_000_000_000}
_TIME = r"(\d+(?:\.\d+)?) ?(ns|us|ms|s|min)"
_NAME = r"([^\s]+)"


class SentenceError(ValueError):
    """A sentence that says nothing that can be checked."""


class Rule(NamedTuple):
    """One form of sentence: what it looks like, an example, and what it means."""

    pattern: str
    form: str
    example: str
    meaning: str
    make: Callable[[tuple[str, ...]], Watch]


def _nanoseconds(number: str, unit: str) -> int:
    return round(float(number) * _UNITS[unit.lower()])


def _named(name: str) -> Callable[[LedgerRow], bool]:
    return lambda row: row.name == name or matches(row.id, name)


def _counted(total: str, what: str) -> Callable[[tuple[str, ...]], Watch]:
    return lambda found: Counted(total, what)


RULES: tuple[Rule, ...] = (
    Rule(
        f"no task waits more than {_TIME}( while a cpu is idle)?",
        "no task waits more than TIME [while a CPU is idle]",
        "no task waits more than 5 s while a CPU is idle",
        "A task waits from when all that it takes is at hand until it is sent to a worker. A CPU "
        "is idle for it if a node that has all that it asks for, busy or not, has as many CPUs "
        "free as it asks for (one if it asks for none).",
        lambda m: WaitsTooLong(_nanoseconds(m[0], m[1]), bool(m[2])),
    ),
    Rule(
        f"no task runs more than {_TIME}",
        "no task runs more than TIME",
        "no task runs more than 60 s",
        "A task runs while it is the first in the queue of a worker, also while it stands still "
        "in a `get`.",
        lambda m: RunsTooLong(_nanoseconds(m[0], m[1])),
    ),
    Rule(
        f"task {_NAME} (finishes|begins) within {_TIME}",
        "task NAME finishes|begins within TIME",
        "task load finishes within 3 s",
        "From its submission on. NAME is that of a function, or a short name such as "
        "1.9f3a12.3. A task that fails violates it, too.",
        lambda m: TakesTooLong(
            _named(m[0]), _nanoseconds(m[2], m[3]), ENDS if m[1].lower() == "finishes" else SENT
        ),
    ),
    Rule(
        f"{_NAME} runs before {_NAME}",
        "NAME runs before OTHER",
        "load runs before train",
        "No OTHER is sent to a worker before a NAME was.",
        lambda m: RunsBefore(_named(m[0]), _named(m[1])),
    ),
    Rule(
        "every task ends",
        "every task ends",
        "every task ends",
        "When the trace ends, all tasks have finished, failed or been cancelled.",
        lambda m: EveryTaskEnds(),
    ),
    Rule(
        "no task fails",
        "no task fails",
        "no task fails",
        "No task ends in an error, its own or another's.",
        _counted("failed", "a task fails"),
    ),
    Rule(
        "no task is retried",
        "no task is retried",
        "no task is retried",
        "No attempt is followed by another one.",
        _counted("retried", "a task is tried again"),
    ),
    Rule(
        r"at most (\d+) tasks? waits?(?: on a node)?",
        "at most N tasks wait on a node",
        "at most 100 tasks wait on a node",
        "Counted are tasks with all that they take at hand, at each node by itself.",
        lambda m: TooMany(int(m[0]), waiting_tasks, "{} tasks wait"),
    ),
    Rule(
        r"(?:no more than|at most) (\d+) workers?(?: on a node)?",
        "no more than N workers on a node",
        "no more than 8 workers on a node",
        "Worker processes, those included that start or are to end.",
        lambda m: TooMany(int(m[0]), lambda tables: len(tables.workers), "{} workers"),
    ),
    Rule(
        r"arena stays below (\d+(?:\.\d+)?) ?%",
        "arena stays below N %",
        "arena stays below 80 %",
        "What is in use of the shared memory of each node.",
        lambda m: TooMany(
            round(float(m[0]) * 10) - 1, arena_permille, "{} permille of the arena are in use"
        ),
    ),
    Rule(
        r"arena stays below (\d+(?:\.\d+)?) ?(kB|MB|GB|KiB|MiB|GiB)",
        "arena stays below SIZE",
        "arena stays below 500 MB",
        "What is in use of the shared memory of each node.",
        lambda m: TooMany(
            _bytes(m[0], m[1]) - 1,
            lambda tables: tables.arena.used,
            "{} bytes of the arena are used",
        ),
    ),
    Rule(
        "no object is lost",
        "no object is lost",
        "no object is lost",
        "No value is without any copy, whether it can be made again or not.",
        _counted("objects lost", "an object is lost"),
    ),
    Rule(
        "no object is rebuilt",
        "no object is rebuilt",
        "no object is rebuilt",
        "No finished task runs again for a lost value.",
        _counted("rebuilt", "an object is made again"),
    ),
    Rule(
        "no object is spilled",
        "no object is spilled",
        "no object is spilled",
        "No value moves from memory to disk.",
        _counted("spilled bytes", "an object is moved to disk"),
    ),
    Rule(
        "no worker dies",
        "no worker dies",
        "no worker dies",
        "No worker process ends that was not told to.",
        _counted("workers lost", "a worker died"),
    ),
    Rule(
        "no node dies",
        "no node dies",
        "no node dies",
        "No node is buried.",
        lambda m: NoNodeDies(),
    ),
    Rule(
        "no deadlock",
        "no deadlock",
        "no deadlock",
        "No `get` is failed because those who wait for each other would wait for ever.",
        _counted("deadlocks", "tasks wait for each other"),
    ),
    Rule(
        "no invariant breaks",
        DEFAULT,
        DEFAULT,
        "No invariant of a core breaks, and no core raises. What is checked without --expect.",
        lambda m: InvariantsHold(),
    ),
)
"""All that can be said."""


def _bytes(number: str, unit: str) -> int:
    base = 1024 if "i" in unit.lower() else 1000
    size = float(number)
    for _ in range(" kmg".index(unit[0].lower())):
        size *= base
    return round(size)


class Expectation:
    """A sentence that was understood. Equal sentences are equal."""

    def __init__(self, sentence: str, rule: Rule, found: tuple[str, ...]) -> None:
        self.sentence = sentence
        self._rule = rule
        self._found = found
        self._found_in: tuple[Trace, Violation | None] | None = None

    def watch(self) -> Watch:
        """A watch for one run."""
        return self._rule.make(self._found)

    @property
    def minds_raising(self) -> bool:
        """True if a core that raises violates it."""
        return self._rule.form == DEFAULT

    def check(self, trace: Trace, makers: Makers = schedulers) -> Violation | None:
        """Where a trace violates it first. Raises TraceError."""
        return find_violation(trace, [self], makers)

    def __call__(self, replay: Replay) -> bool:
        """True where a replay stands behind the step that violates it: for `Replay.until`."""
        if self._found_in is None or self._found_in[0] is not replay.trace:
            self._found_in = replay.trace, self.check(replay.trace)
        violation = self._found_in[1]
        if violation is None:
            return False
        return replay.at > violation.step if violation.step >= 0 else replay.at >= replay.end

    def __repr__(self) -> str:
        return f"expect({self.sentence!r})"


class Violation(msgspec.Struct, frozen=True):
    """The first step that violates an expectation, -1 if only the end does.

    `since_ns` after the trace began; `kind` is equal for violations in the same way.
    """

    sentence: str
    step: int
    core: int
    since_ns: int
    kind: str
    parts: tuple[Part, ...]
    subjects: tuple[bytes, ...] = ()

    def text(self, name: Callable[[bytes], str] = short) -> str:
        """What is wrong, with ids as `name` shows them."""
        return "".join(part if isinstance(part, str) else name(part) for part in self.parts)


def expect(sentence: str) -> Expectation:
    """What a sentence means (docs/shrinking.md). Raises SentenceError: it says what can be said."""
    text = " ".join(sentence.split()).rstrip(".")
    for rule in RULES:
        found = re.fullmatch(rule.pattern, text, re.IGNORECASE)
        if found is not None:
            return Expectation(text, rule, tuple(part or "" for part in found.groups()))
    raise SentenceError(_not_understood(text))


def _not_understood(text: str) -> str:
    known = {rule.example.lower(): rule for rule in RULES}
    known |= {rule.example.split(" while ")[0].lower(): rule for rule in RULES}
    near = difflib.get_close_matches(text.lower(), list(known), 1, 0.5)
    lines = [f"{text!r} is nothing that can be expected"]
    if near:
        meant = known[near[0]]
        lines.append(f"did you mean: {meant.form}, for example {meant.example!r}")
    lines.append("what can be said:")
    lines += [f"  {rule.form}" for rule in RULES]
    lines.append("TIME has a unit: ns, us, ms, s, min; SIZE: kB, MB, GB, KiB, MiB, GiB")
    return "\n".join(lines)


class Watcher:
    """Watches the cores of one run; `violation` is the first that was found.

    It stands around the cores: `makers` are those that it is given, with itself in between.
    """

    def __init__(
        self, date_ns: Callable[[int, int], int], expectations: Sequence[Expectation]
    ) -> None:
        """`date_ns` turns a time of a core, by its number, into a date all have in common."""
        self.violation: Violation | None = None
        self.broken: Exception | None = None
        """What a watch raised: its own mistake, which playing would take for the core's."""
        self.step = 0
        """Number of the step that comes next; whoever plays keeps it."""
        self._date_of = date_ns
        self._began_ns: int | None = None
        self._opened: list[tuple[int, Any]] = []
        self._date_ns = 0
        self._expectations = list(expectations)
        self._watches = [expectation.watch() for expectation in expectations]
        self._ledger = Ledger()
        self._keeps_ledger = any(watch.needs_ledger for watch in self._watches)

    def makers(self, makers: Makers) -> Makers:
        """The same makers, of cores that are watched."""

        def make(header: Header) -> Sequence[Maker]:
            return [self._watched(core, maker) for core, maker in enumerate(makers(header))]

        return make

    def _watched(self, number: int, maker: Maker) -> Maker:
        return Maker(
            lambda: WatchedCore(self, number, maker.make()),
            lambda state: WatchedCore(self, number, maker.restore(state)),
        )

    def begin(self, core: int, tables: Any) -> None:  # Any: tables of a node or a head
        """A core is there; at the beginning of a trace its first step says when that is."""
        for watch in self._watches:
            watch.begin(core, tables)
        self._enter(core, tables)

    def _enter(self, core: int, tables: Any) -> None:  # Any: as above
        """Its tasks go into the ledger."""
        if self._began_ns is None:
            self._opened.append((core, tables))
        elif isinstance(tables, Tables) and self._keeps_ledger:
            changes = self._ledger.begin(core, tables, self._date_ns)
            self._tell(core, (), tables, changes)

    def _enter_opened(self) -> bool:
        """Those that were there before the first step; False if that violates something."""
        for core, tables in self._opened:
            if self.violation is None:
                self._enter(core, tables)
        return self.violation is None

    def before(self, core: int, now_ns: int) -> None:
        """A core takes its next step."""
        if self.violation is not None:
            return
        date_ns = self._date_of(core, now_ns)
        if self._began_ns is None:
            self._began_ns = self._date_ns = date_ns
            if not self._enter_opened():
                return
        self._date_ns = max(self._date_ns, date_ns)
        for expectation, watch in zip(self._expectations, self._watches, strict=True):
            finding = watch.before(self._ledger, self._date_ns)
            if finding is not None:
                self._note(expectation, finding, self.step)
                return

    def after(
        self, core: int, stimuli: Sequence[Any], effects: Sequence[Any], tables: Any
    ) -> None:  # Any: messages, and tables of a node or a head
        """It has taken it."""
        if self.violation is not None:
            return
        changes: Sequence[Change] = ()
        if self._keeps_ledger and isinstance(tables, Tables):
            changes = self._ledger.step(core, self._date_ns, stimuli, effects)
        self._tell(core, stimuli, tables, changes)

    @contextmanager
    def own_errors(self) -> Iterator[None]:
        """What is raised in here is a mistake of a watch, not of the core that plays."""
        try:
            yield
        except Exception as error:
            self.broken = error
            raise

    def raised(self, core: int, error: BaseException) -> None:
        """It raised instead."""
        for expectation in self._expectations:
            if expectation.minds_raising and self.violation is None:
                frames = traceback.extract_tb(error.__traceback__)
                where = frames[-1].name if frames else ""
                name = type(error).__name__
                finding = Finding(
                    f"raises {name} in {where}",
                    (f"the core raises {name}: {error} in {where}",),
                    core,
                )
                self._note(expectation, finding, self.step)

    def end(self) -> None:
        """Nothing comes any more."""
        for expectation, watch in zip(self._expectations, self._watches, strict=True):
            finding = watch.end(self._ledger)
            if finding is not None and self.violation is None:
                self._note(expectation, finding, -1)

    def _tell(self, core: int, stimuli: Sequence[Any], tables: Any, changes: Sequence[Any]) -> None:
        for expectation, watch in zip(self._expectations, self._watches, strict=True):
            finding = watch.after(self._ledger, core, self._date_ns, stimuli, tables, changes)
            if finding is not None:
                self._note(expectation, finding, self.step)
                return

    def _note(self, expectation: Expectation, finding: Finding, step: int) -> None:
        since = self._date_ns - (self._began_ns or 0)
        self.violation = Violation(
            expectation.sentence, step, finding.core, since, finding.kind, finding.parts,
            finding.subjects,
        )  # fmt: skip


class WatchedCore:
    """A core whose steps a watcher sees."""

    __slots__ = ("_core", "_number", "_watcher")

    def __init__(self, watcher: Watcher, number: int, core: Core) -> None:
        self._watcher = watcher
        self._number = number
        self._core = core
        watcher.begin(number, self.tables)

    @property
    def tables(self) -> Any:  # Any: of a node or a head
        """The core's own."""
        return getattr(self._core, "tables", None)

    def handle(self, *stimuli: Any, now_ns: int) -> list[Any]:  # Any: stimuli and effects
        """One step."""
        watcher = self._watcher
        with watcher.own_errors():
            watcher.before(self._number, now_ns)
        try:
            effects = self._core.handle(*stimuli, now_ns=now_ns)
        except Exception as error:
            watcher.raised(self._number, error)
            raise
        with watcher.own_errors():
            watcher.after(self._number, stimuli, effects, self.tables)
        return effects

    def snapshot(self) -> bytes:
        """The whole state, encoded."""
        return self._core.snapshot()


def find_violation(
    trace: Trace,
    expectations: Sequence[Expectation],
    makers: Makers = schedulers,
    report: Callable[[str], object] = lambda text: None,
) -> Violation | None:
    """The first violation in a trace, None if there is none. Raises TraceError.

    Each step is played as it was recorded, whether or not today's cores decide the same. `report`
    hears how far it is.
    """
    watcher = Watcher(trace.header.date_ns, expectations)
    watcher.step = trace.first_step
    is_played, taken = False, 0
    for item in play(trace, watcher.makers(makers)):
        if isinstance(item, Opening):
            continue
        if watcher.violation is not None:
            return watcher.violation
        watcher.step = item.step.number + 1
        is_played = is_played or item.is_played
        taken += 1
        if taken % _REPORT_STEPS == 0:
            report(f"{taken:,} of {trace.step_count:,} steps looked at")
    if watcher.broken is not None:
        if any(start.snapshots and not start.begins for start in trace.starts):
            raise TraceError(
                f"{trace.name}: the state that it begins with makes no sense, or what follows does "
                f"not fit it: {watcher.broken!r}"
            ) from watcher.broken
        raise watcher.broken
    if taken and not is_played:
        raise TraceError(
            f"{trace.name}: none of its {taken:,} steps can be played: it begins in the middle, "
            "without a state to go on from. Nothing can be said of what it violates: record from "
            'the start, with detray.init(record="run.trace") or detray start --record FILE'
        )
    if watcher.violation is None:
        watcher.end()
    return watcher.violation


_REPORT_STEPS = 2_000
