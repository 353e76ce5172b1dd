"""A cluster in virtual time: one head, N nodes, their programs, and what may go wrong with them.

    cluster = SimCluster(ClusterConfig(nodes=(NodeShape(cpus=4),) * 3, seed=7))
    driver = cluster.drive(0, body)          # connects to machine 0 (`behaviour.py`)
    cluster.run()                            # until every driver has ended

Machines are numbered from 0; HEAD_MACHINE (-1) is the head's. A machine has one living `SimNode`
at most; after a crash, or when the cluster buried it, the next one starts empty.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from detray.core import effects as ef
from detray.core.config import GlobalConfig, LocalConfig, Policy
from detray.core.head_invariants import check_head
from detray.core.invariants import check
from detray.core.session import SessionPolicy
from detray.ids import ClientID, NodeID, ObjectID
from detray_sim.behaviour import Body
from detray_sim.clock import NEVER, Clock
from detray_sim.costs import Costs
from detray_sim.digest import RunDigest
from detray_sim.disk import Disk
from detray_sim.driver import SimDriver
from detray_sim.flows import Flows
from detray_sim.head import HEAD_MACHINE, SimHead
from detray_sim.head_store import SimHeadStore
from detray_sim.network import SimpleNetwork, uniform
from detray_sim.network.model import Network
from detray_sim.node import OOM_REASON, SimNode
from detray_sim.process import SimProcess
from detray_sim.result import NodeShape, TransferRecord
from detray_sim.server import CoreServer
from detray_sim.transport import Transport
from detray_sim.values import Value
from detray_sim.worker import SimWorker

UNIT = 10_000
RATE_MAX = 1 << 50
"""Bytes per second of a network that takes no time."""


class ClusterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The world before anything happens."""

    nodes: tuple[NodeShape, ...] = (NodeShape(cpus=4),)
    policy: Policy = Policy()
    placement: str = "hybrid"
    costs: Costs = Costs()
    seed: int = 0
    infeasible: str = "wait"
    prestart_workers: int = 0
    stop_with_last_driver: bool = False
    sessions: bool = False
    """Links may lose, double and reorder packets; sessions put up with it."""
    session: SessionPolicy = SessionPolicy()
    head_store: bool = False
    """The head keeps a log, so that it can die and come back."""
    message_bytes: int = 512
    """What a packet counts for on the network."""


class RecordedSimStep(msgspec.Struct, frozen=True):
    """One step of one core, as it happened."""

    core: int
    now_ns: int
    stimuli: tuple[Any, ...]
    effects: tuple[Any, ...]


class SimCluster:
    """Everything. The verbs of the second half are the faults that it can be given."""

    gathers = False
    """Whether an idle core waits for all that arrives at a moment before it takes a step."""

    def __init__(
        self,
        config: ClusterConfig,
        *,
        network: Network | None = None,
        digest: bool = False,
        record: bool = False,
        check_each_step: bool = False,
        check_values: bool = False,
    ) -> None:
        self.config = config
        self.costs = config.costs
        self.clock = Clock()
        self.cores: list[CoreServer] = []
        self.steps = 0
        self.messages = 0
        """Between cores."""
        self.notes: list[tuple[int, str]] = []
        self.recorded: list[RecordedSimStep] = []
        self.openings: dict[int, bytes] = {}
        """The state that recorded heads with a store began with, by core number."""
        self.transfers: list[TransferRecord] = []
        self.reads: dict[ObjectID, Value] | None = {} if check_values else None
        self.listener: Callable[[SimNode, SimWorker, ef.RunTask], None] | None = None
        """Hears of each run that a worker begins."""
        self.mark: Callable[[bytes], bytes] | None = None
        """Makes the digests that messages tell of real values; pretended ones have none."""
        self.tap: Callable[[SimNode, Sequence[Any], Sequence[Value]], None] | None = None
        """Is shown all that arrives at nodes, but for what the head says: messages, payload."""
        self.kept = b""
        """A digest of the payloads that were kept beside the trace, for the names of its lives."""
        self.members: dict[NodeID, SimNode] = {}
        """Incarnations by the number that the head gave them, the dead ones too."""
        self.drivers: list[SimDriver] = []
        self.faults: dict[str, int] = {}
        self._returns_at_end = True
        self._digest = RunDigest() if digest else None
        self._record = record
        self._check = check_each_step
        self.observes = digest or record or check_each_step
        machines = len(config.nodes)
        self._latency_ns = config.costs.latency_ns
        if network is None:
            rate = config.costs.bandwidth_bytes_per_s or RATE_MAX
            network = SimpleNetwork(uniform(machines, rate, config.costs.latency_ns))
        else:
            self._latency_ns = -1
        self.network = network
        self.transport = Transport(self)
        self.flows = Flows(self, network)
        self.disks = [Disk(config.costs, config.seed, machine) for machine in range(machines)]
        global_config = GlobalConfig(
            placement=config.placement, seed=config.seed, policy=config.policy
        )
        self.head = SimHead(self, global_config, SimHeadStore() if config.head_store else None)
        self.nodes: list[SimNode] = [self._new_node(machine) for machine in range(machines)]

    # -------------------------------------------------------------- making it

    def shape(self, machine: int) -> NodeShape:
        """What a machine has."""
        return self.config.nodes[machine]

    def _new_node(self, machine: int) -> SimNode:
        shape = self.shape(machine)
        totals = {"CPU": shape.cpus * UNIT, **dict(shape.resources)}
        config = LocalConfig(
            node_name=f"n{machine}",
            totals=tuple(sorted(totals.items())),
            arena_bytes=shape.store_bytes,
            infeasible=self.config.infeasible,
            stop_with_last_driver=self.config.stop_with_last_driver,
            prestart_workers=self.config.prestart_workers,
            labels=shape.labels,
            life=f"{machine}.{len(self.cores)}" if self.config.head_store else "",
            policy=self.config.policy,
        )
        return SimNode(self, machine, config)

    def enter(self, server: CoreServer) -> int:
        """A number for a core that begins."""
        number = len(self.cores)
        self.cores.append(server)
        durable = getattr(server.core.tables, "durable", None)
        if self._record and getattr(durable, "epoch", None):
            self.openings[number] = server.core.snapshot()
        return number

    def latency_ns(self, source: int, target: int) -> int | None:
        """How long a packet takes between two machines; None: for ever."""
        if self._latency_ns >= 0 or HEAD_MACHINE in (source, target):
            return self.costs.latency_ns
        size = self.config.message_bytes
        return self.network.latency_ns(source, target, size, self.clock.now_ns)

    def drive(
        self, machine: int, body: Body, *, token: Any = None, stays: bool = False, name: str = ""
    ) -> SimDriver:
        """A driver program begins on a machine. (Any: the program's own.)"""
        entrypoint = name or f"driver{len(self.drivers)}.py"

        def make(host: SimNode, client: ClientID) -> SimDriver:
            return SimDriver(host, client, body, entrypoint=entrypoint, token=token, stays=stays)

        driver = self.nodes[machine].connect(make)
        self.drivers.append(driver)
        return driver

    # -------------------------------------------------------------- running it

    def run(
        self,
        until_ns: int = NEVER,
        *,
        done: Callable[[], bool] | None = None,
        calls_max: int = 0,
    ) -> bool:
        """Let time pass until every driver has ended (or `done()`); True if that came about.

        Returns False after `until_ns`, `calls_max` events, or when nothing is left to happen.
        Python's cycle collector rests meanwhile: nothing here makes cycles worth collecting.
        """
        self._returns_at_end = done is None
        was_enabled = gc.isenabled()
        gc.freeze()
        gc.disable()
        try:
            return self.clock.run_until(until_ns, done=done, calls_max=calls_max)
        finally:
            if was_enabled:
                gc.enable()
            gc.unfreeze()

    def driver_ended(self) -> None:
        """A driver is done: if it was the last, `run` returns."""
        if self._returns_at_end and all(driver.is_done for driver in self.drivers):
            self.clock.halts = True

    def settle(self, ns: int = 5_000_000_000) -> None:
        """Let what follows from what happened happen, for so long."""
        self.run(self.clock.now_ns + ns, done=lambda: False)

    def digest(self) -> str:
        """Of all steps of all cores so far; "" if none was asked for."""
        return self._digest.hex() if self._digest else ""

    def observe(
        self, server: CoreServer, now_ns: int, stimuli: Sequence[Any], effects: Sequence[Any]
    ) -> None:
        """A core took a step. (Any: messages of all kinds.)"""
        if self._digest is not None:
            self._digest.add(server.number, now_ns, stimuli, effects)
        if self._record:
            step = RecordedSimStep(server.number, now_ns, tuple(stimuli), tuple(effects))
            self.recorded.append(step)
        if self._check:
            if server.machine == HEAD_MACHINE:
                check_head(server.core.tables)
            else:
                check(server.core.tables)

    def note(self, text: str) -> None:
        """Something worth reading after the run."""
        self.notes.append((self.clock.now_ns, text))

    def transferred(
        self, source: SimNode, target: SimNode, order: ef.SendObject, started_ns: int
    ) -> None:
        """A bulk transfer arrived."""
        self.transfers.append(
            TransferRecord(
                source=source.machine,
                target=target.machine,
                size_bytes=order.size_bytes,
                started_ns=started_ns,
                finished_ns=self.clock.now_ns,
            )
        )

    # -------------------------------------------------------------- faults: processes

    def _fault(self, name: str) -> None:
        self.faults[name] = self.faults.get(name, 0) + 1

    def workers(self, machine: int) -> list[SimWorker]:
        """The living workers of a machine, in the order of their numbers."""
        processes = self.nodes[machine].processes
        return [p for p in processes.values() if type(p) is SimWorker and p.is_alive]

    def kill_worker(self, machine: int, which: int = 0, reason: str = "") -> bool:
        """Kill a worker process; False if there is none."""
        workers = self.workers(machine)
        if not workers:
            return False
        self._fault("kill_worker")
        worker = workers[which % len(workers)]
        worker.host.kill(worker, reason or "killed by signal 9 (SIGKILL)")
        return True

    def oom_kill(self, machine: int) -> bool:
        """The kernel kills the worker that uses most (blocks, then runs begun)."""
        workers = self.workers(machine)
        if not workers:
            return False
        self._fault("oom_kill")

        def weight(worker: SimWorker) -> tuple[int, int, int]:
            used = sum(cell.size_bytes for cell in worker.cells)
            return (used, worker.begun, -worker.client)

        biggest = max(workers, key=weight)
        biggest.host.kill(biggest, OOM_REASON)
        return True

    def hang_worker(self, machine: int, which: int, duration_ns: int) -> bool:
        """A worker stands still for a while, as after SIGSTOP."""
        workers = [worker for worker in self.workers(machine) if not worker.is_frozen]
        if not workers:
            return False
        self._fault("hang_worker")
        self._freeze(workers[which % len(workers)], duration_ns)
        return True

    def hang_driver(self, number: int, duration_ns: int) -> None:
        """A driver stands still for a while."""
        driver = self.drivers[number]
        if driver.is_alive and not driver.is_frozen:
            self._fault("hang_driver")
            self._freeze(driver, duration_ns)

    def _freeze(self, process: SimProcess, duration_ns: int) -> None:
        process.freeze()
        self.clock.after(duration_ns, process.thaw)

    def kill_driver(self, number: int) -> None:
        """Kill a driver program."""
        driver = self.drivers[number]
        if driver.is_alive:
            self._fault("kill_driver")
            driver.host.kill(driver, "killed by signal 9 (SIGKILL)")

    def fail_worker_starts(self, machine: int, count: int = 1) -> None:
        """The next workers of a machine cannot be started."""
        self._fault("fail_worker_starts")
        self.nodes[machine].failing_starts += count

    def late_finalizers(self, machine: int, delay_ns: int) -> None:
        """What programs let go of on this machine is dropped up to this much later."""
        self._fault("late_finalizers")
        self.nodes[machine].late_finalizers_ns = delay_ns

    # -------------------------------------------------------------- faults: machines

    def crash_node(self, machine: int) -> None:
        """A machine stops at once, with everything on it."""
        node = self.nodes[machine]
        if node.is_alive:
            self._fault("crash_node")
            self._end(node)

    def _end(self, node: SimNode) -> None:
        node.end()
        self.flows.ended(node)

    def restart_node(self, machine: int) -> None:
        """A machine starts anew, empty; what still ran on it is gone."""
        node = self.nodes[machine]
        if node.is_alive:
            self._end(node)
        self.nodes[machine] = self._new_node(machine)

    def leave(self, node: SimNode, reason: str) -> None:
        """A node was told that it is buried: it ends, and comes back empty after a while."""
        self.note(f"{node!r} leaves: {reason}")
        self._end(node)
        self.clock.after(self.costs.rejoin_ns, self._rejoin, node)

    def _rejoin(self, node: SimNode) -> None:
        if self.nodes[node.machine] is node:
            self.nodes[node.machine] = self._new_node(node.machine)

    def crash_head(self, when: int = 0) -> None:
        """The head's process dies: now, or (SAVED, UNSAVED) in its next step with a commit."""
        head = self.head
        assert head.store is not None, "a head that may die needs a store: head_store=True"
        if not head.is_alive:
            return
        if when:
            head.dies = when
        else:
            self._fault("crash_head")
            head.end()

    def restart_head(self) -> None:
        """A head begins from what the store has, unless one lives that is not about to die."""
        head = self.head
        if head.is_alive and not head.dies:
            return
        self.crash_head()
        self.replace_head()

    def replace_head(self) -> None:
        """A head begins, whether the one before it is dead, or does not know that it is over."""
        self._fault("replace_head")
        before = self.head
        assert before.store is not None, "a head that may be replaced needs a store"
        self.head = SimHead(self, before.config, before.store)

    def pause(self, machine: int, duration_ns: int = 0) -> None:
        """The service of a machine (HEAD_MACHINE: the head) stands still, for a while or until
        `resume`. Its workers go on."""
        server = self._server(machine)
        if server.is_alive and not server.is_paused:
            self._fault("pause")
            server.pause()
            if duration_ns:
                self.clock.after(duration_ns, server.resume)

    def resume(self, machine: int) -> None:
        """It goes on."""
        self._server(machine).resume()

    def _server(self, machine: int) -> CoreServer:
        return self.head if machine == HEAD_MACHINE else self.nodes[machine]

    def slow_node(self, machine: int, permille: int) -> None:
        """A machine computes at so many thousandths of its speed from now on."""
        self._fault("slow_node")
        self.nodes[machine].speed_permille = permille * self.shape(machine).speed_permille // 1000

    def set_clock(self, machine: int, *, offset_ns: int = 0, drift_ppm: int = 0) -> None:
        """A machine's clock shows other times from now on, and goes at another pace."""
        self._fault("set_clock")
        server = self._server(machine)
        server.view.set(self.clock.now_ns, jump_ns=offset_ns, drift_ppm=drift_ppm)
        server.clock_changed()

    def jump_clock(self, machine: int, jump_ns: int) -> None:
        """A machine's clock jumps."""
        self._fault("jump_clock")
        server = self._server(machine)
        server.view.set(self.clock.now_ns, jump_ns=jump_ns)
        server.clock_changed()

    def set_disk(
        self,
        machine: int,
        *,
        free_bytes: int | None = None,
        slow_permille: int = 1000,
        fail_permille: int = 0,
        corrupt: bool = False,
    ) -> None:
        """A machine's disk has so much room from now on, is slow, fails, or lies."""
        self._fault("set_disk")
        disk = self.disks[machine]
        if free_bytes is not None:
            disk.free_bytes = free_bytes
        disk.slow_permille = slow_permille
        disk.fail_permille = fail_permille
        disk.corrupts = corrupt

    # -------------------------------------------------------------- faults: network

    def cut(self, a: int, b: int, *, one_way: bool = False) -> None:
        """Nothing comes through from machine a to b (nor back, unless `one_way`)."""
        self._fault("cut")
        for source, target in ((a, b),) if one_way else ((a, b), (b, a)):
            self.transport.trouble(source, target).is_cut = True
            if HEAD_MACHINE not in (source, target):
                self.flows.way_cut(source, target)

    def heal(self, a: int, b: int) -> None:
        """Both directions between two machines are as they should be."""
        for source, target in ((a, b), (b, a)):
            self.transport.heal(source, target)
            if HEAD_MACHINE not in (source, target):
                self.flows.way_healed(source, target)

    def cut_group(self, group: Sequence[int]) -> None:
        """Cut the machines of a group off from all others."""
        inside = set(group)
        for a in sorted(inside):
            for b in range(HEAD_MACHINE, len(self.nodes)):
                if b not in inside:
                    self.cut(a, b)

    def heal_all(self) -> None:
        """Every link is as it should be."""
        for a in range(HEAD_MACHINE, len(self.nodes)):
            for b in range(a + 1, len(self.nodes)):
                self.heal(a, b)

    def is_cut(self, source: int, target: int) -> bool:
        """True if nothing comes through in this direction."""
        return self.transport.trouble(source, target).is_cut

    def set_link(
        self,
        a: int,
        b: int,
        *,
        delay_ns: int = 0,
        loss_permille: int = 0,
        duplicate_permille: int = 0,
        reorder_permille: int = 0,
    ) -> None:
        """Packets between two machines are late, get lost, come twice or out of order."""
        if (loss_permille or duplicate_permille or reorder_permille) and not self.config.sessions:
            raise ValueError("a world without sessions has reliable links: set sessions=True")
        self._fault("set_link")
        for way in ((a, b), (b, a)):
            trouble = self.transport.trouble(*way)
            trouble.delay_ns = delay_ns
            trouble.loss_permille = loss_permille
            trouble.duplicate_permille = duplicate_permille
            trouble.reorder_permille = reorder_permille

    def corrupt_next_transfer(self, count: int = 1) -> None:
        """The next bulk transfers bring wrong bytes (which their check notices)."""
        self._fault("corrupt_next_transfer")
        self.flows.corrupt_next += count
