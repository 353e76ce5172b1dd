"""Leases: a place that the head named serves the owner again, without a word to the head.

Rules (PROTOCOL N7, T23)
------------------------
- With a place the head may say for how long it serves (`Placed.lease_ns`). When the run there has
  ended within that time, the owner may send another task of the same shape, hence of the same job,
  demand and strategy. The time runs from the head's word: nobody lives on leases for ever.
- The head says so only to a job that waits alone. Who still waits for the head uses no lease: what
  was asked for earlier goes first. "SPREAD" has none, nor have tasks that do not wait for a node.
- A task with larger arguments elsewhere takes a lease there, or asks.
- The executor gives a leased run back at once if it has no room: then the owner asks, and trusts no
  lease of that node any more. It counts no placement of the head for a leased run, and none is
  under way for it: what the head believes of that node's room is what the node reports.
- A lease ends with its node. Where every task is to be asked for (`hand_over`) there is none.
"""

from __future__ import annotations

from detray.core import resources
from detray.core.states import Delivered
from detray.core.step import Step
from detray.core.tables import Lease, Shape, Task, Template
from detray.ids import NodeID

Hints = tuple[tuple[NodeID, int], ...]


def keep(s: Step, task: Task, template: Template) -> None:
    """The task's run at another node has ended: its place may serve once more."""
    state = task.state
    if type(state) is Delivered and state.until_ns > s.t.now_ns:
        lease = Lease(NodeID(state.node), state.until_ns)
        s.t.leases.setdefault(template.shape, []).append(lease)


def take(s: Step, task: Task, template: Template, hints: Hints) -> Lease | None:
    """A place for the task, which no one else can use then; None: ask the head."""
    t = s.t
    if t.config.policy.hand_over == "always" or len(t.placing) > len(s.leased):
        return None
    if task.away is not None and task.away.refusals:
        return None
    found = t.leases.get(template.shape)
    best = max(hints, key=lambda hint: (hint[1], -hint[0]))[0] if hints else None
    kept = []
    lease = None
    while found and lease is None:
        lease = found.pop()
        peer = t.peers.get(lease.node)
        if peer is None or peer.silent or lease.until_ns <= t.now_ns:
            lease = None
        elif best is not None and lease.node != best:
            kept.append(lease)
            lease = None
    if kept and found is not None:
        found.extend(reversed(kept))
    if not found:
        t.leases.pop(template.shape, None)
    return lease


def end_at(s: Step, node: NodeID) -> None:
    """The node had no room: no lease there is worth anything."""
    for shape, leases in list(s.t.leases.items()):
        left = [lease for lease in leases if lease.node != node]
        if left:
            s.t.leases[shape] = left
        else:
            del s.t.leases[shape]


def has_room(s: Step, shape: Shape) -> bool:
    """True if a leased run could begin here now, after all that is ready."""
    t = s.t
    ahead = sum(other.count for other in t.shapes)
    return resources.count_fitting(t.pool, shape.amounts, ahead + 1) > ahead
