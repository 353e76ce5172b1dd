"""The simulated half of the prediction study: the same programs, played by simulated processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from detray.ids import ObjectID
from detray_sim import behaviour as do
from detray_sim.bench.real_runs import SETTLE_S, WARM_S, Micro
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.costs import Costs
from detray_sim.result import NodeShape
from detray_sim.workload import SECOND_NS, Workload

NAP_NS = 20_000_000
"""Of the sleeping tasks that follow each other."""
Program = Callable[["SimSession", do.Run], do.Steps]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as the simulator knows it: protocol costs, and what tasks take beside their time.

    `stretch` by workers: how much longer computing takes when so many compute (the last for more).
    """

    costs: Costs
    rested_ns: int = 0
    """While a task takes its time, the service falls asleep; it and the next task begin later."""
    sleep_extra_ns: int = 0
    stretch: tuple[float, ...] = (1.0,)

    def task_ns(self, kind: str, duration_ns: int, workers: int) -> int:
        """How long a task takes, without `rested_ns`."""
        if kind == "sleep":
            return duration_ns + self.sleep_extra_ns
        return round(duration_ns * self.stretch[min(workers, len(self.stretch)) - 1])


class SimSession:
    """One node with so many CPUs; `play` runs one program on it as `RealSession` does."""

    def __init__(self, machine: Machine, workers: int) -> None:
        self.machine = machine
        self.workers = workers
        self.elapsed_ns = -1
        """Of the last program."""
        self.work = do.Remote(self._work, name="work")
        config = ClusterConfig(nodes=(NodeShape(cpus=workers),), costs=machine.costs)
        self.cluster = SimCluster(config)

    def _work(self, run: do.Run) -> do.Work:
        return do.Work(run.token, [do.Result(20)])

    def submit(self, duration_ns: int, args: tuple[ObjectID, ...] = ()) -> do.Submit:
        """A call that takes so long."""
        return do.Submit(self.work, args=args, token=duration_ns, size_bytes=40)

    def play(self, program: Program) -> float:
        """The seconds that the program measured."""

        def body(run: do.Run) -> do.Steps:
            nap_ns = self.machine.task_ns("sleep", round(WARM_S * SECOND_NS), self.workers)
            warm: list[ObjectID] = []
            for _ in range(self.workers):
                warm += yield self.submit(nap_ns)
            yield do.WaitFor(tuple(warm), len(warm))
            yield do.Sleep(round(SETTLE_S * SECOND_NS))
            yield from program(self, run)
            return []

        self.cluster.drive(0, body)
        self.cluster.run()
        return self.elapsed_ns / SECOND_NS

    def wait_all(self, run: do.Run, began_ns: int, sinks: Sequence[ObjectID]) -> do.Steps:
        """Wait for all, and note how long it took since the program began."""
        yield do.WaitFor(tuple(sinks), len(sinks))
        self.elapsed_ns = run.clock_ns() - began_ns
        return []


def simulate(
    machine: Machine,
    workload: Workload,
    order: Sequence[int],
    workers: int,
    spans_s: Sequence[float] | None = None,
) -> float:
    """The makespan of a workload in seconds; `spans_s`: what each task took, if that is known."""

    def program(session: SimSession, run: do.Run) -> do.Steps:
        taken = {producer for task in workload.tasks for producer, _ in task.inputs}
        made: dict[int, ObjectID] = {}
        began_ns = run.clock_ns()
        for number in order:
            task = workload.tasks[number]
            args = tuple([made[producer] for producer, _ in task.inputs])
            if spans_s is None:
                duration_ns = machine.task_ns(task.name, task.duration_ns, workers)
            else:
                duration_ns = round(spans_s[number] * SECOND_NS)
            made[number] = (yield session.submit(duration_ns + machine.rested_ns, args))[0]
        sinks = [item for number, item in made.items() if number not in taken]
        yield from session.wait_all(run, began_ns, sinks)
        return []

    return SimSession(machine, workers).play(program)


# ------------------------------------------------------------------------- small programs


def one_s(costs: Costs, count: int = 20) -> float:
    """Seconds of an empty task, submitted and waited for."""

    def program(session: SimSession, run: do.Run) -> do.Steps:
        began_ns = run.clock_ns()
        for _ in range(count):
            made = yield session.submit(0)
            yield from session.wait_all(run, began_ns, made)
        return []

    return SimSession(Machine(costs=costs), 1).play(program) / count


def link_s(costs: Costs, count: int = 50, duration_ns: int = 0) -> float:
    """Seconds of a link of a chain of tasks, beside what they take themselves."""

    def program(session: SimSession, run: do.Run) -> do.Steps:
        began_ns = run.clock_ns()
        made: list[ObjectID] = []
        for _ in range(count):
            made = yield session.submit(duration_ns, tuple(made))
        yield from session.wait_all(run, began_ns, made)
        return []

    elapsed_s = SimSession(Machine(costs=costs), 1).play(program)
    return elapsed_s / count - duration_ns / SECOND_NS


def batch_s(costs: Costs, count: int = 300, duration_ns: int = 0) -> float:
    """Seconds of a task in a batch for one worker, beside what it takes itself."""

    def program(session: SimSession, run: do.Run) -> do.Steps:
        began_ns = run.clock_ns()
        made: list[ObjectID] = []
        for _ in range(count):
            made += yield session.submit(duration_ns)
        yield from session.wait_all(run, began_ns, made)
        return []

    elapsed_s = SimSession(Machine(costs=costs), 1).play(program)
    return elapsed_s / count - duration_ns / SECOND_NS


def machine_of(micro: Micro, cores: int) -> Machine:
    """A machine on which small programs take as long as they did on the real one.

    Two factors are found from empty tasks: of what a message takes to arrive (`one_s`), and of what
    the processes compute for each (`batch_s`). What sleeping tasks that follow each other, in a
    chain and at one worker, take beyond that is `rested_ns`: processes that slept wake later than
    busy ones. The chain of empty tasks is not used: it shows how good the factors are.
    """
    waits, works = 1.0, 1.0
    for _ in range(4):
        waits = _solve(lambda factor: one_s(scaled(factor, works)), micro.one_s)  # noqa: B023
        works = _solve(lambda factor: batch_s(scaled(waits, factor)), micro.batch_s)  # noqa: B023
    start_ns = round(micro.start_s * SECOND_NS)
    costs = msgspec.structs.replace(scaled(waits, works), worker_start_ns=start_ns)
    known_s = (link_s(costs, 15, NAP_NS) + batch_s(costs, 15, NAP_NS)) / 2
    return Machine(
        costs=costs,
        rested_ns=max(0, round(((micro.gap_s + micro.next_s) / 2 - known_s) * SECOND_NS)),
        sleep_extra_ns=round(micro.sleep_extra_s * SECOND_NS),
        stretch=(micro.compute_stretch_alone, *[micro.compute_stretch] * (cores - 1)),
    )


def scaled(waits: float, works: float) -> Costs:
    """The documented costs times two factors."""
    base = Costs()
    changed = {"ipc_ns": waits, "step_ns": waits}
    changed |= dict.fromkeys(("stimulus_ns", "effect_ns", "submit_ns", "run_ns"), works)
    new = {name: max(1, round(getattr(base, name) * factor)) for name, factor in changed.items()}
    return msgspec.structs.replace(base, **new)


def _solve(time_of: Callable[[float], float], wanted: float) -> float:
    """The factor in [1/64, 64] at which an increasing function is as wanted, or the nearest end."""
    low, high = -6.0, 6.0
    for _ in range(12):
        middle = (low + high) / 2
        if time_of(2.0**middle) < wanted:
            low = middle
        else:
            high = middle
    return float(2.0 ** ((low + high) / 2))
