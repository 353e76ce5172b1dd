"""Recorded programs on simulated clusters: every process does what its script says.

Theory of operation
-------------------
Drivers and tasks are bodies (`behaviour.py`) that take the steps of their scripts. Ids are other
ones there, so each body knows which of its objects stands for which recorded one. A `wait` for a
part of several objects may find others than it found in the recording; then they change places, in
all that the program does with them afterwards: what it did with the first that came, it does with
the first that comes.

While the run is played, each process (`whatif_actor.py`) carries the longest chain of computing
that led to where it is: from submitter to task, from task to who takes its value or waits for it.
The longest of all is the critical path of this very run; no run of it can be shorter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from detray.core import effects as ef
from detray.core.config import Policy
from detray.core.strategy import AFFINITY, NODE_LABEL, Expression, Strategy, node_named
from detray.ids import ObjectID, is_put, node_name, task_of
from detray_sim import behaviour as do
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.costs import Costs
from detray_sim.experiment import form, network_of
from detray_sim.node import SimNode
from detray_sim.policies import core_policy, make_head, make_placement
from detray_sim.result import NodeShape, TransferRecord
from detray_sim.scenario import NetworkChoice, PolicyChoice, Scenario, WorkloadChoice
from detray_sim.server import CoreServer
from detray_sim.whatif_actor import Actor, Link, extended, longer
from detray_sim.whatif_script import (
    DriverScript,
    Recording,
    Spend,
)
from detray_sim.worker import SimWorker
from detray_sim.workload import UNIT

__all__ = ["Cluster", "Outcome", "Progress", "play"]

Progress = Callable[[int, int], None]
KNOBS = (
    "inline_bytes_max",
    "pipeline_depth_max",
    "pipeline_ns",
    "worker_starts_max",
    "surplus_rounds",
    "patience_ns",
    "asks_max",
    "locality_bytes",
    "queue_rounds",
    "queue_rounds_max",
    "lease_ns",
)
"""Of the recorded cores' configuration, what the simulated ones take over if it was changed."""


NAP_NS = 1_000_000
PATIENCE_NS = 60 * 1_000_000_000


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster to play on."""

    nodes: tuple[NodeShape, ...]
    network: NetworkChoice
    policy: PolicyChoice
    costs: Costs
    is_recorded: bool = False
    """The recorded cluster itself: drivers are where they were, labels hold."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run. Times in nanoseconds of virtual time."""

    makespan_ns: int
    """From the first submission to the end of the last task."""
    chain: tuple[tuple[str, int], ...]
    """The critical path by what it is made of, the largest part first."""
    work_ns: dict[str, int]
    """By resource: what was computed, times what it held; on a machine of speed 1."""
    busiest_ns: int
    """Of the scheduler that was busy longest."""
    transfers: tuple[TransferRecord, ...]
    spilled_bytes: int
    """Written to disk because a store was full, on the node where that was most."""
    first_ns: dict[str, int]
    """By function: when the first task of it was submitted, after the first of all."""
    never_ran: int
    """Tasks."""
    lost: tuple[str, ...]
    """What could not be done as recorded."""

    @property
    def chain_ns(self) -> int:
        """The length of the critical path."""
        return sum(ns for _, ns in self.chain)


def play(
    recording: Recording, cluster: Cluster, seed: int = 0, progress: Progress | None = None
) -> Outcome:
    """Play a recording. Raises ScenarioError for a policy that there is not."""
    return Stage(recording, cluster, seed, progress).run()


def scenario_of(recording: Recording, cluster: Cluster, seed: int = 0) -> Scenario:
    """The cluster as a scenario, with those knobs of the recorded cores that were changed."""
    usual, found = Policy(), recording.policy
    knobs = {
        name: getattr(found, name) for name in KNOBS if getattr(found, name) != getattr(usual, name)
    }
    choice = msgspec.structs.replace(cluster.policy, parameters=knobs | cluster.policy.parameters)
    return Scenario(
        name=recording.name,
        file=recording.name,
        workload=WorkloadChoice(source="trace"),
        nodes=cluster.nodes,
        network=cluster.network,
        policy=choice,
        costs=cluster.costs,
        seeds=(seed,),
    )


class _Watched(SimCluster):
    """A cluster that notes what bounds are made of."""

    def __init__(self, config: ClusterConfig, scenario: Scenario, ledger: _Ledger) -> None:
        self.gathers = not (config.costs.step_ns or config.costs.stimulus_ns)
        self._ledger = ledger
        super().__init__(config, network=network_of(scenario))
        self.observes = True
        self.listener = ledger.began

    def observe(
        self, server: CoreServer, now_ns: int, stimuli: Sequence[Any], effects: Sequence[Any]
    ) -> None:
        """A step: how long it takes, and whether it moves something to disk. (Any: all kinds.)"""
        ledger, costs = self._ledger, self.costs
        if ledger.origin_ns < 0:
            return
        ledger.busy(
            server.number,
            costs.step_ns + len(stimuli) * costs.stimulus_ns + len(effects) * costs.effect_ns,
        )
        for effect in effects:
            if type(effect) is ef.MoveObject:
                ledger.spilled[server.number] += effect.size_bytes

    def transferred(
        self, source: SimNode, target: SimNode, order: ef.SendObject, started_ns: int
    ) -> None:
        """A bulk transfer arrived."""
        origin_ns = self._ledger.origin_ns
        self._ledger.transfers.append(
            TransferRecord(
                source=source.machine,
                target=target.machine,
                size_bytes=order.size_bytes,
                started_ns=started_ns - origin_ns,
                finished_ns=self.clock.now_ns - origin_ns,
            )
        )


class _Ledger:
    """What is measured."""

    def __init__(self) -> None:
        self.origin_ns = -1
        """When the first task was submitted."""
        self.ended_ns = -1
        """When the last task so far ended, or will."""
        self.first_ns: dict[str, int] = {}
        """By function: when the first task of it was submitted, after `origin_ns`."""
        self.finished = 0
        self.longest: Link | None = None
        """Of the chains that ended with a task."""
        self.transfers: list[TransferRecord] = []
        self.spilled: Counter[int] = Counter()
        self.lost: Counter[str] = Counter()
        self.busiest_ns = 0
        self._busy: Counter[int] = Counter()

    def began(self, host: SimNode, worker: SimWorker, message: ef.RunTask) -> None:
        """A worker began a run."""

    def busy(self, server: int, ns: int) -> None:
        """A scheduler is busy for so long."""
        self._busy[server] = total = self._busy[server] + ns
        self.busiest_ns = max(self.busiest_ns, total)

    def ended(self, at_ns: int, chain: Link | None) -> None:
        """A task ends then, after this chain."""
        self.finished += 1
        self.ended_ns = max(self.ended_ns, at_ns)
        if chain is not None and (self.longest is None or chain.total_ns > self.longest.total_ns):
            self.longest = chain


class Stage:
    """One run."""

    def __init__(
        self, recording: Recording, cluster: Cluster, seed: int, progress: Progress | None
    ) -> None:
        self.recording = recording
        self.ids = {script.id for script in recording.tasks}
        self.setup = cluster
        self.ledger = _Ledger()
        self.progress = progress
        scenario = scenario_of(recording, cluster, seed)
        config = ClusterConfig(
            nodes=cluster.nodes,
            policy=core_policy(scenario),
            costs=cluster.costs,
            seed=seed,
            prestart_workers=min(
                recording.prestart_workers, *(shape.cpus for shape in cluster.nodes)
            ),
            message_bytes=0,
        )
        self.cluster = _Watched(config, scenario, self.ledger)
        head = self.cluster.head
        head.core = core = make_head(scenario, head.config)
        core.placement = make_placement(scenario, seed, None)
        self._remotes: dict[tuple[object, ...], do.Remote] = {}
        self.chains: dict[bytes, Link | None] = {}
        """To the end of a task, by its id; to where a value was put, by its id."""
        self.born: dict[int, Link | None] = {}
        """To where a task was submitted, by its number."""

    def run(self) -> Outcome:
        """Play it to its end."""
        form(self.cluster)
        machines = len(self.cluster.nodes)
        for script in self.recording.drivers:
            machine = script.machine % machines if self.setup.is_recorded else 0
            self.cluster.drive(machine, self._driver(script))
        self.cluster.run()
        ledger = self.ledger
        return Outcome(
            makespan_ns=max(0, ledger.ended_ns - ledger.origin_ns),
            chain=_parts(ledger.longest),
            work_ns=_work(self.recording),
            busiest_ns=ledger.busiest_ns,
            transfers=tuple(ledger.transfers),
            spilled_bytes=max(ledger.spilled.values(), default=0),
            first_ns=ledger.first_ns,
            never_ran=len(self.recording.tasks) - ledger.finished,
            lost=tuple(f"{count:,} {what}" for what, count in sorted(ledger.lost.items())),
        )

    # -------------------------------------------------------------- bodies

    def _driver(self, script: DriverScript) -> do.Body:
        def body(run: do.Run) -> do.Steps:
            # The recorded driver found ready what got ready since it had connected.
            yield do.Sleep(self.recording.lead_ns + script.begins_ns)
            actor = Actor(self, run, None)
            since_ns = run.clock_ns() - self.ledger.origin_ns
            if script.begins_ns and self.ledger.origin_ns >= 0:
                actor.chain = extended(None, "(begins later)", since_ns)
            yield from actor.steps(script.steps)
            yield from self._stay()
            return []

        return body

    def _stay(self) -> do.Steps:
        """A driver stays until all has run: in the recording it did, and its end would cancel it.

        It looks after ever longer naps, until nothing came of the longest.
        """
        ledger, longest_ns = self.ledger, max(task.spent_ns for task in self.recording.tasks)
        nap_ns, seen = NAP_NS, -1
        while ledger.finished < len(self.recording.tasks):
            if nap_ns > 10 * (longest_ns + PATIENCE_NS):
                if ledger.finished == seen:
                    return ()
                nap_ns, seen = NAP_NS, ledger.finished
            yield do.Sleep(nap_ns)
            nap_ns *= 2
        return ()

    def _task(self, run: do.Run) -> do.Steps | do.Work:
        """A task that only computes needs no generator: its end is known when it begins."""
        script = self.recording.tasks[run.token]
        steps = script.steps
        holds = any(refs for _, refs in script.results)
        if not holds and len(steps) <= 1 and all(type(step) is Spend for step in steps):
            return self._plain(run, script.name, script.spent_ns, script.results)
        return self._acting(run)

    def _plain(
        self, run: do.Run, name: str, ns: int, results: Iterable[tuple[int, object]]
    ) -> do.Work:
        chain = self._chain_at_begin(run)
        host = self.cluster.nodes[run.node]
        took_ns = host.cpu_ns(ns)
        chain = extended(chain, name, took_ns)
        self.chains[run.task] = chain
        self.ended(host.clock.now_ns + took_ns, chain)
        return do.Work(ns, [do.Result(size) for size, _ in results])

    def _acting(self, run: do.Run) -> do.Steps:
        script = self.recording.tasks[run.token]
        actor = Actor(self, run, self._chain_at_begin(run))
        actor.name = script.name
        actor.meet(script.refs, run.refs)
        actor.meet(script.captured, run.captured)
        for recorded, got in zip(script.args, run.args, strict=False):
            actor.meet(self.recording.inside.get(recorded, ()), got.refs)
        yield from actor.steps(script.steps)
        self.chains[run.task] = actor.chain
        self.ended(run.clock_ns(), actor.chain)
        return [
            do.Result(size, refs=tuple(actor.known(refs, "references returned")))
            for size, refs in script.results
        ]

    def _chain_at_begin(self, run: do.Run) -> Link | None:
        chain = self.born.get(run.token)
        for got in run.args:
            chain = longer(chain, self.chain_of(got.object))
        return chain

    def chain_of(self, item: ObjectID) -> Link | None:
        """The chain to where an object was made."""
        return self.chains.get(item if is_put(item) else task_of(item))

    def ended(self, at_ns: int, chain: Link | None) -> None:
        """A task ends then."""
        ledger = self.ledger
        ledger.ended(at_ns, chain)
        if self.progress is not None and ledger.finished % 1000 == 0:
            self.progress(ledger.finished, len(self.recording.tasks))

    # -------------------------------------------------------------- submitting

    def remote(self, number: int, captured: tuple[ObjectID, ...]) -> do.Remote:
        """The function of a task: those that differ in nothing that a core hears share one."""
        script = self.recording.tasks[number]
        key = (script.name, len(script.results), script.demand, script.strategy, captured)
        found = self._remotes.get(key)
        if found is None:
            found = self._remotes[key] = do.Remote(
                self._task,
                name=script.name[:100],
                num_returns=len(script.results),
                demand=self._demand(script.demand),
                refs=captured,
                strategy=self._strategy(script.strategy),
            )
        return found

    def _demand(self, demand: do.Demand) -> do.Demand:
        """Without resources that are a node of the recording."""
        if self.setup.is_recorded:
            return demand
        return tuple(pair for pair in demand if not pair[0].startswith("node:"))

    def _strategy(self, strategy: Strategy | None) -> Strategy | None:
        """With nodes of this cluster for those of the recording; None where there are none."""
        if strategy is None:
            return None
        hard, soft = self._labels(strategy.hard), self._labels(strategy.soft)
        node = self._node(strategy.node) if strategy.kind == AFFINITY else ""
        if strategy.kind == AFFINITY and not node:
            return Strategy(hard=hard, soft=soft)
        return msgspec.structs.replace(strategy, node=node, hard=hard, soft=soft)

    def _node(self, name: str) -> str:
        """The node that stands for a recorded one, as users see it; "" if there are too few."""
        numbers = self.recording.numbers
        number = node_named(name)
        place = numbers.index(number) if number in numbers else len(numbers)
        if place >= len(self.cluster.nodes):
            return ""
        node = self.cluster.nodes[place].core.tables.node
        return node_name(node)

    def _labels(self, expressions: tuple[Expression, ...]) -> tuple[Expression, ...]:
        """What can be asked of this cluster: nodes that are there, and labels only as recorded."""
        kept = []
        for each in expressions:
            if each.key == NODE_LABEL:
                nodes = tuple(filter(None, map(self._node, each.values)))
                if nodes or not each.values:
                    kept.append(Expression(each.key, each.operator, nodes))
            elif self.setup.is_recorded:
                kept.append(each)
        return tuple(kept)


def _parts(chain: Link | None) -> tuple[tuple[str, int], ...]:
    """A chain by what it is made of, the largest part first."""
    sums: Counter[str] = Counter()
    while chain is not None:
        sums[chain.name] += chain.ns
        chain = chain.before
    return tuple(sorted(sums.items(), key=lambda pair: (-pair[1], pair[0])))


def _work(recording: Recording) -> dict[str, int]:
    """By resource: what tasks compute times what they hold of it, rounded down."""
    sums: Counter[str] = Counter()
    for script in recording.tasks:
        spent_ns = script.spent_ns
        for resource, amount in script.demand:
            sums[resource] += spent_ns * amount
    return {resource: total // UNIT for resource, total in sorted(sums.items())}
