"""Workloads from detray's own recordings: what did run, to be run again somewhere else.

Tasks that finished are taken, with the time that their last attempt computed; those that failed,
were cancelled or still ran are left out. Top-level arguments are inputs, sizes are those of the
values returned. What the driver or a task had put is read from outside (`files_bytes`).

When a task may begin is told in one of two ways:

- `"times"`: not before it was submitted in the recording. A task that stood still in `get` counts
  without that time. Right for asking how another policy treats the same arrivals.
- `"causes"`: when its submitter gets there. Whoever submitted or waited, driver or task, becomes a
  chain of parts, cut where it submits and where it waits: a task submitted depends on the part
  before, the part after a wait on what was waited for. Right for asking what a larger or smaller
  cluster does to the whole program. The driver's parts ask for no CPU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from detray.ids import ObjectID, TaskID, return_object
from detray.trace.format import TraceError
from detray.trace.gathering.lives import FINISHED, TaskLife
from detray.trace.reading import Trace, open_trace
from detray_sim.workload import UNIT, Workload, WorkloadError
from detray_sim.workloads.assembly import Draft, assemble
from detray_sim.workloads.witness import (
    ONE_CPU,
    Stop,
    Witness,
    first_submission_ns,
    span,
)

FOLLOW = ("times", "causes")
CUT_MIN_NS = 1_000_000
"""A submitter is not cut again within this time: who submits a thousand tasks in a row is one."""


def load_trace(path: str | os.PathLike[str], follow: str = "times") -> Workload:
    """The workload of a recording. `follow` is one of FOLLOW. Raises OSError, WorkloadError."""
    try:
        return from_trace(open_trace(path), Path(path).stem, follow)
    except TraceError as error:
        raise WorkloadError(str(error)) from None


def from_trace(trace: Trace, name: str, follow: str = "times") -> Workload:
    """The workload of an open trace. Raises WorkloadError, TraceError."""
    if follow not in FOLLOW:
        raise WorkloadError(f"{name}: follow is one of {', '.join(FOLLOW)}, not {follow!r}")
    if trace.first_step > 0:
        raise WorkloadError(
            f"{trace.name} begins at step {trace.first_step}: who submitted what before is not"
            " known; record from the beginning with detray.init(record=...)"
        )
    return from_witness(trace, Witness(trace), name, follow)


def from_witness(trace: Trace, witness: Witness, name: str, follow: str) -> Workload:
    """The workload of what a witness of the trace saw. Raises WorkloadError."""
    lives = [life for life in witness.history.tasks.values() if is_measured(life)]
    if not lives:
        raise WorkloadError(f"{trace.name} holds no task that finished")
    ended_ns = max(span(life)[1] for life in lives)
    totals = [dict(core.config.totals) for _, core in trace.header.local_cores()]
    cpus = tuple(total.get("CPU", 0) // UNIT for total in totals)
    return assemble(
        name,
        _by_times(witness, lives) if follow == "times" else _Causes(witness, lives).drafts(),
        source=trace.name,
        recorded_makespan_ns=ended_ns - first_submission_ns(lives),
        recorded_nodes=tuple(number for number in cpus if number),
    )


def is_measured(life: TaskLife) -> bool:
    """True if the task finished, and when it began and ended is known."""
    began_ns, ended_ns = span(life)
    return life.state == FINISHED and 0 <= began_ns <= ended_ns and life.submitted_ns >= 0


def _draft(witness: Witness, life: TaskLife) -> Draft:
    """A task without its inputs: how long it computed, what it asked for, what it made."""
    began_ns, ended_ns = span(life)
    stood_ns = sum(
        max(0, min(stop.ended_ns, ended_ns) - max(stop.began_ns, began_ns))
        for stop in witness.stops.get(life.id, ())
    )
    returns = [return_object(life.id, index) for index in range(life.num_returns)]
    known = [witness.history.objects.get(item) for item in returns]
    return Draft(
        id=life.id.hex(),
        name=life.name,
        duration_ns=max(0, ended_ns - began_ns - stood_ns),
        demand=witness.demands.get(life.id, ONE_CPU),
        outputs=[max(0, item.size_bytes) if item else 0 for item in known],
        files_bytes=sum(_put_bytes(witness, item) for item in dict.fromkeys(life.args)),
    )


def _put_bytes(witness: Witness, item: ObjectID) -> int:
    known = witness.history.objects.get(item)
    return max(0, known.size_bytes) if known is not None and known.is_put else 0


def _by_times(witness: Witness, lives: Sequence[TaskLife]) -> list[Draft]:
    began_ns = first_submission_ns(lives)
    made = {
        return_object(life.id, index): (place, index)
        for place, life in enumerate(lives)
        for index in range(life.num_returns)
    }
    drafts = [_draft(witness, life) for life in lives]
    for draft, life in zip(drafts, lives, strict=True):
        draft.inputs = [made[item] for item in life.args if item in made]
        draft.submit_ns = life.submitted_ns - began_ns
    return drafts


class _Causes:
    """Tasks and drivers cut into parts where they submit and wait."""

    def __init__(self, witness: Witness, lives: Sequence[TaskLife]) -> None:
        self._witness = witness
        self._lives = lives
        self._chains: list[_Chain] = []
        self._submitted: dict[TaskID, list[TaskLife]] = {}
        for life in lives:
            self._submitted.setdefault(life.parent, []).append(life)

    def drafts(self) -> list[Draft]:
        """All parts; a task that neither submits nor waits is one."""
        known = {life.id: life for life in self._lives}
        for root in self._submitted:
            if root not in known:
                self._chains.append(self._driver(root))
        own = len(self._chains)
        self._chains += [self._task(life) for life in self._lives]
        parts: list[Draft] = []
        for chain in self._chains:
            chain.begin(len(parts))
            parts += chain.parts
        self._connect(dict(zip((life.id for life in self._lives), self._chains[own:], strict=True)))
        return parts

    def _driver(self, root: TaskID) -> _Chain:
        began_ns = self._submitted[root][0].submitted_ns
        stops = [stop for stop in self._witness.stops.get(root, ()) if stop.began_ns >= began_ns]
        ended_ns = max(
            [life.submitted_ns for life in self._submitted[root]] + [s.ended_ns for s in stops]
        )
        whole = Draft(id=f"driver-{root.hex()}", name="(driver)", demand=())
        chain = _Chain(whole, began_ns, ended_ns)
        # What a driver submits at once, before all waiting, waits for nothing.
        chain.follow(self._submitted[root], stops, is_cut_first=False)
        return chain

    def _task(self, life: TaskLife) -> _Chain:
        chain = _Chain(_draft(self._witness, life), *span(life))
        stops = self._witness.stops.get(life.id, [])
        chain.follow(self._submitted.get(life.id, ()), stops, is_cut_first=True)
        chain.end()
        return chain

    def _connect(self, chains: Mapping[TaskID, _Chain]) -> None:
        """Inputs: arguments and the submitter for first parts, what was waited for for others."""
        made = {
            return_object(life.id, index): (chains[life.id].last, index)
            for life in self._lives
            for index in range(life.num_returns)
        }
        after = {task: part for chain in self._chains for task, part in chain.after()}
        for life in self._lives:
            first = chains[life.id].parts[0]
            first.inputs += [made[item] for item in life.args if item in made]
            if life.id in after:
                first.inputs.append((after[life.id], 0))
        for chain in self._chains:
            for part, stop in chain.waits:
                part.inputs += [made[item] for item in self._ready(stop) if item in made]

    def _ready(self, stop: Stop) -> list[ObjectID]:
        """The objects that let a wait end: those that were there first."""
        objects = self._witness.history.objects
        known = [objects[item] for item in stop.objects if item in objects]
        there = [item for item in known if item.created_ns <= stop.ended_ns]
        there.sort(key=lambda item: (item.created_ns, item.id))
        return [item.id for item in there[: stop.needed]]


class _Chain:
    """One submitter in parts, each after the one before."""

    def __init__(self, whole: Draft, began_ns: int, ended_ns: int) -> None:
        self.parts: list[Draft] = []
        self.waits: list[tuple[Draft, Stop]] = []
        self._whole = whole
        self._at_ns = began_ns
        self._ended_ns = ended_ns
        self._pending: Stop | None = None
        self._first = 0
        self._after: list[tuple[TaskID, int]] = []

    @property
    def last(self) -> int:
        """The place of the part that returns."""
        return self._first + len(self.parts) - 1

    def begin(self, place: int) -> None:
        """The first part is the draft at `place`: tie the parts together."""
        self._first = place
        for number, part in enumerate(self.parts[1:]):
            part.inputs.append((place + number, 0))

    def after(self) -> list[tuple[TaskID, int]]:
        """Tasks and the place of the part after which each was submitted."""
        return [(task, self._first + number) for task, number in self._after]

    def follow(
        self, submitted: Sequence[TaskLife], stops: Sequence[Stop], is_cut_first: bool
    ) -> None:
        """Cut where it waits, and where it submits unless it was cut shortly before."""
        turns: list[tuple[int, int, TaskLife | Stop]] = []
        turns += [(life.submitted_ns, 0, life) for life in submitted]
        turns += [(stop.began_ns, 1, stop) for stop in stops]
        turns.sort(key=lambda turn: turn[:2])
        for time_ns, _, turn in turns:
            if isinstance(turn, Stop):
                self._cut(time_ns)
                self._pending, self._at_ns = turn, max(self._at_ns, turn.ended_ns)
                continue
            is_due = is_cut_first and not self.parts
            if is_due or self._pending is not None or time_ns - self._at_ns >= CUT_MIN_NS:
                self._cut(time_ns)
            if self.parts:
                self._after.append((turn.id, len(self.parts) - 1))

    def end(self) -> None:
        """Add the part that returns."""
        self._cut(self._ended_ns)
        self.parts[0].files_bytes = self._whole.files_bytes
        self.parts[-1].outputs = self._whole.outputs
        if len(self.parts) == 1:
            self.parts[0].id = self._whole.id

    def _cut(self, time_ns: int) -> None:
        until_ns = max(self._at_ns, min(time_ns, self._ended_ns))
        part = Draft(
            id=f"{self._whole.id}/{len(self.parts)}",
            name=self._whole.name,
            duration_ns=until_ns - self._at_ns,
            demand=self._whole.demand,
            outputs=[0],
        )
        if self._pending is not None:
            self.waits.append((part, self._pending))
        self.parts.append(part)
        self._pending, self._at_ns = None, until_ns
