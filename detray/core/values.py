"""Values across nodes: asking owners, telling where copies are, losing copies, naming the primary.

Rules (PROTOCOL N6, N14, D 15 to 22)
------------------------------------
- Only the owner says where a value is. Whoever was told is counted among its copies from then on,
  whether the bytes have reached it yet or not; so the second reader of a lost value's first reader
  still finds it there.
- Copies are named by the attempt that made them; one attempt is current.
- One copy is the primary. Holders evict others freely and say so. If the primary is lost, the owner
  names another; with none left the value is gone, and made again when somebody wants it.
- A borrower that finds no copy where it was told to look says so and is answered anew.
"""

from __future__ import annotations

from detray.core import objects, places
from detray.core.lending import borrow, lend, orphan, shared_of
from detray.core.lifecycle import move_object
from detray.core.links import is_alive, tell
from detray.core.peer_messages import (
    CopiesFreed,
    CopyEvicted,
    CopyMissing,
    CopyPromoted,
    ValueFailed,
    ValueFound,
    ValueSent,
    ValueWanted,
)
from detray.core.pulls import ARGUMENT, GET, start_pull
from detray.core.states import GONE, PENDING, Elsewhere, Failed, Gone, Inline, Stored
from detray.core.step import Step
from detray.core.tables import HERE, Object, Shared
from detray.errors import Failure
from detray.ids import NodeID, ObjectID, producer_of


def want(s: Step, row: Object, *, local: bool, priority: int) -> None:
    """Somebody here waits for the object; with `local`, for its bytes in this node's memory."""
    shared = row.shared
    if shared is None:
        return
    state = row.state
    if state is PENDING:
        if shared.home != HERE and not shared.is_wanted:
            ask_owner(s, row, shared)
    elif type(state) is Gone:
        s.rebuilds.append(row.id)
    elif type(state) is Elsewhere and local:
        start_pull(s, row, shared, priority)


def ask_owner(s: Step, row: Object, shared: Shared) -> None:
    """Ask for the value, or for where it is."""
    if tell(s, shared.home, ValueWanted, row.id):
        shared.is_wanted = True
    else:
        orphan(s, row, shared, f"node {shared.home}, which owned {row.id.hex()}, is dead")


# ------------------------------------------------------------------ at the owner


def on_value_wanted(s: Step, m: ValueWanted) -> None:
    """A borrower waits for the value: answer, or remember."""
    row = s.t.objects.get(m.object)
    if row is None or (row.shared is not None and row.shared.home != HERE):
        text = "its owner has freed it, or never had it"
        tell(s, m.node, ValueFailed, m.object, int(Failure.OBJECT_LOST), text)
        return
    answer(s, row, shared_of(row), m.node)


def answer(s: Step, row: Object, shared: Shared, node: NodeID) -> None:
    """Tell a node the value or where it is; if there is none yet, later."""
    state = row.state
    if state is PENDING or type(state) is Gone:
        shared.watchers[node] = None
        if type(state) is Gone:
            s.rebuilds.append(row.id)
    elif type(state) is Failed:
        refs = lend(s, row.refs, node)
        tell(s, node, ValueFailed, row.id, state.failure, state.text, state.size_bytes, refs)
    elif type(state) is Inline:
        tell(s, node, ValueSent, row.id, shared.attempt, state.size_bytes, lend(s, row.refs, node))
    else:
        size_bytes = state.size_bytes  # type: ignore[union-attr]  # Stored or Elsewhere
        nodes = note_copy(s, row, shared, node)
        refs = lend(s, row.refs, node)
        tell(s, node, ValueFound, row.id, shared.attempt, size_bytes, nodes, refs)


def note_copy(s: Step, row: Object, shared: Shared, node: NodeID) -> tuple[NodeID, ...]:
    """Where `node` should look, best first; from now on it is counted among the copies.

    The k-th reader is sent to the copy number k // 2, which may itself still be arriving: a
    broadcast forms a binary tree (PROTOCOL, reference: pull manager).
    """
    holders = [shared.keeper if shared.keeper != HERE else s.t.node]
    if type(row.state) is Stored and shared.keeper != HERE:
        holders.append(s.t.node)
    if node in shared.copies:
        shared.copies.remove(node)
    holders += shared.copies
    if node in holders:
        return (node,)
    best = holders[min(shared.served // 2, len(holders) - 1)]
    shared.served += 1
    shared.copies.append(node)
    return (best, *[holder for holder in holders if holder != best])


def answer_watchers(s: Step, row: Object, shared: Shared) -> None:
    """There is a value, or an error: tell the nodes that wait for it."""
    watchers, shared.watchers = shared.watchers, {}
    for node in watchers:
        answer(s, row, shared, node)


def on_copy_missing(s: Step, m: CopyMissing) -> None:
    """Copies are not where they were thought to be."""
    row = s.t.objects.get(m.object)
    if row is None or row.shared is None:
        if m.is_wanted:
            tell(s, m.node, ValueFailed, m.object, int(Failure.OBJECT_LOST), "it was freed")
        return
    if m.attempt == row.shared.attempt:
        for node in m.nodes:
            lose_copy(s, row, row.shared, node)
    if m.is_wanted:
        answer(s, row, row.shared, m.node)


def on_copy_evicted(s: Step, m: CopyEvicted) -> None:
    """A holder needed the room."""
    row = s.t.objects.get(m.object)
    if row is not None and row.shared is not None and m.attempt == row.shared.attempt:
        lose_copy(s, row, row.shared, m.node)


def lose_copy(s: Step, row: Object, shared: Shared, node: NodeID) -> None:
    """That node's copy does not count any more; should it have one, it may drop it."""
    if node in shared.copies:
        shared.copies.remove(node)
    elif node != shared.keeper:
        return
    if is_alive(s, node):
        tell(s, node, CopiesFreed, (row.id,))
    if node == shared.keeper:
        name_primary(s, row, shared, node)


def name_primary(s: Step, row: Object, shared: Shared, lost: NodeID) -> None:
    """The primary copy, at node `lost`, is gone: ours, or the oldest other one, has the title."""
    shared.keeper = HERE
    if type(row.state) is not Elsewhere:
        return
    while shared.copies and not s.t.config.policy.promotion_off:
        node = shared.copies.pop(0)
        if tell(s, node, CopyPromoted, row.id, shared.attempt):
            shared.keeper = node
            return
    lose_value(s, row, shared, lost)


def lose_value(s: Step, row: Object, shared: Shared, lost: NodeID) -> None:
    """No copy is left, `lost` had the last: it is made again if it can and is wanted, or fails."""
    shared.keeper, shared.copies, shared.served = HERE, [], 0
    move_object(row, GONE)
    objects.break_promises(s, row)
    s.count("objects lost")
    if row.takers or row.getters or shared.watchers:
        s.rebuilds.append(row.id)
    if shared.is_forgotten:
        fail_lost(s, row, "its lineage was too large to keep", lost)
    elif producer_of(row.id) not in s.t.pasts:
        fail_lost(s, row, "its producer has no retries left", lost)


def fail_lost(s: Step, row: Object, reason: str, lost: NodeID = HERE) -> None:
    """Nobody can make this object again; its last copy was at node `lost`, if that is known."""
    where = f" (at node {lost})" if lost != HERE else ""
    text = f"the last copy of this object{where} was lost, and it cannot be made again: {reason}"
    objects.seal_any(s, row, Failed(Failure.OBJECT_LOST, text))


# ------------------------------------------------------------------ at a borrower


def on_value_sent(s: Step, m: ValueSent) -> None:
    """The value itself."""
    refs = borrow(s, m.refs, m.node)
    row = s.t.objects.get(m.object)
    if row is not None and row.state is PENDING and row.shared is not None:
        row.shared.is_wanted = False
        row.shared.attempt = m.attempt
        objects.seal(s, row, Inline(m.size_bytes), refs)
    elif row is None and m.size_bytes:
        s.drops.append(m.object)


def on_value_found(s: Step, m: ValueFound) -> None:
    """The value is in these nodes' memory."""
    refs = borrow(s, m.refs, m.node)
    row = s.t.objects.get(m.object)
    if row is None or row.shared is None or row.state is not PENDING:
        return
    row.shared.is_wanted = False
    found_elsewhere(s, row, row.shared, m.attempt, m.size_bytes, m.nodes, refs)


def found_elsewhere(
    s: Step,
    row: Object,
    shared: Shared,
    attempt: int,
    size_bytes: int,
    nodes: tuple[NodeID, ...],
    refs: tuple[ObjectID, ...],
) -> None:
    """A foreign object became available at other nodes."""
    shared.attempt = attempt
    shared.is_unlisted = False
    shared.copies = list(nodes)
    objects.seal(s, row, Elsewhere(size_bytes), refs)


def on_value_failed(s: Step, m: ValueFailed) -> None:
    """There is no value, and will be none."""
    refs = borrow(s, m.refs, m.node)
    row = s.t.objects.get(m.object)
    if row is not None and row.shared is not None and row.state is PENDING:
        row.shared.is_wanted = False
        objects.seal(s, row, Failed(m.failure, m.text, m.size_bytes), refs)
    elif row is None and m.size_bytes:
        s.drops.append(m.object)


def on_copy_promoted(s: Step, m: CopyPromoted) -> None:
    """Our copy is the primary one now, if we have it or are about to."""
    row = s.t.objects.get(m.object)
    shared = row.shared if row is not None else None
    if row is not None and shared is not None and not shared.orphan:
        if type(row.state) is Stored and shared.attempt == m.attempt:
            shared.is_primary = True
            return
        pull = s.t.pulls.get(m.object)
        if pull is not None and pull.attempt == m.attempt and not pull.due_ns:
            pull.promote = True
            return
    tell(s, m.node, CopyMissing, m.object, m.attempt, (s.t.node,), False)


def on_copies_freed(s: Step, m: CopiesFreed) -> None:
    """Nobody can reach these objects any more: what we keep of them goes as pins allow."""
    for item in m.objects:
        row = s.t.objects.get(item)
        if row is None or row.shared is None or row.shared.home != m.node:
            continue
        # Not an orphan: somebody may only look at it still, and its owner may name it once more.
        row.shared.is_primary, row.shared.is_unlisted = False, True
        if objects.is_held(row) or item in s.t.pulls:
            forget_copy(s, row, row.shared)
        s.suspects.append(item)


def forget_copy(s: Step, row: Object, shared: Shared) -> None:
    """The owner does not count on our copy any more; whoever waits here asks it again."""
    if type(row.state) is Elsewhere and row.id not in s.t.pulls:
        move_object(row, PENDING)
        objects.break_promises(s, row)
        shared.copies = []
        if row.takers or row.getters:
            ask_owner(s, row, shared)


# ------------------------------------------------------------------ what a step found out


def enter_losses(s: Step) -> None:
    """Evicted, corrupt and missing copies: tell owners, name other primaries, look again."""
    for item in _taken(s.evicted):
        row = s.t.objects.get(item)
        if row is not None and row.shared is not None and row.shared.home != HERE:
            tell(s, row.shared.home, CopyEvicted, item, row.shared.attempt)
    for item in _taken(s.corrupted):
        row = s.t.objects.get(item)
        if row is not None and type(row.state) is Stored and not (row.pins or row.moving):
            _lose_bytes(s, row)
    missing, s.missing = s.missing, []
    for item, attempt, nodes in missing:
        row = s.t.objects.get(item)
        if row is None or row.shared is None:
            continue
        if row.shared.attempt == attempt:
            for node in nodes:
                lose_copy(s, row, row.shared, node)
        # Of a later attempt the value may be there already: whoever waits fetches that one.
        s.again.append(item)
    for item in _taken(s.orphans):
        row = s.t.objects.get(item)
        if row is not None and row.shared is not None:
            orphan(s, row, row.shared, f"node {row.shared.home}, which owned it, is dead")
    for item in _taken(s.again):
        row = s.t.objects.get(item)
        if row is not None and (row.takers or row.getters):
            want(s, row, local=True, priority=GET if row.getters else ARGUMENT)


def _taken(items: list[ObjectID]) -> list[ObjectID]:
    taken = list(items)
    items.clear()
    return taken


def _lose_bytes(s: Step, row: Object) -> None:
    """The only bytes here are not what they should be."""
    places.release(s, row)
    shared = row.shared
    if shared is not None and shared.home != HERE:
        wanted = bool(row.takers or row.getters)
        move_object(row, PENDING)
        shared.is_primary = False
        shared.is_wanted = wanted
        tell(s, shared.home, CopyMissing, row.id, shared.attempt, (s.t.node,), wanted)
    elif shared is not None and (shared.keeper != HERE or shared.copies):
        size_bytes = row.state.size_bytes  # type: ignore[union-attr]  # Stored
        move_object(row, Elsewhere(size_bytes))
        if shared.keeper == HERE:
            name_primary(s, row, shared, s.t.node)
    else:
        text = "its spill file is corrupt, and no other copy exists"
        objects.seal_any(s, row, Failed(Failure.OBJECT_LOST, text))
