"""What a workflow system adds to its tasks, found from recorded makespans: three parameters.

    found = fit(workloads, makespans_s)      # Calibration(start_s, dispatch_s, bandwidth)
    predict(another, found)                  # seconds, played by detray's own schedulers

The model
---------
A recorded makespan holds more of the workflow system than of the tasks. Three parts of it are
physical, and all systems have them:

- `start_s`: every job, the workflow itself being the first, is noticed only after this time: queues
  are polled, matches made once a minute, containers started. Jobs wait for this side by side.
- `dispatch_s`: then one dispatcher hands jobs out, one after the other, this long each.
- `bandwidth`: then its input is brought to where it runs, and its output back, one job after the
  other, through a storage that grows with the machines: each adds so many bytes per second. Both
  ways are paid before the job begins.

Then it waits for cores, first come, first served, and computes for as long as was recorded.

Fitting
-------
`fit` makes the sum of absolute relative errors smallest, plus a little for every octave that a
parameter is away from what is believed without any data (`TYPICAL`): that decides only what the
data leave open, such as the bandwidth of workflows without files. The belief may also be what was
found for a larger group of workflows, of which these are a part.

Two ways to play the model: `estimate` is an event loop of twenty lines for the many trials of a
fit; `predict` gives delays, dispatcher and link to detray's schedulers as tasks and resources.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from itertools import product
from math import log2, sqrt

import msgspec

from detray_sim.costs import FREE
from detray_sim.experiment import run
from detray_sim.result import NodeShape, RunResult
from detray_sim.scenario import PolicyChoice, Scenario, WorkloadChoice
from detray_sim.workload import SECOND_NS, UNIT, TaskSpec, Workload, WorkloadError

__all__ = [
    "Calibration",
    "Instance",
    "TYPICAL",
    "estimate",
    "fit",
    "play",
    "predict",
    "with_overheads",
]


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What a workflow system adds to the tasks that it runs. All above 0."""

    start_s: float
    """From a job's being possible to its being noticed, in seconds; the workflow's own, too."""
    dispatch_s: float
    """Of the one dispatcher, for each job, in seconds."""
    bandwidth: float
    """That one machine adds to the storage through which all data goes, in bytes per second."""


TYPICAL = Calibration(start_s=30.0, dispatch_s=1.0, bandwidth=60e6)
"""Before any data: jobs are matched once a minute, one leaves per second, each machine has a disk
that several read at once.

**Source**: HTCondor's NEGOTIATOR_INTERVAL is 60 s; its schedulers start about a job per second.
"""
BELIEF = 0.03
"""Error of one workflow that an octave away from the belief is worth, times its octaves."""
FINEST = 64
"""Parts of an octave that a fit tells apart: 1.1 percent."""
COARSE = (-3, 0, 3)
"""Octaves around the belief where a fit looks first, of each parameter."""
SOFT = (0.2, 0.03, 0.0)
"""Relative errors below which a fit does not count them in full, one pass after the other."""
_OCTAVES_MAX = 12 * FINEST

Point = tuple[int, int, int]
"""Parameters as steps of 1/FINEST octave from TYPICAL: equal points of several fits are equal."""


# ---------------------------------------------------------------------------- the model


class Instance:
    """A workload as the model sees it. Fits of several groups share what one of them computed."""

    def __init__(self, workload: Workload) -> None:
        """Raises WorkloadError if it does not say on how many cores it was recorded."""
        if not workload.recorded_nodes:
            raise WorkloadError(f"{workload.name}: the cores that it ran on were not recorded")
        tasks = workload.tasks
        self.workload = workload
        largest = max(workload.recorded_nodes)
        self.cores = sum(workload.recorded_nodes)
        self.machines = len(workload.recorded_nodes)
        self.seconds = [task.duration_ns / SECOND_NS for task in tasks]
        self.width = [_cores_of(task, largest) for task in tasks]
        self.moved_bytes = [_moved_bytes(workload, task) for task in tasks]
        self.parents = [len({producer for producer, _ in task.inputs}) for task in tasks]
        self.children: list[list[int]] = [[] for _ in tasks]
        for number, task in enumerate(tasks):
            for producer in dict.fromkeys(producer for producer, _ in task.inputs):
                self.children[producer].append(number)
        self._known: dict[Point, float] = {}

    def at(self, point: Point) -> float:
        """The makespan in seconds at a point of the grid, computed once."""
        found = self._known.get(point)
        if found is None:
            found = self._known[point] = self.makespan_s(_calibration(point))
        return found

    def makespan_s(self, calibration: Calibration) -> float:
        """The makespan in seconds, by a loop over arrivals at the cores and ends."""
        start_s, dispatch_s = calibration.start_s, calibration.dispatch_s
        missing = list(self.parents)
        rate = calibration.bandwidth * self.machines
        now = dispatched = brought = start_s
        coming: list[tuple[float, int, int]] = []  # (time, kind, task): 0 an arrival, 1 an end
        queue = _Queue(self.cores)
        ready: Iterable[int] = [task for task, count in enumerate(missing) if not count]
        while True:
            for task in ready:
                # Jobs become ready in the order of time, so the queues before the cores need no
                # events: each begins when the one before it has ended.
                dispatched = max(dispatched, now + start_s) + dispatch_s
                arrival = dispatched
                if self.moved_bytes[task]:
                    arrival = brought = max(brought, dispatched) + self.moved_bytes[task] / rate
                heappush(coming, (arrival, 0, task))
            if not coming:
                return now
            now, kind, task = heappop(coming)
            ready = ()
            if kind:
                queue.free += self.width[task]
                ready = self._after(task, missing)
            else:
                queue.add(task, self.width[task])
            for begun in queue.begin():
                heappush(coming, (now + self.seconds[begun], 1, begun))

    def _after(self, task: int, missing: list[int]) -> list[int]:
        """Tasks that waited for this one last."""
        ready = []
        for child in self.children[task]:
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)
        return ready


class _Queue:
    """Tasks before the cores: first come, first served; who does not fit lets others pass."""

    def __init__(self, cores: int) -> None:
        self.free = cores
        self._waiting: dict[int, deque[tuple[int, int]]] = {}
        """By cores asked for: (turn, task)."""
        self._turn = 0

    def add(self, task: int, width: int) -> None:
        """A task arrived."""
        self._waiting.setdefault(width, deque()).append((self._turn, task))
        self._turn += 1

    def begin(self) -> list[int]:
        """The tasks that begin now."""
        begun: list[int] = []
        while True:
            lines = self._waiting.items()
            fits = [(*line[0], width) for width, line in lines if line and width <= self.free]
            if not fits:
                return begun
            _, task, width = min(fits)
            self._waiting[width].popleft()
            self.free -= width
            begun.append(task)


def _cores_of(task: TaskSpec, largest: int) -> int:
    """Whole cores that a task holds: no more than the largest machine has, however recorded."""
    return max(1, min(largest, -(-dict(task.demand).get("CPU", 0) // UNIT)))


def _moved_bytes(workload: Workload, task: TaskSpec) -> int:
    """All that a job reads and writes: what its producers made, files from outside, its outputs."""
    read = sum(workload.tasks[producer].outputs[output] for producer, output in task.inputs)
    return task.files_bytes + read + sum(task.outputs)


def estimate(workload: Workload | Instance, calibration: Calibration) -> float:
    """The makespan in seconds under the model, without the schedulers."""
    return _instance(workload).makespan_s(calibration)


def _instance(workload: Workload | Instance) -> Instance:
    return workload if isinstance(workload, Instance) else Instance(workload)


# ------------------------------------------------------------------------------ fitting


def fit(
    workloads: Sequence[Workload | Instance],
    makespans_s: Sequence[float] | None = None,
    *,
    belief: Calibration = TYPICAL,
) -> Calibration:
    """The parameters under which the model comes nearest to measured makespans, in seconds.

    Nearest: the smallest sum of |predicted - measured| / measured, see "Fitting" above. Without
    `makespans_s`, those recorded in the workloads count. One workload is enough: what it leaves
    open stays as in `belief`. Raises WorkloadError for a workload without cores or makespan.
    """
    instances = [_instance(workload) for workload in workloads]
    measured = (
        [_recorded_s(instance.workload) for instance in instances]
        if makespans_s is None
        else list(makespans_s)
    )
    if len(measured) != len(instances) or not all(value > 0 for value in measured):
        raise WorkloadError("each workload of a calibration needs a measured makespan above 0")
    search = _Search(instances, measured, belief)
    return _calibration(search.best())


def _recorded_s(workload: Workload) -> float:
    if workload.recorded_makespan_ns <= 0:
        raise WorkloadError(f"{workload.name}: no makespan was recorded")
    return workload.recorded_makespan_ns / SECOND_NS


class _Search:
    """Looks at a coarse grid around the belief, then walks downhill in ever smaller steps.

    Absolute values make edges on which a walk gets stuck, so errors below `SOFT` count by their
    squares at first, and as they are only at the end.
    """

    def __init__(
        self, instances: Sequence[Instance], measured: Sequence[float], belief: Calibration
    ) -> None:
        self._pairs = list(zip(instances, measured, strict=True))
        self._belief = _point(belief)
        self._errors: dict[Point, list[float]] = {}

    def best(self) -> Point:
        """The best point found."""
        offsets = [octaves * FINEST for octaves in COARSE]
        grid = [_moved(self._belief, offset) for offset in product(offsets, repeat=3)]
        grid.sort(key=lambda point: (self._cost(point, SOFT[0]), point))
        ends = [self._descend(point) for point in grid[:2]]
        return min(ends, key=lambda point: (self._cost(point, 0.0), point))

    def _descend(self, point: Point) -> Point:
        step = FINEST
        for soft in SOFT:
            point = self._walk(point, soft, step)
            step = FINEST // 4
        return point

    def _walk(self, point: Point, soft: float, step: int) -> Point:
        """To the side where the descent is steepest, with half the step where there is none."""
        while step:
            around = [_moved(point, (a * step, b * step, c * step)) for a, b, c in _DIRECTIONS]
            nearest = min(around, key=lambda other: (self._cost(other, soft), other))
            if self._cost(nearest, soft) < self._cost(point, soft):
                point = nearest
            else:
                step //= 2
        return point

    def _cost(self, point: Point, soft: float) -> float:
        found = self._errors.get(point)
        if found is None:
            found = self._errors[point] = [
                (instance.at(point) - measured) / measured for instance, measured in self._pairs
            ]
        cost = 0.0
        for octaves in ((a - b) / FINEST for a, b in zip(point, self._belief, strict=True)):
            cost += BELIEF * octaves * octaves
        for error in found:
            cost += sqrt(error * error + soft * soft) - soft
        return cost


_DIRECTIONS = [way for way in product((-1, 0, 1), repeat=3) if 1 <= sum(map(abs, way)) <= 2]
"""Along one parameter, or two at once: what one may do another may do as well, nearly."""


def _moved(point: Point, offset: Sequence[int]) -> Point:
    a, b, c = (
        min(_OCTAVES_MAX, max(-_OCTAVES_MAX, value + more))
        for value, more in zip(point, offset, strict=True)
    )
    return a, b, c


def _point(calibration: Calibration) -> Point:
    """The nearest point of the grid."""
    a, b, c = (
        round(FINEST * log2(getattr(calibration, name) / getattr(TYPICAL, name)))
        for name in Calibration.__struct_fields__
    )
    return _moved((a, b, c), (0, 0, 0))


def _calibration(point: Point) -> Calibration:
    return Calibration(
        start_s=TYPICAL.start_s * 2.0 ** (point[0] / FINEST),
        dispatch_s=TYPICAL.dispatch_s * 2.0 ** (point[1] / FINEST),
        bandwidth=TYPICAL.bandwidth * 2.0 ** (point[2] / FINEST),
    )


# ----------------------------------------------------------------------------- predicting


_QUEUE = (("queue", UNIT),)


def predict(workload: Workload, calibration: Calibration) -> float:
    """The makespan in seconds: the model played by detray's schedulers on the recorded cores."""
    return play(workload, calibration).makespan_ns / SECOND_NS


def play(workload: Workload, calibration: Calibration) -> RunResult:
    """The run behind `predict`: every core's every decision, protocol costs being nothing.

    Node 0 of the result is the workflow system's own, the others are those of the recording.
    """
    jobs = len(workload.tasks)
    # A task that only waits holds a process, so the system's machine can have one for each.
    host = NodeShape(
        cpus=jobs + 2,
        resources=(("dispatcher", UNIT), ("storage", UNIT), ("queue", jobs * UNIT)),
    )
    machines = [
        NodeShape(cpus=cores, resources=(("core", cores * UNIT),))
        for cores in workload.recorded_nodes
    ]
    scenario = Scenario(
        name=workload.name,
        file=workload.source,
        workload=WorkloadChoice(source="wfformat"),
        nodes=(host, *machines),
        # A workflow system has one queue: no machine keeps a task that another could begin.
        policy=PolicyChoice(name="spread", parameters={"queue_rounds": 0}),
        costs=FREE,
    )
    return run(scenario, workload=with_overheads(workload, calibration))


def with_overheads(workload: Workload | Instance, calibration: Calibration) -> Workload:
    """The workload with what the workflow system does as tasks of their own.

    Before each task come a place in the "queue", a turn at the "dispatcher" and one at the
    "storage"; before all, the start of the workflow. A "core" is a CPU of a machine that was
    recorded, not of the workflow system's own. Objects have no size: the storage counts them.
    """
    instance = _instance(workload)
    rate = calibration.bandwidth * instance.machines
    start_ns = round(calibration.start_s * SECOND_NS)
    tasks = [TaskSpec(id="(start)", name="(start)", duration_ns=start_ns, demand=_QUEUE)]
    last: list[int] = []
    for number, task in enumerate(instance.workload.tasks):
        producers = dict.fromkeys(producer for producer, _ in task.inputs)
        inputs = tuple((last[producer], 0) for producer in producers) or ((0, 0),)
        cores = instance.width[number] * UNIT
        staged_ns = round(instance.moved_bytes[number] / rate * SECOND_NS)
        parts = [
            ("(noticed)", _QUEUE, start_ns),
            ("(dispatched)", (("dispatcher", UNIT),), round(calibration.dispatch_s * SECOND_NS)),
            ("(staged)", (("storage", UNIT),), staged_ns),
            (task.name, (("CPU", cores), ("core", cores)), task.duration_ns),
        ]
        for kind, demand, duration_ns in parts:
            if kind == "(staged)" and not instance.moved_bytes[number]:
                continue
            suffix = kind if kind.startswith("(") else ""
            tasks.append(
                TaskSpec(
                    id=task.id + suffix,
                    name=kind,
                    duration_ns=duration_ns,
                    demand=demand,
                    inputs=inputs,
                )
            )
            inputs = ((len(tasks) - 1, 0),)
        last.append(len(tasks) - 1)
    return Workload(
        name=instance.workload.name,
        tasks=tuple(tasks),
        source=instance.workload.source,
        recorded_makespan_ns=instance.workload.recorded_makespan_ns,
        recorded_nodes=instance.workload.recorded_nodes,
    )
