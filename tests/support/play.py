"""Random programs on a `World`: clients submit, get, drop, cancel; workers run, nest, die.

`Player(choose)` takes every decision from `choose(n) -> 0..n-1`, so that hypothesis can draw (and
shrink) it or a seeded generator can. It keeps the books that real clients keep (grants, pins) and
checks what users are promised: every get is answered, with a value unless a failure explains it;
what may begin once begins once; and after everything is dropped nothing is left.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.config import Policy
from detray.core.states import PENDING
from detray.errors import Failure
from detray.ids import (
    NO_TASK,
    ClientID,
    ObjectID,
    TaskID,
    child_prefix,
    child_task,
    put_object,
    return_object,
)  # fmt: skip
from tests.support.world import World

INLINE, BLOCK_BYTES = 100, 200_000
MESSAGES = get_args(ef.ClientMessage)


@dataclass
class Peer:
    """A client's books: grants received, view pins, requests under way."""

    id: ClientID
    prefix: bytes
    parent: TaskID
    depth: int
    grants: Counter[ObjectID] = field(default_factory=Counter)
    pins: Counter[ObjectID] = field(default_factory=Counter)
    mine: list[ObjectID] = field(default_factory=list)
    asked: dict[int, tuple[ObjectID, ...]] = field(default_factory=dict)
    wanted: dict[ObjectID, int] = field(default_factory=dict)
    granted: dict[ObjectID, ef.GrantBlock | ef.RefuseBlock] = field(default_factory=dict)
    requests: int = 0
    counter: int = 0
    templates: int = 0


@dataclass
class Hand(Peer):
    """A worker: what was sent and not begun, what it runs, whether it waits in a get."""

    queue: deque[ef.RunTask] = field(default_factory=deque)
    run: ef.RunTask | None = None
    waits: int = 0
    storing: ObjectID | None = None
    interrupted: bool = False
    leaving: bool = False


class Player:
    """Plays; see the module's text."""

    def __init__(self, choose: Callable[[int], int], *, deadly: bool = True) -> None:
        self.choose = choose
        self.deadly = deadly
        policy = Policy(
            pipeline_depth_max=1 + choose(8), answer_bytes_max=(50, 4 << 20)[choose(2)],
            inline_total_bytes_max=(500, 1 << 30)[choose(2)], starvation_passes=1 + choose(3),
        )  # fmt: skip
        self.world = World(
            1 + choose(3), arena_bytes=1 << 20, prestart=choose(3), policy=policy,
            totals={"door": 20_000}, stop_with_last_driver=False,
        )  # fmt: skip
        self.hands: dict[ClientID, Hand] = {}
        self.begun: Counter[TaskID] = Counter()
        self.budget: dict[TaskID, int] = {}
        self.cancelled_any = self.crashed_any = self.disk_failed = False
        self.pending: list[st.Stimulus] = []
        driver = self.world.driver()
        self.function = driver.function
        self.driver = Peer(driver.client, driver.prefix, driver.root, 1)
        self._see([*driver.started])
        self._define(self.driver)

    # ------------------------------------------------------------------ steps

    def do(self, *stimuli: st.Stimulus, advance_ns: int = 1_000) -> None:
        """Feed stimuli, then whatever orders must be answered in the same breath."""
        self._see(self.world.do(*stimuli, advance_ns=advance_ns))

    def _see(self, effects: list[ef.Effect]) -> None:
        follow: list[st.Stimulus] = []
        for e in effects:
            if type(e) in MESSAGES and e.client > 0 and e.client not in self.hands:
                continue  # killed a moment ago, by an order of the same step
            match e:
                case ef.StartWorker():
                    self.hands[e.client] = Hand(e.client, b"", NO_TASK, 0)
                    self.pending.append(st.WorkerReady(e.client, 1000 + e.client))
                case ef.RunTask():
                    self._receive(self.hands[e.client], e.args)
                    for ref in e.refs:
                        self.hands[e.client].grants[ref] += 1
                    self.hands[e.client].queue.append(e)
                case ef.RetractRuns():
                    hand = self.hands[e.client]
                    count = min(e.count, len(hand.queue))
                    for _ in range(count):
                        hand.queue.pop()
                    follow.append(st.RunsRetracted(e.client, count))
                case ef.InterruptRun():
                    hand = self.hands[e.client]
                    if hand.run is not None and hand.run.task == e.task:
                        hand.interrupted = True
                case ef.KillWorker() | ef.ExitWorker():
                    self.hands[e.client].leaving = True
                    follow += self._death(self.hands[e.client], "was told to", expected=True)
                case ef.GetAnswered():
                    peer = self._peer(e.client)
                    if e.request in peer.asked:
                        self._check_answer(peer, e)
                    self._receive(peer, e.places)
                    if isinstance(peer, Hand) and peer.waits == e.request and not e.more:
                        peer.waits = 0
                case ef.GrantBlock() | ef.RefuseBlock():
                    self._peer(e.client).granted[e.object] = e
                case ef.OpenSegment():
                    if self.deadly and self.choose(8) == 0:
                        self.disk_failed = True
                        self.pending.append(st.SegmentFailed(e.segment, "full", 0))
                    else:
                        self.pending.append(st.SegmentOpened(e.segment))
                case ef.MoveObject():
                    if self.deadly and self.choose(8) == 0:
                        self.pending.append(
                            st.ObjectMoveFailed(e.object, e.to_segment, e.to_offset, "io")
                        )
                    else:
                        self.pending.append(st.ObjectMoved(e.object, e.to_segment, e.to_offset))
                case ef.FailRequest():
                    raise AssertionError(e)
                case _:
                    pass
        if follow:
            self.do(*follow)

    def _peer(self, client: ClientID) -> Peer:
        return self.driver if client < 0 else self.hands[client]

    def _receive(self, peer: Peer, places: tuple[ef.Place, ...]) -> None:
        for place in places:
            for ref in place.refs:
                peer.grants[ref] += 1
                peer.mine.append(ref)
            if place.segment >= 0 and not place.failure:
                peer.pins[place.object] += 1

    def _check_answer(self, peer: Peer, e: ef.GetAnswered) -> None:
        for place in e.places:
            match place.failure:
                case Failure.NONE | Failure.APPLICATION:
                    pass
                case Failure.CANCELLED:
                    assert self.cancelled_any, e
                case Failure.WORKER_CRASHED:
                    assert self.crashed_any or self.cancelled_any, e
                case Failure.START_FAILED:
                    assert self.crashed_any, e
                case Failure.OUT_OF_DISK:
                    assert self.disk_failed, e
                case Failure.DEADLOCK:
                    assert place.text.startswith("deadlock: "), e
                case _:
                    raise AssertionError(e)
        if not e.more:
            del peer.asked[e.request]

    # ------------------------------------------------------------------ what a client does

    def _define(self, peer: Peer) -> None:
        for number, (demand, returns, retries) in enumerate(
            [
                ((("CPU", 10_000),), 1, 0),
                ((("CPU", 10_000),), 2, 2),
                ((("CPU", 5_000),), 1, -1),
                ((("door", 10_000),), 1, 1),
                ((), 0, 0),
            ]
        ):
            self.do(
                st.TemplateDefined(
                    peer.id, number, self.function, f"t{number}", returns, demand, retries,
                    retries > 0, 3 if number == 2 else 0,
                )
            )  # fmt: skip
        peer.templates = 5

    def submit(self, peer: Peer) -> None:
        """A task with random arguments among what the client can name."""
        number = self.choose(5)
        returns, retries = ((1, 0), (2, 2), (1, -1), (1, 1), (0, 0))[number]
        task = child_task(peer.prefix, peer.counter)
        peer.counter += 1
        args = tuple(self._some(peer, 3))
        refs = tuple(dict.fromkeys(self._some(peer, 2)))
        self.budget[task] = retries
        for index in range(returns):
            peer.grants[return_object(task, index)] += 1
            peer.mine.append(return_object(task, index))
        size = (0, 30)[self.choose(2)]
        self.do(st.TaskSubmitted(peer.id, task, number, peer.parent, peer.depth, size, args, refs))

    def _some(self, peer: Peer, most: int) -> list[ObjectID]:
        held = [item for item in peer.mine if peer.grants[item]]
        return [held[self.choose(len(held))] for _ in range(self.choose(most + 1))] if held else []

    def put(self, peer: Peer) -> None:
        """A small value with references inside, or a large one in a block."""
        item = put_object(peer.prefix, peer.counter)
        peer.counter += 1
        refs = tuple(dict.fromkeys(self._some(peer, 2)))
        if self.choose(3):
            peer.grants[item] += 1
            peer.mine.append(item)
            self.do(st.ObjectPut(peer.id, item, INLINE, refs))
        else:
            peer.wanted[item] = BLOCK_BYTES * (1 + self.choose(7))
            self.do(st.BlockRequested(peer.id, item, peer.wanted[item]))

    def seal(self, peer: Peer) -> bool:
        """Write and seal (or abandon) a put that was granted."""
        for item in list(peer.wanted):
            if item in peer.granted:
                answer = peer.granted.pop(item)
                del peer.wanted[item]
                if type(answer) is ef.RefuseBlock:
                    return True
                if self.choose(6) == 0:
                    self.do(st.BlockAbandoned(peer.id, item))
                else:
                    refs = tuple(dict.fromkeys(self._some(peer, 1)))
                    peer.grants[item] += 1
                    peer.mine.append(item)
                    self.do(st.BlockSealed(peer.id, item, refs))
                return True
        return False

    def get(self, peer: Peer, *, blocks: TaskID = NO_TASK) -> bool:
        """A get or wait for some of what the client can name; False if it can name nothing."""
        items = tuple(dict.fromkeys(self._some(peer, 4)))
        if not items:
            return False
        peer.requests += 1
        is_get = bool(self.choose(2))
        needed = len(items) if is_get else 1 + self.choose(len(items))
        timeout = (-1, -1, 0, 20_000)[self.choose(4)]
        peer.asked[peer.requests] = items
        if isinstance(peer, Hand) and blocks:
            peer.waits = peer.requests
        self.do(
            st.GetRequested(peer.id, peer.requests, items, needed, is_get, is_get, timeout, blocks)
        )
        return True

    def drop(self, peer: Peer) -> None:
        """Return all grants of one reference, or all pins of one object."""
        asked = {item for items in peer.asked.values() for item in items}
        held = [item for item in peer.grants if peer.grants[item] and item not in asked]
        if held:
            item = held[self.choose(len(held))]
            self.do(st.RefsDropped(peer.id, (item,), (peer.grants.pop(item),)))
            peer.mine = [other for other in peer.mine if other != item]
        pinned = [item for item in peer.pins if peer.pins[item]]
        if pinned:
            item = pinned[self.choose(len(pinned))]
            self.do(st.ViewsDropped(peer.id, (item,), (peer.pins.pop(item),)))

    def cancel(self, peer: Peer) -> None:
        """Cancel the producer of something."""
        for item in self._some(peer, 1):
            self.cancelled_any = True
            self.do(st.CancelRequested(peer.id, item, self.choose(4) == 0, bool(self.choose(2))))

    # ------------------------------------------------------------------ what a worker does

    def work(self, hand: Hand) -> bool:
        """Let a worker do its next thing; False if it has nothing to do."""
        if hand.waits:
            return False
        if hand.run is None:
            if not hand.queue:
                return False
            self._begin(hand)
            return True
        if hand.storing is not None:
            return self._store(hand)
        if hand.interrupted:
            self._finish(hand, failure=Failure.CANCELLED)
            return True
        match self.choose(9):
            case 0 | 1 if self.begun.total() < 60:
                self.submit(hand)
            case 2:
                self.put(hand)
            case 3:
                if not self.get(hand, blocks=hand.run.task):
                    self._finish(hand)
            case 4:
                self.drop(hand)
            case 5 if self.seal(hand):
                pass
            case 6 if self.deadly:
                self._finish(hand, failure=Failure.APPLICATION)
            case 7:
                hand.storing = return_object(hand.run.task, 0)
                self.do(st.BlockRequested(hand.id, hand.storing, BLOCK_BYTES))
            case _:
                self._finish(hand)
        return True

    def _begin(self, hand: Hand) -> None:
        run = hand.run = hand.queue.popleft()
        self.begun[run.task] += 1
        if self.budget[run.task] == 0:
            assert self.begun[run.task] == 1, "began twice what may begin once"
        hand.prefix = child_prefix(run.task, run.attempt, 0)
        hand.parent, hand.depth, hand.counter = run.task, run.depth + 1, 0
        hand.mine += run.refs
        if not hand.templates:
            self._define(hand)

    def _store(self, hand: Hand) -> bool:
        assert hand.run is not None and hand.storing is not None
        answer = hand.granted.pop(hand.storing, None)
        if answer is None:
            return False
        hand.storing = None
        if type(answer) is ef.RefuseBlock:
            self._finish(hand, failure=Failure.APPLICATION)
        else:
            self._finish(hand, in_block=True)
        return True

    def _finish(self, hand: Hand, *, failure: int = 0, in_block: bool = False) -> None:
        run = hand.run
        assert run is not None
        hand.run, hand.interrupted, hand.storing = None, False, None
        for item in list(hand.wanted):
            del hand.wanted[item]
            hand.granted.pop(item, None)
            self.do(st.BlockAbandoned(hand.id, item))
        returns = self.world.local.tables.templates[run.template].num_returns
        duration = (100, 10_000, 5_000_000)[self.choose(3)]
        refs = tuple(ref for ref in dict.fromkeys(self._some(hand, 2)) if self._is_closed(ref))
        if failure or (in_block and not returns):
            if in_block:
                self.do(st.BlockAbandoned(hand.id, return_object(run.task, 0)))
            kind = failure or Failure.APPLICATION
            self.do(
                st.RunFailed(
                    hand.id, run.task, run.attempt, 0, duration, kind, bool(self.choose(2)), "no", 9
                )
            )  # fmt: skip
        else:
            parts = [st.Return(INLINE, False, refs) for _ in range(returns)]
            if in_block:
                parts[0] = st.Return(BLOCK_BYTES, True, refs)
            self.do(st.RunFinished(hand.id, run.task, run.attempt, 0, duration, tuple(parts)))
        if hand.id in self.hands and not hand.queue:
            self._drop_all(hand)

    def _is_closed(self, item: ObjectID) -> bool:
        """True if nothing inside is pending: a return that holds it closes no cycle.

        Cycles of references cannot be collected; users are told so.
        """
        row = self.world.local.tables.objects.get(item)
        if row is None or row.state is PENDING:
            return False
        return all(self._is_closed(ref) for ref in row.refs)

    def _drop_all(self, peer: Peer) -> None:
        held = tuple(item for item in peer.grants if peer.grants[item])
        pins = tuple(item for item in peer.pins if peer.pins[item])
        self.do(
            st.RefsDropped(peer.id, held, tuple(peer.grants[i] for i in held)),
            st.ViewsDropped(peer.id, pins, tuple(peer.pins[i] for i in pins)),
        )
        peer.grants.clear()
        peer.pins.clear()
        peer.mine = []

    def _death(self, hand: Hand, reason: str, *, expected: bool) -> list[st.Stimulus]:
        if hand.id not in self.hands:
            return []
        del self.hands[hand.id]
        self.pending = [m for m in self.pending if getattr(m, "client", 0) != hand.id]
        self.pending.append(st.ProcessGone(hand.id))
        return [st.WorkerLost(hand.id, len(hand.queue), expected, reason)]

    def kill(self, hand: Hand) -> None:
        """SIGKILL from outside."""
        self.crashed_any = True
        self.do(*self._death(hand, "killed by signal 9 (SIGKILL)", expected=False))

    # ------------------------------------------------------------------ the whole play

    def play(self, steps: int) -> None:
        """Random moves, then everything ends and nothing is left."""
        for _ in range(steps):
            self._move()
        self.finish()

    def _move(self) -> None:
        hands = list(self.hands.values())
        kind = self.choose(16)
        if kind < 4:
            self.submit(self.driver)
        elif kind == 4:
            self.put(self.driver)
        elif kind == 5:
            self.get(self.driver)
        elif kind == 6:
            self.drop(self.driver)
        elif kind == 7:
            self.seal(self.driver)
        elif kind == 8 and self.deadly:
            self.cancel(self.driver)
        elif kind == 9 and self.deadly and hands and self.choose(3) == 0:
            self.kill(hands[self.choose(len(hands))])
        elif kind == 10:
            self.do(advance_ns=(10_000, 3_000_000, 2_000_000_000)[self.choose(3)])
        elif kind == 11 and self.pending:
            self.do(self.pending.pop(self.choose(len(self.pending))))
        elif hands:
            self.work(hands[self.choose(len(hands))])

    def finish(self) -> None:
        """Let everything run to its end, drop everything, and look for leftovers."""
        for _ in range(20_000):
            if self.pending:
                self.do(self.pending.pop(0))
            elif not (
                any(self.work(h) for h in list(self.hands.values())) or self.seal(self.driver)
            ):
                tables = self.world.local.tables
                due = self.world.local.next_deadline_ns
                if not tables.tasks and not any(h.queue or h.run for h in self.hands.values()):
                    break
                assert due is not None, f"stuck: {tables.tasks} {self.hands}"
                self.do(advance_ns=max(1, due - self.world.now_ns))
        else:
            raise AssertionError("no end in sight")
        self.do(advance_ns=100_000)
        assert not self.driver.asked, f"never answered: {self.driver.asked}"
        self._drop_all(self.driver)
        while self.pending:
            self.do(self.pending.pop(0))
        for hand in list(self.hands.values()):
            self._drop_all(hand)
        while self.pending:
            self.do(self.pending.pop(0))
        self._check_nothing_left()

    def _check_nothing_left(self) -> None:
        t = self.world.local.tables
        assert not t.tasks and not t.objects, (t.tasks, t.objects)
        assert t.arena.used == 0 and t.inline_bytes == 0 and not t.moves
        assert not t.block_queue and not t.resuming and not t.blocked_count
        assert set(self.world.payloads) <= {self.function}, self.world.payloads
        assert not any(segment.live for segment in t.segments.values()), t.segments
