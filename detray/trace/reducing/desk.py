"""The desk of one node in a rehearsal: what clients, workers and the driver of its core could say.

A part of a tape leaves things out, so what the rest says may not fit any more: a run that was never
sent cannot finish. Each stimulus is said anew here, as it would be said to the core that is played:
by whoever has its run now, with ids minted by their streams, giving back as much as was given. One
that nobody could say is left out, too (an empty tuple).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.streams import Stream
from detray.ids import (
    NO_TASK,
    ClientID,
    FunctionID,
    JobNumber,
    ObjectID,
    TaskID,
    TemplateID,
    child_task,
    return_object,
    root_task,
)
from detray.trace.reducing.tape import Item

if TYPE_CHECKING:
    from detray.trace.reducing.naming import Naming

Said = tuple[Any, ...]  # Any: stimuli
NOTHING: Said = ()


class Desk:
    """Books of one node: who is there, what each was given, which orders are open."""

    def __init__(self, naming: Naming, tables: Any) -> None:  # Any: of the core that is played
        self.naming = naming
        self.tables = tables
        self.clients: dict[ClientID, ClientID] = {}
        """By the client of the tape, who that is here."""
        self.jobs: dict[ClientID, JobNumber] = {}
        """Of drivers that were welcomed."""
        self.alive: set[ClientID] = set()
        self.starting: list[ClientID] = []
        self.early: list[ClientID] = []
        """Workers of the tape that are up, and were not ordered here yet."""
        self.leaving: set[ClientID] = set()
        self.queues: dict[ClientID, list[TaskID]] = {}
        self.runs: dict[TaskID, tuple[ClientID, int]] = {}
        """By task, the worker that has its run, and the attempt."""
        self.grants: dict[ClientID, Counter[ObjectID]] = {}
        self.pins: dict[ClientID, Counter[ObjectID]] = {}
        self.requests: Counter[ClientID] = Counter()
        self.open: dict[tuple[ClientID, int], int] = {}
        """By client and request of the tape, the request here."""
        self.blocks: dict[tuple[ClientID, ObjectID], bool] = {}
        """Asked for; True once granted."""
        self.retracting: dict[ClientID, int] = {}
        self.moves: dict[ObjectID, ef.MoveObject] = {}
        self.segments: list[int] = []
        self.receiving: dict[ObjectID, ef.ReceiveObject] = {}
        self.sending: Counter[tuple[ObjectID, int]] = Counter()
        self.templates: dict[tuple[ClientID, TemplateID, ClientID], TemplateID] = {}
        self.sent: Counter[tuple[str, bytes, int]] = Counter()
        """Messages to other cores that want an answer: kind, subject, node (-1: the head)."""
        self.attempts: dict[TaskID, int] = {}
        """Of tasks that are at another node, or asked for a place."""
        self._streams: dict[tuple[TaskID, int], Stream] = {}
        self._depths: dict[TaskID, int] = {}
        self._drivers = 0

    # -------------------------------------------------------------- saying

    def say(self, item: Item) -> Said:
        """The stimulus of an item as it would be said here, and what must precede it."""
        m = item.stimulus
        handler = _SAYINGS.get(type(m))
        return handler(self, m, item) if handler is not None else NOTHING

    def may_say(self, item: Item) -> bool:
        """True if the run that says it is under way here, and not the first of its worker yet."""
        task = self.naming.known(item.actor) if item.actor else None
        if task is None or task not in self.tables.tasks:
            return False
        run = self.runs.get(TaskID(task))
        return run is None or self.queues[run[0]][:1] != [task]

    def _who(self, m: Any, item: Item) -> ClientID | None:  # Any: a client's stimulus
        """Who says it here; None if nobody can."""
        client: ClientID = m.client
        if client > 0 and item.actor:
            task = self.naming.known(item.actor)
            run = self.runs.get(TaskID(task)) if task is not None else None
            if run is None or self.queues[run[0]][:1] != [task]:
                return None
            self.clients[client] = run[0]
            return run[0]
        here = self.clients.get(client)
        return here if here in self.alive else None

    def _is_at_work(self, client: ClientID) -> bool:
        """True for a driver with a job and a worker with a run: others make nothing."""
        return client in self.jobs if client < 0 else bool(self.queues.get(client))

    def _held(self, client: ClientID, items: tuple[ObjectID, ...]) -> tuple[ObjectID, ...]:
        """Those of the objects that a client has a reference to, here."""
        mine = self.grants.get(client)
        found = (self.naming.known(item) for item in items)
        return tuple(ObjectID(x) for x in found if x is not None and mine and mine.get(ObjectID(x)))

    def _receive(self, client: ClientID, items: tuple[ObjectID, ...]) -> None:
        self.grants.setdefault(client, Counter()).update(items)

    def _stream(self, client: ClientID) -> Stream:
        """Of whatever a client runs now."""
        if client < 0:
            key = (root_task(self.jobs[client]), 0)
            depth = 1
        else:
            task = self.queues[client][0]
            key = (task, self.runs[task][1])
            depth = self._depths.get(task, 1) + 1
        if key not in self._streams:
            self._streams[key] = Stream(key[0], key[1], 0, depth)
        return self._streams[key]

    # -------------------------------------------------------------- clients

    def _on_driver(self, m: st.DriverConnected | st.ObserverConnected, item: Item) -> Said:
        self._drivers += 1
        client = self.clients[m.client] = ClientID(-self._drivers)
        self.alive.add(client)
        if isinstance(m, st.ObserverConnected):
            return (st.ObserverConnected(client, 100 - client),)
        return (st.DriverConnected(client, 100 - client, "", f"d{-client}.py"),)

    def _on_client_lost(self, m: st.ClientLost, item: Item) -> Said:
        client = self._who(m, item)
        if client is None:
            return NOTHING
        self.alive.discard(client)
        return (st.ClientLost(client, m.reason),)

    def _on_process_gone(self, m: st.ProcessGone, item: Item) -> Said:
        client = self.clients.get(m.client)
        if client is None or client in self.alive:
            return NOTHING
        return (st.ProcessGone(client),)

    def _on_function(self, m: st.FunctionExported, item: Item) -> Said:
        if self.naming.is_lazy:
            return NOTHING
        self.naming.define(item)
        client = self._who(m, item)
        if client is None or not self._is_at_work(client):
            return NOTHING
        return self._export(m.function, client)

    def _export(self, function: FunctionID, client: ClientID) -> Said:
        """A definition, unless it is known here; minted by who exports it."""
        m = self.naming.functions.get(function)
        if m is None or self.naming.known(function) is not None:
            return NOTHING
        author = self.clients.get(m.client, client) if m.client < 0 else client
        if author not in self.alive or not self._is_at_work(author):
            author = client
        new = self._stream(author).next_export()
        self.naming.ids[function] = new
        refs = self._held(author, m.refs)
        return (st.FunctionExported(author, new, m.name, 10 if m.size_bytes else 0, refs),)

    def _on_template(self, m: st.TemplateDefined, item: Item) -> Said:
        if self.naming.is_lazy:
            return NOTHING
        self.naming.define(item)
        client = self._who(m, item)
        if client is None or not self._is_at_work(client):
            return NOTHING
        return self._define(m, client, item)

    def _define(self, m: st.TemplateDefined, client: ClientID, item: Item) -> Said:
        """A template of this client, and the function in it, unless they are known."""
        key = (m.client, m.template, client)
        if key in self.templates:
            return NOTHING
        said = self._export(m.function, client)
        function = self.naming.known(m.function) or self.naming.foreign(m.function)
        mine = sum(known[2] == client for known in self.templates)
        number = self.templates[key] = TemplateID(mine)
        home = self.naming.node(m.home) if m.home >= 0 else m.home
        new = replace(m, client=client, template=number, function=FunctionID(function), home=home)
        return (*said, new)

    def _on_submitted(self, m: st.TaskSubmitted, item: Item) -> Said:
        client = self._who(m, item)
        template = self.naming.templates.get((item.core, m.client, m.template))
        if client is None or template is None or not self._is_at_work(client):
            return NOTHING
        args, refs = self._held(client, m.args), self._held(client, m.refs)
        if len(args) < len(m.args) or len(refs) < len(m.refs):
            return NOTHING
        said = self._define(template, client, item)
        stream = self._stream(client)
        task = child_task(stream.prefix or stream.name(), stream.tasks)
        stream.tasks += 1
        self.naming.ids[m.task] = task
        self._depths[task] = stream.depth
        number = self.templates[m.client, m.template, client]
        self._receive(client, tuple(return_object(task, n) for n in range(template.num_returns)))
        new = st.TaskSubmitted(
            client, task, number, stream.parent, stream.depth, m.size_bytes, args, refs, m.packed
        )
        return (*said, new)

    def _on_put(self, m: st.ObjectPut, item: Item) -> Said:
        client = self._who(m, item)
        if client is None or not self._is_at_work(client):
            return NOTHING
        new = self._new_put(m.object, client)
        self._receive(client, (new,))
        return (st.ObjectPut(client, new, m.size_bytes, self._held(client, m.refs)),)

    def _new_put(self, item: ObjectID, client: ClientID) -> ObjectID:
        known = self.naming.known(item)
        if known is None:
            known = self.naming.ids[item] = self._stream(client).next_put()
        return ObjectID(known)

    def _on_block(self, m: st.BlockRequested, item: Item) -> Said:
        client = self._who(m, item)
        if client is None or not self._is_at_work(client):
            return NOTHING
        new = self._new_put(m.object, client)
        self.blocks[client, new] = False
        return (st.BlockRequested(client, new, m.size_bytes),)

    def _on_sealed(self, m: st.BlockSealed, item: Item) -> Said:
        client, new = self._who(m, item), self.naming.known(m.object)
        if client is None or new is None or not self.blocks.pop((client, ObjectID(new)), False):
            return NOTHING
        self._receive(client, (ObjectID(new),))
        return (st.BlockSealed(client, ObjectID(new), self._held(client, m.refs)),)

    def _on_abandoned(self, m: st.BlockAbandoned, item: Item) -> Said:
        client, new = self._who(m, item), self.naming.known(m.object)
        if client is None or new is None or (client, new) not in self.blocks:
            return NOTHING
        del self.blocks[client, ObjectID(new)]
        return (st.BlockAbandoned(client, ObjectID(new)),)

    def _on_get(self, m: st.GetRequested, item: Item) -> Said:
        client = self._who(m, item)
        if client is None:
            return NOTHING
        objects = self._held(client, m.objects)
        if not objects:
            return NOTHING
        self.requests[client] += 1
        request = self.open[m.client, m.request] = self.requests[client]
        blocks = self.queues[client][0] if m.blocks and self.queues.get(client) else NO_TASK
        needed = min(m.needed, len(objects))
        if m.needed == len(m.objects):
            needed = len(objects)
        also = self._held(client, m.also)
        return (
            st.GetRequested(
                client, request, objects, needed, m.fail_fast, m.fetch, m.timeout_ns, blocks, also
            ),
        )

    def _on_get_abandoned(self, m: st.GetAbandoned, item: Item) -> Said:
        client, request = self._who(m, item), self.open.pop((m.client, m.request), None)
        if client is None or request is None:
            return NOTHING
        return (st.GetAbandoned(client, request),)

    def _on_dropped(self, m: st.RefsDropped | st.ViewsDropped, item: Item) -> Said:
        client = self._who(m, item)
        books = self.grants if type(m) is st.RefsDropped else self.pins
        mine = books.get(client) if client is not None else None
        if client is None or not mine:
            return NOTHING
        objects, counts = [], []
        for old, count in zip(m.objects, m.counts, strict=True):
            new = self.naming.known(old)
            given = min(count, mine[ObjectID(new)]) if new is not None else 0
            if new is not None and given > 0:
                mine[ObjectID(new)] -= given
                objects.append(ObjectID(new))
                counts.append(given)
        return (type(m)(client, tuple(objects), tuple(counts)),) if objects else NOTHING

    def _on_cancel(self, m: st.CancelRequested, item: Item) -> Said:
        client, new = self._who(m, item), self.naming.known(m.object)
        if client is None or new is None or not self._held(client, (m.object,)):
            return NOTHING
        return (st.CancelRequested(client, ObjectID(new), m.force, m.recursive),)

    def _on_pinned(self, m: st.RefPinned, item: Item) -> Said:
        client, new = self._who(m, item), self.naming.known(m.object)
        if client is None or new is None:
            return NOTHING
        self.requests[client] += bool(m.request)
        return (st.RefPinned(client, ObjectID(new), self.requests[client] if m.request else 0),)

    def _on_claimed(self, m: st.RefClaimed, item: Item) -> Said:
        client, new = self._who(m, item), self.naming.known(m.object)
        if client is None or new is None:
            return NOTHING
        self._receive(client, (ObjectID(new),))
        owner = self.naming.node(m.owner) if m.owner >= 0 else m.owner
        return (st.RefClaimed(client, ObjectID(new), owner),)

    def _on_status(self, m: st.StatusRequested, item: Item) -> Said:
        client = self._who(m, item)
        if client is None:
            return NOTHING
        self.requests[client] += 1
        return (st.StatusRequested(client, self.requests[client], m.topic, m.limit),)

    # -------------------------------------------------------------- workers

    def _on_ready(self, m: st.WorkerReady, item: Item) -> Said:
        if not self.starting:
            self.early.append(m.client)
            return NOTHING
        return self._make_ready(m.client)

    def _make_ready(self, old: ClientID) -> Said:
        client = self.clients[old] = self.starting.pop(0)
        return (st.WorkerReady(client, 1_000 + client),)

    def say_belated(self) -> Said:
        """Workers that were up on the tape before they were ordered here: they come up now."""
        said: Said = ()
        while self.early and self.starting:
            said += self._make_ready(self.early.pop(0))
        return said

    def _on_start_failed(self, m: st.WorkerStartFailed, item: Item) -> Said:
        if not self.starting:
            return NOTHING
        client = self.starting.pop(0)
        self.alive.discard(client)
        return (st.WorkerStartFailed(client, m.reason),)

    def _on_worker_lost(self, m: st.WorkerLost, item: Item) -> Said:
        client = self._who(m, item)
        if client is None and m.client not in self.clients and self.starting:
            client = self.starting[0]
        if client is None or (m.expected and client not in self.leaving):
            return NOTHING
        if client in self.starting:
            self.starting.remove(client)
        queue = self.queues.pop(client, [])
        for task in queue:
            self.runs.pop(task, None)
        self.alive.discard(client)
        unclaimed = min(m.unclaimed, len(queue) - bool(item.actor and queue))
        return (st.WorkerLost(client, unclaimed, m.expected, m.reason),)

    def _on_retracted(self, m: st.RunsRetracted, item: Item) -> Said:
        client = self._who(m, item) or self.clients.get(m.client)
        if client is None or client not in self.retracting:
            return NOTHING
        queue = self.queues.get(client, [])
        count = min(m.count, self.retracting.pop(client), len(queue))
        for _ in range(count):
            self.runs.pop(queue.pop(), None)
        return (st.RunsRetracted(client, count),)

    def _on_finished(self, m: st.RunFinished, item: Item) -> Said:
        client = self._who(m, item)
        if client is None or not self._is_at_work(client):
            return NOTHING
        task, attempt = self.queues[client][0], self.runs[self.queues[client][0]][1]
        returns = []
        for index, part in enumerate(m.returns):
            if part.in_block and not self.blocks.pop((client, return_object(task, index)), False):
                return NOTHING
            refs = self._held(client, part.refs)
            returns.append(st.Return(part.size_bytes, part.in_block, refs))
        self._end_run(client, task)
        took_ns = m.ended_ns - m.started_ns
        return (st.RunFinished(client, task, attempt, 0, took_ns, tuple(returns)),)

    def _on_failed(self, m: st.RunFailed, item: Item) -> Said:
        client = self._who(m, item)
        if client is None or not self._is_at_work(client):
            return NOTHING
        task, attempt = self.queues[client][0], self.runs[self.queues[client][0]][1]
        self._end_run(client, task)
        took_ns, refs = m.ended_ns - m.started_ns, self._held(client, m.refs)
        return (
            st.RunFailed(
                client, task, attempt, 0, took_ns, m.kind, m.retryable, m.summary, m.size_bytes,
                refs,
            ),
        )  # fmt: skip

    def _end_run(self, client: ClientID, task: TaskID) -> None:
        self.queues[client].remove(task)
        self.runs.pop(task, None)

    # -------------------------------------------------------------- the driver of the core

    def _on_moved(self, m: st.ObjectMoved | st.ObjectMoveFailed, item: Item) -> Said:
        new = self.naming.known(m.object)
        move = self.moves.pop(ObjectID(new), None) if new is not None else None
        if move is None:
            return NOTHING
        return (replace(m, object=move.object, segment=move.to_segment, offset=move.to_offset),)

    def _on_segment(self, m: st.SegmentOpened | st.SegmentFailed, item: Item) -> Said:
        return (replace(m, segment=self.segments.pop(0)),) if self.segments else NOTHING

    def _on_arrived(self, m: st.ObjectArrived | st.ObjectArrivalFailed, item: Item) -> Said:
        new = self.naming.known(m.object)
        order = self.receiving.pop(ObjectID(new), None) if new is not None else None
        if order is None:
            return NOTHING
        return (replace(m, object=order.object, attempt=order.attempt),)

    def _on_object_sent(self, m: st.ObjectSent, item: Item) -> Said:
        new, node = self.naming.known(m.object), self.naming.node(m.node)
        if new is None or self.sending[ObjectID(new), node] <= 0:
            return NOTHING
        self.sending[ObjectID(new), node] -= 1
        return (st.ObjectSent(ObjectID(new), node),)

    def _on_corrupted(self, m: st.ObjectCorrupted, item: Item) -> Said:
        new = self.naming.known(m.object)
        return NOTHING if new is None else (st.ObjectCorrupted(ObjectID(new)),)

    def _on_silence(self, m: st.PeerSilent | st.PeerHeard, item: Item) -> Said:
        node = self.naming.node(m.node)
        return (type(m)(node),) if node in self.tables.peers else NOTHING

    def _as_it_is(self, m: Any, item: Item) -> Said:  # Any: one without ids
        return (m,)

    # -------------------------------------------------------------- what the core orders

    def see(self, effects: list[Any]) -> None:  # Any: effects
        """Enter into the books what a step gave, asked and ordered."""
        for effect in effects:
            handler = _SEEING.get(type(effect))
            if handler is not None:
                handler(self, effect)

    def _see_welcome(self, e: ef.Welcome) -> None:
        if e.job:
            self.jobs[e.client] = e.job

    def _see_start(self, e: ef.StartWorker) -> None:
        self.starting.append(e.client)
        self.alive.add(e.client)

    def _see_leaving(self, e: ef.ExitWorker | ef.KillWorker) -> None:
        self.leaving.add(e.client)

    def _see_run(self, e: ef.RunTask) -> None:
        self.queues.setdefault(e.client, []).append(e.task)
        self.runs[e.task] = (e.client, e.attempt)
        self._depths.setdefault(e.task, e.depth)
        self._see_places(e.client, e.args)
        self._receive(e.client, e.refs)

    def _see_places(self, client: ClientID, places: tuple[ef.Place, ...]) -> None:
        for place in places:
            if place.refs:
                self._receive(client, place.refs)
            if place.segment != ef.INLINE and not place.failure:
                self.pins.setdefault(client, Counter())[place.object] += 1

    def _see_function(self, e: ef.DefineFunction) -> None:
        self._receive(e.client, e.refs)

    def _see_answer(self, e: ef.GetAnswered) -> None:
        self._see_places(e.client, e.places)

    def _see_block(self, e: ef.GrantBlock) -> None:
        self.blocks[e.client, e.object] = True

    def _see_refusal(self, e: ef.RefuseBlock) -> None:
        self.blocks.pop((e.client, e.object), None)

    def _see_retract(self, e: ef.RetractRuns) -> None:
        self.retracting[e.client] = e.count

    def _see_move(self, e: ef.MoveObject) -> None:
        self.moves[e.object] = e

    def _see_segment(self, e: ef.OpenSegment) -> None:
        self.segments.append(e.segment)

    def _see_receive(self, e: ef.ReceiveObject) -> None:
        self.receiving[e.object] = e

    def _see_send(self, e: ef.SendObject) -> None:
        self.sending[e.object, e.node] += 1

    def _see_to_peer(self, e: ef.SendToPeer) -> None:
        self._note(e.message, e.node)

    def _see_to_head(self, e: ef.SendToHead) -> None:
        self._note(e.message, -1)

    def _note(self, m: Any, node: int) -> None:  # Any: a message to another core
        subject = getattr(m, "task", None) or getattr(m, "object", None)
        if subject is None:
            client = getattr(m, "client", None)
            subject = getattr(m, "function", b"") if client is None else b"%d" % client
        elif hasattr(m, "attempt") and hasattr(m, "task"):
            self.attempts[m.task] = m.attempt
        self.sent[type(m).__name__, subject, node] += 1


_SAYINGS: dict[type, Callable[[Desk, Any, Item], Said]] = {
    st.DriverConnected: Desk._on_driver,
    st.ObserverConnected: Desk._on_driver,
    st.ClientLost: Desk._on_client_lost,
    st.ProcessGone: Desk._on_process_gone,
    st.FunctionExported: Desk._on_function,
    st.TemplateDefined: Desk._on_template,
    st.TaskSubmitted: Desk._on_submitted,
    st.ObjectPut: Desk._on_put,
    st.BlockRequested: Desk._on_block,
    st.BlockSealed: Desk._on_sealed,
    st.BlockAbandoned: Desk._on_abandoned,
    st.GetRequested: Desk._on_get,
    st.GetAbandoned: Desk._on_get_abandoned,
    st.RefsDropped: Desk._on_dropped,
    st.ViewsDropped: Desk._on_dropped,
    st.CancelRequested: Desk._on_cancel,
    st.RefPinned: Desk._on_pinned,
    st.RefClaimed: Desk._on_claimed,
    st.StatusRequested: Desk._on_status,
    st.WorkerReady: Desk._on_ready,
    st.WorkerStartFailed: Desk._on_start_failed,
    st.WorkerLost: Desk._on_worker_lost,
    st.RunsRetracted: Desk._on_retracted,
    st.RunFinished: Desk._on_finished,
    st.RunFailed: Desk._on_failed,
    st.ObjectMoved: Desk._on_moved,
    st.ObjectMoveFailed: Desk._on_moved,
    st.SegmentOpened: Desk._on_segment,
    st.SegmentFailed: Desk._on_segment,
    st.ObjectArrived: Desk._on_arrived,
    st.ObjectArrivalFailed: Desk._on_arrived,
    st.ObjectSent: Desk._on_object_sent,
    st.ObjectCorrupted: Desk._on_corrupted,
    st.PeerSilent: Desk._on_silence,
    st.PeerHeard: Desk._on_silence,
    st.NodeStarted: Desk._as_it_is,
    st.NodeStopping: Desk._as_it_is,
    st.HeadRestarted: Desk._as_it_is,
    st.Fenced: Desk._as_it_is,
}
_SEEING: dict[type, Callable[[Desk, Any], None]] = {
    ef.Welcome: Desk._see_welcome,
    ef.StartWorker: Desk._see_start,
    ef.ExitWorker: Desk._see_leaving,
    ef.KillWorker: Desk._see_leaving,
    ef.RunTask: Desk._see_run,
    ef.DefineFunction: Desk._see_function,
    ef.GetAnswered: Desk._see_answer,
    ef.GrantBlock: Desk._see_block,
    ef.RefuseBlock: Desk._see_refusal,
    ef.RetractRuns: Desk._see_retract,
    ef.MoveObject: Desk._see_move,
    ef.OpenSegment: Desk._see_segment,
    ef.ReceiveObject: Desk._see_receive,
    ef.SendObject: Desk._see_send,
    ef.SendToPeer: Desk._see_to_peer,
    ef.SendToHead: Desk._see_to_head,
}
