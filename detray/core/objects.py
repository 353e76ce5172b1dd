"""Objects: who holds them, when they become available, when they are freed.

Rules (PROTOCOL N3, D 4 to 12)
------------------------------
- The sender of a message grants the references in it; a drop returns the number received; a hold
  ends when the counts meet. Nothing is ever claimed from a count of zero except by `RefClaimed`.
- What a message does to holds happens in the step that handles it, additions before removals: a
  row is freed only at the end of a step, by `freeing.free_suspects`.
- A row without holds stays while it is pending (its producer still runs), pinned or moving
  (`freeing.py`; what other nodes have to do with it: `lending.py`).
"""

from __future__ import annotations

from detray.core import places
from detray.core.effects import Place
from detray.core.lifecycle import move_object, seal_object
from detray.core.states import PENDING, Elsewhere, Failed, Gone, Inline, ObjectState, Stored
from detray.core.step import Step
from detray.core.tables import Object, Task
from detray.errors import Failure
from detray.ids import ClientID, ObjectID

ORPHAN_TEXT = "the node that owned this object is dead, and its objects ended with it"
LOST_TEXT = "no such object on this node: it was freed, or its reference comes from another session"


def create(s: Step, item: ObjectID, client: ClientID) -> Object:
    """A pending object whose creator holds one grant."""
    row = Object(item, PENDING, client, 1)
    s.t.objects[item] = row
    if client > 0:
        note_held(s, client, item)
    return row


def note_held(s: Step, client: ClientID, item: ObjectID) -> None:
    """Index a worker's grant."""
    held = s.t.clients[client].held
    if held is not None:
        held[item] = None


def grant(s: Step, row: Object, client: ClientID) -> None:
    """A message on its way to `client` carries one reference to the object."""
    if row.holder == client:
        row.granted += 1
    elif not row.granted and not row.others:
        row.holder, row.granted = client, 1
    elif row.others is None:
        row.others = {client: 1}
    else:
        row.others[client] = row.others.get(client, 0) + 1
    if client > 0:
        note_held(s, client, row.id)


def grant_all(s: Step, refs: tuple[ObjectID, ...], client: ClientID) -> tuple[ObjectID, ...]:
    """Grant each reference that still exists; those are the ones a message may carry."""
    objects = s.t.objects
    found = tuple(ref for ref in refs if ref in objects)
    for ref in found:
        grant(s, objects[ref], client)
    return found


def return_grants(s: Step, row: Object, client: ClientID, count: int) -> None:
    """`client` returns `count` grants; at zero its hold ends."""
    if row.holder == client and row.granted:
        row.granted = left = max(0, row.granted - count)
    elif row.others is not None and client in row.others:
        left = row.others[client] - count
        if left > 0:
            row.others[client] = left
        else:
            del row.others[client]
            row.others = row.others or None
    else:
        return
    if left <= 0:
        if client > 0:
            forget_held(s, client, row.id)
        if not (row.granted or row.uses or row.containers or row.others):
            s.suspects.append(row.id)


def forget_held(s: Step, client: ClientID, item: ObjectID) -> None:
    """Unindex a worker's grant."""
    held = s.t.clients[client].held
    if held is not None:
        held.pop(item, None)


def end_grants(s: Step, row: Object, client: ClientID) -> None:
    """A client is gone: all its grants of this object end."""
    return_grants(s, row, client, 1 << 62)


def is_held(row: Object) -> bool:
    """True while somebody can reach the object."""
    if row.granted or row.uses or row.containers or row.others:
        return True
    shared = row.shared
    return shared is not None and bool(shared.lent or shared.in_flight or shared.lineage)


def is_absent(row: Object, *, local: bool) -> bool:
    """True if there is no value yet; with `local`, none in this node's memory."""
    state = row.state
    if state is PENDING:
        return True
    if row.shared is None:
        return False
    return type(state) is Gone or (local and type(state) is Elsewhere)


def break_promise(s: Step, task: Task) -> None:
    """What the task will take is free for others until it is ready."""
    away = task.away
    if away is not None and away.promised:
        away.promised = False
        s.t.shapes[s.t.templates[task.template].shape].promised -= 1


def break_promises(s: Step, row: Object) -> None:
    """The value is lost: who fetches it waits for a task that needs room, maybe here (D 33)."""
    for taker in row.takers:
        task = s.t.tasks.get(taker)
        if task is not None:
            break_promise(s, task)


def is_orphan(row: Object) -> bool:
    """True if the object's owner is gone: every get on it fails, copies or not (PROTOCOL N15)."""
    return row.shared is not None and row.shared.orphan


def hold_contained(s: Step, refs: tuple[ObjectID, ...]) -> tuple[ObjectID, ...]:
    """A value or definition holds what is inside it; unknown references are left out."""
    objects = s.t.objects
    found = tuple(ref for ref in refs if ref in objects)
    for ref in found:
        objects[ref].containers += 1
    return found


def drop_contained(s: Step, refs: tuple[ObjectID, ...]) -> None:
    """A value or definition is gone."""
    for ref in refs:
        row = s.t.objects[ref]
        row.containers -= 1
        s.suspects.append(ref)


def replace_contained(s: Step, row: Object, refs: tuple[ObjectID, ...]) -> None:
    """A value made anew holds what is inside it, before what was inside the old one may go."""
    old, row.refs = row.refs, hold_contained(s, refs)
    if old:
        drop_contained(s, old)


def drop_uses(s: Step, refs: tuple[ObjectID, ...]) -> None:
    """A task that took these objects is done."""
    for ref in refs:
        row = s.t.objects.get(ref)
        if row is not None:
            row.uses -= 1
            if not (row.granted or row.uses or row.containers or row.others):
                s.suspects.append(ref)


def seal(s: Step, row: Object, state: ObjectState, refs: tuple[ObjectID, ...] = ()) -> None:
    """The object has a value, or an error, for good."""
    if refs or row.refs:
        replace_contained(s, row, refs)
    seal_object(row, state)
    if type(state) is Inline:
        size_bytes = state.size_bytes
        s.t.inline_bytes += size_bytes
        if size_bytes >= places.INLINE_TRACKED_BYTES:
            s.t.inline_order[row.id] = None
    else:
        places.note_sealed(s, row)
    if row.takers or row.getters or row.shared is not None:
        s.available.append(row.id)
    if not (row.granted or row.uses or row.containers or row.others):
        s.suspects.append(row.id)


def seal_any(s: Step, row: Object, state: ObjectState) -> None:
    """A later error of an object that was lost, elsewhere or pending."""
    if row.refs:
        replace_contained(s, row, ())
    move_object(row, state)
    places.note_sealed(s, row)
    s.available.append(row.id)


def pin(s: Step, row: Object, client: ClientID) -> None:
    """A message tells `client` where the block is: it holds one view pin more."""
    pins = s.t.clients[client].pins
    pins[row.id] = pins.get(row.id, 0) + 1
    row.pins += 1


def unpin(s: Step, row: Object, client: ClientID, count: int) -> None:
    """`client` returned `count` view pins."""
    pins = s.t.clients[client].pins
    count = min(count, pins.get(row.id, 0))
    if count:
        row.pins -= count
        if pins[row.id] == count:
            del pins[row.id]
        else:
            pins[row.id] -= count
        if not row.pins:
            s.suspects.append(row.id)


def place_of(s: Step, item: ObjectID, client: ClientID, *, fetch: bool) -> Place:
    """Where the value of an available object is, granting and pinning what the message carries."""
    row = s.t.objects.get(item)
    if row is None:
        return Place(item, Failure.OBJECT_LOST, 0, text=LOST_TEXT)
    state = row.state
    if row.shared is not None and row.shared.orphan and type(state) is not Failed:
        return Place(item, Failure.OWNER_DIED, 0, text=ORPHAN_TEXT)
    if type(state) is Failed:
        if not fetch:
            return Place(item, state.failure, 0)
        refs = grant_all(s, row.refs, client) if row.refs else ()
        return Place(item, state.failure, state.size_bytes, refs=refs, text=state.text)
    if not fetch:
        return Place(item, 0, 0)
    refs = grant_all(s, row.refs, client) if row.refs else ()
    if type(state) is Inline:
        return Place(item, 0, state.size_bytes, refs=refs)
    assert type(state) is Stored, f"place of an object that is {state}"
    pin(s, row, client)
    return Place(item, 0, state.size_bytes, state.segment, state.offset, refs)
