"""The simulated head: a global scheduler and its links to the nodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from detray.core.config import GlobalConfig
from detray.core.effects import Effect, SendToNode
from detray.core.global_scheduler import GlobalScheduler
from detray.core.head_messages import NodeJoined
from detray_sim.server import CoreServer
from detray_sim.transport import Sent

if TYPE_CHECKING:
    from detray_sim.cluster import SimCluster
    from detray_sim.node import SimNode

HEAD_MACHINE = -1
"""The index of the machine that the head has for itself."""


class SimHead(CoreServer):
    """The head. It knows a node by its number once it has admitted it."""

    decides_last = True

    def __init__(self, cluster: SimCluster, config: GlobalConfig) -> None:
        super().__init__(cluster, "head", HEAD_MACHINE, GlobalScheduler(config))
        self.config = config
        self._joining: deque[SimNode] = deque()
        """Nodes whose wish to join reached the core and was not answered yet, oldest first."""

    def deliver(self, source: CoreServer, message: Any, values: Sequence[Any]) -> None:
        """A node's message: they have no payload. (Any: all kinds.)"""
        if type(message) is NodeJoined:
            self._joining.append(source)  # type: ignore[arg-type]  # only nodes join
        self.inbox.append(message)

    def perform(self, effects: Sequence[Effect]) -> None:
        """Send what the core says, one packet to each node."""
        packets: dict[SimNode, list[Sent]] = {}
        members = self.cluster.members
        for effect in effects:
            assert type(effect) is SendToNode, f"the head ordered {effect}"
            node = members.get(effect.node)
            if node is None:
                # A number never heard of: the core's answer to the node that joined first.
                node = self._joining.popleft()
                node.node_id = effect.node
                members[effect.node] = node
            packets.setdefault(node, []).append((effect.message, ()))
        for node, packet in packets.items():
            self.cluster.messages += len(packet)
            self.wire_to(node).send(packet)

    def refuses(self, source: CoreServer) -> bool:
        """True for a node that was admitted once and is no member any more."""
        node_id = source.node_id
        return node_id is not None and node_id not in self.core.tables.nodes
