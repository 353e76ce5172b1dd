"""What must hold between any two steps of a local scheduler, each a numbered sentence.

Run after every step in tests, simulation and checked replay. A broken one is a bug of ours:
`InvariantBroken` names it and the rows it saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from detray.core import arena, resources
from detray.core.objects import is_absent, is_held
from detray.core.places import INLINE_TRACKED_BYTES
from detray.core.states import (
    FETCHING,
    PENDING,
    READY,
    WAITING,
    Assigned,
    Delivered,
    Elsewhere,
    Gone,
    Inline,
    Placing,
    Stored,
)
from detray.core.strategy import AFFINITY, is_labelled, is_named
from detray.core.tables import HERE, Tables, Task


class InvariantBroken(AssertionError):
    """An invariant does not hold: (name, what was seen)."""


def check(tables: Tables) -> None:
    """Check all invariants; O(rows). Raises InvariantBroken."""
    for invariant in INVARIANTS:
        invariant(tables)


def _require(condition: bool, name: str, seen: object) -> None:
    if not condition:
        raise InvariantBroken(name, seen)


def i1_resources_are_conserved(t: Tables) -> None:
    """I1: what is free and what workers hold add up to the totals; blocked runs hold no CPU."""
    held = [0] * len(t.pool.total)
    for worker in t.workers.values():
        if worker.shape >= 0:
            for index, amount in t.shapes[worker.shape].amounts:
                if not (worker.blocked and index <= resources.CPU):
                    held[index] += amount
    sums = [free + used for free, used in zip(t.pool.available, held, strict=True)]
    _require(sums == t.pool.total, "I1", (t.pool, held))


def i2_an_allocation_means_runs(t: Tables) -> None:
    """I2: a worker holds an allocation exactly while it has runs (or its runs are coming back)."""
    for w in t.workers.values():
        if not w.leaving:
            _require((w.shape >= 0) == (bool(w.runs) or w.retracting), "I2", w)


def i3_uses_are_the_tasks_that_take(t: Tables) -> None:
    """I3: `uses` of an object counts the unfinished tasks that name it."""
    uses: Counter[bytes] = Counter()
    for task in t.tasks.values():
        uses.update(task.spec.args)
        uses.update(task.spec.refs)
    for row in t.objects.values():
        _require(row.uses == uses[row.id], "I3", row)


def i4_containers_are_what_holds_inside(t: Tables) -> None:
    """I4: `containers` counts values, definitions and job pins that hold the object."""
    inside: Counter[bytes] = Counter(item for pins in t.job_pins.values() for item in pins)
    for row in t.objects.values():
        inside.update(row.refs)
    for function in t.functions.values():
        inside.update(function.refs)
    for result in t.parked.values():
        for part in result.returns:
            inside.update(item for item, _ in part.refs if item in t.objects)
    for row in t.objects.values():
        _require(row.containers == inside[row.id], "I4", row)
    _require(all(item in t.objects for item in inside), "I4", "a container outlived its content")


def i5_pins_are_the_clients_views(t: Tables) -> None:
    """I5: `pins` of an object add up over the clients."""
    pins: Counter[bytes] = Counter()
    for client in t.clients.values():
        pins.update(client.pins)
    for row in t.objects.values():
        _require(row.pins == pins[row.id], "I5", row)


def i6_nobody_misses_a_wake_up(t: Tables) -> None:
    """I6: a task that waits for arguments is registered at them, as often as it counts them.

    One that waits for its function alone is registered there.

    At each pending one of a waiting task, at each that is not in memory of a fetching one; what a
    waiting task found available and has since been lost, it finds out when the rest is there.
    """
    wanted: Counter[bytes] = Counter()
    for function in t.functions.values():
        wanted.update(function.takers)
    for task in t.tasks.values():
        if task.state is WAITING or task.state is FETCHING:
            registered = wanted[task.spec.task]
            for ref in dict.fromkeys(task.spec.args):
                row = t.objects.get(ref)
                if row is not None:
                    registered += row.takers.count(task.spec.task)
                    absent = is_absent(row, local=task.state is FETCHING)
                    if absent and (row.shared is None or task.state is FETCHING):
                        _require(task.spec.task in row.takers, "I6", (task, row))
            _require(registered == task.missing > 0, "I6", task)


def i7_no_get_misses_a_wake_up(t: Tables) -> None:
    """I7: an unanswered get is registered at its pending objects, and counts what it misses."""
    for client in t.clients.values():
        for get in client.gets.values():
            key = (client.id, get.request)
            pending = 0
            shared = False
            for item in get.objects:
                row = t.objects.get(item)
                shared = shared or (row is not None and row.shared is not None)
                if row is not None and row.state is PENDING and row.shared is None:
                    _require(key in row.getters, "I7", (get, row))
                if row is not None and (row.state is PENDING or key in row.getters):
                    pending += 1
            if not shared:
                _require(len(get.objects) - pending == get.needed - get.remaining, "I7", get)
            is_open = get.remaining > 0 and not (get.failed and get.fail_fast)
            _require(is_open or key in t.resuming, "I7", get)


def i8_the_ready_queues_are_the_ready_tasks(t: Tables) -> None:
    """I8: each ready task stands in its shape's queue once, and `count` counts them."""
    counts: Counter[int] = Counter()
    for task in t.tasks.values():
        if task.state is READY:
            counts[t.templates[task.template].shape] += 1
    for shape in t.shapes:
        seen: Counter[bytes] = Counter()
        for depth, queue in shape.ready.items():
            for item in queue[shape.heads[depth] :]:
                row = t.tasks.get(item)
                if row is not None and row.state is READY:
                    seen[item] += 1
        _require(shape.count == counts[shape.number] == len(seen), "I8", shape)
        _require(all(n == 1 for n in seen.values()), "I8", shape)


def i9_an_assigned_task_is_one_run(t: Tables) -> None:
    """I9: an assigned task is in the queue of its worker, with its attempt, and nowhere else."""
    runs: dict[bytes, tuple[int, int]] = {}
    for worker in t.workers.values():
        for run in worker.runs:
            _require(run.task not in runs, "I9", run)
            runs[run.task] = (worker.id, run.attempt)
    for task in t.tasks.values():
        if type(task.state) is Assigned:
            expected = (task.state.worker, task.attempt)
            _require(runs.get(task.spec.task) == expected, "I9", task)
        else:
            _require(task.spec.task not in runs, "I9", task)


def i10_the_arena_is_its_blocks(t: Tables) -> None:
    """I10: blocks of objects and writers do not overlap; with what is free they fill it all."""
    blocks = [(s, n) for s, n in zip(t.arena.starts, t.arena.sizes, strict=True)]
    used = 0
    for row in t.objects.values():
        if type(row.state) is Stored and row.state.segment == 0:
            blocks.append((row.state.offset, arena.rounded(row.state.size_bytes)))
            used += arena.rounded(row.state.size_bytes)
    for client in t.clients.values():
        for block in client.blocks.values():
            if block.segment == 0:
                blocks.append((block.offset, arena.rounded(block.size_bytes)))
                used += arena.rounded(block.size_bytes)
    position = 0
    for offset, size in sorted(blocks):
        _require(offset == position, "I10", sorted(blocks))
        position += size
    _require(position == t.arena.size_bytes and used == t.arena.used, "I10", t.arena)


def i11_inline_bytes_are_accounted(t: Tables) -> None:
    """I11: `inline_bytes` is the sum over inline objects; the large ones stand in its order."""
    states = {row.id: row.state for row in t.objects.values() if type(row.state) is Inline}
    _require(t.inline_bytes == sum(x.size_bytes for x in states.values()), "I11", t.inline_bytes)
    for item in t.inline_order:
        _require(item in states and states[item].size_bytes >= INLINE_TRACKED_BYTES, "I11", item)


def i12_idle_workers_are_idle(t: Tables) -> None:
    """I12: an idle worker is ready, has nothing, and is listed once; no other is listed."""
    listed = [item for lane in t.idle.values() for item in lane]
    _require(len(listed) == len(set(listed)), "I12", listed)
    _require(sorted(listed) == sorted(t.idle_since), "I12", (listed, t.idle_since))
    for worker in t.workers.values():
        idle = worker.ready and not worker.runs and not worker.leaving and not worker.retracting
        _require(idle == (worker.id in t.idle_since), "I12", worker)


def i13_blocked_runs_are_counted(t: Tables) -> None:
    """I13: `blocked_count` counts blocked workers; each waits in a get that names it."""
    blocked = [w for w in t.workers.values() if w.blocked]
    _require(t.blocked_count == len(blocked), "I13", t.blocked_count)
    for worker in blocked:
        get = t.clients[worker.id].gets.get(worker.blocked)
        _require(get is not None and get.worker == worker.id, "I13", worker)


def i14_nothing_unreachable_stays(t: Tables) -> None:
    """I14: an available object that nobody holds is pinned or moving, or it would be gone."""
    for row in t.objects.values():
        if not is_held(row) and row.state is not PENDING and row.shared is None:
            _require(row.pins > 0 or row.moving, "I14", row)


def i15_segments_are_their_blocks(t: Tables) -> None:
    """I15: `live` of a file segment is what objects, writers and moves use in it."""
    live: Counter[int] = Counter()
    for row in t.objects.values():
        if type(row.state) is Stored and row.state.segment > 0:
            live[row.state.segment] += arena.rounded(row.state.size_bytes)
    for client in t.clients.values():
        for block in client.blocks.values():
            if block.segment > 0:
                live[block.segment] += arena.rounded(block.size_bytes)
    for move in t.moves.values():
        live[move.segment] += arena.rounded(move.size_bytes)
    for segment in t.segments.values():
        if segment.is_open or not segment.object:
            _require(segment.live == live[segment.number], "I15", segment)


def i16_the_pending_have_a_producer(t: Tables) -> None:
    """I16: each pending object will be sealed by an unfinished task."""
    for row in t.objects.values():
        if row.state is PENDING and (row.shared is None or row.shared.home == HERE):
            _require(row.id[:16] in t.tasks, "I16", row)


def i17_the_placing_are_listed(t: Tables) -> None:
    """I17: tasks put to the head are listed, and no others."""
    placing = [k for k, task in t.tasks.items() if type(task.state) is Placing]
    _require(sorted(placing) == sorted(t.placing), "I17", t.placing)


def i18_nothing_idles_that_could_run(t: Tables) -> None:
    """I18: no ready task fits into what is free while an idle worker of its lane looks on."""
    for shape in t.shapes:
        if shape.count and t.idle.get(shape.lane) and shape.passed_over == 0:
            _require(not resources.has_room(t.pool, shape.amounts), "I18", shape)


def i19_holders_are_connected(t: Tables) -> None:
    """I19: only connected clients hold grants, and a worker's are all indexed."""
    for row in t.objects.values():
        holders = {} if not row.granted else {row.holder: row.granted}
        for client, count in {**holders, **(row.others or {})}.items():
            known = t.clients.get(client)
            _require(known is not None and known.connected and count > 0, "I19", row)
            if known is not None and known.held is not None:
                _require(row.id in known.held, "I19", row)


def i20_what_tasks_need_here_is_counted(t: Tables) -> None:
    """I20: `needed` counts the mentions by tasks and gets that must find the object in memory."""
    needed: Counter[bytes] = Counter()
    for task in t.tasks.values():
        if task.away is not None and task.away.counted:
            needed.update(task.spec.args)
    for client in t.clients.values():
        for get in client.gets.values():
            needed.update(get.counted)
    for row in t.objects.values():
        if row.shared is not None:
            _require(row.shared.needed == needed[row.id], "I20", (row, needed[row.id]))


def i21_lineage_is_what_the_past_takes(t: Tables) -> None:
    """I21: `lineage` counts the records that name the object; each record has a return in scope."""
    named: Counter[bytes] = Counter()
    for past in t.pasts.values():
        named.update(past.spec.args)
        named.update(past.spec.refs)
    for row in t.objects.values():
        count = row.shared.lineage if row.shared is not None else 0
        _require(count == named[row.id], "I21", row)
    _require(t.past_bytes == sum(past.size_bytes for past in t.pasts.values()), "I21", t.past_bytes)


def i22_what_is_gone_can_come_back(t: Tables) -> None:
    """I22: an object without any copy has a record of its producer (unless that grew too large to
    keep, which is remembered), and nobody waits in vain."""
    for row in t.objects.values():
        if type(row.state) is Gone:
            forgotten = row.shared is not None and row.shared.is_forgotten
            _require(row.id[:16] in t.pasts or forgotten, "I22", row)
            _require(not (row.takers or row.getters), "I22", row)


def i23_who_waits_for_another_node_was_heard(t: Tables) -> None:
    """I23: a foreign object that somebody waits for was asked of a living owner, or is coming."""
    for row in t.objects.values():
        shared = row.shared
        if shared is None or not (row.takers or row.getters) or shared.orphan:
            continue
        if row.state is PENDING and shared.home != HERE:
            _require(shared.is_wanted, "I23", row)
        if type(row.state) is Elsewhere and row.takers:
            _require(row.id in t.pulls, "I23", row)


def i24_pulls_are_accounted(t: Tables) -> None:
    """I24: a pull pauses, is queued for admission, or has asked for room; the last are summed."""
    queued = [item for queue in t.pull_queue.values() for item in queue]
    _require(len(queued) == len(set(queued)), "I24", queued)
    total = 0
    for item, pull in t.pulls.items():
        if pull.due_ns:
            _require(item not in queued and 0 < t.pull_ns <= pull.due_ns, "I24", pull)
        elif item not in queued:
            total += pull.size_bytes
    _require(total == t.pulling_bytes and all(item in t.pulls for item in queued), "I24", t.pulls)


def i25_the_delivered_are_at_living_nodes(t: Tables) -> None:
    """I25: a task is delivered to a living node; a run here belongs to one, or is being killed."""
    for task in t.tasks.values():
        if type(task.state) is Delivered:
            _require(task.owner == HERE and task.state.node in t.peers, "I25", task)
        elif task.owner != HERE and task.owner not in t.peers:
            _require(task.cancelled, "I25", task)


def i26_only_the_living_borrow(t: Tables) -> None:
    """I26: objects are lent to, and kept by, living nodes only."""
    for row in t.objects.values():
        shared = row.shared
        if shared is not None and shared.home == HERE:
            nodes = [*shared.lent, *shared.watchers]
            if shared.keeper != HERE:
                nodes.append(shared.keeper)
            _require(all(node in t.peers for node in nodes), "I26", row)


def i27_promises_are_what_is_fetched_for(t: Tables) -> None:
    """I27: `promised` counts tasks of a shape whose arguments are on their way, not lost."""
    promised = [0] * len(t.shapes)
    for task in t.tasks.values():
        if task.away is not None and task.away.promised:
            _require(task.state is FETCHING, "I27", task)
            for ref in task.spec.args:
                row = t.objects[ref]
                is_lost = task.spec.task in row.takers and is_absent(row, local=False)
                _require(not is_lost, "I27", (task, row))
            promised[t.templates[task.template].shape] += 1
    _require(promised == [shape.promised for shape in t.shapes], "I27", (promised, t.shapes))


def i28_what_runs_here_may_run_here(t: Tables) -> None:
    """I28: what runs here for itself insists on no other node, nor on labels that are not here."""
    for task in t.tasks.values():
        if task.owner == HERE and type(task.state) is Assigned:
            _require(may_run_here(t, task), "I28", task)


def may_run_here(t: Tables, task: Task) -> bool:
    """True if the task's strategy allows this node."""
    strategy = t.templates[task.template].strategy
    if strategy is None:
        return True
    is_bound = strategy.kind == AFFINITY and not strategy.is_soft
    if is_bound and not is_named(strategy, t.node):
        return False
    return is_labelled(strategy.hard, t.node, t.config.labels)


INVARIANTS: tuple[Callable[[Tables], None], ...] = (
    i1_resources_are_conserved,
    i2_an_allocation_means_runs,
    i3_uses_are_the_tasks_that_take,
    i4_containers_are_what_holds_inside,
    i5_pins_are_the_clients_views,
    i6_nobody_misses_a_wake_up,
    i7_no_get_misses_a_wake_up,
    i8_the_ready_queues_are_the_ready_tasks,
    i9_an_assigned_task_is_one_run,
    i10_the_arena_is_its_blocks,
    i11_inline_bytes_are_accounted,
    i12_idle_workers_are_idle,
    i13_blocked_runs_are_counted,
    i14_nothing_unreachable_stays,
    i15_segments_are_their_blocks,
    i16_the_pending_have_a_producer,
    i17_the_placing_are_listed,
    i18_nothing_idles_that_could_run,
    i19_holders_are_connected,
    i20_what_tasks_need_here_is_counted,
    i21_lineage_is_what_the_past_takes,
    i22_what_is_gone_can_come_back,
    i23_who_waits_for_another_node_was_heard,
    i24_pulls_are_accounted,
    i25_the_delivered_are_at_living_nodes,
    i26_only_the_living_borrow,
    i27_promises_are_what_is_fetched_for,
    i28_what_runs_here_may_run_here,
)
