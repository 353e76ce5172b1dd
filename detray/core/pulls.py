"""Pulls: copies on their way into this node's memory.

Rules (PROTOCOL N12, N13, D 18, 20)
-----------------------------------
- One pull per object, whoever waits for it here; the most urgent of them sets its priority.
- Gets before waits before arguments; together they may fill a share of the arena, one always may.
- A pull names (object, attempt). It waits for room first, then asks a holder; a holder that is
  still receiving the object itself serves when it has it. Refused or broken off, the next holder is
  tried, but only for what it has now (else nodes could wait for each other in a circle); when none
  is left the owner is told who had nothing. A way that breaks transfers is no proof of that: the
  same copy is tried again.
- A copy that was pulled in vain twice is asked for again after a pause, which doubles each time and
  ends early with what may have changed it: a burial, or a sign of the node that kept silent. A
  pause holds no memory, and who asks this node meanwhile is sent elsewhere.
- The block being written is a write pin, the block being read a view pin of the pseudo-client
  NO_CLIENT: neither is reused before the driver says that nobody touches it any more.
"""

from __future__ import annotations

from detray.core import objects, places, storage
from detray.core.effects import AbortReceive, ReceiveObject, SendObject
from detray.core.lifecycle import move_object
from detray.core.links import is_alive, tell
from detray.core.peer_messages import CopyMissing, PullRefused, PullRequested
from detray.core.states import PENDING, Elsewhere, Stored
from detray.core.step import Step
from detray.core.stimuli import ObjectArrivalFailed, ObjectArrived, ObjectSent
from detray.core.tables import HERE, Client, Object, Pull, Shared
from detray.ids import NO_CLIENT, NodeID

GET, WAIT, ARGUMENT = 0, 1, 2
"""Priorities."""
TRIES_MAX = 3
"""How often a broken transfer is asked for again at the same node."""
REFUSED = TRIES_MAX + 1
"""So often a node that has nothing is entered among the tried."""


def start_pull(s: Step, row: Object, shared: Shared, priority: int) -> None:
    """Fetch a copy, or make a pull under way more urgent."""
    t = s.t
    pull = t.pulls.get(row.id)
    if pull is None:
        size_bytes = row.state.size_bytes  # type: ignore[union-attr]  # Elsewhere
        number = s.next_number()
        pull = t.pulls[row.id] = Pull(row.id, shared.attempt, size_bytes, priority, number)
        pause_ns = _pause_ns(s, shared) if shared.broken else 0
        if pause_ns:
            pull.due_ns = t.now_ns + pause_ns
            t.pull_ns = min(t.pull_ns or pull.due_ns, pull.due_ns)
        else:
            _queue(s, pull)
    elif priority < pull.priority:
        queue = t.pull_queue.get(pull.priority, [])
        if row.id in queue:
            queue.remove(row.id)
            t.pull_queue.setdefault(priority, []).append(row.id)
        pull.priority = priority


def _queue(s: Step, pull: Pull) -> None:
    pull.due_ns = 0
    s.t.pull_queue.setdefault(pull.priority, []).append(pull.object)
    s.queued = True


def _pause_ns(s: Step, shared: Shared) -> int:
    """How long to wait with another pull: 0 if somebody can be asked who has not failed twice."""
    policy, broken = s.t.config.policy, _broken(shared)
    counts = [broken.get(node, 0) for node in _holders(s, shared) if is_alive(s, node)]
    least = min(counts, default=0)
    if least < 2:
        return 0
    return min(policy.pull_retry_ns << min(least - 2, 32), policy.pull_retry_max_ns)


def end_pauses(s: Step, node: NodeID = HERE) -> None:
    """Go on with pulls whose pause is over, or began because of `node`, of which there is news."""
    t = s.t
    t.pull_ns = 0
    for pull in [pull for pull in t.pulls.values() if pull.due_ns]:
        row = t.objects.get(pull.object)
        if row is None or not (row.takers or row.getters):
            del t.pulls[pull.object]  # nobody waits for it any more
            s.suspects.append(pull.object)
        elif pull.due_ns <= t.now_ns or (row.shared is not None and node in _broken(row.shared)):
            _queue(s, pull)
        else:
            t.pull_ns = min(t.pull_ns or pull.due_ns, pull.due_ns)


def _broken(shared: Shared) -> dict[NodeID, int]:
    return {} if shared.broken is None else shared.broken


def admit(s: Step) -> None:
    """Let waiting pulls ask for room, most urgent first, while the quota lasts."""
    t = s.t
    s.queued = False
    quota = t.arena.size_bytes * t.config.policy.pull_share_permille // 1000
    for priority in (GET, WAIT, ARGUMENT):
        queue = t.pull_queue.get(priority)
        while queue:
            pull = t.pulls[queue[0]]
            if t.pulling_bytes and t.pulling_bytes + pull.size_bytes > quota:
                return
            del queue[0]
            t.pulling_bytes += pull.size_bytes
            if NO_CLIENT not in t.clients:
                t.clients[NO_CLIENT] = Client(NO_CLIENT, "transfers")
            storage.request_block(s, t.clients[NO_CLIENT], pull.object, pull.size_bytes)


def enter_rooms(s: Step) -> None:
    """Blocks for transfers were granted or refused."""
    rooms, s.rooms = s.rooms, []
    for item in rooms:
        pull = s.t.pulls.get(item)
        block = s.t.clients[NO_CLIENT].blocks.get(item)
        if pull is None:
            continue
        if block is None:
            _give_up(s, pull, room=False)
            continue
        pull.has_room = True
        _ask_next(s, pull)


def _ask_next(s: Step, pull: Pull) -> None:
    """Ask the best holder that has not refused yet."""
    row = s.t.objects.get(pull.object)
    source = _choose_source(s, pull, row)
    if source is None:
        _give_up(s, pull, room=True)
        return
    block = s.t.clients[NO_CLIENT].blocks[pull.object]
    pull.source = source
    pull.aborted = False
    s.out.append(
        ReceiveObject(
            source, pull.object, pull.attempt, block.segment, block.offset, pull.size_bytes
        )
    )
    tell(s, source, PullRequested, pull.object, pull.attempt, not pull.tried)


def _choose_source(s: Step, pull: Pull, row: Object | None) -> NodeID | None:
    shared = row.shared if row is not None else None
    if row is None or shared is None or type(row.state) is not Elsewhere:
        return None
    if shared.attempt != pull.attempt:
        return None
    for node in _holders(s, shared):
        if is_alive(s, node) and pull.tried.count(node) < TRIES_MAX:
            return node
    return None


def _holders(s: Step, shared: Shared) -> list[NodeID]:
    """The other nodes that should have a copy, best first."""
    holders = shared.copies
    if shared.home == HERE and shared.keeper != HERE:
        holders = [shared.keeper, *holders]
    return [node for node in holders if node != s.t.node]


def _end(s: Step, pull: Pull) -> None:
    """The pull is over, its block already somebody's."""
    del s.t.pulls[pull.object]
    s.t.pulling_bytes -= pull.size_bytes
    s.suspects.append(pull.object)


def _give_up(s: Step, pull: Pull, *, room: bool) -> None:
    """No holder had it, or no memory: tell the followers, and whoever knows more."""
    t = s.t
    block = t.clients[NO_CLIENT].blocks.pop(pull.object, None)
    if block is not None and block.segment >= 0:
        places.free_block(s, block.segment, block.offset, block.size_bytes)
    _end(s, pull)
    for node in pull.followers:
        tell(s, node, PullRefused, pull.object, pull.attempt)
    row = t.objects.get(pull.object)
    shared = row.shared if row is not None else None
    if row is None or shared is None or type(row.state) is not Elsewhere:
        return
    if not room:
        s.roomless.append(row.id)
        return
    dead = [node for node in shared.copies if not is_alive(s, node)]
    refused = [node for node in pull.tried if pull.tried.count(node) >= REFUSED]
    missing = tuple(dict.fromkeys((*refused, *dead)))
    for node in dict.fromkeys(pull.tried):
        if node not in missing:
            shared.broken = _broken(shared)
            shared.broken[node] = shared.broken.get(node, 0) + 1
    if shared.home == HERE:
        s.missing.append((row.id, pull.attempt, missing))
        return
    move_object(row, PENDING)
    objects.break_promises(s, row)
    shared.copies = []
    shared.is_wanted = wanted = bool(row.takers or row.getters)
    if pull.promote:
        missing = (*missing, t.node)
    if not tell(s, shared.home, CopyMissing, row.id, pull.attempt, missing, wanted):
        s.orphans.append(row.id)


# ------------------------------------------------------------------ the receiving end


def on_object_arrived(s: Step, m: ObjectArrived) -> None:
    """All bytes are here: the copy is sealed, and passed on to those who asked meanwhile."""
    t = s.t
    pull = t.pulls.get(m.object)
    if pull is None or pull.attempt != m.attempt:
        s.count("stale")
        return
    block = t.clients[NO_CLIENT].blocks.pop(m.object)
    _end(s, pull)
    row = t.objects.get(m.object)
    shared = row.shared if row is not None else None
    current = shared is not None and (
        shared.attempt == m.attempt or t.config.policy.transfer_check_off
    )
    if row is None or shared is None or type(row.state) is not Elsewhere or not current:
        places.free_block(s, block.segment, block.offset, block.size_bytes)
        for node in pull.followers:
            tell(s, node, PullRefused, m.object, m.attempt)
        if row is not None and shared is not None and (row.takers or row.getters):
            s.again.append(row.id)
        return
    shared.broken = None
    move_object(row, Stored(block.segment, block.offset, block.size_bytes))
    places.note_sealed(s, row)
    shared.is_primary = pull.promote
    s.available.append(row.id)
    for node in pull.followers:
        _serve(s, row, node, m.attempt)


def on_object_arrival_failed(s: Step, m: ObjectArrivalFailed) -> None:
    """Broken off, refused or wrong: try again, elsewhere if need be."""
    pull = s.t.pulls.get(m.object)
    if pull is None or pull.attempt != m.attempt or not pull.has_room:
        s.count("stale")
        return
    s.count("transfers failed")
    pull.tried += [pull.source] * (REFUSED if pull.aborted else 1)
    pull.source = HERE
    _ask_next(s, pull)


def on_pull_refused(s: Step, m: PullRefused) -> None:
    """The holder has nothing: once the block is not written any more, ask another."""
    pull = s.t.pulls.get(m.object)
    if pull is not None and pull.source == m.node and pull.attempt == m.attempt:
        _abort(s, pull)


def _abort(s: Step, pull: Pull) -> None:
    if not pull.aborted:
        pull.aborted = True
        s.out.append(AbortReceive(pull.object, pull.attempt))


def end_pulls_from(s: Step, node: NodeID) -> None:
    """A node is dead: what it was sending will not come, what it asked for need not go."""
    for pull in list(s.t.pulls.values()):
        if node in pull.followers:
            pull.followers.remove(node)
        if pull.source == node:
            _abort(s, pull)
    end_pauses(s, node)


# ------------------------------------------------------------------ the sending end


def on_pull_requested(s: Step, m: PullRequested) -> None:
    """Another node wants our copy."""
    row = s.t.objects.get(m.object)
    shared = row.shared if row is not None else None
    if row is not None and shared is not None and not shared.orphan:
        if shared.attempt == m.attempt and type(row.state) is Stored:
            _serve(s, row, m.node, m.attempt)
            return
        pull = s.t.pulls.get(m.object)
        is_coming = pull is not None and pull.attempt == m.attempt and pull.source != m.node
        if pull is not None and is_coming and not pull.due_ns and m.is_patient:
            pull.followers.append(m.node)
            return
    tell(s, m.node, PullRefused, m.object, m.attempt)


def _serve(s: Step, row: Object, node: NodeID, attempt: int) -> None:
    t = s.t
    state = row.state
    assert type(state) is Stored, f"{row.id.hex()} is served while {state}"
    if NO_CLIENT not in t.clients:
        t.clients[NO_CLIENT] = Client(NO_CLIENT, "transfers")
    if not t.config.policy.pin_off:
        objects.pin(s, row, NO_CLIENT)
    s.out.append(SendObject(node, row.id, attempt, state.segment, state.offset, state.size_bytes))


def on_object_sent(s: Step, m: ObjectSent) -> None:
    """The block is not read for that node any more."""
    row = s.t.objects.get(m.object)
    if row is not None and NO_CLIENT in s.t.clients:
        objects.unpin(s, row, NO_CLIENT, 1)
