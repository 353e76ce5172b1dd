"""A session in the simulator: a cluster in virtual time, and this program as its driver.

    detray.init(engine="sim", nodes=3, cpus=2, seed=7, faults=["worker_killed"])

Theory of operation
-------------------
The program is the body of the simulated driver on machine 0. While it waits, its thread turns the
simulation; each task that begins there runs on a thread of its own, one at a time (`baton.py`).
Code between two calls of detray takes no virtual time and is not interrupted: interleavings differ
in the order of these pieces. Everything else is the simulator's: cores, messages, faults.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detray.core.config import Policy
from detray.core.streams import RunContext
from detray.errors import DeadlockError, DetrayError, ServiceDiedError
from detray.ids import ClientID
from detray.settings import Settings
from detray_sim import behaviour as do
from detray_sim.cluster import ClusterConfig, SimCluster
from detray_sim.driver import SimDriver
from detray_sim.engine import mishaps
from detray_sim.engine.client import SimClient
from detray_sim.engine.options import SimOptions, read_options
from detray_sim.engine.patches import Patches
from detray_sim.engine.seats import DriverSeat
from detray_sim.engine.stuck import describe
from detray_sim.engine.tasks import Tasks
from detray_sim.faults import Fault, FaultLog, strike
from detray_sim.result import NodeShape
from detray_sim.traces import write_trace

if TYPE_CHECKING:
    # Loaded only where payloads are recorded.
    from detray_sim.payloads import SimPayloads

SECOND = 1_000_000_000
_START_NS = 60 * SECOND
UNIT = 10_000
_CALM = Policy(heartbeat_ns=60 * SECOND, death_ns=600 * SECOND)
"""Where no node can die, heartbeats only make a virtual day long."""
_OF_ONE_MACHINE = ("node:127.0.0.1", "node:__internal_head__")


class SimSession:
    """What `init(engine="sim")` started."""

    def __init__(self, settings: Settings, options: SimOptions) -> None:
        self.options = options
        self.plan: tuple[Fault, ...] = mishaps.plan(
            options.faults, seed=options.seed, nodes=options.nodes, span_ns=options.fault_span_ns
        )
        self.log = FaultLog()
        records = options.records
        self._records = (
            (options.nodes == 1 or bool(settings.record)) if records is None else records
        )
        self.record = settings.record
        self.cluster = SimCluster(self._config(settings), record=self._records)
        if settings.record:
            # As real clients do: only what is kept for long has room and use for digests.
            from detray.serialization.digests import digest

            self.cluster.mark = digest
        self._payloads = self._open_payloads(settings)
        self.client = SimClient(self.cluster, options)
        self.tasks = Tasks(self.client)
        self.client.make_body = self.tasks.make_body
        self.cluster.listener = self.tasks.began
        self._patches = Patches(self.client)
        self._collects = gc.isenabled()
        self._seat: DriverSeat
        try:
            self._begin(settings)
        except BaseException:
            self.end()
            raise
        self.facts: dict[str, Any] = {"address": "sim"}  # Any: as in Ray, various facts

    @property
    def now_ns(self) -> int:
        """Virtual time since the beginning."""
        return self.cluster.clock.now_ns

    def trace(self) -> bytes:
        """The recording so far. Raises RuntimeError if there is none."""
        if not self._records:
            raise RuntimeError(
                "a simulated session of several nodes has a trace if init was given record=PATH "
                "or records=True, and none with records=False"
            )
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "session.trace")
            write_trace(self.cluster, path)
            return Path(path).read_bytes()

    def end(self) -> None:
        """End all tasks and their threads; give back what was patched."""
        self.client.problem = self.client.problem or "this session was shut down"
        self._patches.remove()
        try:
            self.tasks.end()
            if self.record:
                self._write_payloads()
                write_trace(self.cluster, self.record)
        finally:
            if self._collects:
                gc.enable()

    # -------------------------------------------------------------- payloads

    def _open_payloads(self, settings: Settings) -> SimPayloads | None:
        """Who keeps arguments and values, if they are wanted and there is a file to go to.

        No flight recorder is ever written here, so without `record` nothing would be read.
        """
        if not (settings.record and settings.record_payloads):
            return None
        from detray.trace.payloads.format import PayloadProcess
        from detray_sim.payloads import SimPayloads

        process = PayloadProcess(
            life="",
            wall_ns=0,
            session=f"sim-{self.options.seed}",
            cwd=os.getcwd(),
            argv=tuple(sys.argv),
            sys_path=tuple(settings.sys_path),
            python_version="{}.{}.{}".format(*sys.version_info),
            virtual_time=True,
        )
        payloads = SimPayloads(self.cluster, process)
        self.cluster.tap = payloads.take
        return payloads

    def _write_payloads(self) -> None:
        """As in a real session: what cannot be written is told, and never stops the program."""
        if self._payloads is None:
            return
        try:
            self._payloads.write(self.record)
        except OSError as error:
            text = f"payloads are not recorded to {error.filename}: {error.strerror}"
            print(f"(detray error: trace) {text}", file=sys.stderr)

    # -------------------------------------------------------------- beginning

    def _config(self, settings: Settings) -> ClusterConfig:
        options = self.options
        totals = dict(settings.totals())
        whole = totals.pop("CPU", 0) // UNIT
        cpus = whole if options.cpus is None else options.cpus
        for name in _OF_ONE_MACHINE:
            totals.pop(name, None)
        shapes = []
        for machine in range(options.nodes):
            own = {f"node:sim{machine}": UNIT}
            if not machine:
                own["node:__internal_head__"] = UNIT
            resources = tuple(sorted({**totals, **own}.items()))
            labels = tuple(sorted(settings.labels.items())) if not machine else ()
            shapes.append(
                NodeShape(
                    cpus=cpus,
                    store_bytes=settings.store_bytes(),
                    resources=resources,
                    labels=labels,
                )
            )
        return ClusterConfig(
            nodes=tuple(shapes),
            costs=options.costs,
            policy=Policy() if self.plan else _CALM,
            seed=options.seed,
            infeasible=settings.infeasible,
            sessions=mishaps.needs_sessions(self.plan),
            head_store=mishaps.needs_store(self.plan),
        )

    def _begin(self, settings: Settings) -> None:
        """Bring the cluster up and the program into the place of its driver."""
        if self._collects:
            gc.disable()  # when it runs, and what it ends, would be chance

        def make(host: Any, client: ClientID) -> SimDriver:  # Any: the node
            return SimDriver(host, client, self._drive, entrypoint="program")

        node = self.cluster.nodes[0]
        self._driver = node.connect(make)
        self.cluster.drivers.append(self._driver)
        self._is_up = False
        self.cluster.run(_START_NS, done=self._is_ready)
        if not self._is_ready():
            raise DetrayError("the simulated cluster did not come up")
        origin_ns = self.now_ns
        for fault in self.plan:
            self.cluster.clock.after(fault.at_ns, strike, self.cluster, fault, self.log)
            self.client.is_busy_for(fault.at_ns + fault.for_ns)
        self.origin_ns = origin_ns
        self.client.sit(self._seat)
        self._patches.install()
        if self.options.sessions is not None:
            self.options.sessions.append(self)

    def _is_ready(self) -> bool:
        nodes = self.cluster.nodes
        return self._is_up and all(node.node_id is not None for node in nodes)

    def _drive(self, run: do.Run) -> do.Steps:
        """The body of the driver."""
        play = self._driver.play
        assert play is not None
        context = RunContext(run.task, 0, 0, "", 0)
        self._seat = DriverSeat(self.client, self._driver, play, context, self._turn)
        self._is_up = True
        return self._seat.steps()

    # -------------------------------------------------------------- turning

    def _turn(self, seat: DriverSeat) -> None:
        """Let time pass until the program has what it asked for.

        Raises DeadlockError if that can never be, ServiceDiedError if the driver is dead.
        """
        client, clock = self.client, self.cluster.clock
        try:
            while not seat.is_answered:
                stopped = clock.run_until(self._limit_ns)
                if not stopped and not seat.is_answered and self._limit_ns <= clock.now_ns:
                    self._despair(seat)
                if not self._driver.is_alive:
                    client.problem = "the simulated machine of the driver program is dead"
                    raise ServiceDiedError(f"detray cannot be used any more: {client.problem}")
        except DetrayError:
            raise
        except BaseException as problem:
            client.problem = f"the simulation was left by {type(problem).__name__}: {problem}"
            raise
        finally:
            client.sit(seat)
            self.tasks.sweep()

    @property
    def _limit_ns(self) -> int:
        """When a program that does nothing until then is deadlocked."""
        client = self.client
        return max(client.progress_ns, client.busy_until_ns) + self.options.patience_ns

    def _despair(self, seat: DriverSeat) -> None:
        text = describe(self.cluster, self.tasks, self.options.patience_ns)
        seat.give_up()
        seat.answer = (None, None)
        raise DeadlockError(text)


def start(settings: Settings) -> SimSession:
    """Start a session in the simulator: the engine "sim"."""
    return SimSession(settings, read_options(settings.engine_options))
