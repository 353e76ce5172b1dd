"""Scripts: what the functions of a random program do, as plain data, and as bodies that do it.

Theory of operation
-------------------
A `Program` is a list of `Script`s; number 0 is the driver's, and a script calls only scripts of
higher numbers, so every program ends. A running script has a list of references (`slots`): those
in its closure, arguments and argument values, then what its own calls, puts and reads bring. A step
names slots by number, modulo how many there are: removing any step leaves a program.

Each reference has a path ("7.2": return 0 of step 2 of the script that step 7 of the driver
called), which says what it is in every run of the program. A script's value is a token: a number
computed from all that it read. So the naive executor (`naive.py`), which runs the same bodies one
after the other, knows what every path must be. Values hold references only to what was created
before them or by their own children: no cycle of containers can arise, which nobody could free.

What is not computed from inputs alone is marked as `stained` (the lowest bit of its token): what a
`is_fickle` script returns, which differs with every attempt, and all that is computed from it, or
by a script that caught a failure or a timeout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from detray.core.strategy import AFFINITY, Strategy
from detray.errors import Failure
from detray.ids import ObjectID, TaskID
from detray_sim.behaviour import (
    BodyFailed,
    CancelTask,
    ClaimRef,
    Compute,
    DropRefs,
    GetValues,
    Got,
    PinRef,
    PutValue,
    ReadFailed,
    ReadTimedOut,
    Remote,
    Result,
    Run,
    Sleep,
    Steps,
    StoreRefused,
    Submit,
    WaitFor,
)
from detray_sim.values import Blob

CPU = 10_000


class Spend(msgspec.Struct, frozen=True, tag="spend"):
    """Compute for so long, of CPU time."""

    ns: int


class Nap(msgspec.Struct, frozen=True, tag="nap"):
    """Do nothing for so long."""

    ns: int


class Call(msgspec.Struct, frozen=True, tag="call"):
    """Submit a script: `args` are awaited and read, `nested` are handed over as references.

    `captured` are references in the closure of the function. `smuggled` are pickled by the script
    itself, so that nobody sees them in its arguments, and claimed by the script that is called.
    """

    script: int
    args: tuple[int, ...] = ()
    nested: tuple[int, ...] = ()
    captured: tuple[int, ...] = ()
    size_bytes: int = 0
    """Of pickled arguments; 0: next to nothing."""
    smuggled: tuple[int, ...] = ()


class Store(msgspec.Struct, frozen=True, tag="store"):
    """Put a value of so many bytes that holds references."""

    size_bytes: int
    refs: tuple[int, ...] = ()


class Read(msgspec.Struct, frozen=True, tag="read"):
    """Get values. References in them become slots.

    With `catches` a failure stains the result instead of ending the script.
    """

    slots: tuple[int, ...]
    timeout_ns: int = -1
    catches: bool = False


class Await(msgspec.Struct, frozen=True, tag="await"):
    """Wait until `needed` of the slots are available; the outcome influences nothing."""

    slots: tuple[int, ...]
    needed: int
    timeout_ns: int = -1


class Let(msgspec.Struct, frozen=True, tag="let"):
    """Drop a reference; the slot closes up."""

    slot: int


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Cancel what makes the slot's value."""

    slot: int
    force: bool = False
    recursive: bool = True


Step = Spend | Nap | Call | Store | Read | Await | Let | Stop


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """One function of a program, with its options.

    It raises in its first `fails` attempts (-1: in all). `returns` are the sizes of what it
    returns; each holds the references of `carries`.
    """

    name: str
    steps: tuple[Step, ...] = ()
    returns: tuple[int, ...] = (64,)
    carries: tuple[int, ...] = ()
    demand: tuple[tuple[str, int], ...] = (("CPU", CPU),)
    retries: int = 3
    retries_errors: bool = False
    fails: int = 0
    max_calls: int = 0
    is_fickle: bool = False
    strategy: Strategy | None = None


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """All scripts of one driver. `tasks` is how many runs it makes if nothing fails."""

    kind: str
    scripts: tuple[Script, ...]

    @property
    def tasks(self) -> int:
        """How many tasks the program submits if nothing fails."""
        sizes = _sizes(self.scripts)
        return sizes[0] - 1 if sizes else 0

    @property
    def is_sturdy(self) -> bool:
        """True if losing anything but the driver's node must not show.

        All tasks are submitted by the driver, may be run again without end, and read only what
        they take.
        """
        main, *others = self.scripts
        return all(
            script.retries == -1
            and not script.fails
            and all(type(s) is Spend for s in script.steps)
            for script in others
        ) and not any(type(step) is Stop for step in main.steps)

    @property
    def cancels(self) -> bool:
        """True if some script cancels something."""
        return any(type(step) is Stop for script in self.scripts for step in script.steps)

    @property
    def insists(self) -> bool:
        """True if some script insists on a node, which may be dead, or not there yet."""
        strategies = [script.strategy for script in self.scripts if script.strategy is not None]
        return any(s.kind == AFFINITY and not s.is_soft for s in strategies)


def _sizes(scripts: tuple[Script, ...]) -> list[int]:
    """By script: tasks in its whole tree, itself included."""
    sizes = [0] * len(scripts)
    for number in range(len(scripts) - 1, -1, -1):
        sizes[number] = 1 + sum(
            sizes[step.script] for step in scripts[number].steps if type(step) is Call
        )
    return sizes


# ---------------------------------------------------------------------------------- bodies

Token = int
Slot = tuple[ObjectID, str]
_PRIME = (1 << 61) - 1
FOREVER_NS = 1 << 60
ROUNDS = 3
"""How deep the driver looks into references within values at its end."""


class Order(msgspec.Struct, frozen=True):
    """What a submission tells its run: who it is, and what the references are called."""

    path: str
    stained: bool = False
    args: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    captured: tuple[str, ...] = ()
    smuggled: tuple[tuple[ObjectID, int, str], ...] = ()
    """Id, owner's node and path of what the caller pickled by itself."""


class Outcome(msgspec.Struct, frozen=True):
    """What a reader found: a token, or the failure at the root of it all (`errors.Failure`)."""

    token: Token = 0
    failure: int = 0
    text: str = ""

    @property
    def is_stained(self) -> bool:
        """True if a naive executor may see another value."""
        return bool(self.token & 1)


class Diary:
    """What happened to one program: written by its bodies, read by oracles."""

    def __init__(self) -> None:
        self.begun: Counter[TaskID] = Counter()
        self.scripts: dict[TaskID, int] = {}
        self.paths: dict[TaskID, str] = {}
        self.reads: list[tuple[str, ObjectID, Outcome, str]] = []
        """By path of what was read, in order of reading; at last the reader ("": the driver)."""
        self.cancels = 0
        self.timeouts = 0
        self.refusals = 0
        self.is_read = False
        """The driver has read all that it has a reference to."""
        self.is_done = False
        """And has dropped it."""


class Company:
    """The functions of a program as `Remote`s, with one diary: made anew for every run."""

    def __init__(self, program: Program, diary: Diary) -> None:
        self.program = program
        self.diary = diary
        self._remotes = [
            _remote(self, number, script) for number, script in enumerate(program.scripts)
        ]

    def driver(self, run: Run) -> Steps:
        """The body of the driver: script 0, then everything is read and dropped."""
        diary = self.diary
        performance = _Performance(self, 0, Order(""), run)
        try:
            yield from performance.steps()
        except BodyFailed:
            pass  # a program that stops half-way reads what it has
        unread = dict(performance.slots)
        for _ in range(ROUNDS):  # what is read may hold references, which are read in their turn
            if not unread:
                break
            found = yield GetValues(tuple(unread), raises=False)
            inside: list[Slot] = []
            for got in found:
                path = unread[got.object]
                diary.reads.append((path, got.object, outcome_of(got), ""))
                inside += inner_slots(got, path)
            performance.slots += inside
            unread = dict(inside)
        diary.is_read = True
        yield DropRefs([item for item, _ in performance.slots])
        diary.is_done = True
        yield Sleep(FOREVER_NS)
        return ()

    def remote(self, number: int, captured: tuple[ObjectID, ...]) -> Remote:
        """The function of a script; with a closure it is one of its own."""
        if captured:
            return _remote(self, number, self.program.scripts[number], captured)
        return self._remotes[number]


def _remote(
    company: Company, number: int, script: Script, captured: tuple[ObjectID, ...] = ()
) -> Remote:
    def body(run: Run) -> Steps:
        return _perform(company, number, run)

    return Remote(
        body,
        name=script.name,
        num_returns=len(script.returns),
        demand=script.demand,
        max_retries=script.retries,
        retry_exceptions=script.retries_errors,
        max_calls=script.max_calls,
        refs=captured,
        strategy=script.strategy,
    )


def _perform(company: Company, number: int, run: Run) -> Steps:
    """The body of a task."""
    diary, order = company.diary, run.token
    diary.begun[run.task] += 1
    diary.scripts[run.task] = number
    diary.paths[run.task] = order.path
    performance = _Performance(company, number, order, run)
    performance.open_arguments()
    yield from performance.claim()
    yield from performance.steps()
    return performance.results()


class _Performance:
    """One run of one script."""

    __slots__ = ("company", "order", "run", "script", "slots", "token")

    def __init__(self, company: Company, number: int, order: Order, run: Run) -> None:
        self.company = company
        self.script = company.program.scripts[number]
        self.order = order
        self.run = run
        self.slots: list[Slot] = []
        self.token = mix(2 * number, int(order.stained))
        if self.script.is_fickle:
            self.token = mix(self.token, 2 * run.attempt + 1)

    def open_arguments(self) -> None:
        """References from closure and arguments become slots, values of arguments are read."""
        run, order = self.run, self.order
        self.slots += zip(run.captured, order.captured, strict=False)
        self.slots += zip(run.refs, order.nested, strict=False)
        for got, path in zip(run.args, order.args, strict=True):
            self._take(got, path)

    def claim(self) -> Steps:
        """What was smuggled in becomes slots."""
        for item, owner, path in self.order.smuggled:
            yield ClaimRef(item, owner)
            self.slots.append((item, path))
        return ()

    def _take(self, got: Got, path: str) -> None:
        """A value that was read, or a failure that was caught."""
        outcome = outcome_of(got)
        self.company.diary.reads.append((path, got.object, outcome, self.order.path))
        if outcome.failure:
            self.token = mix(self.token, 2 * outcome.failure + 1)
            return
        self.token = mix(self.token, outcome.token)
        self.slots += inner_slots(got, path)

    def _some(self, numbers: Sequence[int]) -> list[Slot]:
        """Distinct references."""
        slots = self.slots
        if not slots:
            return []
        return list({slots[n % len(slots)][0]: slots[n % len(slots)] for n in numbers}.values())

    def steps(self) -> Steps:
        """Do what the script says."""
        for number, step in enumerate(self.script.steps):
            kind = type(step)
            if kind is Call:
                yield from self._call(step, self._path(number))  # type: ignore[arg-type]  # it is
            elif kind is Spend:
                yield Compute(step.ns)  # type: ignore[union-attr]  # as its type says
            elif kind is Read:
                yield from self._read(step)  # type: ignore[arg-type]  # it is
            else:
                yield from self._do(step, self._path(number))
        script = self.script
        if script.fails < 0 or self.run.attempt < script.fails:
            raise BodyFailed(f"Planned: {script.name}", token=int(Failure.APPLICATION))
        return ()

    def _path(self, number: int) -> str:
        return f"{self.order.path}.{number}" if self.order.path else str(number)

    def _call(self, step: Call, path: str) -> Steps:
        args, nested = self._some(step.args), self._some(step.nested)
        captured = self._some(step.captured)
        smuggled = []
        for item, name in self._some(step.smuggled):
            owner = yield PinRef(item)
            smuggled.append((item, owner, name))
        order = Order(
            path,
            bool(self.token & 1),
            tuple([name for _, name in args]),
            tuple([name for _, name in nested]),
            tuple([name for _, name in captured]),
            tuple(smuggled),
        )
        items = yield Submit(
            self.company.remote(step.script, tuple([item for item, _ in captured])),
            args=tuple([item for item, _ in args]),
            refs=tuple([item for item, _ in nested]),
            token=order,
            size_bytes=step.size_bytes,
        )
        self.slots += [(item, f"{path}:{n}" if n else path) for n, item in enumerate(items)]
        return ()

    def _read(self, step: Read) -> Steps:
        wanted = self._some(step.slots)
        if not wanted:
            return ()
        items = tuple([item for item, _ in wanted])
        try:
            found = yield GetValues(items, timeout_ns=step.timeout_ns, raises=not step.catches)
        except ReadTimedOut:
            self.company.diary.timeouts += 1
            self.token |= 1
            return ()
        except ReadFailed as failed:
            outcome = outcome_of(failed.got)
            names = dict(wanted)
            name = names[failed.got.object]
            self.company.diary.reads.append((name, failed.got.object, outcome, self.order.path))
            raise BodyFailed(f"Read {name}", token=outcome.failure, retryable=False) from None
        for (_, path), got in zip(wanted, found, strict=True):
            self._take(got, path)
        return ()

    def _do(self, step: Step, path: str) -> Steps:
        """The steps that are rarer."""
        match step:
            case Nap():
                yield Sleep(step.ns)
            case Store():
                refs = self._some(step.refs)
                value = Blob(step.size_bytes, mix(self.token, 2))
                try:
                    item = yield PutValue(value, tuple([item for item, _ in refs]))
                except StoreRefused as refused:
                    self.company.diary.refusals += 1
                    raise BodyFailed(
                        "Refused", token=int(refused.failure), retryable=False
                    ) from None
                self.slots.append((item, path))
            case Await():
                items = tuple([item for item, _ in self._some(step.slots)])
                if items:
                    needed = min(step.needed, len(items))
                    yield WaitFor(items, needed, timeout_ns=step.timeout_ns)
            case Let() if self.slots:
                item, _ = self.slots.pop(step.slot % len(self.slots))
                if item not in self.run.captured:  # those are the closure's
                    yield DropRefs((item,))
            case Stop() if self.slots:
                item, _ = self.slots[step.slot % len(self.slots)]
                self.company.diary.cancels += 1
                yield CancelTask(item, force=step.force, recursive=step.recursive)
            case _:
                pass
        return ()

    def results(self) -> list[Result]:
        """What the script returns."""
        refs = tuple([item for item, _ in self._some(self.script.carries)])
        return [
            Result(size, mix(self.token, 2 * number), refs)
            for number, size in enumerate(self.script.returns)
        ]


def inner_slots(got: Got, path: str) -> list[Slot]:
    """The references in a value that was read, with their paths.

    What lies in a stained value may be something else in every run: no run knows that path.
    """
    mark = "?" if outcome_of(got).is_stained else ""
    return [(ref, f"{path}/{n}{mark}") for n, ref in enumerate(got.refs)]


def mix(token: Token, more: Token) -> Token:
    """A token computed from two; stained if one of them is."""
    number = ((token >> 1) * 1_000_003 + (more >> 1) + 7) % _PRIME
    return number << 1 | (token | more) & 1


def outcome_of(got: Got) -> Outcome:
    """What was found: the error of user code says what was at the root of it."""
    token: Any = getattr(got.value, "token", None)  # Any: a Blob carries anything
    if not got.failure:
        return Outcome(token if type(token) is int else 0)
    root = token if got.failure == Failure.APPLICATION and type(token) is int else got.failure
    return Outcome(0, int(root), got.text)  # int: a Failure is not quite one
