"""The faults of a scenario: each strikes when its time has come, for as long as the run lasts."""

from __future__ import annotations

from detray_sim.cluster import SimCluster
from detray_sim.faults import Fault, FaultLog, strike
from detray_sim.scenario import FaultPlan, PlannedFault


class FaultPlayer:
    """Plans one fault at a time: a stream of them by chance has no end."""

    def __init__(self, cluster: SimCluster, plan: FaultPlan, seed: int) -> None:
        self.is_planned = bool(plan.rates or plan.planned)
        self.log = FaultLog()
        self._cluster = cluster
        self._coming = plan.occurrences(seed, len(cluster.config.nodes))

    def begin(self) -> None:
        """From now on faults strike; their times count from here."""
        self._plan(self._cluster.clock.now_ns)

    def _plan(self, origin_ns: int) -> None:
        fault = next(self._coming, None)
        if fault is not None:
            clock = self._cluster.clock
            due_ns = max(0, origin_ns + fault.at_ns - clock.now_ns)
            clock.after(due_ns, self._strike, fault, origin_ns)

    def _strike(self, fault: PlannedFault, origin_ns: int) -> None:
        blow = Fault(
            kind=fault.kind,
            at_ns=fault.at_ns,
            node=fault.node,
            peer=fault.peer,
            for_ns=fault.for_ns,
            amount=fault.amount,
        )
        strike(self._cluster, blow, self.log)
        self._plan(origin_ns)
