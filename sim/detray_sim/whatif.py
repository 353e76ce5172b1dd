"""What if the recorded program had run on another cluster: predictions, bounds, one sentence.

    question = Question(read_recording(open_trace("run.trace"), "run"))
    row = question.predict(question.cluster(nodes=8, cpus=16))
    print(row.makespan_s, row.bound_s, row.bound)

What stops it
-------------
Each run has limits that no schedule of it can beat. The largest names what to look at:

- *work*: what all tasks compute, over the cores of all nodes (or of another resource);
- *the critical path*: the longest chain of computing, from the driver's first submission on,
  through arguments, waits and submissions; if most of it is the driver's own, *the driver*;
- *the network*: the bytes that the busiest card sent or received;
- *the disk*: what the fullest store wrote to it;
- *a scheduler*: the time that the busiest core of the runtime itself took.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from detray.ids import ObjectID, return_object
from detray_sim.costs import time_of
from detray_sim.report.text import format_bytes, format_count, format_seconds
from detray_sim.result import NodeShape
from detray_sim.scenario import NetworkChoice, PolicyChoice
from detray_sim.theory import resource_bound_ns, transfer_bound_ns
from detray_sim.whatif_play import Cluster, Outcome, Progress, play
from detray_sim.whatif_script import DRIVER, Keep, Recording
from detray_sim.workload import SECOND_NS, UNIT, TaskSpec, WorkloadError

WORK, CHAIN, OWN, NETWORK, DISK, SCHEDULER = (
    "work",
    "critical path",
    "driver",
    "network",
    "disk",
    "scheduler",
)
"""Kinds of bounds. Of work there may be others, named by the resource."""
MOST = 0.5
"""A chain of which more than this is the driver's is the driver's."""
DEFAULT_NETWORK = NetworkChoice(
    model="maxmin", bandwidth_bytes_per_s=1_250_000_000, latency_ns=100_000
)


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """A time that no schedule beats, and why."""

    kind: str
    s: float
    text: str
    """As part of a sentence: "the critical path of 11.9 s (83 % of it `merge`)"."""
    short: str
    """As a cell of a table."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster. Times in seconds; makespans over seeds."""

    nodes: int
    cpus: int
    """Of each node; of unequal ones, the mean, rounded down."""
    network: str
    policy: str
    seeds: int
    makespan_s: float
    """The mean over seeds."""
    lowest_s: float
    highest_s: float
    speedup: float
    """Over what was recorded."""
    efficiency: float
    """The speedup over how many times the cores are those of the recording."""
    utilisation: float
    """Of all cores, by what tasks compute."""
    bytes_moved: int
    bound: Bound
    """The largest: what stops it."""
    bounds: tuple[Bound, ...]
    """All of them, the largest first."""
    chain: tuple[tuple[str, float], ...]
    """The critical path by function, in seconds."""
    never_ran: int
    lost: tuple[str, ...]


class SizedObject(NamedTuple):
    """An object of the recording: how large it is, and whose it was, as part of a sentence."""

    id: ObjectID
    size_bytes: int
    origin: str


class Question:
    """A recording, and clusters to ask it about."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._demands = list(_specs(recording))

    # -------------------------------------------------------------- clusters

    def cluster(
        self,
        nodes: int,
        cpus: int = 0,
        *,
        network: NetworkChoice = DEFAULT_NETWORK,
        policy: PolicyChoice | None = None,
        costs: str = "recorded",
        store_bytes: int = 0,
        speed_permille: int = 1000,
        resources: Mapping[str, int] | None = None,
    ) -> Cluster:
        """Equal nodes; what is not given is as in the recording, of its largest node.

        `resources` in 1/10,000 units replace those of the same name. Raises WorkloadError if some
        task could never run there.
        """
        known = self.recording.nodes
        most: dict[str, int] = {}
        for shape in known:
            for name, amount in shape.resources:
                if not name.startswith("node:"):
                    most[name] = max(most.get(name, 0), amount)
        most |= resources or {}
        shape = NodeShape(
            cpus=cpus or max(shape.cpus for shape in known),
            store_bytes=store_bytes or max(shape.store_bytes for shape in known),
            speed_permille=speed_permille,
            resources=tuple(sorted((name, amount) for name, amount in most.items() if amount)),
        )
        self._check_feasible(shape)
        return Cluster(
            nodes=(shape,) * nodes,
            network=network,
            policy=policy or self.recorded_policy(),
            costs=self.recording.delays.costs(costs),
        )

    def recorded_policy(self) -> PolicyChoice:
        """The placement policy of the recorded head."""
        return PolicyChoice(name=self.recording.placement)

    def recorded_cluster(
        self, network: NetworkChoice = DEFAULT_NETWORK, costs: str = "recorded"
    ) -> Cluster:
        """The cluster of the recording, as far as it says: it does not know its network."""
        return Cluster(
            nodes=self.recording.nodes,
            network=network,
            policy=self.recorded_policy(),
            costs=self.recording.delays.costs(costs),
            is_recorded=True,
        )

    def _check_feasible(self, shape: NodeShape) -> None:
        has = {"CPU": shape.cpus * UNIT, **dict(shape.resources)}
        for task in self.recording.tasks:
            for name, amount in task.demand:
                if has.get(name, 0) < amount and not name.startswith("node:"):
                    option = "--cpus" if name == "CPU" else f"--resource {name}="
                    raise WorkloadError(
                        f"a task of {task.name} asks for {name} {amount / UNIT:g}, and each node"
                        f" has {has.get(name, 0) / UNIT:g}: give more with {option}"
                    )

    # -------------------------------------------------------------- answers

    def predict(
        self, cluster: Cluster, seeds: Sequence[int] = (0,), progress: Progress | None = None
    ) -> Row:
        """Play it there, with each seed. Raises ScenarioError for a policy that there is not."""
        outcomes = [play(self.recording, cluster, seed, progress) for seed in seeds]
        times = [outcome.makespan_ns / SECOND_NS for outcome in outcomes]
        middle = sorted(outcomes, key=lambda outcome: outcome.makespan_ns)[len(outcomes) // 2]
        found = sorted(self.bounds(cluster, middle), key=lambda bound: -bound.s)
        mean_s = sum(times) / len(times)
        cores = sum(shape.cpus * shape.speed_permille / 1000 for shape in cluster.nodes)
        before = sum(shape.cpus for shape in self.recording.nodes)
        recorded_s = self.recording.makespan_ns / SECOND_NS
        speedup = recorded_s / mean_s if mean_s else 1.0
        work_s = middle.work_ns.get("CPU", 0) / SECOND_NS
        return Row(
            nodes=len(cluster.nodes),
            cpus=sum(shape.cpus for shape in cluster.nodes) // len(cluster.nodes),
            network=network_name(cluster.network),
            policy=cluster.policy.name,
            seeds=len(times),
            makespan_s=mean_s,
            lowest_s=min(times),
            highest_s=max(times),
            speedup=speedup,
            efficiency=speedup * before / cores if cores else 0.0,
            utilisation=work_s / (mean_s * cores) if mean_s and cores else 0.0,
            bytes_moved=sum(transfer.size_bytes for transfer in middle.transfers),
            bound=found[0],
            bounds=tuple(found),
            chain=tuple((name, ns / SECOND_NS) for name, ns in middle.chain),
            never_ran=middle.never_ran,
            lost=middle.lost,
        )

    def bounds(self, cluster: Cluster, outcome: Outcome) -> Iterator[Bound]:
        """What limits a run there."""
        yield from self._work(cluster.nodes)
        yield _chain(outcome)
        rate = cluster.network.bandwidth_bytes_per_s
        # What a driver fetches when all tasks have ended limits no task.
        in_time = [each for each in outcome.transfers if each.finished_ns <= outcome.makespan_ns]
        if cluster.network.model != "instant" and rate and in_time:
            moved = sum(transfer.size_bytes for transfer in in_time)
            s = transfer_bound_ns(in_time, rate) / SECOND_NS
            text = f"the network, whose busiest card needs {format_seconds(s)} for its part of"
            yield Bound(kind=NETWORK, s=s, text=f"{text} {format_bytes(moved)}", short="network")
        if outcome.spilled_bytes:
            s = time_of(outcome.spilled_bytes, cluster.costs.disk_bytes_per_s) / SECOND_NS
            size = format_bytes(outcome.spilled_bytes)
            text = f"the store of one node, which writes {size} to disk in {format_seconds(s)}"
            yield Bound(kind=DISK, s=s, text=text, short=f"disk: {size} spilled")
        s = outcome.busiest_ns / SECOND_NS
        text = f"the scheduler of one node, which is busy for {format_seconds(s)}"
        yield Bound(kind=SCHEDULER, s=s, text=text, short="scheduler")

    def _work(self, nodes: Sequence[NodeShape]) -> Iterator[Bound]:
        for resource, tasks in self._demands:
            s = resource_bound_ns(tasks, nodes) / SECOND_NS
            if resource == "CPU":
                cores = sum(shape.cpus for shape in nodes)
                text = f"the work, which takes {format_seconds(s)} on {format_count(cores, 'core')}"
                yield Bound(kind=WORK, s=s, text=text, short="work")
            else:
                total = sum(dict(shape.resources).get(resource, 0) for shape in nodes) / UNIT
                text = f"the work that asks for {resource}, which takes {format_seconds(s)}"
                text += f" with {total:g}"
                yield Bound(kind=resource, s=s, text=text, short=f"work with {resource}")

    def oversized(self, store_bytes: int) -> list[SizedObject]:
        """The objects that no store of that size can hold, the largest first.

        What is small enough to be kept inline needs no store.
        """
        least = max(store_bytes, self.recording.policy.inline_bytes_max)
        found = [item for item in _objects(self.recording) if item.size_bytes > least]
        return sorted(found, key=lambda item: (-item.size_bytes, item.id))

    def functions(self) -> list[tuple[str, float]]:
        """Names with the seconds that they compute in all, most first; drivers as DRIVER."""
        sums: Counter[str] = Counter()
        for task in self.recording.tasks:
            sums[task.name] += task.spent_ns
        for driver in self.recording.drivers:
            sums[DRIVER] += driver.spent_ns
        ordered = sorted(sums.items(), key=lambda pair: (-pair[1], pair[0]))
        return [(name, ns / SECOND_NS) for name, ns in ordered]


def _objects(recording: Recording) -> Iterator[SizedObject]:
    """Everything that tasks returned, or that programs put."""
    for task in recording.tasks:
        for index, (size, _) in enumerate(task.results):
            yield SizedObject(return_object(task.id, index), size, f"what {task.name} returned")
    programs = [(task.name, task.steps) for task in recording.tasks]
    programs += [("the driver", driver.steps) for driver in recording.drivers]
    for name, steps in programs:
        for step in steps:
            if type(step) is Keep:
                yield SizedObject(step.object, step.size_bytes, f"what {name} put")


def _specs(recording: Recording) -> Iterator[tuple[str, list[TaskSpec]]]:
    """By resource, the tasks that ask for it, as theory knows tasks."""
    groups: dict[str, list[TaskSpec]] = {"CPU": []}
    for task in recording.tasks:
        for name, amount in task.demand:
            if not name.startswith("node:"):
                spec = TaskSpec(id="", name="", duration_ns=task.spent_ns, demand=((name, amount),))
                groups.setdefault(name, []).append(spec)
    yield from groups.items()


def _chain(outcome: Outcome) -> Bound:
    s = outcome.chain_ns / SECOND_NS
    parts = outcome.chain or ((DRIVER, 0),)
    name, ns = parts[0]
    share = ns / outcome.chain_ns if outcome.chain_ns else 0.0
    own_ns = dict(outcome.chain).get(DRIVER, 0)
    if own_ns > MOST * outcome.chain_ns:
        text = (
            f"the driver, which takes {format_seconds(own_ns / SECOND_NS)} for itself between what "
            f"it submits and waits for, in a critical path of {format_seconds(s)}"
        )
        return Bound(kind=OWN, s=s, text=text, short=f"driver: {own_ns / SECOND_NS:.3g} s")
    text = f"the critical path of {format_seconds(s)}"
    if name != DRIVER:
        text += f" ({share:.0%} of it {name})"
    return Bound(kind=CHAIN, s=s, text=text, short=f"critical path: {share:.0%} {name}")


def network_name(network: NetworkChoice) -> str:
    """As it is given on the command line: 10Gbit, instant."""
    if network.model == "instant":
        return "instant"
    bits = network.bandwidth_bytes_per_s * 8
    for factor, unit in ((10**9, "Gbit"), (10**6, "Mbit"), (10**3, "kbit")):
        if bits >= factor:
            return f"{bits / factor:g}{unit}"
    return f"{bits}bit"
