"""References across nodes: lent by owners, borrowed by others, handed on to third nodes.

Rules (PROTOCOL N3, N4, D 5 to 14)
----------------------------------
- An owner that sends a reference counts a grant for the receiver (`Shared.lent`); a borrower gives
  back the number it received when nothing here holds the object any more. A drop that crosses a new
  grant returns too little to end the hold.
- Whoever sends on a reference that it only borrowed keeps an in-flight hold, until the receiver
  says that the owner has answered the receiver's own claim.
- A message to the owner itself needs neither: the sender's borrow outlives it by the link's order.
- A top-level argument is a value: the task's owner holds it while the run lasts, so the executor's
  row for it is not borrowed (`claims` 0, nothing received).
"""

from __future__ import annotations

from collections.abc import Iterable

from detray.core import objects
from detray.core.links import is_alive, tell
from detray.core.peer_messages import (
    BorrowClaimed,
    BorrowConfirmed,
    BorrowDropped,
    BorrowRefused,
    CopiesFreed,
    Ref,
    RefsSettled,
)
from detray.core.states import PENDING, Elsewhere, Failed
from detray.core.step import Step
from detray.core.tables import HERE, Object, Shared
from detray.errors import Failure
from detray.ids import NO_CLIENT, NodeID, ObjectID

UNCLAIMED, ASKED, BORROWED = 0, 1, 2
"""`Shared.claims`."""


def shared_of(row: Object) -> Shared:
    """The part of the row that concerns other nodes; made when they first do."""
    shared = row.shared
    if shared is None:
        shared = row.shared = Shared()
    return shared


def home_of(s: Step, row: Object) -> NodeID:
    """The number of the node that owns the object."""
    if row.shared is None or row.shared.home == HERE:
        return s.t.node
    return row.shared.home


def proxy(s: Step, item: ObjectID, owner: NodeID) -> Object:
    """The row of an object of another node; made when it is first heard of."""
    row = s.t.objects.get(item)
    if row is None:
        row = Object(item, PENDING, NO_CLIENT, 0, shared=Shared(home=owner))
        s.t.objects[item] = row
    return row


# ------------------------------------------------------------------ giving


def lend(s: Step, refs: Iterable[ObjectID], node: NodeID) -> tuple[Ref, ...]:
    """References for a message to `node`, each held until the receiver's own hold is certain.

    Those that nobody here knows (a worker may name anything) are left out.
    """
    rows = s.t.objects
    return tuple([lend_one(s, rows[ref], node) for ref in refs if ref in rows])


def lend_one(s: Step, row: Object, node: NodeID) -> Ref:
    """One reference for a message to `node`."""
    shared = shared_of(row)
    home = shared.home
    if home == HERE:
        shared.lent[node] = shared.lent.get(node, 0) + 1
        return (row.id, s.t.node)
    if home != node and not s.t.config.policy.in_flight_hold_off:
        shared.in_flight[node] = shared.in_flight.get(node, 0) + 1
    return (row.id, home)


def on_borrow_claimed(s: Step, m: BorrowClaimed) -> None:
    """A third node handed our reference on: the claimer's hold begins, if the object lives."""
    row = s.t.objects.get(m.object)
    if row is None or home_of(s, row) != s.t.node:
        tell(s, m.node, BorrowRefused, m.object)
        return
    lent = shared_of(row).lent
    lent[m.node] = lent.get(m.node, 0) + 1
    tell(s, m.node, BorrowConfirmed, m.object)


def on_borrow_dropped(s: Step, m: BorrowDropped) -> None:
    """A borrower gives back the grants that it had received."""
    for item, count in zip(m.objects, m.counts, strict=False):
        row = s.t.objects.get(item)
        if row is not None and row.shared is not None:
            end_loan(s, row, row.shared, m.node, count)


def end_loan(s: Step, row: Object, shared: Shared, node: NodeID, count: int) -> None:
    """`count` grants of a borrower end; at zero its hold does."""
    left = shared.lent.get(node, 0) - count
    if left > 0 and not s.t.config.policy.grant_count_off:
        shared.lent[node] = left
    elif shared.lent.pop(node, None) is not None:
        s.suspects.append(row.id)


def on_refs_settled(s: Step, m: RefsSettled) -> None:
    """The owners have answered: references that we handed on need us no longer."""
    for item, count in zip(m.objects, m.counts, strict=False):
        row = s.t.objects.get(item)
        if row is not None and row.shared is not None:
            left = row.shared.in_flight.get(m.node, 0) - count
            if left > 0:
                row.shared.in_flight[m.node] = left
            elif row.shared.in_flight.pop(m.node, None) is not None:
                s.suspects.append(item)


# ------------------------------------------------------------------ taking


def borrow(s: Step, refs: tuple[Ref, ...], sender: NodeID) -> tuple[ObjectID, ...]:
    """Enter the references of a message that arrived; those that exist, for the caller to hold.

    What the caller does not hold by the end of the step goes back.
    """
    found = []
    for item, owner in refs:
        if owner == s.t.node:
            row = s.t.objects.get(item)
            if row is None:
                s.count("unknown references")
                continue
        else:
            row = proxy(s, item, owner)
            _count_borrow(s, row, shared_of(row), sender)
        found.append(item)
        s.suspects.append(item)
    return tuple(found)


def _count_borrow(s: Step, row: Object, shared: Shared, sender: NodeID) -> None:
    if shared.home == sender:
        shared.received += 1
        if shared.claims == UNCLAIMED:
            shared.claims = BORROWED
        return
    if shared.claims == BORROWED:
        note_settled(s, sender, row.id, 1)
        return
    shared.settle[sender] = shared.settle.get(sender, 0) + 1
    claim(s, row, shared)


def claim(s: Step, row: Object, shared: Shared) -> None:
    """Ask the owner for a borrow of our own, once."""
    if shared.claims != UNCLAIMED:
        return
    if tell(s, shared.home, BorrowClaimed, row.id):
        shared.claims = ASKED
    else:
        refuse(s, row, shared)


def keep_borrowed(s: Step, row: Object) -> None:
    """Somebody here holds the object by a claim of his own: if it is foreign, borrow it.

    The row may be here for its value alone, as a top-level argument or as a copy that was kept.
    """
    shared = row.shared
    if shared is not None and shared.home != HERE and not shared.orphan:
        claim(s, row, shared)


def on_borrow_confirmed(s: Step, m: BorrowConfirmed) -> None:
    """The owner holds the object for us: whoever gave us the reference may let go."""
    row = s.t.objects.get(m.object)
    if row is None or row.shared is None or row.shared.claims != ASKED:
        s.count("stale")
        return
    row.shared.claims = BORROWED
    row.shared.received += 1
    _settle_claim(s, row, row.shared)


def on_borrow_refused(s: Step, m: BorrowRefused) -> None:
    """The object had ended before our claim reached its owner."""
    row = s.t.objects.get(m.object)
    if row is None or row.shared is None or row.shared.claims != ASKED:
        s.count("stale")
        return
    refuse(s, row, row.shared)


def refuse(s: Step, row: Object, shared: Shared) -> None:
    """There will be no borrow: the reference is as dead as its owner."""
    shared.claims = UNCLAIMED
    orphan(s, row, shared, f"the owner of {row.id.hex()} (node {shared.home}) is gone or freed it")
    _settle_claim(s, row, shared)


def _settle_claim(s: Step, row: Object, shared: Shared) -> None:
    for node, count in shared.settle.items():
        note_settled(s, node, row.id, count)
    shared.settle = {}
    s.suspects.append(row.id)
    if s.t.parked:
        s.answered = True


def note_settled(s: Step, node: NodeID, item: ObjectID, count: int) -> None:
    """Tell a third-party sender, at the end of the step, that its in-flight holds may end."""
    if is_alive(s, node):
        counts = s.settled.setdefault(node, {})
        counts[item] = counts.get(item, 0) + count


def orphan(s: Step, row: Object, shared: Shared, text: str) -> None:
    """The owner's life, or the object's, is over: every get on it fails (PROTOCOL N15)."""
    shared.orphan = True
    shared.is_primary = shared.is_wanted = False
    if row.state is PENDING or type(row.state) is Elsewhere:
        objects.seal_any(s, row, Failed(Failure.OWNER_DIED, text))
    s.suspects.append(row.id)


# ------------------------------------------------------------------ at the end of a step


def flush(s: Step) -> None:
    """Send what the step collected: claims settled, borrows given back, copies to free."""
    if s.settled:
        settled, s.settled = s.settled, {}
        for node, counts in settled.items():
            tell(s, node, RefsSettled, tuple(counts), tuple(counts.values()))
    if s.returned:
        returned, s.returned = s.returned, {}
        for node, counts in returned.items():
            tell(s, node, BorrowDropped, tuple(counts), tuple(counts.values()))
    if s.freed:
        freed, s.freed = s.freed, {}
        for node, items in freed.items():
            tell(s, node, CopiesFreed, tuple(items))


def give_back(s: Step, row: Object, shared: Shared) -> None:
    """Nothing here holds a borrowed object: its grants go back at the end of the step."""
    if shared.received and is_alive(s, shared.home):
        counts = s.returned.setdefault(shared.home, {})
        counts[row.id] = counts.get(row.id, 0) + shared.received
    shared.received = 0
    shared.claims = UNCLAIMED
