"""Links to other nodes: numbers for what is sent, and which messages that arrive still count.

A node number names one incarnation and is given out once. So a number up to the highest one
announced that is no peer's belongs to the dead, and a higher one to a node of which the head's word
is still on its way (other nodes may be faster).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from detray.core.effects import SendToPeer
from detray.core.payloads import INCOMING
from detray.core.peer_messages import PeerMessage
from detray.core.states import Failed, Inline
from detray.core.step import Step
from detray.core.tables import Peer
from detray.ids import JobNumber, NodeID


def peer_of(s: Step, node: NodeID) -> Peer | None:
    """The row of another node, None if it is dead (or nonsense)."""
    t = s.t
    peer = t.peers.get(node)
    if peer is None and node > t.highest_node and node != t.node:
        peer = t.peers[node] = Peer(node)
    return peer


def is_alive(s: Step, node: NodeID) -> bool:
    """True for this node and for every other that is not known to be dead."""
    t = s.t
    return node in t.peers or node == t.node or node > t.highest_node


def is_over(s: Step, job: JobNumber) -> bool:
    """True if the job ended, also if that was told by a head whose word did not come here."""
    t = s.t
    if job in t.closed_jobs:
        return True
    is_open = job >= t.jobs_before or job in t.jobs_elsewhere
    return not is_open and all(client.job != job for client in t.clients.values())


def tell(s: Step, node: NodeID, kind: Callable[..., PeerMessage], *fields: object) -> bool:
    """Send a message on the ordered link to a node; False if it is dead."""
    peer = peer_of(s, node)
    if peer is None:
        return False
    peer.sent += 1
    s.out.append(SendToPeer(node, kind(peer.sent, s.t.node, *fields)))
    return True


def _forget_payload(s: Step, m: PeerMessage) -> None:
    """The bytes of a message that does not count go, but for keys that others' bytes are under."""
    t = s.t
    brings = INCOMING.get(type(m))
    for key, _ in brings(m) if brings is not None else ():
        row = t.objects.get(key)  # type: ignore[call-overload]  # some keys are objects' ids
        state = row.state if row is not None else None
        is_value = isinstance(state, Inline | Failed) and state.size_bytes
        if not (is_value or key in t.tasks or key in t.pasts or key in t.functions):
            s.drops.append(key)


# Any: each handler takes the message type that it is registered for.
def from_peer(handler: Callable[[Step, Any], None]) -> Callable[[Step, Any], None]:
    """The handler, for messages that count only: each once, from the living, after admission."""

    @wraps(handler)
    def handle(s: Step, m: Any) -> None:
        t = s.t
        if t.node < 0:
            t.early.append(m)
            return
        peer = t.peers.get(m.node) or peer_of(s, m.node)
        if peer is None:
            s.count("from the dead")
            if not t.config.policy.fencing_off:
                _forget_payload(s, m)
                return
        elif m.link_seq <= peer.received:
            s.count("duplicates")
            return
        else:
            if m.link_seq > peer.received + 1:
                s.count("gaps")
            peer.received = m.link_seq
        handler(s, m)

    return handle
