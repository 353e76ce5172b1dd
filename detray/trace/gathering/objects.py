"""What messages say of objects, their copies and waiting clients, entered into a `History`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detray.core.effects import (
    DropPayloads,
    GetAnswered,
    GrantBlock,
    ReceiveObject,
    RefuseBlock,
)
from detray.core.peer_messages import (
    CopiesFreed,
    CopyEvicted,
    CopyMissing,
    CopyPromoted,
    RunDelivered,
    RunDone,
    ValueFailed,
    ValueFound,
    ValueSent,
)
from detray.core.stimuli import (
    BlockAbandoned,
    BlockRequested,
    BlockSealed,
    GetAbandoned,
    GetRequested,
    ObjectArrivalFailed,
    ObjectArrived,
    ObjectCorrupted,
    ObjectMoved,
    ObjectPut,
    RefsDropped,
    RunFinished,
)
from detray.errors import Failure
from detray.ids import ClientID, ObjectID, TaskID, job_of, return_object, root_task, task_of
from detray.trace.gathering.lives import (
    ARRIVED,
    CORRUPT,
    EVICTED,
    FREED,
    KNOWN,
    MADE_AGAIN,
    MISSING,
    NO_NODE,
    PROMOTED,
    SPILLED,
    LifeMove,
    ObjectLife,
    RoomWait,
    Ruin,
    TaskLife,
    Transfer,
    Wait,
)
from detray.trace.names import is_a_put

if TYPE_CHECKING:
    from detray.trace.gathering.history import History

Handler = Callable[["History", Any, int], None]  # Any: each takes the message type that is its key


# ------------------------------------------------------------------ made


def on_put(h: History, m: ObjectPut, now_ns: int) -> None:
    """A client put a small value."""
    _put(h, m.client, m.object, m.size_bytes, now_ns, m.refs, in_block=False)


def on_block(h: History, m: BlockRequested, now_ns: int) -> None:
    """A client wants room to write an object."""
    h.block_bytes[m.object] = m.size_bytes
    h.room_asked[h.core, m.object] = RoomWait(m.client, m.object, m.size_bytes, now_ns, h.core)


def on_granted(h: History, e: GrantBlock, now_ns: int) -> None:
    """There is room."""
    wait = h.room_asked.pop((h.core, e.object), None)
    if wait is not None and now_ns > wait.started_ns:
        wait.ended_ns = now_ns
        h.room_waits.append(wait)


def on_no_room(h: History, e: RefuseBlock, now_ns: int) -> None:
    """There is none, not even on disk."""
    wait = h.room_asked.pop((h.core, e.object), None)
    if wait is not None:
        wait.ended_ns, wait.refusal = now_ns, e.text
        h.room_waits.append(wait)


def on_abandoned_block(h: History, m: BlockAbandoned, now_ns: int) -> None:
    """The client gave up on it."""
    h.room_asked.pop((h.core, m.object), None)
    h.block_bytes.pop(m.object, None)


def on_sealed(h: History, m: BlockSealed, now_ns: int) -> None:
    """A client has put a large value."""
    size_bytes = h.block_bytes.pop(m.object, 0)
    _put(h, m.client, m.object, size_bytes, now_ns, m.refs, in_block=True)


def _put(
    h: History,
    client: ClientID,
    item: ObjectID,
    size_bytes: int,
    now_ns: int,
    refs: tuple[ObjectID, ...],
    *,
    in_block: bool,
) -> None:
    life = ObjectLife(
        item, TaskID(b""), size_bytes, now_ns, True, refs, h.core, in_block, now_ns, client
    )
    known = h.objects.get(item)
    if known is not None:
        life.moves = known.moves
    h.objects[item] = life
    if client < 0:
        life.producer = root_task(job_of(item))
    else:
        h.note_put(client, life)


def note_returns(h: History, life: TaskLife, m: RunFinished, now_ns: int) -> None:
    """A run of the core whose step it is has made these."""
    for index, part in enumerate(m.returns):
        item = return_object(m.task, index)
        if h.block_bytes:
            h.block_bytes.pop(item, None)
        known = h.objects.get(item)
        if known is not None and known.created_ns >= 0:
            known.note(
                LifeMove(MADE_AGAIN, now_ns, h.core, m.attempt, h.node_of(h.core), m.client,
                     size_bytes=part.size_bytes)
            )  # fmt: skip
            continue
        h.objects[item] = made = ObjectLife(
            item, m.task, part.size_bytes, m.ended_ns, False, part.refs, h.core, part.in_block,
            now_ns, m.client,
        )  # fmt: skip
        if known is not None:
            made.moves = known.moves


def note_returns_elsewhere(h: History, life: TaskLife, m: RunDone, now_ns: int) -> None:
    """The owner has heard of these."""
    for index, part in enumerate(m.returns):
        if part.size_bytes < 0:
            continue
        item = return_object(m.task, index)
        known = h.objects.get(item)
        if known is None:
            refs = tuple(inner for inner, _ in part.refs)
            known = h.objects[item] = ObjectLife(
                item, m.task, part.size_bytes, now_ns, refs=refs, core=h.core, sealed_ns=now_ns,
                in_block=part.is_kept,
            )  # fmt: skip
        node = m.node if part.is_kept else h.node_of(h.core)
        known.note(LifeMove(KNOWN, now_ns, h.core, m.attempt, node, size_bytes=part.size_bytes))


def note_arguments(h: History, m: RunDelivered) -> None:
    """Sizes of arguments that were made elsewhere than in the trace."""
    for argument in m.args:
        if argument.object not in h.objects and (argument.is_inline or argument.nodes):
            h.value(argument.object).size_bytes = argument.size_bytes


# ------------------------------------------------------------------ copies


def on_found(h: History, m: ValueFound, now_ns: int) -> None:
    """A borrower hears who has it."""
    node = m.nodes[0] if m.nodes else NO_NODE
    _know(h, m.object, m.size_bytes, LifeMove(KNOWN, now_ns, h.core, m.attempt, node))


def on_sent(h: History, m: ValueSent, now_ns: int) -> None:
    """A borrower has the value itself."""
    node = h.node_of(h.core)
    _know(h, m.object, m.size_bytes, LifeMove(KNOWN, now_ns, h.core, m.attempt, node))


def _know(h: History, item: ObjectID, size_bytes: int, move: LifeMove) -> None:
    life = h.value(item)
    life.size_bytes = life.size_bytes if life.size_bytes >= 0 else size_bytes
    move.size_bytes = size_bytes
    life.note(move)


def on_value_failed(h: History, m: ValueFailed, now_ns: int) -> None:
    """A borrower hears that there will be none."""
    if m.object not in h.ruins:
        h.ruins[m.object] = Ruin(m.object, m.failure, m.text, now_ns, h.core)


def on_receive(h: History, e: ReceiveObject, now_ns: int) -> None:
    """A transfer begins."""
    transfer = Transfer(e.object, e.attempt, e.node, h.core, now_ns, e.size_bytes)
    h.transfers.append(transfer)
    h.under_way[h.core, e.object] = transfer


def on_arrived(h: History, m: ObjectArrived, now_ns: int) -> None:
    """All bytes are here."""
    transfer = h.under_way.pop((h.core, m.object), None)
    node, size_bytes = h.node_of(h.core), -1
    if transfer is not None:
        transfer.ended_ns, node, size_bytes = now_ns, transfer.source, transfer.size_bytes
    life = h.value(m.object)
    life.note(LifeMove(ARRIVED, now_ns, h.core, m.attempt, node, size_bytes=size_bytes))


def on_arrival_failed(h: History, m: ObjectArrivalFailed, now_ns: int) -> None:
    """A transfer broke off."""
    transfer = h.under_way.pop((h.core, m.object), None)
    if transfer is not None:
        transfer.ended_ns, transfer.reason = now_ns, m.reason or "it broke off"


def on_moved(h: History, m: ObjectMoved, now_ns: int) -> None:
    """It was spilled."""
    h.value(m.object).note(LifeMove(SPILLED, now_ns, h.core))


def on_corrupted(h: History, m: ObjectCorrupted, now_ns: int) -> None:
    """The disk gives something else back."""
    h.value(m.object).note(LifeMove(CORRUPT, now_ns, h.core, node=h.node_of(h.core)))


def on_evicted(h: History, m: CopyEvicted, now_ns: int) -> None:
    """A holder tells the owner that it needed the room."""
    h.value(m.object).note(LifeMove(EVICTED, now_ns, h.core, m.attempt, m.node))


def on_missing(h: History, m: CopyMissing, now_ns: int) -> None:
    """A borrower tells the owner that copies are not there."""
    life = h.value(m.object)
    for node in m.nodes:
        life.note(LifeMove(MISSING, now_ns, h.core, m.attempt, node))


def on_promoted(h: History, m: CopyPromoted, now_ns: int) -> None:
    """The copy here is the primary one."""
    h.value(m.object).note(LifeMove(PROMOTED, now_ns, h.core, m.attempt, h.node_of(h.core)))


def on_freed(h: History, m: CopiesFreed, now_ns: int) -> None:
    """The owner lets the copies here go."""
    for item in m.objects:
        h.value(item).note(LifeMove(FREED, now_ns, h.core, node=h.node_of(h.core)))


def on_drop(h: History, e: DropPayloads, now_ns: int) -> None:
    """Bytes in the service's own memory are forgotten: at the owner, that is the value's end."""
    objects = h.objects
    for key in e.keys:
        life = objects.get(key)  # type: ignore[call-overload]  # keys of other kinds are not there
        if life is None:
            continue
        if is_a_put(life.id):
            owner = life.core
        else:
            task = h.tasks.get(task_of(life.id))
            owner = task.core if task is not None else life.core
        if owner != h.core:
            continue
        last = life.moves[-1] if life.moves else None
        if last is None or last.kind != SPILLED or last.at_ns != now_ns:
            life.freed_ns, life.freed_core = now_ns, h.core


def on_dropped(h: History, m: RefsDropped, now_ns: int) -> None:
    """A client needs them no more."""
    objects = h.objects
    for item in m.objects:
        life = objects.get(item)
        if life is not None:
            life.dropped_ns, life.dropped_by, life.dropped_core = now_ns, m.client, h.core


# ------------------------------------------------------------------ waits


def on_get(h: History, m: GetRequested, now_ns: int) -> None:
    """A client begins to wait."""
    h.open_waits[h.core, m.client, m.request] = Wait(
        m.client, m.blocks, now_ns, -1, len(m.objects), h.core, m.objects, m.needed,
        request=m.request,
    )  # fmt: skip


def on_abandoned(h: History, m: GetAbandoned, now_ns: int) -> None:
    """It waits no longer."""
    wait = h.open_waits.pop((h.core, m.client, m.request), None)
    if wait is not None:
        wait.ended_ns, wait.is_abandoned = now_ns, True
        h.waits.append(wait)


_OF_THE_GET = (int(Failure.DEADLOCK), int(Failure.OUT_OF_DISK))
"""What fails a get, and says nothing of the objects."""


def on_answer(h: History, e: GetAnswered, now_ns: int) -> None:
    """It has its answer."""
    wait = h.open_waits.get((h.core, e.client, e.request))
    for place in e.places:
        if place.failure in _OF_THE_GET:
            if wait is not None:
                wait.refusal = place.text
        elif place.failure:
            if place.text and place.object not in h.ruins:
                h.ruins[place.object] = Ruin(
                    place.object, place.failure, place.text, now_ns, h.core
                )
            if wait is not None and not wait.failed:
                wait.failed = place.object
    if e.more or wait is None:
        return
    del h.open_waits[h.core, e.client, e.request]
    if now_ns > wait.started_ns:
        wait.ended_ns, wait.timed_out = now_ns, e.timed_out
        h.waits.append(wait)


ON_STIMULUS: dict[type, Handler] = {
    ObjectPut: on_put,
    BlockRequested: on_block,
    BlockSealed: on_sealed,
    BlockAbandoned: on_abandoned_block,
    ValueFound: on_found,
    ValueSent: on_sent,
    ValueFailed: on_value_failed,
    ObjectArrived: on_arrived,
    ObjectArrivalFailed: on_arrival_failed,
    ObjectMoved: on_moved,
    ObjectCorrupted: on_corrupted,
    CopyEvicted: on_evicted,
    CopyMissing: on_missing,
    CopyPromoted: on_promoted,
    CopiesFreed: on_freed,
    RefsDropped: on_dropped,
    GetRequested: on_get,
    GetAbandoned: on_abandoned,
}
ON_EFFECT: dict[type, Handler] = {
    GrantBlock: on_granted,
    RefuseBlock: on_no_room,
    ReceiveObject: on_receive,
    DropPayloads: on_drop,
    GetAnswered: on_answer,
}
