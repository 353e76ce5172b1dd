"""The simulated head: a global scheduler, its store, and its links to the nodes.

Theory of operation
-------------------
With a store a head can die alone. The events of a step are committed before its other effects take
place; a head that dies in between leaves either nothing of the step, or the commit and nothing that
was said. The next head goes on from the store. It hails the nodes, as a link that is dialled again
finds another head at its end; a node that is hailed by a later epoch than it knows begins a new
session with that head, tells its core, and listens to no other any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detray.core.config import GlobalConfig
from detray.core.effects import Effect, Persist, SendToNode
from detray.core.global_scheduler import GlobalScheduler
from detray.core.head_messages import NodeAdmitted, NodeJoined
from detray_sim.clock import Timer
from detray_sim.head_store import NotAlone, SimHeadStore
from detray_sim.server import BASE_NS, CoreServer
from detray_sim.transport import Hail, Sent

if TYPE_CHECKING:
    from detray_sim.cluster import SimCluster
    from detray_sim.node import SimNode

HEAD_MACHINE = -1
"""The index of the machine that the head has for itself."""
NOT, SAVED, UNSAVED = 0, 1, 2
"""`SimHead.dies`: whether it dies in its next step that must be persisted, and how far it gets."""


class SimHead(CoreServer):
    """One life of the head. It knows a node by its number once it has admitted it."""

    decides_last = True

    def __init__(
        self, cluster: SimCluster, config: GlobalConfig, store: SimHeadStore | None
    ) -> None:
        self.config = config
        self.store = store
        if store is None:
            core = GlobalScheduler(config)
        else:
            core = GlobalScheduler.recover(config, store.load(), BASE_NS + cluster.clock.now_ns)
        self._loaded = 0 if store is None else store.sequence
        super().__init__(cluster, "head", HEAD_MACHINE, core)
        self.epoch: int = self.core.tables.durable.epoch
        self.dies = NOT
        self._joining: deque[SimNode] = deque()
        """Nodes whose wish to join reached the core and was not answered yet, oldest first."""
        self._hailing = Timer(self.clock, self._hail)
        self._hailed: set[SimNode] = set()
        self._pause_ns = self.costs.redial_ns
        if store is not None:
            self.clock.after(0, self.wake)

    def deliver(self, source: CoreServer, message: Any, values: Sequence[Any]) -> None:
        """A node's message: they have no payload. (Any: all kinds.)"""
        if type(message) is NodeJoined:
            self._joining.append(source)  # type: ignore[arg-type]  # only nodes join
        self.inbox.append(message)

    def perform(self, effects: Sequence[Effect]) -> None:
        """Commit what must be, then send what the core says, one packet to each node."""
        packets: dict[SimNode, list[Sent]] = {}
        members = self.cluster.members
        for effect in effects:
            if type(effect) is Persist:
                self._commit(effect)
                if not self.is_alive:
                    return
                continue
            assert type(effect) is SendToNode, f"the head ordered {effect}"
            node = members.get(effect.node)
            if node is None:
                # A number never heard of: the core's answer to the node that joined first.
                node = self._joining.popleft()
                node.node_id = effect.node
                members[effect.node] = node
            elif type(effect.message) is NodeAdmitted and node in self._joining:
                # It has that number from an earlier head, and did not hear it.
                self._joining.remove(node)
            packets.setdefault(node, []).append((effect.message, ()))
        for node, packet in packets.items():
            self.cluster.messages += len(packet)
            self.wire_to(node).send(packet)

    def _commit(self, order: Persist) -> None:
        """What of a step must not be forgotten is in the store, or the head is no more."""
        assert self.store is not None, "a head without a store has nothing to persist"
        try:
            if self.dies != UNSAVED:
                self.store.commit(order.events, self.core.tables.durable, self._loaded)
        except NotAlone as error:
            self.cluster.note(f"{self!r} stops: {error!r}")
            self.end()
            return
        if self.dies:
            self.end()
        elif self.steps == 1:
            self._hail()

    def _hail(self) -> None:
        """Whoever still talks to an earlier head finds this one at the end of its link."""
        if not self.is_alive:
            return
        left = [node for node in self.cluster.nodes if node.is_alive and node.head is not self]
        has_sessions = self.cluster.config.sessions
        for node in left:
            if has_sessions or node not in self._hailed:
                self._hailed.add(node)
                self.cluster.transport.carry(self, node, Hail(self.epoch))
        if left:
            self._hailing.set(self.clock.now_ns + self._pause_ns)
            self._pause_ns = min(2 * self._pause_ns, 10 * self.costs.redial_ns)

    def refuses(self, source: CoreServer) -> bool:
        """True for a node that was admitted once and is no member any more."""
        members = self.core.tables.nodes if self.store is None else self.store.tables.members
        return source.node_id is not None and source.node_id not in members
