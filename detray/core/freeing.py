"""Freeing: what happens to an object when nobody on this node reaches it any more.

An object of ours goes when no node holds it; the copies that others keep for us go with it. A value
that only lineage needs is not kept if it can be made again. Of a foreign object the borrow goes
back to the owner; a copy in memory stays, as the primary one or for the next task that takes it,
until the owner frees the object or the room is needed (PROTOCOL D 16, 19, 21).
"""

from __future__ import annotations

from detray.core import objects, places
from detray.core.lending import ASKED, give_back
from detray.core.lifecycle import move_object
from detray.core.links import is_alive
from detray.core.states import GONE, PENDING, Elsewhere, Inline, Stored
from detray.core.step import Step
from detray.core.tables import HERE, Object, Shared
from detray.ids import producer_of, return_object, task_of


def free_suspects(s: Step) -> None:
    """Free what nobody reaches, and what only it reached; iterative, however long the chain."""
    rows = s.t.objects
    suspects = s.suspects
    while suspects:
        item = suspects.pop()
        row = rows.get(item)
        if row is None or row.granted or row.uses or row.containers or row.others:
            continue
        if row.shared is not None:
            _free_shared(s, row, row.shared)
            continue
        state = row.state
        if state is PENDING or row.pins or row.moving:
            continue
        del rows[item]
        if type(state) is Inline:
            # What places.forget_inline does; most objects end here.
            s.t.inline_bytes -= state.size_bytes
            if state.size_bytes >= places.INLINE_TRACKED_BYTES:
                s.t.inline_order.pop(item, None)
            s.drops.append(item)
        else:
            places.release(s, row)
        if row.refs:
            objects.drop_contained(s, row.refs)
        if s.t.pasts:
            forget_past_of(s, row)


def _free_shared(s: Step, row: Object, shared: Shared) -> None:
    if shared.lent or shared.in_flight or shared.claims == ASKED or row.getters:
        return
    if shared.home == HERE:
        if not (row.state is PENDING or row.pins or row.moving or row.id in s.t.pulls):
            _free_own(s, row, shared)
        return
    if shared.lineage:
        return
    give_back(s, row, shared)
    if row.pins or row.moving or row.id in s.t.pulls:
        return
    if type(row.state) is Stored and not (shared.orphan or shared.is_unlisted):
        return
    _delete(s, row)


def _free_own(s: Step, row: Object, shared: Shared) -> None:
    if shared.lineage:
        if producer_of(row.id) in s.t.pasts and type(row.state) in (Stored, Elsewhere):
            free_copies(s, row, shared)
            places.release(s, row)
            move_object(row, GONE)
        return
    free_copies(s, row, shared)
    _delete(s, row)
    forget_past_of(s, row)


def free_copies(s: Step, row: Object, shared: Shared) -> None:
    """Tell every node that may keep a copy for us that it need not."""
    holders = shared.copies
    if shared.keeper != HERE:
        holders = [shared.keeper, *holders]
    shared.keeper, shared.copies, shared.served = HERE, [], 0
    for node in holders:
        if is_alive(s, node):
            s.freed.setdefault(node, []).append(row.id)


def _delete(s: Step, row: Object) -> None:
    del s.t.objects[row.id]
    places.release(s, row)
    if row.refs:
        objects.drop_contained(s, row.refs)


def forget_past_of(s: Step, row: Object) -> None:
    """One return fewer: with the last one its producer's lineage ends."""
    task = producer_of(row.id)
    past = s.t.pasts.get(task) if task is not None else None
    if task is None or past is None:
        return
    template = s.t.templates.get(past.template)
    count = template.num_returns if template is not None else 0
    if not any(return_object(task, index) in s.t.objects for index in range(count)):
        end_past(s, row.id)


def end_past(s: Step, item: bytes) -> None:
    """Forget how a task is run again; what only that needed may go."""
    task = task_of(item)  # type: ignore[arg-type]  # an object's or a task's id: the same bytes
    past = s.t.pasts.pop(task)
    s.t.past_bytes -= past.size_bytes
    for ref in (*past.spec.args, *past.spec.refs):
        drop_lineage(s, s.t.objects[ref])
    if past.spec.size_bytes:
        s.drops.append(task)


def drop_lineage(s: Step, row: Object) -> None:
    """One record fewer needs this object."""
    assert row.shared is not None, f"{row.id.hex()}: lineage without its count"
    row.shared.lineage -= 1
    s.suspects.append(row.id)
