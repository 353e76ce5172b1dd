"""One seed: its world is built, played, judged. What swarm, shrinker and ablations run.

A trial has three phases. Safety: program and faults go their ways, oracles watch. Liveness: a core
of the cluster is healed for good, the rest stays broken for good, and everything that can finish
must. Quiet: what was dropped must be gone. Whatever raises on the way is the verdict.
"""

from __future__ import annotations

import gc
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any

import msgspec

from detray.core.effects import Effect
from detray.core.tables import Tables
from detray.ids import NodeID, ObjectID
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.digest import RunDigest
from detray_sim.faults import HEAD, Fault, FaultLog, strike
from detray_sim.liveness import Diagnosis, diagnose
from detray_sim.naive import outcomes
from detray_sim.node import SimNode
from detray_sim.oracles import (
    Between,
    Expectation,
    Violation,
    check_core,
    check_head_core,
    check_nothing_left,
    leftovers,
    pinned_by_jobs,
)
from detray_sim.result import NodeShape
from detray_sim.scripts import FOREVER_NS, Company, Diary
from detray_sim.server import CoreServer
from detray_sim.shrink import Signature, sign
from detray_sim.tape import Tape
from detray_sim.told import Told
from detray_sim.world import SMALL, Profile, World, draw_world

MS, SECOND = 1_000_000, 1_000_000_000
PATIENCE_NS = 120 * SECOND
"""Virtual time in which a healed cluster must have finished all that it can."""
LONGEST = 5_000
"""A run may compute a hundred times as long as the mean, on a machine fifty times slower."""
FIRST_LOOK_NS = 2 * SECOND
"""After so much of it, and twice, four times... as much: does it get on at all?"""
STORM_MAX_NS = 200 * MS
"""Faults that last longer are ended by the healing."""
QUIET_NS = 60 * SECOND
"""And in which a cluster at rest must have forgotten all that was dropped."""
CALLS_MAX = 150_000
"""Events per phase of a small world; per task of a larger one, see `_calls`."""


class Verdict(msgspec.Struct, kw_only=True):
    """What came of a trial. Without a `signature` all is well."""

    seed: int
    signature: Signature | None = None
    text: str = ""
    """What was seen, with ids and numbers; several lines."""
    digest: str = ""
    steps: int = 0
    stimuli: int = 0
    virtual_ns: int = 0
    program: str = ""
    end: str = ""
    """How it ended: "done", "stuck" (for a legitimate reason) or "lost" (the driver)."""
    faults: dict[str, int] = {}
    seen: frozenset[str] = frozenset()
    """Kinds of stimuli and effects, and of rare things that cores counted."""
    choices: dict[str, int] = {}


class Watched(SimCluster):
    """A cluster whose every step is digested, counted and checked."""

    def __init__(self, world: World, watch: Watch) -> None:
        config = ClusterConfig(
            nodes=tuple(_node_shape(shape) for shape in world.nodes),
            policy=world.policy,
            placement=world.placement,
            costs=world.costs,
            seed=world.seed & 0xFFFFFFFF,
            sessions=world.sessions,
            session=world.session,
            head_store=True,
        )
        self.watch = watch
        super().__init__(config, record=watch.keeps)
        watch.cluster = self
        self.observes = True
        self._jitter_ns = world.jitter_ns
        self._packets = 0

    def observe(
        self, server: CoreServer, now_ns: int, stimuli: Sequence[Any], effects: Sequence[Effect]
    ) -> None:
        """A core took a step. (Any: messages of all kinds.)"""
        if self.watch.keeps:
            super().observe(server, now_ns, stimuli, effects)
        self.watch.step(self, server, now_ns, stimuli, effects)

    def latency_ns(self, source: int, target: int) -> int | None:
        """As of any cluster, and a little more by lot."""
        plain = super().latency_ns(source, target)
        if plain is None or not self._jitter_ns:
            return plain
        self._packets += 1
        return plain + jitter(self.config.seed, self._packets, self._jitter_ns)


def jitter(seed: int, number: int, bound: int) -> int:
    """A number in [0, bound) by lot, cheaply: once for each packet (splitmix64)."""
    word = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9) & _WORD
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _WORD
    return (word ^ word >> 31) * bound >> 64


_WORD = (1 << 64) - 1


def _node_shape(shape: Any) -> NodeShape:  # Any: a world's Shape
    totals = dict(shape.totals)
    cpus = totals.pop("CPU") // 10_000
    return NodeShape(
        cpus=cpus,
        store_bytes=shape.arena_bytes,
        speed_permille=shape.speed_permille,
        resources=tuple(sorted(totals.items())),
        labels=shape.labels,
    )


class Watch:
    """Sees every step: digest, coverage, invariants; keeps the steps if asked to."""

    def __init__(
        self,
        profile: Profile,
        *,
        checks: bool = True,
        records: bool = False,
        keeps: bool = False,
    ) -> None:
        self.keeps = keeps
        """The cluster keeps all steps, so that they can be written as a trace."""
        self.cluster: SimCluster | None = None
        self.judges = checks
        """False for a second run: it is only compared with the first."""
        self.stimuli = 0
        self.seen: set[type] = set()
        self.records: list[tuple[int, int, str, tuple[Any, ...], tuple[Any, ...]]] | None = (
            [] if records else None
        )
        """(virtual ns, machine, core, stimuli, effects). (Any: messages of all kinds.)"""
        self._every = profile.checks_every
        self._looks_every = profile.looks_every
        self._steps = 0
        self._digest = RunDigest()
        self._between = Between()
        self._told = Told()

    @property
    def digest(self) -> str:
        """Of all steps so far."""
        return self._digest.hex()

    def step(
        self,
        cluster: SimCluster,
        server: CoreServer,
        now_ns: int,
        stimuli: Sequence[Any],
        effects: Sequence[Effect],
    ) -> None:
        """A core took a step. (Any: messages of all kinds.)"""
        self.stimuli += len(stimuli)
        self._digest.add(server.number, now_ns, stimuli, effects)
        if self.records is not None:
            self.records.append(
                (cluster.clock.now_ns, server.machine, server.name, tuple(stimuli), tuple(effects))
            )
        if self.judges:
            self._steps += 1
            self.seen.update(map(type, stimuli))
            self.seen.update(map(type, effects))
            if server.machine == HEAD:
                check_head_core(server.core.tables)
            elif self._steps % self._every == 0:
                check_core(server.core.tables)
            if server.machine != HEAD:
                tables = server.core.tables
                told = self._told.step(
                    server.number, tables, stimuli, effects, lambda: tables_of(cluster)
                )
                if told:
                    raise Violation("R5 a deadlock that is none", told)
            if self._steps % self._looks_every == 0:
                self.look(cluster)

    def look(self, cluster: SimCluster) -> None:
        """What must hold between nodes."""
        nodes = members(cluster)
        uses: dict[NodeID, set[ObjectID]] = {}
        for number, node in nodes.items():
            used: set[ObjectID] = set()
            for process in node.processes.values():
                if process.is_alive and process.play is not None:
                    used.update(process.play.uses)
            uses[number] = used
        self._between.look({n: node.core.tables for n, node in nodes.items()}, uses)


def members(cluster: SimCluster) -> dict[NodeID, SimNode]:
    """The living incarnations that know their number and are not fenced."""
    return {
        node.node_id: node
        for node in cluster.nodes
        if node.is_alive and node.node_id is not None and not node.core.tables.fenced
    }


def tables_of(cluster: SimCluster, only: Iterable[int] | None = None) -> dict[NodeID, Tables]:
    """Their tables, of some machines or of all."""
    wanted = None if only is None else set(only)
    return {
        number: node.core.tables
        for number, node in members(cluster).items()
        if wanted is None or node.machine in wanted
    }


# ---------------------------------------------------------------------------------- a trial


class Trial:
    """A world being played."""

    def __init__(self, world: World, tape: Tape, watch: Watch) -> None:
        self.world = world
        self.tape = tape
        self.watch = watch
        self.log = FaultLog()
        self.diary = Diary()
        self.cluster = Watched(world, watch)
        self.driver = self.cluster.drive(0, Company(world.program, self.diary).driver, stays=True)
        self.end = "done"
        self.is_calm = False
        """What is planned to strike after the program's end does not: it would disturb the rest."""
        self.core: tuple[int, ...] = tuple(range(len(world.nodes)))

    def run(self) -> None:
        """All phases. Raises whatever went wrong."""
        world, cluster = self.world, self.cluster
        last_ns = 0
        for fault in world.faults:
            cluster.clock.after(fault.at_ns, self._plan, fault)
            last_ns = max(last_ns, fault.at_ns + min(fault.for_ns, STORM_MAX_NS))
        self._go(last_ns + 50 * MS, self._is_over)
        self.is_calm = True
        if self.log.struck or not self._is_over():
            self.heal()
        self._wait()
        if not self.driver.is_alive or not self.driver.host.is_alive:
            self.end = "lost"
        if self.watch.judges:
            self.watch.look(cluster)
            self._expect()
        if self.end != "stuck":
            self._quiet()

    def _plan(self, fault: Fault) -> None:
        if not self.is_calm:
            self._strike(fault)

    def _strike(self, fault: Fault) -> None:
        strike(self.cluster, fault, self.log)

    def _is_over(self) -> bool:
        driver = self.driver
        return self.diary.is_done or not (driver.is_alive and driver.host.is_alive)

    def _go(self, until_ns: int, done: Callable[[], bool]) -> None:
        """Let time pass; whoever makes too many events of it is in a loop."""
        cluster = self.cluster
        calls_max = CALLS_MAX + 3_000 * self.world.program.tasks
        before = cluster.clock.calls
        if done() or cluster.clock.run_until(until_ns, done=done, calls_max=calls_max):
            return
        if cluster.clock.calls - before >= calls_max:
            lines = diagnose(tables_of(cluster)).lines
            raise Violation("L2 no end in sight", "\n".join(["events without end", *lines]))

    # -------------------------------------------------------------------------- liveness

    def heal(self) -> None:
        """Make a core of the cluster well, for good; cut the rest off, for good."""
        cluster, tape = self.cluster, self.tape
        self.log.is_over = True
        machines = range(len(cluster.nodes))
        home = self.driver.host.machine
        core = [home]
        whole = not self.log.struck or not tape.flag("liveness/part", 350)
        for machine in machines:
            if machine != home and (whole or not tape.flag(f"liveness/{machine}/out", 400)):
                core.append(machine)
        self.core = tuple(sorted(core))
        cluster.heal_all()
        cluster.resume(HEAD)
        cluster.restart_head()
        for machine in machines:
            if machine in core:
                self._heal_machine(machine)
            else:
                kind = tape.pick("liveness/out", ("node_crashes", "node_isolated"))
                self._strike(Fault(kind=kind, at_ns=0, node=machine, for_ns=FOREVER_NS))

    def _heal_machine(self, machine: int) -> None:
        cluster = self.cluster
        node = cluster.nodes[machine]
        if not node.is_alive:
            if machine != self.driver.host.machine:
                cluster.restart_node(machine)
            return
        cluster.set_disk(machine, free_bytes=cluster.costs.disk_bytes)
        cluster.set_clock(machine)
        cluster.slow_node(machine, 1000)
        node.failing_starts = 0
        node.late_finalizers_ns = 0
        for process in list(node.processes.values()):
            if process.is_alive and process.is_frozen:
                process.thaw()
        cluster.resume(machine)

    def _wait(self) -> None:
        """Let a healed cluster finish; it may be stuck, if twice in a row there is a reason."""
        start_ns = now_ns = self.cluster.clock.now_ns
        pause_ns, waits = FIRST_LOOK_NS, 0
        patience_ns = PATIENCE_NS + LONGEST * self.world.profile.duration_ns
        while not self._is_over():
            now_ns += pause_ns
            pause_ns *= 2
            self._go(now_ns, self._is_over)
            diagnosis = self._diagnose()
            waits = waits + 1 if diagnosis.is_legitimate and not self._is_over() else 0
            if waits == 2:
                self.end = "stuck"
                return
            if now_ns - start_ns > patience_ns and not self._is_over():
                self._complain(diagnosis)

    def _diagnose(self) -> Diagnosis:
        """Of the healed core, and of whom the head takes for alive beside it."""
        cluster = self.cluster
        alive = [
            node.machine
            for number, node in members(cluster).items()
            if number in cluster.head.core.tables.nodes
        ]
        return diagnose(tables_of(cluster, {*self.core, *alive}))

    def _complain(self, diagnosis: Diagnosis) -> None:
        """The driver does not come to its end, for no good reason."""
        if diagnosis.is_untold_deadlock:
            text = "runs hold what others wait for, and no node sees the whole circle"
            raise Violation("L4 a deadlock that nobody tells", "\n".join([text, *diagnosis.lines]))
        first = (diagnosis.missing or list(diagnosis.waits))[:1]
        where = first[0].text if first else "the driver waits for nothing that a node knows of"
        kind = first[0].kind if first else "unknown"
        raise Violation(f"L1 {kind}", "\n".join([where, *diagnosis.lines]))

    def _expect(self) -> None:
        naive = outcomes(self.world.program)
        policy = self.world.policy
        Expectation(
            self.world.program,
            naive,
            self.diary,
            self.log,
            few_workers=policy.workers_max < 100,
            short_lineage=policy.lineage_bytes_max < 1 << 20,
        ).check()

    # -------------------------------------------------------------------------- quiet

    def _quiet(self) -> None:
        """Everything was dropped: wait until it is gone."""
        cluster = self.cluster
        start_ns = cluster.clock.now_ns
        pause_ns = 5 * MS
        while True:
            self._go(cluster.clock.now_ns + pause_ns, _never)
            if not any(self._left()):
                break
            if pause_ns > SECOND and self._diagnose().is_legitimate:
                self.end = "stuck"  # what nobody waits for may wait for ever
                return
            if cluster.clock.now_ns - start_ns > QUIET_NS:
                check_nothing_left(tables_of(cluster, self.core))
                raise Violation("Q2 something is left", next(line for line in self._left() if line))
            pause_ns = min(2 * pause_ns, 5 * SECOND)
        for node in members(cluster).values() if self.watch.judges else ():
            check_core(node.core.tables)

    def _left(self) -> Iterable[str]:
        cluster = self.cluster
        pinned = pinned_by_jobs(tables_of(cluster).values())
        for number, t in tables_of(cluster, self.core).items():
            yield from leftovers(number, t, pinned)
            node = cluster.members[number]
            if not t.objects:
                yield from _payloads_left(node, t)


def _payloads_left(node: SimNode, t: Tables) -> Iterable[str]:
    """Payload bytes that belong to nothing that the tables know."""
    if t.functions or t.templates:
        known = {bytes(key) for key in t.functions}
        rest = [key for key in node.payloads if key not in known and not key.startswith(b"T")]
    else:
        rest = list(node.payloads)
    if rest:
        yield f"payload: {len(rest)} under {rest[0].hex()}"


def _never() -> bool:
    return False


# ---------------------------------------------------------------------------------- verdicts


class Watchdog:
    """Raises Violation in the main thread if the process computes for longer than `seconds`.

    A core that loops within one step is caught by nothing else. In other threads there is no dog.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._before: Any = None  # Any: whatever handled the signal before
        self._is_on = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        if self._is_on:
            self._before = signal.signal(signal.SIGVTALRM, self._bark)
            signal.setitimer(signal.ITIMER_VIRTUAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        if self._is_on:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, self._before)

    def _bark(self, number: int, frame: FrameType | None) -> None:
        names: list[str] = []
        while frame is not None and len(names) < 12:
            code = frame.f_code
            names.append(
                f"{code.co_filename.rsplit('/', 1)[-1].removesuffix('.py')}.{code.co_name}"
            )
            frame = frame.f_back
        step = next((name for name in names if name.startswith("local.")), "no step")
        seen = f"in {step}\nafter {self._seconds} s of computing: {' < '.join(names)}"
        raise Violation("L3 a step without end", seen)


def run_trial(
    tape: Tape,
    profile: Profile = SMALL,
    *,
    ablate: tuple[str, ...] = (),
    watch: Watch | None = None,
) -> Verdict:
    """Play the world of a tape and judge it; never raises for what went wrong in it."""
    watch = watch or Watch(profile)
    verdict = Verdict(seed=tape.seed)
    trial: Trial | None = None
    was_enabled = gc.isenabled()
    gc.disable()  # what is made here lives until the end of the trial anyway
    try:
        world = draw_world(tape, profile, ablate=ablate)
        verdict.program = world.program.kind
        with Watchdog(10.0 + 0.05 * world.program.tasks):
            trial = Trial(world, tape, watch)
            trial.run()
    except Violation as violation:
        verdict.signature = sign(violation.oracle, violation.seen.splitlines()[0])
        verdict.text = f"{violation.oracle}: {violation.seen}"
    except Exception as error:
        verdict.signature = signature_of(error)
        verdict.text = "".join(traceback.format_exception(error))[-6000:]
    finally:
        if was_enabled:
            gc.enable()
    verdict.digest = watch.digest
    verdict.stimuli = watch.stimuli
    verdict.choices = tape.used
    if trial is not None:
        verdict.end = trial.end
        verdict.faults = dict(trial.log.struck)
        verdict.steps = trial.cluster.steps
        verdict.virtual_ns = trial.cluster.clock.now_ns
        verdict.seen = _seen(trial, watch)
    return verdict


def _seen(trial: Trial, watch: Watch) -> frozenset[str]:
    names = {kind.__name__ for kind in watch.seen}
    counts: Counter[str] = Counter()
    for server in trial.cluster.cores:
        counts.update(server.core.tables.counts)
    names.update(f"count: {name}" for name in counts)
    return frozenset(names)


def signature_of(error: BaseException) -> Signature:
    """The signature of an exception: its type, and the innermost line of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "detray" in frame.filename]
    place = ours[-1] if ours else frames[-1]
    module = place.filename.rsplit("/", 1)[-1].removesuffix(".py")
    return sign(f"{type(error).__name__} in {module}.{place.name}", str(error))
