"""The global scheduler: membership, job numbers, and where a handed-over task should run.

Rules (PROTOCOL N7, N16, T4, D 27, 35 to 40)
--------------------------------------------
- Local work never comes here: a node asks only for what it cannot, or should not, run itself.
- The head proposes, the owner disposes.
- Stimuli come before deadlines.

`members.py` decides who lives, `placer.py` who runs what, `stalls.py` who waits in a circle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from detray.core import head_messages as hm
from detray.core.config import GlobalConfig
from detray.core.effects import Effect
from detray.core.head_step import HeadStep
from detray.core.head_tables import GlobalTables
from detray.core.members import Members
from detray.core.placement import POLICIES, Placement
from detray.core.placer import Placer
from detray.core.stalls import Stalls
from detray.core.stimuli import GlobalStimulus


class GlobalScheduler:
    """The head's core: `handle(*stimuli, now_ns=...)` returns effects, all of them `SendToNode`."""

    placer_kind: type[Placer] = Placer
    """Who keeps the queue; the simulator's experiments have another one."""

    def __init__(self, config: GlobalConfig, placement: Placement | None = None) -> None:
        self._take(
            GlobalTables(config, next_job=config.first_job),
            placement or POLICIES[config.placement](config.seed),
        )

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
        core._take(msgspec.msgpack.decode(data, type=GlobalTables), core.placement)
        return core


# Any: each handler takes the stimulus type that is its key (completeness: tests/core).
_HANDLERS: dict[type, Callable[..., None]] = {
    hm.NodeJoined: Members.on_node_joined,
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
