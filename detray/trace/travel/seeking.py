"""Replay: stand at any step of a trace, with the state that every core had there.

Theory of operation
-------------------
On opening the trace is played once from its beginning, every step compared with the recording, and
every few thousand stimuli a mark is set: a checkpoint of each core that took a step since the last
one (`checkpoints.py`). Going to a step starts from the nearest mark before it and plays what is
between, which has been compared already. Cores are made of their checkpoints when they are needed:
those that take steps on the way, and those that somebody looks at.

Whoever goes back will go back again: then finer marks are left on the way to the target, so that
further steps back are short. They go when the position has moved away.

Memory is bounded: when the marks have taken their share, every other one is given up and the rest
is compressed; seeking takes longer then.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from time import thread_time
from typing import Any, NamedTuple

from detray.ids import NodeID
from detray.trace.format import TraceError
from detray.trace.links import nodes_of
from detray.trace.names import core_names
from detray.trace.play import Core, Maker, Makers, Moment, Played, Stage, schedulers
from detray.trace.reading import RecordedStep, Trace
from detray.trace.telling.story import StorySubject
from detray.trace.travel.checkpoints import FrozenCore, weigh
from detray.trace.travel.contents import Contents
from detray.trace.travel.shown import ShownRow, rows_about

SPACING = 20_000
"""Stimuli between two marks, at most."""
MARK_S = 0.04
"""A mark is set when playing since the last one took so much CPU time: some steps take long."""
FINE = 3
"""So many parts finer marks make of the way between two, when going back."""
MEMORY_BYTES = 1 << 30
"""What marks may take."""
PROGRESS_STEPS = 1_000

Progress = Callable[[int, int], None]
"""Told now and then: steps that were played, of how many."""


class Mark(NamedTuple):
    """All cores before step `step`."""

    step: int
    moment: Moment
    cores: dict[int, FrozenCore]


class Replay:
    """A position in a trace, and the state there.

    The position `at` is the number of the step that comes next: `cores` are as that step finds
    them, and `last` is the step before it, which led here. It goes from `first` to `end`.

    What the cores show is to be looked at, not to be changed.
    """

    def __init__(
        self,
        trace: Trace,
        makers: Makers = schedulers,
        *,
        progress: Progress | None = None,
        spacing: int = SPACING,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """Play the whole trace once; stand before its first step.

        `spacing` is in stimuli. Raises TraceError if there is nothing to replay.
        """
        self.trace = trace
        self.contents = Contents()
        self.first = trace.first_step
        self.end = self.first
        """After the last step that can be played."""
        self.note = ""
        """Why `end` is not the end of the trace; "" if it is."""
        self.differing: list[int] = []
        """Steps that decide otherwise than was recorded; what follows one is not what was."""
        self.unplayed = 0
        """Steps of cores that have no state to be played from."""
        self.nodes = nodes_of(trace)
        """The nodes of the cores, by number; -1 for heads, and where it is not known."""
        self.names = core_names(trace.header, self.nodes)
        """Of the cores, by number."""
        self._makers = makers(trace.header)
        self._spacing = spacing
        self._mark_s = MARK_S
        self._memory_bytes = memory_bytes
        self._stage = Stage(trace, self._makers)
        self._stage.cores = self._live = LiveCores(self._makers, {})
        self._marks: list[Mark] = []
        self._fine: list[Mark] = []
        self._at = self.first
        self._last: Played | None = None
        self._ahead: Iterator[RecordedStep] = iter(())
        self._told = 0
        """Stimuli since the last mark."""
        self._since = thread_time()
        """When that was, by this thread's clock."""
        self._leaves_marks = False
        self._play_all(progress)
        self.weight = self._live.weight
        """About how many bytes the marks take."""
        self._load(self._marks[0])
        self.goto(self.first)

    # ---------------------------------------------------------------- the position

    @property
    def at(self) -> int:
        """The number of the step that comes next."""
        return self._at

    @property
    def last(self) -> Played | None:
        """The step that led here, with its stimuli and effects; None at the beginning."""
        if self._last is None and self._at > self.first:
            self._guarded(self._look_back)
        return self._last

    @property
    def now_ns(self) -> int:
        """What the core of `last` was told as the present, by its own clock."""
        return self.contents.times_ns[max(0, self._at - 1 - self.first)]

    @property
    def since_ns(self) -> int:
        """How long after the beginning `last` was, as stories count: by the dates of machines."""
        return self.time_of(max(self.first, self._at - 1))

    def time_of(self, step: int) -> int:
        """How long after the beginning a step was; below 0 before the first step of a node."""
        return self.contents.dates_ns[step - self.first] - self.contents.began_ns

    @property
    def cores(self) -> Mapping[int, Core]:
        """The cores that live here, by number."""
        return self._live

    def rows_about(self, subject: str | StorySubject) -> dict[int, list[ShownRow]]:
        """What each core knows here of one thing, by core; cores that know nothing are left out.

        A name is one that `Contents.find` understands. Raises TraceError.
        """
        if isinstance(subject, str):
            subject = self.contents.find(subject)
        found = {}
        for core in self._live:
            # Clients are numbered by node.
            if subject.client and subject.node not in (NodeID(-1), self.nodes[core]):
                continue
            tables = getattr(self._live[core], "tables", None)
            rows = rows_about(tables, subject) if tables is not None else []
            if rows:
                found[core] = rows
        return found

    @property
    def is_true(self) -> bool:
        """True if all steps so far decided as recorded: then the state is what it was."""
        return not self.differing or self._at <= self.differing[0]

    def state(self, core: int = 0) -> Any:  # Any: Tables or GlobalTables, by the kind of core
        """The tables of a core. Raises TraceError if it has none here, saying why."""
        if not 0 <= core < len(self.names):
            raise TraceError(f"there is no core {core}: {self.trace.name} has {len(self.names)}")
        found = self._live.get(core)
        if found is None:
            why = self.trace.header.cores[core].unplayable or (
                f"before step {self._at} it has not begun, or has ended, or the trace does not "
                "hold a state to begin with"
            )
            raise TraceError(f"nothing is known of the state of {self.names[core]} here: {why}")
        return found.tables

    # ---------------------------------------------------------------- moving

    def goto(self, step: int) -> None:
        """Stand before that step. Raises TraceError if it cannot be played to."""
        if not self.first <= step <= self.end:
            why = f" ({self.note})" if self.note and step > self.end else ""
            raise TraceError(
                f"{self.trace.name} can be at steps {self.first} to {self.end}, not {step}{why}"
            )
        self._guarded(lambda: self._move(step))

    def step(self, n: int = 1) -> None:
        """Take `n` steps, fewer at the end."""
        self.goto(min(self.end, self._at + n))

    def back(self, n: int = 1) -> None:
        """Stand `n` steps earlier, or at the beginning."""
        self.goto(max(self.first, self._at - n))

    def until(self, condition: str | Callable[[Replay], object], backwards: bool = False) -> bool:
        """Go to where a condition holds for the first time from here on; False if it never does.

        Then the position stays. A condition is a sentence (`conditions.py` lists them) or a
        function that is given this replay, at one position after the other. Backwards it is the
        last time before here. Raises TraceError if the sentence makes no sense.
        """
        from detray.trace.travel.conditions import find

        return find(self, condition, backwards)

    def marks_between(self, low: int, high: int) -> list[int]:
        """The positions from `low` up to `high` that seeking starts from."""
        return [mark.step for mark in self._marks if low <= mark.step < high]

    @property
    def mark_count(self) -> int:
        """How many positions there are that seeking starts from."""
        return len(self._marks)

    def mark_before(self, step: int) -> int:
        """The last of them that is not after `step`: where to go first to play up to there."""
        return self._nearest(step).step

    # ---------------------------------------------------------------- playing

    def _guarded(self, move: Callable[[], None]) -> None:
        """Do it, or stay: a core that was interrupted in a step is neither here nor there."""
        origin = self._at
        try:
            move()
        except BaseException:
            self._load(self._nearest(origin))
            self._move(origin)
            raise

    def _play_all(self, progress: Progress | None) -> None:
        if not self.trace.step_count:
            raise TraceError(why_not(self.trace))
        try:
            for number in self._play_steps():
                if progress is not None and not number % PROGRESS_STEPS:
                    progress(number - self.first, self.trace.step_count)
        except TraceError as error:
            if self.end == self.first:
                raise
            self.note = f"played up to step {self.end}: {error}"
        if self.unplayed == self.end - self.first:
            raise TraceError(self.note or why_not(self.trace))
        if progress is not None:
            progress(self.trace.step_count, self.trace.step_count)

    def _play_steps(self) -> Iterator[int]:
        """Play and compare all steps, set marks, note what is in them."""
        stage, contents, header = self._stage, self.contents, self.trace.header
        self._mark(self._marks)
        for step in self.trace.steps():
            self._at = step.number
            if self._is_due(1):
                self._mark(self._marks)
                self._thin()
            for opening in stage.open(step):
                contents.open(opening)
            played = stage.take(step)
            if played.raised and not step.error:
                self.note = (
                    f"the core raises in step {step.number}, and did not when it was recorded: "
                    + played.raised.strip().rpartition("\n")[2]
                )
                return
            if played.raised:
                stage.end(step.core)
            contents.take(played, header, self._live.get(step.core))
            self._told += len(played.stimuli) + 1
            self.unplayed += not played.is_played
            if played.is_played and not played.is_same:
                self.differing.append(step.number)
            self.end = step.number + 1
            yield step.number

    def _move(self, step: int) -> None:
        mark = self._nearest(step)
        self._leaves_marks = step < self._at
        if not mark.step <= self._at <= step:
            self._load(mark)
        self._play_to(step)

    def _play_to(self, step: int) -> None:
        while self._at < step:
            if self._at == step - 1:
                self._take(next(self._ahead))
            else:
                self._pass(next(self._ahead))

    def _look_back(self) -> None:
        """Find `last` where it was not played: take its step again."""
        here = self._at
        self._leaves_marks = True
        self._load(self._nearest(here - 1))
        self._play_to(here)

    def _is_due(self, parts: int) -> bool:
        """True if it is time for a mark, or a finer one."""
        return self._told * parts >= self._spacing or (
            (thread_time() - self._since) * parts > self._mark_s
        )

    def _pass(self, step: RecordedStep) -> None:
        """Take a step on the way to where somebody wants to look."""
        if self._leaves_marks and self._is_due(FINE):
            self._mark(self._fine)
        for _ in self._stage.open(step):
            pass
        self._stage.skip(step)
        self._told += len(step.metas) + 1
        self._at += 1

    def _take(self, step: RecordedStep) -> None:
        """Take a step and keep what is to be seen of it."""
        for _ in self._stage.open(step):
            pass
        played = self._stage.take(step)
        if played.raised:
            self._stage.end(step.core)
        self._told += len(played.stimuli) + 1
        self._at += 1
        self._last = played
        place = bisect_left(self.differing, step.number)
        was_same = self.differing[place : place + 1] != [step.number]
        if played.is_played and played.is_same != was_same:
            raise TraceError(
                f"step {step.number} decides otherwise than when the trace was opened: a core "
                "that depends on more than its stimuli, which is a bug"
            )

    # ---------------------------------------------------------------- marks

    def _mark(self, marks: list[Mark]) -> None:
        """Remember this position, in order."""
        place = bisect_left(marks, self._at, key=_place)
        if not (marks[place : place + 1] and marks[place].step == self._at):
            try:
                cores = self._live.freeze()
            except Exception as error:
                # Numbers that no real core has: the trace lies.
                raise TraceError(
                    f"{self.trace.name}: the state before step {self._at} makes no sense: {error}"
                ) from error
            marks.insert(place, Mark(self._at, self._stage.moment(), cores))
        self._told, self._since = 0, thread_time()

    def _nearest(self, step: int) -> Mark:
        """The last mark that is not after `step`."""
        mark = self._marks[bisect_right(self._marks, step, key=_place) - 1]
        fine = bisect_right(self._fine, step, key=_place)
        return max(mark, self._fine[fine - 1], key=_place) if fine else mark

    def _load(self, mark: Mark) -> None:
        """Stand at a mark."""
        place = bisect_right(self._marks, mark.step, key=_place)
        low = self._marks[max(0, place - 2)].step
        high = self._marks[place].step if place < len(self._marks) else self.end
        self._fine = [fine for fine in self._fine if low <= fine.step < high]
        self._live = LiveCores(self._makers, mark.cores)
        self._stage.go_to(mark.moment, self._live)
        self._at = mark.step
        self._told, self._since = 0, thread_time()
        self._last = None
        self._ahead = self.trace.steps(mark.step)

    def _thin(self) -> None:
        """If the marks take too much, give every other one up and compress the others."""
        if self._live.weight <= self._memory_bytes or len(self._marks) < 4:
            return
        self._marks[1:-1] = self._marks[2:-1:2]
        for mark in self._marks[:-1]:
            for frozen in mark.cores.values():
                frozen.pack()
        self._spacing *= 2
        self._mark_s *= 2
        self._live.weight = weigh(core for mark in self._marks for core in mark.cores.values())


class LiveCores(MutableMapping[int, Core]):
    """The cores at a position by number, each made of its checkpoint when it is asked for.

    `weight` is about how many bytes all checkpoints take that were made of these.
    """

    def __init__(self, makers: Sequence[Maker], frozen: Mapping[int, FrozenCore]) -> None:
        self.weight = 0
        self._makers = makers
        self._frozen = dict(frozen)
        """What each core was at the last mark; without those that began since."""
        self._cores: dict[int, Core] = {}
        self._used: set[int] = set()
        """Cores that may have taken a step since."""

    def get(self, number: int, default: Any = None) -> Any:  # Any: as of a dict
        """The core of that number."""
        core = self._cores.get(number)
        if core is None:
            frozen = self._frozen.get(number)
            if frozen is None:
                return default
            core = self._cores[number] = frozen.thaw(self._makers[number])
        self._used.add(number)
        return core

    def __getitem__(self, number: int) -> Core:
        core: Core | None = self.get(number)
        if core is None:
            raise KeyError(number)
        return core

    def __setitem__(self, number: int, core: Core) -> None:
        self._frozen.pop(number, None)
        self._cores[number] = core
        self._used.add(number)

    def __delitem__(self, number: int) -> None:
        self._frozen.pop(number, None)
        self._cores.pop(number, None)
        self._used.discard(number)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._frozen.keys() | self._cores.keys()))

    def __len__(self) -> int:
        return len(self._frozen.keys() | self._cores.keys())

    def freeze(self) -> dict[int, FrozenCore]:
        """All cores as they are now."""
        for number in sorted(self._used):
            before = self._frozen.get(number)
            frozen = FrozenCore(self._cores[number], before)
            self._frozen[number] = frozen
            self.weight += frozen.weight
        self._used.clear()
        return self._frozen.copy()


def _place(mark: Mark) -> int:
    return mark.step


def why_not(trace: Trace) -> str:
    """Why nothing of a trace can be replayed."""
    if not trace.step_count:
        return f"{trace.name} holds no steps: there is nothing to replay"
    notes = {start.note for start in trace.starts if start.note}
    notes |= {core.unplayable for core in trace.header.cores if core.unplayable}
    why = "; ".join(sorted(notes)) or "it does not begin with the first step"
    return (
        f"{trace.name} cannot be replayed ({why}), only told: detray story, graph and timeline "
        "work on it"
    )
