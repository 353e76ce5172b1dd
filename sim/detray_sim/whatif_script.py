"""A recorded program as scripts: what its driver and each of its tasks did, to be done again.

Theory of operation
-------------------
Between two things that it says, a process computes; while it waits, it does not. So a task is a
list of steps: spend so long, launch that task, keep that value, await those objects. Played on
another cluster, spending takes as long as it did (by the speed of the machine), and waiting as long
as it takes there. That is what `follow="causes"` means. With `follow="times"` nobody waits: one
driver launches every task at the time at which it was submitted.

What is kept of a recording
---------------------------
- Tasks that finished, or failed by an error of their own, with what their last attempt did.
  Attempts before that, and tasks that were cancelled, lost or never ran, are left out.
- `get` and `wait` wait for what they did. One that ran out of time is left out with the time that
  it took if its process waits for any of it again: whoever polls asks until it is there. Otherwise
  that time is spent, on machines of every speed.
- What the driver let go of, when it did; what a task holds goes when it ends.
- Resources and strategies; numbers of nodes mean machines in the order of the recording.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import msgspec

from detray.core.config import LocalConfig, Policy
from detray.core.strategy import Strategy
from detray.ids import NodeID, ObjectID, TaskID, is_put, return_object, task_of
from detray.trace.gathering.history import BEFORE
from detray.trace.gathering.lives import CANCELLED, FAILED, FINISHED, TaskLife
from detray.trace.links import nodes_of
from detray.trace.reading import Trace
from detray_sim.report.text import format_count, format_time
from detray_sim.result import NodeShape
from detray_sim.whatif_costs import Delays
from detray_sim.workload import UNIT, WorkloadError
from detray_sim.workloads.witness import ONE_CPU, Act, Drop, Put, Stop, Submission, Witness, span

DRIVER = "(driver)"
"""The name of what drivers compute themselves."""
LEAD_NS_MAX = 5 * 1_000_000_000
"""For a driver that did nothing for so long, workers are ready."""
NOTES_MAX = 4
VAIN_NS_MIN = 1_000_000
"""What drivers waited for tasks that are left out is told from this on."""
_EARLIER = "before the last of its task"

# ------------------------------------------------------------------------------- steps


class Spend(NamedTuple):
    """Compute for so long, on a machine of speed 1."""

    ns: int


class Rest(NamedTuple):
    """Do nothing for so long."""

    ns: int


class Until(NamedTuple):
    """Do nothing until so long after the begin."""

    ns: int


class Launch(NamedTuple):
    """Submit the task of that number."""

    task: int


class Keep(NamedTuple):
    """Put a value that holds those references."""

    object: ObjectID
    size_bytes: int
    refs: tuple[ObjectID, ...]


class Await(NamedTuple):
    """Wait until `needed` of `objects` are there; `fetches`: and read them.

    `taken` are those that the recorded program went on with, if it waited for a part of them.
    """

    objects: tuple[ObjectID, ...]
    needed: int
    fetches: bool
    taken: tuple[ObjectID, ...]


class Release(NamedTuple):
    """Let go of objects."""

    objects: tuple[ObjectID, ...]


Step = Spend | Rest | Until | Launch | Keep | Await | Release


class TaskScript(msgspec.Struct, frozen=True, kw_only=True):
    """One task: what its submission said, what it did, what it returned (sizes, references)."""

    id: TaskID
    name: str
    demand: tuple[tuple[str, int], ...] = ONE_CPU
    strategy: Strategy | None = None
    args: tuple[ObjectID, ...] = ()
    refs: tuple[ObjectID, ...] = ()
    captured: tuple[ObjectID, ...] = ()
    """References in the closure of its function."""
    size_bytes: int = 0
    """Of its pickled arguments."""
    steps: tuple[Step, ...] = ()
    results: tuple[tuple[int, tuple[ObjectID, ...]], ...] = ((0, ()),)

    @property
    def spent_ns(self) -> int:
        """How long it computed, on a machine of speed 1."""
        return _spent_ns(self.steps)


class DriverScript(msgspec.Struct, frozen=True, kw_only=True):
    """One driver: on which machine of the recording, how long after the first, and what it did."""

    machine: int
    begins_ns: int
    steps: tuple[Step, ...]

    @property
    def spent_ns(self) -> int:
        """How long it computed, on a machine of speed 1."""
        return _spent_ns(self.steps)


def _spent_ns(steps: tuple[Step, ...]) -> int:
    return sum(step.ns for step in steps if type(step) is Spend)


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded run: programs, the cluster they ran on, how long it took, what is left out."""

    name: str
    tasks: tuple[TaskScript, ...]
    drivers: tuple[DriverScript, ...]
    inside: Mapping[ObjectID, tuple[ObjectID, ...]]
    """The references inside values, where there are any."""
    nodes: tuple[NodeShape, ...]
    numbers: tuple[NodeID, ...]
    """Of these nodes, as the recorded head gave them."""
    policy: Policy
    placement: str
    makespan_ns: int
    """From the first submission to the end of the last task."""
    lead_ns: int
    """From the connection of a driver to its first act, at most LEAD_NS_MAX."""
    prestart_workers: int
    """That each node starts before anybody asks."""
    left_out: tuple[str, ...]
    delays: Delays
    """What the runtime took."""
    witness: Witness
    """Who saw it all."""


# ----------------------------------------------------------------------------- reading


def read_recording(trace: Trace, name: str, follow: str = "causes") -> Recording:
    """The programs of an open trace. `follow` is "causes" or "times".

    Raises WorkloadError for traces that do not say enough, TraceError for damaged ones.
    """
    if trace.first_step > 0:
        raise WorkloadError(
            f"{trace.name} begins at step {trace.first_step}, as a flight recorder does when its"
            " memory is full: who submitted what before is not known; record from the beginning,"
            " with detray.init(record=...) or detray start --record"
        )
    if not trace.header.local_cores():
        raise WorkloadError(
            f"{trace.name} holds no node, only a head: bring it together with the recordings of"
            " the nodes (detray trace collect)"
        )
    return _Reader(trace, name).read(follow)


class _Reader:
    """Makes scripts of what a witness saw."""

    def __init__(self, trace: Trace, name: str) -> None:
        self._trace = trace
        self._name = name
        self._delays = Delays()
        self._witness = Witness(trace, self._delays.watch)
        self._left_out: Counter[str] = Counter()
        self._lead_ns = 0
        self._in_vain_ns = 0
        """How long drivers waited for tasks that are left out."""
        self._lives: list[TaskLife] = []
        """Of the tasks that are kept, by number."""
        self._numbers: dict[TaskID, int] = {}

    def read(self, follow: str) -> Recording:
        """Everything."""
        self._choose()
        trace, lives = self._trace, self._lives
        drivers = self._drivers() if follow == "causes" else self._one_driver()
        tasks = tuple(self._task(life, follow == "causes") for life in lives)
        submitted_ns = min(life.submitted_ns for life in lives)
        cores = trace.header.local_cores()
        heads = trace.header.head_cores()
        numbers = nodes_of(trace)
        return Recording(
            name=self._name,
            tasks=tasks,
            drivers=drivers,
            inside={
                item.id: item.refs for item in self._witness.history.objects.values() if item.refs
            },
            nodes=tuple(_shape(core.config) for _, core in cores),
            numbers=tuple(numbers[number] for number, _ in cores),
            policy=cores[0][1].config.policy,
            placement=heads[0][1].config.placement if heads else "hybrid",
            makespan_ns=max(span(life)[1] for life in lives) - submitted_ns,
            lead_ns=self._lead_ns,
            prestart_workers=cores[0][1].config.prestart_workers,
            left_out=tuple(self._told()),
            delays=self._delays,
            witness=self._witness,
        )

    # -------------------------------------------------------------- which tasks

    def _choose(self) -> None:
        """Number the tasks that are kept, in the order of their submission; count the others."""
        known = self._witness.history.tasks
        kept: dict[TaskID, bool] = {}
        for life in known.values():
            reason = _why_not(life)
            parent = known.get(life.parent)
            if not reason and parent is not None:
                if not kept.get(parent.id, False):
                    reason = "submitted by a task that is left out"
                elif life.submitted_ns < span(parent)[0]:
                    reason = "submitted by an attempt that was not the last"
            kept[life.id] = not reason
            if reason:
                self._left_out[reason] += 1
                continue
            earlier = len(life.attempts) - 1
            if earlier:
                self._left_out[_EARLIER] += earlier
            self._numbers[life.id] = len(self._lives)
            self._lives.append(life)
        if not self._lives:
            told = "; ".join(self._told())
            raise WorkloadError(
                f"{self._trace.name} holds no task that ran to its end{f' ({told})' * bool(told)}"
            )

    def _told(self) -> Iterator[str]:
        notes = self._trace.header.notes
        yield from notes[:NOTES_MAX]
        if len(notes) > NOTES_MAX:
            yield f"and {len(notes) - NOTES_MAX} more such notes (detray replay says all)"
        if not self._trace.complete:
            yield f"what came after the end of the file ({self._trace.note})"
        for reason, count in sorted(self._left_out.items()):
            what = "task" if reason != _EARLIER else "attempt"
            yield f"{format_count(count, what)} {reason}"
        if self._in_vain_ns >= VAIN_NS_MIN:
            yield f"{format_time(self._in_vain_ns)} in which a driver waited for what is left out"

    # -------------------------------------------------------------- scripts

    def _drivers(self) -> tuple[DriverScript, ...]:
        """One for each driver that submitted something."""
        witness = self._witness
        machines = {core: at for at, (core, _) in enumerate(self._trace.header.local_cores())}
        begun = []
        for root, seat in witness.homes.items():
            acts = list(witness.acts.get(root, ()))
            while acts and isinstance(acts[0], Drop):
                acts.pop(0)
            if any(isinstance(act, Submission) for act in acts):
                begun.append((_begin_ns(acts[0]), machines[seat[0]], acts))
                since_ns = _begin_ns(acts[0]) - witness.connected_ns[seat]
                self._lead_ns = max(self._lead_ns, since_ns)
        self._lead_ns = min(self._lead_ns, LEAD_NS_MAX)
        first_ns = min((at_ns for at_ns, _, _ in begun), default=0)
        return tuple(
            DriverScript(
                machine=machine,
                begins_ns=at_ns - first_ns,
                steps=tuple(self._steps(acts, at_ns, -1)),
            )
            for at_ns, machine, acts in sorted(begun, key=lambda each: each[:2])
        )

    def _one_driver(self) -> tuple[DriverScript, ...]:
        """A driver that submits, and puts, everything when it was."""
        every = self._witness.acts.values()
        acts = [act for acts in every for act in acts if isinstance(act, Submission | Put)]
        acts.sort(key=_begin_ns)
        first_ns = _begin_ns(acts[0])
        steps: list[Step] = []
        for act in acts:
            steps.append(Until(_begin_ns(act) - first_ns))
            step = self._step(act)
            if step is None:
                steps.pop()
            else:
                steps.append(step)
        return (DriverScript(machine=0, begins_ns=0, steps=tuple(steps)),)

    def _task(self, life: TaskLife, acts_itself: bool) -> TaskScript:
        witness = self._witness
        began_ns, ended_ns = span(life)
        acts = witness.acts.get(life.id, [])
        if acts_itself:
            own = [act for act in acts if _begin_ns(act) >= began_ns]
            steps = tuple(self._steps(own, began_ns, ended_ns))
        else:
            stops = [act for act in acts if isinstance(act, Stop) and act.ended_ns >= 0]
            stood_ns = sum(
                max(0, min(stop.ended_ns, ended_ns) - max(stop.began_ns, began_ns))
                for stop in stops
            )
            steps = (Spend(max(0, ended_ns - began_ns - stood_ns)),)
        objects = witness.history.objects
        returns = [objects.get(return_object(life.id, n)) for n in range(life.num_returns)]
        message = witness.messages.get(life.id)
        return TaskScript(
            id=life.id,
            name=life.name,
            demand=witness.demands.get(life.id, ONE_CPU),
            strategy=witness.strategies.get(life.id),
            args=tuple(dict.fromkeys(life.args)),
            refs=tuple(dict.fromkeys(life.refs)),
            captured=witness.captured(life.id),
            size_bytes=message.size_bytes if message is not None and not message.packed else 0,
            steps=steps,
            results=tuple((max(0, o.size_bytes), o.refs) if o else (0, ()) for o in returns),
        )

    def _steps(self, acts: Sequence[Act], at_ns: int, ended_ns: int) -> Iterator[Step]:
        """What was done from `at_ns` on; what computing there was between, and until `ended_ns`."""
        polls = _polls(acts)
        for act in acts:
            step = self._step(act)
            if isinstance(act, Drop):
                if step is not None:
                    yield step
                continue
            began_ns, over_ns = _begin_ns(act), _end_ns(act)
            if ended_ns >= 0:
                began_ns, over_ns = min(began_ns, ended_ns), min(over_ns, ended_ns)
            if began_ns > at_ns:
                yield Spend(began_ns - at_ns)
            if step is not None:
                yield step
            elif isinstance(act, Stop) and act.timed_out and id(act) not in polls:
                yield Rest(max(0, over_ns - began_ns))
            if ended_ns < 0 and isinstance(step, Await) and not self._is_played(step):
                self._in_vain_ns += over_ns - began_ns
            at_ns = max(at_ns, began_ns, over_ns)
        if ended_ns > at_ns:
            yield Spend(ended_ns - at_ns)

    def _is_played(self, step: Await) -> bool:
        """True if something that it waits for will come."""
        return any(is_put(item) or task_of(item) in self._numbers for item in step.objects)

    def _step(self, act: Act) -> Step | None:
        """What is to be done again; None if that is nothing."""
        match act:
            case Submission():
                number = self._numbers.get(act.message.task)
                return None if number is None else Launch(number)
            case Put():
                known = self._witness.history.objects.get(act.object)
                size = max(0, known.size_bytes) if known is not None else 0
                return Keep(act.object, size, known.refs if known is not None else ())
            case Drop():
                return Release(act.objects)
            case _:
                if act.timed_out or act.ended_ns < 0:
                    return None
                # An answer that came early (something failed) was for what was there.
                is_early = len(act.ready) < act.needed
                objects = tuple(act.ready) if is_early else act.objects
                needed = len(objects) if is_early else act.needed
                taken = tuple(act.ready[:needed]) if needed < len(objects) else ()
                return Await(objects, needed, act.fetches, taken) if needed else None


def _why_not(life: TaskLife) -> str:
    """Why a task cannot be played; "" if it can."""
    began_ns, ended_ns = span(life)
    is_measured = 0 <= began_ns <= ended_ns
    if life.name == BEFORE or life.submitted_ns < 0:
        return "submitted on a node whose recording is not in the trace"
    if life.state == CANCELLED:
        return "cancelled"
    if life.state == FINISHED or (life.state == FAILED and is_measured and life.last is not None
                                  and life.last.state == FAILED):  # fmt: skip
        return "" if is_measured else "run on a node whose recording is not in the trace"
    if life.state == FAILED:
        return "failed before running, or with the worker"
    return "unfinished when the recording ended"


def _polls(acts: Sequence[Act]) -> set[int]:
    """The waits that ran out of time and were made again later, by identity."""
    later: set[ObjectID] = set()
    found = set()
    for act in reversed(acts):
        if isinstance(act, Stop):
            if act.timed_out and not later.isdisjoint(act.objects):
                found.add(id(act))
            later.update(act.objects)
    return found


def _begin_ns(act: Act) -> int:
    return act.at_ns if isinstance(act, Submission | Drop) else act.began_ns


def _end_ns(act: Act) -> int:
    """When it was over; one that never was, when it began."""
    return act.at_ns if isinstance(act, Submission | Drop) else act.ended_ns


def _shape(config: LocalConfig) -> NodeShape:
    totals = dict(config.totals)
    cpus = totals.pop("CPU", 0) // UNIT
    return NodeShape(
        cpus=cpus,
        store_bytes=config.arena_bytes,
        resources=tuple(sorted(totals.items())),
        labels=config.labels,
    )


# ----------------------------------------------------------------------------- changing


def scaled(recording: Recording, factors: Mapping[str, Fraction]) -> Recording:
    """The recording with what functions compute multiplied: "f" or DRIVER by their factor."""

    def change(name: str, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        factor = factors.get(name)
        if factor is None:
            return steps
        return tuple(
            Spend(round(step.ns * factor)) if type(step) is Spend else step for step in steps
        )

    replace = msgspec.structs.replace
    return replace(
        recording,
        tasks=tuple(replace(task, steps=change(task.name, task.steps)) for task in recording.tasks),
        drivers=tuple(
            replace(driver, steps=change(DRIVER, driver.steps)) for driver in recording.drivers
        ),
    )
