"""What must hold between any two steps of a global scheduler, each a numbered sentence.

As `invariants.py` for a node. Run after every step of a head in transcripts and simulation.
"""

from __future__ import annotations

from collections.abc import Callable

from detray.core.head_tables import GlobalTables
from detray.core.invariants import InvariantBroken


def check_head(tables: GlobalTables) -> None:
    """Check all invariants; O(rows). Raises InvariantBroken."""
    for invariant in HEAD_INVARIANTS:
        invariant(tables)


def _require(condition: bool, name: str, seen: object) -> None:
    if not condition:
        raise InvariantBroken(name, seen)


def h1_nodes_are_the_members(t: GlobalTables) -> None:
    """H1: there is a row for each durable member, no other, in the same order."""
    durable = [(number, row.incarnation, row.name) for number, row in t.durable.members.items()]
    nodes = [(node.id, node.incarnation, node.name) for node in t.nodes.values()]
    _require(nodes == durable, "H1", (nodes, durable))
    _require(list(t.nodes) == sorted(t.nodes), "H1", nodes)


def h2_numbers_are_fresh(t: GlobalTables) -> None:
    """H2: no number of a node or job is given out that there was before."""
    durable = t.durable
    _require(all(number < durable.next_node for number in durable.members), "H2", durable)
    _require(all(number < durable.next_job for number in durable.jobs), "H2", durable)


def h3_jobs_have_their_nodes(t: GlobalTables) -> None:
    """H3: the node of an open job is a member."""
    jobs = t.durable.jobs
    _require(all(job.node in t.nodes for job in jobs.values()), "H3", (jobs, list(t.nodes)))


def h4_nothing_is_left_to_be_saved(t: GlobalTables) -> None:
    """H4: each recorded event was ordered to be persisted by the step that recorded it."""
    _require(not t.unsaved, "H4", t.unsaved)


def h5_only_who_is_here_is_given_work(t: GlobalTables) -> None:
    """H5: what wants a place was asked by members; nodes that have not returned get nothing."""
    for number in (*t.roomy, *t.spare):
        _require(number in t.nodes and not t.nodes[number].is_expected, "H5", number)
    for request in (*t.requests.values(), *t.unplaced.values()):
        _require(request.node in t.nodes and not t.nodes[request.node].is_expected, "H5", request)
    for pair in t.unreachable:
        _require(all(int(number) in t.nodes for number in pair.split()), "H5", pair)


def h6_who_is_awaited_has_a_deadline(t: GlobalTables) -> None:
    """H6: while the silence of a member means something, there is a time to look at it."""
    is_awaited = any(node.heard_ns >= 0 for node in t.nodes.values())
    _require(t.check_ns > 0 or not is_awaited, "H6", t.nodes)


HEAD_INVARIANTS: tuple[Callable[[GlobalTables], None], ...] = (
    h1_nodes_are_the_members,
    h2_numbers_are_fresh,
    h3_jobs_have_their_nodes,
    h4_nothing_is_left_to_be_saved,
    h5_only_who_is_here_is_given_work,
    h6_who_is_awaited_has_a_deadline,
)
