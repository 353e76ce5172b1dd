"""The global scheduler: membership, job numbers, and where a handed-over task should run.

Rules (PROTOCOL N7, N16, T4, D 27, 35 to 40)
--------------------------------------------
- Local work never comes here: a node asks only for what it cannot, or should not, run itself.
- The head proposes, the owner disposes.
- Stimuli come before deadlines.
- What must not be forgotten is recorded as an event, and persisted before it is said
  (`durable.py`).

`members.py` decides who lives, `placer.py` who runs what, `stalls.py` who waits in a circle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import msgspec

from detray.core import head_messages as hm
from detray.core.config import GlobalConfig
from detray.core.durable import DurableTables, EpochRaised
from detray.core.effects import Effect, Persist
from detray.core.head_step import HeadStep
from detray.core.head_tables import GlobalTables
from detray.core.members import Members
from detray.core.placement import POLICIES, Placement
from detray.core.placer import Placer
from detray.core.stalls import Stalls
from detray.core.stimuli import GlobalStimulus
from detray.ids import JobNumber, NodeID

NUMBERS_SKIPPED = 1 << 20
"""So many numbers a head leaves out whose log may lack its end: more than that end can have."""


class GlobalScheduler:
    """The head's core: `handle(*stimuli, now_ns=...)` returns `SendToNode` effects.

    A head with a store (`recover`) puts a `Persist` before them when a step must not be forgotten.
    """

    placer_kind: type[Placer] = Placer
    """Who keeps the queue; the simulator's experiments have another one."""

    def __init__(self, config: GlobalConfig, placement: Placement | None = None) -> None:
        """A head without a store: it cannot die alone, and orders no `Persist`."""
        durable = DurableTables(next_job=JobNumber(config.first_job))
        self._take(
            GlobalTables(config, durable), placement or POLICIES[config.placement](config.seed)
        )

    @classmethod
    def recover(
        cls,
        config: GlobalConfig,
        durable: DurableTables,
        now_ns: int,
        *,
        is_complete: bool = True,
        placement: Placement | None = None,
    ) -> Self:
        """A head with a store that has `durable`, empty tables for a new one.

        It has the next epoch: the first step, to be taken without stimuli before anybody is heard,
        orders it to be persisted. Its members are expected to return within `return_grace_ns`.
        Without `is_complete` the end of the log may be missing: then no number is given out that
        might have been already.
        """
        core = cls(config, placement)
        t = core.tables
        t.durable, t.now_ns = durable, now_ns
        next_job = JobNumber(max(durable.next_job, config.first_job))
        t.jobs_before = next_job
        ahead = 0 if is_complete else NUMBERS_SKIPPED
        raised = EpochRaised(
            durable.epoch + 1, NodeID(durable.next_node + ahead), JobNumber(next_job + ahead)
        )
        core._step.record(raised)
        core.members.expect_all()
        return core

    def _take(self, tables: GlobalTables, placement: Placement) -> None:
        self.tables = tables
        self._step = HeadStep(tables)
        self.placer = self.placer_kind(self._step, placement)
        self.members = Members(self._step, self.placer)
        self.stalls = Stalls(self._step)
        self._handlers: dict[type, Callable[[Any], None]] = {
            kind: self._bind(method) for kind, method in _HANDLERS.items()
        }

    def _bind(self, method: Callable[..., None]) -> Callable[[Any], None]:
        """The method of whichever part of this head has it."""
        parts = (self.members, self.placer, self.stalls)
        part = next(part for part in parts if hasattr(part, method.__name__))
        return getattr(part, method.__name__)  # type: ignore[no-any-return]  # a bound method

    @property
    def placement(self) -> Placement:
        """The policy that chooses nodes."""
        return self.placer.placement

    @placement.setter
    def placement(self, policy: Placement) -> None:
        self.placer.placement = policy

    def handle(self, *stimuli: GlobalStimulus, now_ns: int) -> list[Effect]:
        """Apply what happened; what to tell the nodes."""
        s = self._step
        t = s.t
        if now_ns > t.now_ns:
            t.now_ns = now_ns
        handlers = self._handlers
        for stimulus in stimuli:
            handlers[type(stimulus)](stimulus)
        if t.check_ns and t.check_ns <= t.now_ns:
            self.members.check()
        interval_ns = t.config.policy.placement_interval_ns
        if not interval_ns:
            if s.changed:
                self.placer.place_all()
        elif t.place_ns and t.place_ns <= t.now_ns:
            t.place_ns = 0
            self.placer.place_all()
        elif s.changed and not t.place_ns:
            t.place_ns = t.now_ns + interval_ns
        s.changed = False
        out, s.out = s.out, []
        if t.unsaved:
            out.insert(0, Persist(tuple(t.unsaved)))
            t.unsaved = []
        return out

    @property
    def next_deadline_ns(self) -> int | None:
        """When `handle` wants to be called even if nothing happens; None: never."""
        t = self.tables
        if t.place_ns and not 0 < t.check_ns <= t.place_ns:
            return t.place_ns
        return t.check_ns or None

    @property
    def state_size(self) -> int:
        """Rows in all tables."""
        t = self.tables
        return len(t.nodes) + len(t.jobs) + len(t.unplaced) + len(t.requests)

    def snapshot(self) -> bytes:
        """All state, to be given to `restore`."""
        return msgspec.msgpack.encode(self.tables)

    @classmethod
    def restore(
        cls, config: GlobalConfig, data: bytes, placement: Placement | None = None
    ) -> GlobalScheduler:
        """A head that goes on where `snapshot` was taken."""
        core = cls(config, placement)
        core.adopt(msgspec.msgpack.decode(data, type=GlobalTables))
        return core

    def adopt(self, tables: GlobalTables) -> None:
        """Go on from these tables, which are no other core's."""
        self._take(tables, self.placement)


# Any: each handler takes the stimulus type that is its key (completeness: tests/core).
_HANDLERS: dict[type, Callable[..., None]] = {
    hm.NodeJoined: Members.on_node_joined,
    hm.NodeReturned: Members.on_node_returned,
    hm.NodeLeft: Members.on_node_left,
    hm.JobRequested: Members.on_job_requested,
    hm.JobEnded: Members.on_job_ended,
    hm.PeerUnreachable: Members.on_peer_unreachable,
    hm.PeerReachable: Members.on_peer_reachable,
    hm.LoadReported: Placer.on_load_reported,
    hm.PlacementRequested: Placer.on_placement_requested,
    hm.PlacementWithdrawn: Placer.on_placement_withdrawn,
    hm.StallNoticed: Stalls.on_stall_noticed,
    hm.WaitsReported: Stalls.on_waits_reported,
}
