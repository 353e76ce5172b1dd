"""Two runs side by side: what was submitted, where it ran, what came of it, how long it took.

Tasks are matched by the names that they have in common (`runs.py`), in program order: a
task, then all that it submitted, then its next sibling, as a program without parallelism would go.
What follows from what is found in `causes.py`, times are compared in `times.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import msgspec

from detray.ids import ObjectID, TaskID
from detray.trace.comparing.causes import (
    OTHER,
    Judge,
    Pair,
    attempts_of,
    error_text,
    has_ended,
    returns_of,
)
from detray.trace.comparing.runs import RunRecord
from detray.trace.comparing.times import Times, compare_times, makespan_ns
from detray.trace.gathering.lives import FINISHED, ObjectLife, TaskLife
from detray.trace.names import short
from detray.trace.play import Makers, schedulers
from detray.trace.reading import Trace, open_trace

SUBMISSION, PLACEMENT, RESULT, FAILURE = "submission", "placement", "result", "failure"
KINDS = (SUBMISSION, PLACEMENT, RESULT, FAILURE)
TOP = 10

CHANCE = (
    "nothing that it knew differs: it is not deterministic, or it read something from outside "
    "(a file, the environment, a clock, chance)"
)
PROGRAM = (
    "nothing that came back to it before differs: it is not deterministic, or it read something "
    "from outside (its arguments, a file, the environment, a clock, chance)"
)
ORDER = "; it calls wait(), whose answer depends on times"
CODE = (
    "its pickled code is not the same, so it may have been changed; nothing else that it knew "
    "differs"
)


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two runs. `note` says what its trace lacks, "" if nothing."""

    path: str
    entrypoint: str
    tasks: int
    objects: int
    nodes: int
    core_revision: int
    detray_version: str
    makespan_ns: int
    has_digests: bool
    is_whole: bool
    note: str


class Departure(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not the same in both runs.

    `id_a` and `id_b` are ids of the task, or of the put, "" where it is not there; `short` is the
    name for people. `is_first` if it follows from no other difference; `why` then says more.
    `is_firm` is False if its name depends on which thread was first.
    """

    kind: str
    what: str
    name: str
    short: str
    id_a: str
    id_b: str
    a: str
    b: str
    is_first: bool = False
    is_firm: bool = True
    why: str = ""
    traceback_a: str = ""
    traceback_b: str = ""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many of what. `compared`: objects that both runs made."""

    common: int
    only_a: int
    only_b: int
    not_ended_a: int
    not_ended_b: int
    compared: int
    by_size_only: int
    other_nodes: int
    other_workers: int
    not_firm: int
    by_kind: dict[str, int]


class RunDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What `diff` found.

    `departures` are all in program order, `first` those that follow from no other. `is_same`
    looks at submissions, results and failures; `is_placed_alike` at the nodes that ran tasks.
    """

    a: RunFacts
    b: RunFacts
    is_same: bool
    is_placed_alike: bool
    counts: Counts
    first: list[Departure]
    departures: list[Departure]
    times: Times
    notes: list[str]


def diff(
    a: Trace | str | os.PathLike[str],
    b: Trace | str | os.PathLike[str],
    *,
    top: int = TOP,
    makers: Makers = schedulers,
) -> RunDiff:
    """Compare two runs; `top` is how many changes of times are kept. Raises TraceError, OSError."""
    left = RunRecord(a if isinstance(a, Trace) else open_trace(a), makers)
    right = RunRecord(b if isinstance(b, Trace) else open_trace(b), makers)
    return Comparing(left, right).result(top)


class Comparing:
    """The two runs, matched."""

    def __init__(self, a: RunRecord, b: RunRecord) -> None:
        self.a, self.b = a, b
        self.pairs = {
            name: Pair(name, a.tasks.get(name), b.tasks.get(name)) for name in _order(a, b)
        }
        self.judge = Judge(a, b, self.pairs)

    def result(self, top: int) -> RunDiff:
        """Everything that can be said."""
        departures = [*self._puts_of_programs(), *self._departures()]
        both = [pair for pair in self.pairs.values() if pair.a is not None and pair.b is not None]
        kinds = {kind: sum(item.kind == kind for item in departures) for kind in KINDS}
        return RunDiff(
            a=_facts(self.a),
            b=_facts(self.b),
            is_same=not any(count for kind, count in kinds.items() if kind != PLACEMENT),
            is_placed_alike=not kinds[PLACEMENT],
            counts=self._counts(both, kinds),
            first=[item for item in departures if item.is_first],
            departures=departures,
            times=compare_times(both, self.a, self.b, top),
            notes=[*_notes(self.a, self.b), *_match_notes(self), *self._code_note(both)],
        )

    def _code_note(self, both: list[Pair]) -> Iterator[str]:
        """Which functions were perhaps changed."""
        names = dict.fromkeys(
            pair.a.name for pair in both if pair.a is not None and self.judge.code_differs(pair)
        )
        if names:
            listed = ", ".join(list(names)[:5]) + (", ..." if len(names) > 5 else "")
            yield (
                f"the pickled code of {listed} is not the same: changed, moved within its file, or "
                "from a file elsewhere"
            )

    def _counts(self, both: list[Pair], kinds: dict[str, int]) -> Counts:
        pairs = self.pairs.values()
        compared = self.a.objects.keys() & self.b.objects.keys()
        firm = [self._is_firm(pair) for pair in pairs]
        return Counts(
            common=len(both),
            only_a=sum(pair.b is None for pair in pairs),
            only_b=sum(pair.a is None for pair in pairs),
            not_ended_a=sum(pair.a is not None and not has_ended(pair.a) for pair in both),
            not_ended_b=sum(pair.b is not None and not has_ended(pair.b) for pair in both),
            compared=len(compared),
            by_size_only=sum(not self._has_digests(name) for name in compared),
            other_nodes=kinds[PLACEMENT],
            other_workers=sum(_worker(pair.a) != _worker(pair.b) for pair in both),
            not_firm=len(firm) - sum(firm),
            by_kind=kinds,
        )

    def _has_digests(self, name: ObjectID) -> bool:
        return all(
            record.objects[name].id in record.digests and not record.objects[name].refs
            for record in (self.a, self.b)
        )

    # ------------------------------------------------------------------ what differs

    def _departures(self) -> Iterator[Departure]:
        """Of every task in program order: its call, its place, its results, its end."""
        puts = self._puts
        for pair in self.pairs.values():
            if pair.a is None or pair.b is None:
                yield from self._missing(pair)
                continue
            yield from self._called(pair)
            yield from self._placed(pair)
            yield from puts.get(pair.name, ())
            yield from self._returned(pair)
            yield from self._ended(pair)

    def _missing(self, pair: Pair) -> Iterator[Departure]:
        """A task that only one run submitted; if the other's trace is cut, that says nothing."""
        where = self.b if pair.b is None else self.a
        if not where.is_whole:
            return
        told = ("submitted", "not submitted")
        is_first = not self.judge.call_follows(pair.name)
        yield self._departure(
            pair, SUBMISSION, "task", *(told if pair.b is None else told[::-1]),
            is_first=is_first, why=self._program_why(pair) if is_first else "",
        )  # fmt: skip

    def _called(self, pair: Pair) -> Iterator[Departure]:
        differing = self.judge.call(pair.name)
        if not differing:
            return
        is_first = not self.judge.call_follows(pair.name)
        for what in differing:
            why = self._program_why(pair)
            yield self._departure(
                pair, SUBMISSION, what, self._call_text(self.a, pair.a, what),
                self._call_text(self.b, pair.b, what), is_first=is_first,
                why=why if is_first else "",
            )  # fmt: skip

    def _program_why(self, pair: Pair) -> str:
        """Why whoever submitted it may have done otherwise."""
        parent = self.judge.origin_parent(pair.name)
        above = self.pairs.get(parent)
        life = above.a if above is not None else None
        who = f"{life.name} ({short(life.id)}), which submitted it" if life else "the program"
        waits = (*self.a.history.waits, *self.b.history.waits)
        task = life.id if life is not None else b""
        is_waiting = any(wait.task == task and wait.needed < wait.count for wait in waits)
        return f"{who}: {PROGRAM}{ORDER if is_waiting else ''}"

    def _call_text(self, record: RunRecord, life: TaskLife | None, what: str) -> str:
        if life is None:
            return ""
        call = record.submissions.get(life.id)
        if what == "function":
            return life.name
        if what == "arguments":
            own = f"{call.size_bytes:,} B {call.digest.hex()}".rstrip() if call is not None else ""
            refs = ", ".join(map(short, (*life.args, *life.refs)))
            return " and ".join(
                part for part in (own if call and call.size_bytes else "", refs) if part
            )
        return str(dict(call.options).get(what, "")) if call is not None else ""

    def _why(self, pair: Pair) -> str:
        """Why a task may have made, or raised, something else from the same."""
        return CODE if self.judge.code_differs(pair) else CHANCE

    def _placed(self, pair: Pair) -> Iterator[Departure]:
        node_a, node_b = _node(pair.a), _node(pair.b)
        if node_a >= 0 and node_b >= 0 and node_a != node_b:
            yield self._departure(pair, PLACEMENT, "node", f"node {node_a}", f"node {node_b}")

    def _returned(self, pair: Pair) -> Iterator[Departure]:
        for number, name in enumerate(returns_of(pair)):
            if self.judge.value(name) == OTHER:
                is_first = not self.judge.follows(pair.name)
                yield self._departure(
                    pair, RESULT, f"return {number}", self._value_text(self.a, name),
                    self._value_text(self.b, name), is_first=is_first,
                    why=self._why(pair) if is_first else "",
                )  # fmt: skip

    def _ended(self, pair: Pair) -> Iterator[Departure]:
        if self.judge.ending(pair) != OTHER or pair.a is None or pair.b is None:
            return
        is_first = not self.judge.follows(pair.name)
        yield self._departure(
            pair, FAILURE, "end", _end_text(pair.a), _end_text(pair.b), is_first=is_first,
            why=self._why(pair) if is_first and not _is_lost(pair) else "",
        )  # fmt: skip

    @cached_property
    def _puts(self) -> dict[TaskID, list[Departure]]:
        """Puts with other values, by the common name of who put them."""
        found: dict[TaskID, list[Departure]] = {}
        for name, value in self.a.objects.items():
            if value.is_put and self.judge.value(name) == OTHER:
                parent = self.a.names.origin(value.id).parent
                found.setdefault(parent, []).append(self._put(name, parent))
        return found

    def _puts_of_programs(self) -> Iterator[Departure]:
        for parent, departures in self._puts.items():
            if parent not in self.pairs:
                yield from departures

    def _put(self, name: ObjectID, parent: TaskID) -> Departure:
        above = self.pairs.get(parent)
        life = above.a if above is not None else None
        is_first = not self.judge.put_follows(name)
        why = self._why(above) if above is not None else f"the program: {PROGRAM}"
        a, b = self.a.objects[name].id, self.b.objects[name].id
        return Departure(
            kind=RESULT,
            what="put",
            name=f"a put of {life.name}" if life is not None else "a put of the program",
            short=short(a),
            id_a=a.hex(),
            id_b=b.hex(),
            a=self._value_text(self.a, name),
            b=self._value_text(self.b, name),
            is_first=is_first,
            is_firm=self.a.names.origin(a).is_firm,
            why=why if is_first else "",
        )

    def _value_text(self, record: RunRecord, name: ObjectID) -> str:
        value: ObjectLife = record.objects[name]
        digest = record.digests.get(value.id, b"").hex()
        return f"{value.size_bytes:,} B {digest}".rstrip()

    def _departure(
        self,
        pair: Pair,
        kind: str,
        what: str,
        a: str,
        b: str,
        *,
        is_first: bool = False,
        why: str = "",
    ) -> Departure:
        life = pair.a or pair.b
        return Departure(
            kind=kind,
            what=what,
            name=life.name if life is not None else "",
            short=short(life.id) if life is not None else "",
            id_a=pair.a.id.hex() if pair.a is not None else "",
            id_b=pair.b.id.hex() if pair.b is not None else "",
            a=a,
            b=b,
            is_first=is_first,
            is_firm=self._is_firm(pair),
            why=why,
            traceback_a=_traceback(pair.a) if kind == FAILURE else "",
            traceback_b=_traceback(pair.b) if kind == FAILURE else "",
        )

    def _is_firm(self, pair: Pair) -> bool:
        return self.judge.is_matched(pair.name) and self.is_of_main_threads(pair)

    def is_of_main_threads(self, pair: Pair) -> bool:
        """True if it, and all above it, were submitted by the threads that ran their parents."""
        return all(
            record.names.origin(life.id).is_firm
            for record, life in ((self.a, pair.a), (self.b, pair.b))
            if life is not None
        )


class _Place(NamedTuple):
    """Where a task stands among its siblings: earlier attempts, then threads, then by number."""

    is_last: bool
    attempt: int
    stream: int
    name: TaskID


def _order(a: RunRecord, b: RunRecord) -> Iterator[TaskID]:
    """The common names of all tasks in program order."""
    children: dict[TaskID, list[_Place]] = {}
    known: set[TaskID] = set()
    for record in (a, b):
        for name, life in record.tasks.items():
            if name not in known:
                known.add(name)
                origin = record.names.origin(life.id)
                place = _Place(not origin.attempt, -origin.attempt, origin.stream, name)
                children.setdefault(origin.parent, []).append(place)
    for places in children.values():
        places.sort()
    roots = sorted(parent for parent in children if parent not in known)
    # Last in, first out: what comes first goes in last.
    stack = [place.name for root in reversed(roots) for place in reversed(children[root])]
    given: set[TaskID] = set()
    while stack:
        name = stack.pop()
        if name not in given:
            given.add(name)
            yield name
            stack += [place.name for place in reversed(children.get(name, ()))]
    yield from sorted(known - given)  # Only a trace that lies has tasks that are their own parents.


def _node(life: TaskLife | None) -> int:
    return life.last.node if life is not None and life.last is not None else -1


def _worker(life: TaskLife | None) -> tuple[int, int]:
    last = life.last if life is not None else None
    return (last.node, last.worker) if last is not None else (-1, 0)


def _is_lost(pair: Pair) -> bool:
    """True if a worker or a node died, which explains itself."""
    return any(
        run.state == "lost"
        for life in (pair.a, pair.b)
        if life is not None
        for run in life.attempts
    )


def _end_text(life: TaskLife) -> str:
    text = life.state if life.state == FINISHED else f"{life.state}: {error_text(life)}"
    count = attempts_of(life)
    if count == 1:
        return text
    errors = dict.fromkeys(run.error.partition("\n")[0] for run in life.attempts[:-1] if run.error)
    before = f", before: {'; '.join(errors)}" if errors else ""
    return f"{text}, attempt {count}{before}"


def _traceback(life: TaskLife | None) -> str:
    """Of the attempt that failed last: what user code raised, or the stack of a crash."""
    for run in reversed(life.attempts if life is not None else ()):
        if run.traceback or "\n" in run.error:
            return run.traceback or run.error.partition("\n")[2]
    return ""


def _facts(record: RunRecord) -> RunFacts:
    trace = record.trace
    header = trace.header
    note = trace.note if not trace.complete else ""
    if trace.first_step:
        note = f"begins with step {trace.first_step}" + (f"; {note}" if note else "")
    elif trace.goes_on and not note:
        note = f"the run went on after it was written ({trace.reason})"
    return RunFacts(
        path=trace.name,
        entrypoint=header.entrypoint,
        tasks=len(record.tasks),
        objects=len(record.objects),
        nodes=len(header.local_cores()),
        core_revision=header.core_revision,
        detray_version=header.detray_version,
        makespan_ns=makespan_ns(record.tasks),
        has_digests=record.has_digests,
        is_whole=record.is_whole,
        note=note,
    )


def _notes(a: RunRecord, b: RunRecord) -> Iterator[str]:
    """What limits the comparison."""
    for letter, record in (("A", a), ("B", b)):
        if not record.is_whole:
            yield f"{letter} is not the whole run: what only the other has is no difference"
        if not record.has_digests and record.objects:
            yield f"{letter} holds no digests of values: results are compared by their sizes"
        for item, attempt in list(record.made_otherwise.items())[:3]:
            yield (
                f"in {letter} attempt {attempt} made {short(item)} again with another value: "
                "it is not deterministic"
            )
    if a.trace.header.core_revision != b.trace.header.core_revision:
        yield "the runs are of different core revisions: placement may differ for that reason"
    if len(a.names.jobs) != len(b.names.jobs):
        counts = len(a.names.jobs), len(b.names.jobs)
        yield "A has {} jobs, B {}: they are matched in their order".format(*counts)


def _match_notes(comparing: Comparing) -> Iterator[str]:
    """Where names stop to say what is what."""
    pairs = comparing.pairs.values()
    threaded = [pair for pair in pairs if not comparing.is_of_main_threads(pair)]
    if threaded:
        yield (
            f"{len(threaded):,} tasks, the first of them {_who(threaded[0])}, were submitted by "
            "other threads than the one that ran their parent, or by tasks that were: their names "
            "depend on which thread came first, so what differs there may be matched wrongly"
        )
    unmatched = [pair for pair in pairs if not comparing.judge.is_matched(pair.name)]
    if unmatched:
        yield (
            f"from {_who(unmatched[0])} on, {len(unmatched):,} tasks follow a sibling that is "
            "another function in each run: they are compared number by number, which says little"
        )


def _who(pair: Pair) -> str:
    life = pair.a or pair.b
    return f"{life.name} ({short(life.id)})" if life is not None else ""
