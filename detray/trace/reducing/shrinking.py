"""Shrinking: the smallest part of a trace that violates an expectation in the same way.

A part is played on fresh cores (`rehearsal.py`); the same way is the same `Violation.kind`. First
it is seen whether the core where it is violated does it alone, told what it was told; if not, all
cores are played, with what they say to each other.

What is left out, in this order: all that has nothing to do with the violation's subject; tasks,
with what came of them; stimuli of one kind; single stimuli. Each by halves first: all, half, a
quarter (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002). Then
what remains is made plain: times, sizes, arguments. It ends when no single stimulus can be left out
any more, or with the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import Any, TypeVar

import msgspec

from detray.core import peer_messages as pm
from detray.core import stimuli as st
from detray.ids import TASK_ID_BYTES
from detray.trace.format import CoreInfo, HeadCore, TraceError
from detray.trace.names import core_names, ids_in
from detray.trace.play import Makers, schedulers
from detray.trace.reading import Trace
from detray.trace.reducing.expecting import Expectation, Violation, find_violation
from detray.trace.reducing.plainness import plainer, plainer_core
from detray.trace.reducing.rehearsal import Players, Rehearsal, RehearsedStep, Take, has_empty_store
from detray.trace.reducing.tape import GAP_NS, Item, Tape, tape_of
from detray.trace.replaying import replay

RUNS_MAX, SECONDS_MAX = 5_000, 300.0
Report = Callable[[str], None]
Part = Sequence[int]
T = TypeVar("T", Item, CoreInfo)


class Shrunk(msgspec.Struct, frozen=True):
    """The smallest part that was found, and what finding it took."""

    sentence: str
    violation: Violation
    """In the part; `found` is where the trace has it."""
    found: Violation
    steps: list[RehearsedStep]
    cores: list[CoreInfo]
    """Those that are played; steps name them by their place here."""
    stores: list[bool]
    """By place, True for heads with a store."""
    told_before: int
    told: int
    """Stimuli, and steps without any, up to the violation: of the trace, and of the part."""
    told_anew: int
    """By how many more it was tried to tell what was there at the beginning; 0 from the start."""
    runs: int
    seconds: float
    is_minimal: bool
    """No single stimulus can be left out."""
    trail: list[tuple[str, int]]
    """After which pass how many were left."""


class NothingToShrink(TraceError):
    """The trace cannot be shrunk: why."""


class NothingViolated(NothingToShrink):
    """The trace violates nothing that was expected of it."""


def shrink(
    trace: Trace,
    expectations: Sequence[Expectation],
    *,
    runs_max: int = RUNS_MAX,
    seconds_max: float = SECONDS_MAX,
    report: Report = lambda text: None,
    makers: Makers = schedulers,
) -> Shrunk:
    """The smallest part of `trace` that violates the first of `expectations` that it violates.

    At most `runs_max` parts are tried, for at most `seconds_max` once the violation is found.
    Raises TraceError; NothingViolated if it violates none of them, NothingToShrink if it cannot be
    shrunk.
    """
    began = perf_counter()
    if not trace.step_count:
        raise NothingToShrink(f"{trace.name} holds no steps: there is nothing to shrink")
    found = find_violation(trace, expectations, makers, report)
    if found is None:
        _mind_differences(trace, expectations, makers)
        said = ", ".join(repr(expectation.sentence) for expectation in expectations)
        raise NothingViolated(f"{trace.name} violates nothing: {said} {_holds(expectations)}")
    expectation = next(e for e in expectations if e.sentence == found.sentence)
    report(f"violated in step {found.step:,}: {found.text()}")
    rehearsal, part = _first_part(trace, expectation, found, makers)
    tape = rehearsal.tape
    work = _Work(rehearsal, part, found, runs_max, perf_counter() + seconds_max, report)
    work.reduce()
    final = work.take(record=True)
    assert final.violation is not None
    played = sorted(rehearsal.players.played)
    used = [core for core in played if any(step.core == core for step in final.steps)]
    steps = [_renumbered(step, used) for step in final.steps]
    return Shrunk(
        sentence=found.sentence,
        violation=final.violation,
        found=found,
        steps=steps,
        cores=[tape.infos[core] for core in used],
        stores=[core in tape.states and isinstance(tape.infos[core], HeadCore) for core in used],
        told_before=len(tape.items) - tape.told_anew,
        told=len(final.kept),
        told_anew=tape.told_anew,
        runs=rehearsal.runs,
        seconds=perf_counter() - began,
        is_minimal=work.is_minimal,
        trail=work.trail,
    )


def _renumbered(step: RehearsedStep, used: list[int]) -> RehearsedStep:
    """With the places of cores among those that are used."""
    letters = [
        letter and letter._replace(source=used.index(letter.source)) for letter in step.letters
    ]
    return step._replace(core=used.index(step.core), letters=tuple(letters))


def _mind_differences(trace: Trace, expectations: Sequence[Expectation], makers: Makers) -> None:
    """Decisions that are not those that were recorded cannot be shrunk: only say so."""
    if not any(expectation.minds_raising for expectation in expectations):
        return
    report = replay(trace, makers)
    if report.difference is not None and report.is_same_revision:
        number = report.difference.played.step.number
        raise NothingToShrink(
            f"{trace.name}: {report.difference.what} (step {number}). "
            "There is no recording of what a part of it would have decided, so nothing can be left "
            f"out: detray replay {trace.name} shows the step. If what is decided there is wrong, "
            "say what is expected instead (--expect): that can be shrunk"
        )


def _holds(expectations: Sequence[Expectation]) -> str:
    return "holds" if len(expectations) == 1 else "hold"


def _first_part(
    trace: Trace, expectation: Expectation, found: Violation, makers: Makers
) -> tuple[Rehearsal, tuple[int, ...]]:
    """The players with the fewest cores that violates it from the beginning of the trace."""
    seen: list[str] = []
    tape = tape_of(trace, found.step, found.core, makers)
    first = _violating(tape, expectation, found, seen)
    if first is None and found.core in tape.late:
        tape = tape_of(trace, found.step, found.core, makers, has_run=True)
        first = _violating(tape, expectation, found, seen)
    if first is not None:
        return first
    if found.core in tape.late:
        raise NothingToShrink(_why_late(trace, tape, found, seen))
    raise NothingToShrink(
        f"{found.text()} (step {found.step} of {trace.name}), but not when fresh cores are told "
        f"the same under other names (then: {'; '.join(dict.fromkeys(seen))}): nothing can be "
        "left out. `detray replay --expect` shows the step"
    )


def _violating(
    tape: Tape, expectation: Expectation, found: Violation, seen: list[str]
) -> tuple[Rehearsal, tuple[int, ...]] | None:
    """The first players, and part, that do; None if none does. `seen` are what came out instead."""
    is_late = found.core in tape.late
    for players in _casts(tape, found.core):
        rehearsal = Rehearsal(tape, [expectation], players)
        part = [item.place for item in tape.items if item.core in players.played]
        for trial in [part, related(tape.items, part, found.subjects)] if is_late else [part]:
            take = rehearsal.play(trial, tape.dates_ns)
            if take.violation is not None and take.violation.kind == found.kind:
                return rehearsal, tuple(trial)
            seen.append(take.violation.text() if take.violation is not None else "nothing")
    return None


def _why_late(trace: Trace, tape: Tape, found: Violation, seen: Sequence[str]) -> str:
    names = core_names(tape.header, tape.nodes)
    middle = ", ".join(names[core] for core in sorted(tape.late))
    then = f" (then: {'; '.join(dict.fromkeys(seen))})" if seen else ""
    return (
        f"{found.text()} (step {found.step} of {trace.name}), whose recording begins in the middle "
        f"({middle}): it takes more of what was there than a fresh core can be told{then}. "
        "`detray replay --expect` shows the step; to shrink it, record from the start: "
        'detray.init(record="run.trace"), detray start --record FILE'
    )


def _casts(tape: Tape, core: int) -> Iterator[Players]:
    """The core alone; then all that can be played together."""
    header = tape.header
    able = {n for n, info in enumerate(header.cores) if not info.unplayable}
    is_calm = not tape.late.intersection(able)
    heads = [n for n, _ in header.head_cores() if n in able]
    plain = {n for n in heads if n not in tape.states or _is_first_head(tape, n)}
    is_calm = (
        is_calm
        and len(header.head_cores()) == len(plain) <= 1
        and not any(isinstance(item.stimulus, st.HeadRestarted) for item in tape.items)
    )
    for is_lazy in (True, False):
        if core in able and (core not in heads or core in plain):
            yield Players(frozenset((core,)), is_lazy)
            if core in tape.late:
                yield Players(frozenset((core,)), is_lazy, is_patient=True)
        if is_calm and len(able) > 1:
            yield Players(frozenset(able), is_lazy)


def _is_first_head(tape: Tape, core: int) -> bool:
    return has_empty_store(tape.header.cores[core].config, tape.states[core])


class _Spent(Exception):
    """The budget is."""


class _Work:
    """The smallest part so far."""

    def __init__(
        self, rehearsal: Rehearsal, part: tuple[int, ...], found: Violation, runs_max: int,
        until: float, report: Report,
    ) -> None:  # fmt: skip
        self.part: tuple[int, ...] = part
        self.times = dict(rehearsal.tape.dates_ns)
        self.trail: list[tuple[str, int]] = [("played anew", len(part))]
        self.is_minimal = False
        self._rehearsal = rehearsal
        self._kind = found.kind
        self._subjects = set(found.subjects)
        self._runs_max = runs_max
        self._until = until
        self._report = report
        self._tried: set[tuple[int, ...]] = set()
        self._told_s = 0.0

    @property
    def items(self) -> list[Item]:
        """Those of the part."""
        items = self._rehearsal.tape.items
        return [items[index] for index in self.part]

    def take(self, record: bool = False) -> Take:
        """Play the part as it stands."""
        return self._rehearsal.play(self.part, self.times, record)

    def reduce(self) -> None:
        """All passes."""
        try:
            self._related()
            for name, groups in self._passes():
                self._leave_out(groups)
                self._note(name)
            while True:
                before = self.part
                self._leave_out([[index] for index in self.part])
                self._note("single stimuli")
                if self.part == before:
                    break
            self._make_plain()
            before = ()
            while before != self.part:
                before = self.part
                self._leave_out_singly()
            self._shorten()
            self._note("plain")
            self.is_minimal = True
        except _Spent:
            self._note("the budget is spent")

    def _note(self, name: str) -> None:
        self.trail.append((name, len(self.part)))
        self._report(f"{len(self.part):,} left after {self._rehearsal.runs:,} runs ({name})")

    # -------------------------------------------------------------- trying

    def _try(self, part: Part, times: dict[int, int] | None = None) -> bool:
        """Take a part if it violates the same in the same way."""
        key = tuple(part)
        if times is None:
            if key in self._tried:
                return False
            self._tried.add(key)
        if self._rehearsal.runs >= self._runs_max or perf_counter() > self._until:
            raise _Spent
        if perf_counter() - self._told_s > 1.0:
            self._told_s = perf_counter()
            self._report(f"{len(self.part):,} left after {self._rehearsal.runs:,} runs")
        times_tried = self.times if times is None else times
        take = self._rehearsal.play(key, times_tried)
        if not self._is_same(take):
            return False
        # What was not said may have left a trace all the same: a client that nobody knows.
        is_enough = take.kept == key or self._is_same(self._rehearsal.play(take.kept, times_tried))
        self.part = take.kept if is_enough else key
        if times is not None:
            self.times = times
        return True

    def _is_same(self, take: Take) -> bool:
        return take.violation is not None and take.violation.kind == self._kind

    def _leave_out(self, groups: Sequence[Sequence[int]]) -> None:
        """Leave out all groups, then halves, quarters... down to single ones, the last first."""
        left = [list(group) for group in groups if group]
        size = len(left)
        while size:
            for start in reversed(range(0, len(left), size)):
                gone = {index for group in left[start : start + size] for index in group}
                part = [index for index in self.part if index not in gone]
                if len(part) < len(self.part):
                    self._try(part)
            there = set(self.part)
            left = [group for group in left if there.intersection(group)]
            if size == 1:
                return
            size = min(len(left), (size + 1) // 2)

    def _leave_out_singly(self) -> None:
        for index in reversed(self.part):
            self._try([other for other in self.part if other != index])

    # -------------------------------------------------------------- what belongs together

    def _related(self) -> None:
        """Keep only what has to do with the violation's subject, if that does it."""
        part = related(self._rehearsal.tape.items, self.part, self._subjects)
        if len(part) < len(self.part):
            self._try(part)
            self._note("what concerns it")

    def _passes(self) -> Iterable[tuple[str, list[list[int]]]]:
        yield "cores", self._grouped(lambda item: item.core)
        yield "functions", self._grouped(_template_of)
        yield "tasks", self._grouped(_creates)
        yield "clients", self._grouped(lambda item: getattr(item.stimulus, "client", None))
        yield "kinds of stimuli", self._grouped(lambda item: type(item.stimulus).__name__)
        yield "tasks", self._grouped(_creates)

    def _grouped(self, key: Callable[[Item], object]) -> list[list[int]]:
        groups: dict[object, list[int]] = {}
        for item in self.items:
            name = key(item)
            if name is not None:
                groups.setdefault(name, []).append(item.place)
        return list(groups.values())

    # -------------------------------------------------------------- plainness

    def _make_plain(self) -> None:
        """Times first, then what stimuli say."""
        self._shorten()
        for core in sorted(self._rehearsal.players.played):
            self._plainer_core(core)
        for place in [*self.part, *self._definitions()]:
            self._plainer(place)

    def _plainer(self, place: int) -> None:
        items = self._rehearsal.tape.items

        def versions(item: Item) -> Iterator[Item]:
            return (item._replace(stimulus=new) for new in plainer(item.stimulus))

        self._plainest(items, place, versions)

    def _plainer_core(self, core: int) -> None:
        infos = self._rehearsal.tape.infos
        name = "head" if isinstance(infos[core], HeadCore) else f"n{core}"
        name = "n" if len(self._rehearsal.players.played) == 1 and name != "head" else name
        self._plainest(infos, core, lambda info: plainer_core(info, name))

    def _plainest(self, row: list[T], place: int, versions: Callable[[T], Iterable[T]]) -> None:
        """The first of the plainer versions that do, again and again."""
        seen = {row[place]}
        is_plainer = True
        while is_plainer:
            is_plainer = False
            for new in versions(row[place]):
                if new not in seen:
                    seen.add(new)
                    is_plainer = self._try_with(row, place, new)
                    if is_plainer:
                        break

    def _try_with(self, row: list[T], place: int, new: T) -> bool:
        """True if it is violated with this in its place, where it is left then."""
        before, row[place] = row[place], new
        self._tried.clear()
        is_good = False
        try:
            is_good = self._try(self.part)
        finally:
            if not is_good:
                row[place] = before
        return is_good

    def _definitions(self) -> list[int]:
        """Places of what is said when something needs it: used templates, and their functions."""
        keys = [(item.core, _template_of(item)) for item in self.items]
        used = {(core, *key) for core, key in keys if key is not None}
        items = self._rehearsal.tape.items
        functions = set()
        found = []
        for place in reversed(self._rehearsal.definitions):
            m = items[place].stimulus
            if isinstance(m, st.TemplateDefined):
                if (items[place].core, m.client, m.template) in used:
                    functions.add(m.function)
                    found.append(place)
            elif m.function in functions:
                found.append(place)
        return found

    def _shorten(self) -> None:
        """No time between steps, but where something hangs on it; and that in round numbers."""
        steps = list(dict.fromkeys(item.step for item in self.items))
        dates = [self.times[step] for step in steps]
        gaps = [now - before for now, before in zip(dates, [0, *dates], strict=False)]
        gaps = [0, *(max(GAP_NS, gap) for gap in gaps[1:])]
        self._try_gaps(steps, gaps)
        size = len(steps)
        while size:
            for start in range(0, len(steps), size):
                if any(gap > GAP_NS for gap in gaps[start : start + size]):
                    trial = list(gaps)
                    trial[start : start + size] = [GAP_NS] * len(gaps[start : start + size])
                    trial[0] = 0
                    if self._try_gaps(steps, trial):
                        gaps = trial
            size = 0 if size == 1 else (size + 1) // 2
        for place, gap in enumerate(gaps):
            for round_ns in _round_below(gap):
                trial = [*gaps[:place], round_ns, *gaps[place + 1 :]]
                if self._try_gaps(steps, trial):
                    gaps = trial
                    break

    def _try_gaps(self, steps: Sequence[int], gaps: Sequence[int]) -> bool:
        times, now = {}, 0
        for step, gap in zip(steps, gaps, strict=True):
            now += gap
            times[step] = now
        return self._try(self.part, times)


def _round_below(gap: int) -> Iterator[int]:
    """Durations below with one digit, the smallest first; then with two."""
    unit = GAP_NS
    while unit < gap:
        yield from (digit * unit for digit in range(1, 10) if GAP_NS < digit * unit < gap)
        unit *= 10
    if gap > GAP_NS:
        step = 10 ** max(0, len(str(gap)) - 2)
        yield from (value for value in (gap // step * step, gap // step * step + step))


def related(items: Sequence[Item], part: Part, subjects: Iterable[bytes]) -> list[int]:
    """The part without tasks that have nothing to do with the subjects: all of it if there are
    none. Related are what a task takes and who submitted it."""
    parents: dict[Any, Any] = {}  # Any: task ids
    args: dict[Any, set[bytes]] = {}
    for item in items:
        m = item.stimulus
        if isinstance(m, st.TaskSubmitted | pm.RunDelivered):
            parents[m.task] = m.parent
            args[m.task] = ids_in(m.args)
    wanted: set[Any] = {x if len(x) == TASK_ID_BYTES else x[:16] for x in subjects}
    if not wanted:
        return list(part)
    todo = list(wanted)
    while todo:
        task = todo.pop()
        more = {x[:TASK_ID_BYTES] for x in args.get(task, ())} | {parents.get(task, task)}
        todo += more - wanted
        wanted |= more
    return [
        place
        for place in part
        if not isinstance(items[place].stimulus, st.TaskSubmitted | pm.RunDelivered)
        or items[place].stimulus.task in wanted
    ]


def _creates(item: Item) -> object:
    """The task that an item makes known, None if it makes none."""
    m = item.stimulus
    return m.task if isinstance(m, st.TaskSubmitted | pm.RunDelivered) else None


def _template_of(item: Item) -> tuple[int, int] | None:
    """The client, or node, and its number of the template that a task is made from."""
    m = item.stimulus
    if isinstance(m, st.TaskSubmitted):
        return m.client, m.template
    return (m.node, m.template) if isinstance(m, pm.RunDelivered) else None
