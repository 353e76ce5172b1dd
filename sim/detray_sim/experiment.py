"""One run of a scenario: its workload as a program on a simulated cluster, with every core real.

    result = run(load_scenario("cholesky.toml"), seed=1)

Theory of operation
-------------------
A driver program on machine 0 submits the tasks in the order of their times, hands the references of
producers to consumers as arguments, lets go of a reference as soon as its last consumer is
submitted, and waits for the tasks that nobody consumes. Everything between, from the submission to
the last message, is done by the cores: nothing here decides anything. A placement policy is told
what it may know of the workload (`policies`) and finds tasks by their names: a driver's n-th
submission has the index n.

Times in the result count from the moment at which the driver program began.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heappush

from detray.core import effects as ef
from detray.ids import ObjectID, TaskID
from detray_sim import behaviour as do
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.faulting import FaultPlayer
from detray_sim.network import InstantNetwork, MaxMinNetwork, Network, SimpleNetwork
from detray_sim.node import SimNode
from detray_sim.policies import (
    Knowledge,
    Tracker,
    core_policy,
    make_head,
    make_placement,
    needs_tracker,
)
from detray_sim.result import RunResult, TaskRecord, TransferRecord
from detray_sim.scenario import Scenario, ScenarioError
from detray_sim.server import BASE_NS
from detray_sim.worker import SimWorker
from detray_sim.workload import UNIT, TaskSpec, Workload

__all__ = ["Progress", "run"]

FORMING_NS = 1_000_000
FORMING_NS_MAX = 3600 * 1_000_000_000
Progress = Callable[[int, int], None]
"""Hears now and then how many of how many tasks are done."""


def run(
    scenario: Scenario,
    seed: int | None = None,
    workload: Workload | None = None,
    progress: Progress | None = None,
    record: bool = False,
) -> RunResult:
    """Run a scenario with one seed (default: its first). `workload`: its, if it is loaded already.

    Raises OSError, WorkloadError, ScenarioError for what cannot be run.
    """
    chosen = scenario.seeds[0] if seed is None else seed
    tasks = scenario.workload.load(chosen) if workload is None else workload
    return Experiment(scenario, tasks, chosen, progress, record).run()


class Experiment:
    """One run. `cluster` can be looked at afterwards."""

    def __init__(
        self,
        scenario: Scenario,
        workload: Workload,
        seed: int,
        progress: Progress | None = None,
        record: bool = False,
    ) -> None:
        check_feasible(scenario, workload)
        self.scenario = scenario
        self.workload = workload
        self.order = submission_order(workload)
        policy = core_policy(scenario)
        config = ClusterConfig(
            nodes=scenario.nodes,
            policy=policy,
            costs=scenario.costs,
            seed=seed,
            sessions=bool(scenario.faults.rates or scenario.faults.planned),
            message_bytes=0,
        )
        self.notes = Notes(workload, self.order)
        self.cluster = WatchedCluster(config, network_of(scenario), self.notes, record=record)
        self._install_policy(seed)
        self.faults = FaultPlayer(self.cluster, scenario.faults, seed)
        self.program = Program(self, progress)

    def _install_policy(self, seed: int) -> None:
        """Give the head, which has heard nothing yet, the scenario's policy."""
        scenario, head, tracker = self.scenario, self.cluster.head, None
        core = make_head(scenario, head.config)
        head.core = core
        if needs_tracker(scenario):
            ends = self.notes.ends = []
            choice = scenario.network
            bandwidth = choice.bandwidth_bytes_per_s if choice.model != "instant" else 0
            imode = scenario.policy.imode
            latency_ns = choice.latency_ns
            knowledge = Knowledge(self.workload, self.order, imode, bandwidth, latency_ns)
            speeds = {f"n{at}": shape.speed_permille for at, shape in enumerate(scenario.nodes)}
            tracker = Tracker(knowledge, core.tables, ends, speeds)
            tracker.offset_ns = BASE_NS
        core.placement = make_placement(scenario, seed, tracker)

    def run(self) -> RunResult:
        """Play it to its end."""
        wall, cpu = time.perf_counter(), time.process_time()
        cluster = self.cluster
        form(cluster)
        cluster.drive(0, self.program.body)
        self.faults.begin()
        cluster.run()
        return self._result(time.perf_counter() - wall, time.process_time() - cpu)

    def _result(self, wall_s: float, cpu_s: float) -> RunResult:
        scenario, cluster, notes = self.scenario, self.cluster, self.notes
        records = notes.records(self.program.failed)
        first = min((record.submitted_ns for record in records), default=0)
        last = max((record.finished_ns for record in records), default=0)
        return RunResult(
            workload=self.workload.name,
            policy=scenario.policy.name,
            seed=cluster.config.seed,
            nodes=scenario.nodes,
            network=scenario.network.model,
            makespan_ns=max(0, last - first),
            tasks=records,
            transfers=tuple(notes.transfers),
            digest=cluster.digest(),
            core_steps=cluster.steps,
            messages=cluster.messages,
            faults=dict(sorted(cluster.faults.items())),
            wall_s=wall_s,
            cpu_s=cpu_s,
        )


# --------------------------------------------------------------------------- preparation


def submission_order(workload: Workload) -> list[int]:
    """Task numbers in the order of submission: by time, and no task before its producers."""
    times: list[int] = []
    for task in workload.tasks:
        times.append(max([task.submit_ns, *(times[producer] for producer, _ in task.inputs)]))
    if not any(times):
        return list(range(len(times)))
    return sorted(range(len(times)), key=lambda number: (times[number], number))


def check_feasible(scenario: Scenario, workload: Workload) -> None:
    """Raises ScenarioError for a task that no node of the cluster can ever run."""
    shapes = dict.fromkeys(scenario.nodes)
    totals = [{"CPU": node.cpus * UNIT, **dict(node.resources)} for node in shapes]
    for demand in dict.fromkeys(task.demand for task in workload.tasks):
        if not any(all(has.get(name, 0) >= n for name, n in demand) for has in totals):
            wanted = ", ".join(f"{name} {amount / UNIT:g}" for name, amount in demand)
            task = next(task for task in workload.tasks if task.demand == demand)
            raise ScenarioError(
                f"{scenario.file}: [cluster] no node can run task {task.id!r}, which needs {wanted}"
            )


def form(cluster: SimCluster) -> None:
    """Let time pass until every node knows every other: only then does the program begin."""
    others = len(cluster.nodes) - 1
    while any(len(node.core.tables.peers) < others for node in cluster.nodes):
        cluster.run(cluster.clock.now_ns + FORMING_NS, done=lambda: False)
        if cluster.clock.now_ns > FORMING_NS_MAX:
            raise AssertionError("the nodes of the cluster do not find each other")


def network_of(scenario: Scenario) -> Network:
    """A fresh network of the scenario's model."""
    choice = scenario.network
    if choice.model == "instant":
        return InstantNetwork()
    shape = choice.shape(len(scenario.nodes))
    return MaxMinNetwork(shape) if choice.model == "maxmin" else SimpleNetwork(shape)


# ------------------------------------------------------------------------------ watching


class Notes:
    """What is measured, by task number, in arrays: a million tasks must fit."""

    def __init__(self, workload: Workload, order: list[int]) -> None:
        count = len(order)
        self.workload = workload
        self.order = order
        self.origin_ns = 0
        self.submitted = [-1] * count
        self.started = [-1] * count
        self.finished = [-1] * count
        self.node = [-1] * count
        self.worker = [-1] * count
        self.attempt = [0] * count
        self.transfers: list[TransferRecord] = []
        self.ends: list[tuple[int, int]] | None = None
        """Heap of (end, task number), if somebody reads it."""

    def ended(self, number: int, at_ns: int) -> None:
        """A run ends now, or will for certain."""
        self.finished[number] = at_ns
        if self.ends is not None:
            heappush(self.ends, (at_ns, number))

    def number_of(self, task: TaskID) -> int:
        """Number of the task of that name, or of the one that makes an object of that name."""
        return self.order[int.from_bytes(task[12:16], "big")]

    def began(self, host: SimNode, worker: SimWorker, message: ef.RunTask) -> None:
        """A worker began a run."""
        number = self.order[int.from_bytes(message.task[12:16], "big")]
        self.started[number] = host.clock.now_ns
        self.finished[number] = -1
        self.node[number] = host.machine
        self.worker[number] = worker.client
        self.attempt[number] = message.attempt

    def records(self, failed: dict[int, str]) -> tuple[TaskRecord, ...]:
        """All of it; times from the origin."""
        origin, finished = self.origin_ns, self.finished
        records = []
        for number, task in enumerate(self.workload.tasks):
            ready = self.submitted[number]
            for producer, _ in task.inputs:
                end = finished[producer]
                ready = max(ready, end) if end >= 0 and ready >= 0 else -1
            records.append(
                TaskRecord(
                    number=number,
                    id=task.id,
                    name=task.name,
                    node=self.node[number],
                    worker=self.worker[number],
                    attempt=self.attempt[number],
                    submitted_ns=_since(self.submitted[number], origin),
                    ready_ns=_since(ready, origin),
                    started_ns=_since(self.started[number], origin),
                    finished_ns=_since(finished[number], origin),
                    failed=failed.get(number, "") if finished[number] < 0 else "",
                )
            )
        return tuple(records)


def _since(at_ns: int, origin_ns: int) -> int:
    return at_ns - origin_ns if at_ns >= 0 else -1


class WatchedCluster(SimCluster):
    """A cluster whose runs and transfers are noted by task."""

    def __init__(
        self, config: ClusterConfig, network: Network, notes: Notes, *, record: bool = False
    ) -> None:
        # Where steps take no time, all that happens at one moment is one step.
        self.gathers = not (config.costs.step_ns or config.costs.stimulus_ns)
        super().__init__(config, network=network, digest=True, record=record)
        self.notes_of_run = notes
        self.listener = notes.began

    def transferred(
        self, source: SimNode, target: SimNode, order: ef.SendObject, started_ns: int
    ) -> None:
        """A bulk transfer arrived: note whose output it was."""
        notes = self.notes_of_run
        notes.transfers.append(
            TransferRecord(
                source=source.machine,
                target=target.machine,
                size_bytes=order.size_bytes,
                started_ns=started_ns - notes.origin_ns,
                finished_ns=self.clock.now_ns - notes.origin_ns,
                task=notes.number_of(TaskID(order.object[:16])),
            )
        )


# ------------------------------------------------------------------------------- program


class Program:
    """The driver program and the bodies of its tasks."""

    def __init__(self, experiment: Experiment, progress: Progress | None) -> None:
        self.experiment = experiment
        self.tasks = experiment.workload.tasks
        self.notes = experiment.notes
        self.cluster = experiment.cluster
        self.progress = progress
        self.failed: dict[int, str] = {}
        self.remotes: dict[tuple[str, int, do.Demand], do.Remote] = {}
        self.results: dict[tuple[int, ...], list[do.Result]] = {}
        self.done = 0
        # Faults end runs early: then a body must be asked whether it came to its end.
        self.task_body: do.Body = self._watched if experiment.faults.is_planned else self._work

    # -------------------------------------------------------------- tasks

    def remote(self, task: TaskSpec) -> do.Remote:
        """The function of a kind of task: those of one name, outputs and demand share it."""
        key = (task.name, len(task.outputs) or 1, task.demand)
        found = self.remotes.get(key)
        if found is None:
            found = self.remotes[key] = do.Remote(
                self.task_body, name=task.name[:100], num_returns=key[1], demand=task.demand
            )
        return found

    def _results(self, outputs: tuple[int, ...]) -> list[do.Result]:
        found = self.results.get(outputs)
        if found is None:
            found = [do.Result(size) for size in outputs or (0,)]
            self.results[outputs] = found
        return found

    def _work(self, run: do.Run) -> do.Work:
        """A task whose end is known when it begins."""
        task = self.tasks[run.token]
        host = self.cluster.nodes[run.node]
        self.notes.ended(run.token, host.clock.now_ns + host.cpu_ns(task.duration_ns))
        self._count()
        return do.Work(task.duration_ns, self._results(task.outputs))

    def _watched(self, run: do.Run) -> do.Steps:
        """A task that may be killed."""
        task = self.tasks[run.token]
        yield do.Compute(task.duration_ns)
        self.notes.ended(run.token, run.clock_ns())
        self._count()
        return self._results(task.outputs)

    def _count(self) -> None:
        self.done += 1
        if self.progress is not None and self.done % 1000 == 0:
            self.progress(min(self.done, len(self.tasks)), len(self.tasks))

    # -------------------------------------------------------------- the driver

    def body(self, run: do.Run) -> do.Steps:
        """Submit everything, let go of what is consumed, wait for the rest."""
        tasks, notes = self.tasks, self.notes
        left = _consumers(tasks)
        returned: dict[int, list[ObjectID]] = {}
        origin = notes.origin_ns = run.clock_ns()
        for number in self.experiment.order:
            task = tasks[number]
            if task.submit_ns and origin + task.submit_ns > run.clock_ns():
                yield do.Sleep(origin + task.submit_ns - run.clock_ns())
            args = tuple([returned[producer][output] for producer, output in task.inputs])
            notes.submitted[number] = run.clock_ns()
            returned[number] = yield do.Submit(
                self.remote(task), args=args, token=number, size_bytes=8
            )
            drops: list[ObjectID] = []
            for producer, _ in task.inputs:
                left[producer] -= 1
                if not left[producer]:
                    drops += returned.pop(producer)
            if drops:
                yield do.DropRefs(drops)
        sinks = {number: items[0] for number, items in returned.items()}
        if sinks:
            yield do.WaitFor(tuple(sinks.values()), len(sinks))
        self._look_for_failures(run.node, sinks)
        return []

    def _look_for_failures(self, machine: int, sinks: dict[int, ObjectID]) -> None:
        """Why tasks have no value, as the driver's own node knows it."""
        objects = self.cluster.nodes[machine].core.tables.objects
        reason = "an input of it failed"
        for number, item in sinks.items():
            row = objects.get(item)
            text = getattr(row.state, "text", None) if row is not None else None
            if text is not None:
                self.failed[number] = reason = text
        for number, end in enumerate(self.notes.finished):
            if end < 0 and number not in self.failed:
                self.failed[number] = reason


def _consumers(tasks: tuple[TaskSpec, ...]) -> list[int]:
    """How many inputs of tasks are outputs of each task."""
    counts = [0] * len(tasks)
    for task in tasks:
        for producer, _ in task.inputs:
            counts[producer] += 1
    return counts
