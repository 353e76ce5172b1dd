"""Where the time of a task went: from its submission to its end, in parts without gap or overlap.

Theory of operation
-------------------
A task is in one place at a time: it waits at its owner, at the head, on the way, at the node that
is to run it, in a worker's queue, or it runs. The history has the moments at which it changed
place, some by its owner's clock, some by another node's. A line is drawn through them in the order
in which they must have happened; no moment lies before the one that precedes it, nor behind the end
of its attempt as its owner saw it. So the parts always add up, and where clocks disagree a part is
shorter than it was, never negative.

What it waited for at a node is found out afterwards: the value of an argument that was not there,
bytes that were not there, and for the rest the resources.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from detray.ids import NO_CLIENT, NO_OBJECT, ClientID, NodeID, ObjectID, TaskID, task_of
from detray.trace.gathering.endings import JOB_OVER
from detray.trace.gathering.history import History, Seat
from detray.trace.gathering.lives import (
    ARRIVED,
    ASKED,
    CANCEL_ASKED,
    CANCELLED,
    CORRUPT,
    DELIVERED,
    EVICTED,
    FAILED,
    FINISHED,
    INFEASIBLE,
    KNOWN,
    LOST,
    MADE_AGAIN,
    MISSING,
    NO_NODE,
    PLACED,
    RECEIVED,
    REFUSED,
    RETURNED,
    SENT,
    TAKEN_BACK,
    UNKNOWN_CORE,
    WAITING,
    WITHDRAWN,
    Attempt,
    LifeMove,
    RoomWait,
    TaskLife,
    Transfer,
    Wait,
)
from detray.trace.names import is_a_put

ARGUMENT = "argument"
"""It waited for the value of an argument (`item`)."""
PLACE = "place"
"""It waited at the head for a place; `text`: what the head said if no node could ever run it."""
TRAVEL = "travel"
"""It was on its way from its owner to another node, or back."""
FETCH = "fetch"
"""It waited for the bytes of an argument (`item`) to reach the node that was to run it."""
RESOURCE = "resource"
"""Nothing was missing but a CPU, or whatever else it needs. `text`: AGAIN, or nothing."""
AGAIN = "again"
"""Its value was lost, and it had not been sent to be made again."""
START = "start"
"""It waited for the process of worker `client` to start."""
QUEUE = "queue"
"""It was sent to worker `client`, which was not through with other runs."""
RUN = "run"
"""It ran."""
GET = "get"
"""It ran and stood still in a get for `item`; `text`: why that failed, if no object is to blame."""
RESUME = "resume"
"""What it had got for was there, and it waited for its CPU back."""
ROOM = "room"
"""It ran and waited for room in the store for what it made (`item`); `text`: there was none."""
REPORT = "report"
"""It had ended, and its owner had not heard of it."""
KEPT = "kept"
"""It was finished, and its value was there; later the value was lost."""
UNKNOWN = "unknown"
"""The trace does not tell."""
PARTS = (
    ARGUMENT, PLACE, TRAVEL, FETCH, RESOURCE, START, QUEUE, RUN, GET, RESUME, ROOM, REPORT, KEPT,
    UNKNOWN,
)  # fmt: skip
RETURNS_MAX = 64
"""So many returns of a task are looked at for their loss: of one that has more, less is said."""
_GONE = (EVICTED, MISSING, CORRUPT)


class Part(msgspec.Struct, frozen=True):
    """A stretch of a task's life, in dates (nanoseconds). `is_lost`: its attempt came to nothing.

    `core` is where it was (-1: not in the trace).
    """

    kind: str
    started_ns: int
    ended_ns: int
    attempt: int = 0
    core: int = UNKNOWN_CORE
    node: NodeID = NO_NODE
    client: ClientID = NO_CLIENT
    item: ObjectID = NO_OBJECT
    text: str = ""
    is_lost: bool = False

    @property
    def length_ns(self) -> int:
        """How long it took."""
        return self.ended_ns - self.started_ns


class Timeline:
    """The parts of every task of a dated history; what is looked up often is sorted once."""

    def __init__(self, history: History) -> None:
        """`history` is closed and dated."""
        self.history = history
        self.begin_ns = min(history.first_ns.values(), default=0)
        self.end_ns = max(history.last_ns.values(), default=0)
        self.runs: dict[int, list[tuple[int, int, TaskLife, Attempt]]] = {}
        """By core: when runs began and ended, in order of their begin."""
        self._by_worker: dict[Seat, list[tuple[int, int, TaskLife, Attempt]]] = {}
        self._waits: dict[tuple[int, ClientID, TaskID], list[Wait]] = {}
        self._rooms: dict[Seat, list[RoomWait]] = {}
        self._ends: dict[TaskID, int] = {}
        self._parts: dict[TaskID, list[Part]] = {}
        self._became: dict[tuple[ObjectID, int, bool], tuple[int, ...]] = {}
        self._transfers: dict[tuple[ObjectID, int], list[Transfer]] = {}
        self._index()

    def _index(self) -> None:
        history = self.history
        for life in history.tasks.values():
            for run in life.attempts:
                if run.core >= 0 and run.started_ns >= 0:
                    row = (run.started_ns, max(run.started_ns, run.ended_ns), life, run)
                    self.runs.setdefault(run.core, []).append(row)
                    self._by_worker.setdefault((run.core, run.worker), []).append(row)
        for rows in (*self.runs.values(), *self._by_worker.values()):
            rows.sort(key=lambda row: row[:2])
        for wait in (*history.waits, *history.open_waits.values()):
            if wait.task:
                self._waits.setdefault((wait.core, wait.client, wait.task), []).append(wait)
        for transfer in history.transfers:
            self._transfers.setdefault((transfer.object, transfer.core), []).append(transfer)
        for room in (*history.room_waits, *history.room_asked.values()):
            self._rooms.setdefault((room.core, room.client), []).append(room)

    # ------------------------------------------------------------------ beginnings and ends

    def began_ns(self, life: TaskLife) -> int:
        """When it was submitted, or first heard of in the trace."""
        if life.submitted_ns >= 0:
            return life.submitted_ns
        known = [move.at_ns for move in life.moves if move.at_ns >= 0]
        for run in life.attempts:
            times = (run.received_ns, run.sent_ns, run.started_ns, run.closed_ns, run.ended_ns)
            known += [ns for ns in times if ns >= 0]
        return min(known, default=self.begin_ns)

    def has_ended(self, life: TaskLife) -> bool:
        """True if it is over, as far as the trace tells."""
        return life.state in (FINISHED, FAILED, CANCELLED)

    def ended_ns(self, life: TaskLife) -> int:
        """When its owner knew its end; the end of the trace if it has none."""
        found = self._ends.get(life.id)
        if found is None:
            found = self._ends[life.id] = max(self.began_ns(life), self._find_end(life))
        return found

    def _find_end(self, life: TaskLife) -> int:
        if not self.has_ended(life):
            return self.end_ns
        if life.over_ns >= 0:
            return life.over_ns
        last = life.last
        if last is not None and last.state != SENT:
            if last.closed_ns >= 0:
                return last.closed_ns
            if last.ended_ns >= 0:
                return last.ended_ns
        for move in life.moved(REFUSED):
            return move.at_ns
        blamed = self.failed_argument(life)
        chain = [life.id]
        while blamed:  # a chain of failed arguments, to the first that ran
            source = self.history.tasks.get(task_of(blamed))
            if source is None or source.id in chain:
                break
            chain.append(source.id)
            run = source.last
            if run is not None and run.state != SENT and run.closed_ns >= 0:
                return run.closed_ns
            blamed = self.failed_argument(source)
        ruin = self.history.ruins.get(ObjectID(life.id + bytes(4)))
        return ruin.at_ns if ruin is not None else self.end_ns

    def failed_argument(self, life: TaskLife) -> ObjectID:
        """The first argument whose producer failed or was cancelled; b"" if there is none."""
        for item in life.args:
            if is_a_put(item):
                continue
            producer = self.history.tasks.get(task_of(item))
            if producer is not None and producer.state in (FAILED, CANCELLED):
                return item
        return NO_OBJECT

    # ------------------------------------------------------------------ parts

    def parts(self, life: TaskLife) -> list[Part]:
        """From its submission to its end; without gap, overlap or empty part."""
        found = self._parts.get(life.id)
        if found is None:
            found = self._parts[life.id] = _Line(self, life).draw()
        return found

    def runs_between(
        self, core: int, started_ns: int, ended_ns: int, client: ClientID = NO_CLIENT
    ) -> Iterator[tuple[int, TaskLife, Attempt]]:
        """Runs at a node, or at one worker, in that time: for how long within it, and which."""
        rows = self._by_worker.get((core, client), []) if client else self.runs.get(core, [])
        stop = bisect_left(rows, ended_ns, key=lambda row: row[0])
        for began_ns, over_ns, life, run in rows[:stop]:
            until_ns = over_ns if run.ended_ns >= 0 else self.end_ns
            inside = min(until_ns, ended_ns) - max(began_ns, started_ns)
            if inside > 0:
                yield inside, life, run

    def last_before(self, run: Attempt, limit_ns: int) -> int:
        """When the run before this one on its worker ended, if that is known; else -1."""
        rows = self._by_worker.get((run.core, run.worker), [])
        ends = [row[1] for row in rows if row[3] is not run and row[1] <= limit_ns]
        return max(ends, default=-1)

    def waits_of(self, life: TaskLife, run: Attempt) -> list[Wait]:
        """The gets in which a run stood still."""
        return self._waits.get((run.core, run.worker, life.id), [])

    def rooms_of(self, run: Attempt) -> list[RoomWait]:
        """Waits of a worker for room in the store."""
        return self._rooms.get((run.core, run.worker), [])

    def transfers_of(self, item: ObjectID, core: int) -> list[Transfer]:
        """What was sent of an object to a core, in order."""
        return self._transfers.get((item, core), [])

    def became(self, item: ObjectID, core: int, *, bytes_too: bool) -> tuple[int, ...]:
        """When a value became known at a core; with `bytes_too`, also when its bytes came."""
        key = (item, core, bytes_too)
        found = self._became.get(key)
        if found is None:
            found = self._became[key] = tuple(self._find_became(*key))
        return found

    def _find_became(self, item: ObjectID, core: int, bytes_too: bool) -> Iterator[int]:
        known = self.history.objects.get(item)
        if known is None:
            return
        if known.core == core and known.sealed_ns >= 0:
            yield known.sealed_ns
        for move in known.moves:
            if move.core == core and (
                move.kind in (KNOWN, MADE_AGAIN) or (bytes_too and move.kind == ARRIVED)
            ):
                yield move.at_ns

    def lost_ns(self, item: ObjectID, after_ns: int, until_ns: int) -> tuple[int, str]:
        """When, in that time, its owner learned that the last copy was lost, and why.

        (-1, "") if the trace does not tell. A death is the reason, if there was one: others may
        only have looked there in vain.
        """
        known = self.history.objects.get(item)
        if known is None:
            return -1, ""
        holders = {move.node for move in known.moves if move.kind in (KNOWN, ARRIVED, MADE_AGAIN)}
        holders.add(self.history.node_of(known.core))
        missed = [
            (move.at_ns, f"node {move.node} had no copy of it any more")
            for move in known.moves
            if move.kind in _GONE and after_ns <= move.at_ns <= until_ns
        ]
        deaths = []
        for node in sorted(holders - {NO_NODE}):
            member = self.history.members.get(node)
            if member is not None and after_ns <= member.buried_ns <= until_ns:
                deaths.append((member.buried_ns, f"node {node} died: {member.reason}"))
        if not missed and not deaths:
            return -1, ""
        return max(missed + deaths)[0], max(deaths or missed)[1]


class _Line:
    """Draws the line of one task."""

    def __init__(self, timeline: Timeline, life: TaskLife) -> None:
        self._t = timeline
        self._life = life
        self._home = life.core
        self._at_ns = timeline.began_ns(life)
        self._end_ns = timeline.ended_ns(life)
        self._limit_ns = self._end_ns
        """Of the attempt that is drawn."""
        self._number = 0
        self._is_lost = False
        self._stage = RESOURCE if life.submitted_ns >= 0 else UNKNOWN
        self._core = life.core
        self._node = timeline.history.node_of(life.core)
        self._text = ""
        self._parts: list[Part] = []

    def draw(self) -> list[Part]:
        """All parts."""
        life = self._life
        moves: dict[int, list[LifeMove]] = {}
        for move in life.moves:
            if move.kind != CANCEL_ASKED:
                moves.setdefault(move.attempt, []).append(move)
        runs = {run.number: run for run in life.attempts}
        for number in sorted({*moves, *runs}):
            self._draw_attempt(number, moves.get(number, ()), runs.get(number))
        self._limit_ns = self._end_ns
        self._is_lost = False
        self._leave(self._end_ns, None)
        return self._parts

    def _draw_attempt(self, number: int, moves: Sequence[LifeMove], run: Attempt | None) -> None:
        self._number = number
        self._limit_ns = self._end_ns
        closed_ns = run.closed_ns if run is not None else -1
        if closed_ns >= 0:
            self._limit_ns = max(self._at_ns, min(closed_ns, self._end_ns))
        self._is_lost = run is not None and run.state not in (SENT, FINISHED)
        if run is not None and run is self._life.last and run.state != LOST:
            self._is_lost = False
        if self._stage == KEPT:
            self._lose_value(self._first_of(moves, run))
        for move in moves:
            if move.at_ns <= self._limit_ns or closed_ns < 0:
                self._follow(move, run)
        if run is None:
            return
        if run.sent_ns >= 0 or run.started_ns >= 0:
            self._draw_run(run)
        if closed_ns >= 0:
            self._leave(self._limit_ns, run)
        if run.state != SENT:
            self._stage = KEPT if run.state == FINISHED else RESOURCE
            self._go_home()

    def _first_of(self, moves: Sequence[LifeMove], run: Attempt | None) -> int:
        known = [move.at_ns for move in moves if move.at_ns >= 0]
        if run is not None:
            known += [ns for ns in (run.sent_ns, run.started_ns, run.closed_ns) if ns >= 0]
        return min(known, default=self._end_ns)

    def _lose_value(self, until_ns: int) -> None:
        """It had finished and runs again: until when was its value there?"""
        life = self._life
        found = (-1, "")
        for index in range(min(life.num_returns, RETURNS_MAX)):
            item = ObjectID(life.id + index.to_bytes(4, "big"))
            found = max(found, self._t.lost_ns(item, self._at_ns, until_ns))
        self._text = found[1]
        self._add(KEPT, found[0] if found[0] >= 0 else until_ns)
        self._stage, self._text = RESOURCE, AGAIN

    def _follow(self, move: LifeMove, run: Attempt | None) -> None:
        """The task changes its place."""
        kind = move.kind
        if kind == TAKEN_BACK:
            self._leave(move.since_ns, run, move.client)
            self._stage = QUEUE
            self._add(QUEUE, move.at_ns, client=move.client)
            self._stage = RESOURCE
            return
        self._leave(move.at_ns, run)
        if kind == ASKED:
            self._stage, self._text = PLACE, ""
        elif kind == INFEASIBLE:
            self._stage, self._text = PLACE, move.text or "nothing"
        elif kind == DELIVERED:
            self._stage, self._node, self._core = (
                TRAVEL,
                move.node,
                self._t.history.core_of(move.node),
            )
            self._text = ""
        elif kind == RECEIVED:
            self._stage, self._node, self._core = RESOURCE, move.node, move.core
        elif kind in (PLACED, WITHDRAWN, RETURNED, REFUSED):
            self._stage, self._text = RESOURCE, ""
            self._go_home()

    def _go_home(self) -> None:
        self._core = self._home
        self._node = self._t.history.node_of(self._home)

    def _draw_run(self, run: Attempt) -> None:
        """In a worker's queue, running, and until its owner knows."""
        self._leave(run.sent_ns, run)
        self._text = ""
        self._core, self._node = run.core, run.node
        self._stage = QUEUE
        if run.started_ns >= 0:
            self._add(QUEUE, run.started_ns, client=run.worker)
        elif run.state == LOST or run.state == SENT:
            # It never reported: it began when the worker was through with what was sent before.
            self._add(QUEUE, self._t.last_before(run, self._limit_ns), client=run.worker)
        self._stage = RUN
        if run.ended_ns >= 0 and run.started_ns >= 0:
            self._draw_execution(run, run.ended_ns)
            self._stage = REPORT

    def _draw_execution(self, run: Attempt, until_ns: int) -> None:
        """Split a run by the waits inside it."""
        stops: list[tuple[int, int, str, ObjectID, str]] = []
        for wait in self._t.waits_of(self._life, run):
            ended_ns = wait.ended_ns if wait.ended_ns >= 0 else until_ns
            item, there_ns = self._last_needed(wait, ended_ns)
            why = wait.refusal.partition("\n")[0]
            stops.append((wait.started_ns, there_ns, GET, item, why))
            stops.append((there_ns, ended_ns, RESUME, item, ""))
        for room in self._t.rooms_of(run):
            ended_ns = room.ended_ns if room.ended_ns >= 0 else until_ns
            stops.append((room.started_ns, ended_ns, ROOM, room.object, room.refusal))
        for started_ns, ended_ns, kind, item, text in sorted(stops):
            if started_ns >= self._at_ns and ended_ns <= max(until_ns, self._at_ns):
                self._add(RUN, started_ns, client=run.worker)
                self._text = text
                self._add(kind, ended_ns, client=run.worker, item=item)
                self._text = ""
        self._add(RUN, until_ns, client=run.worker)

    def _last_needed(self, wait: Wait, ended_ns: int) -> tuple[ObjectID, int]:
        """The object that let a get end, and when it came; what is missing if none did."""
        if wait.failed:
            times = [ns for ns in self._came(wait.failed, wait.core) if ns <= ended_ns]
            return wait.failed, max((ns for ns in times if ns > wait.started_ns), default=ended_ns)
        came: list[tuple[int, ObjectID]] = []
        for item in wait.objects:
            times = [ns for ns in self._came(item, wait.core) if ns <= ended_ns]
            if not times:
                if wait.timed_out or wait.refusal or wait.ended_ns < 0:
                    return item, ended_ns
                continue
            came.append((max(times), item))
        came.sort()
        chosen = came[: max(1, wait.needed)][-1:] if came else []
        for ns, item in chosen:
            if ns > wait.started_ns:
                return item, ended_ns if wait.timed_out else ns
        return (wait.objects[0] if wait.objects else NO_OBJECT), ended_ns

    def _came(self, item: ObjectID, core: int) -> Iterable[int]:
        return self._t.became(item, core, bytes_too=True)

    # ------------------------------------------------------------------ stretches

    def _leave(self, ns: int, run: Attempt | None, client: ClientID = NO_CLIENT) -> None:
        """The stage that it is in lasts until then."""
        until_ns = min(ns, self._limit_ns)
        if until_ns <= self._at_ns:
            return
        if self._stage == RESOURCE:
            self._split_wait(until_ns, run, client)
        elif self._stage == RUN and run is not None:
            self._draw_execution(run, until_ns)
        elif self._stage == RUN:
            self._draw_open_run(until_ns)
        else:
            self._add(self._stage, until_ns)

    def _draw_open_run(self, until_ns: int) -> None:
        """It still runs where the trace ends."""
        last = self._life.last
        if last is None:
            self._add(RUN, until_ns)
        else:
            self._draw_execution(last, until_ns)

    def _split_wait(self, until_ns: int, run: Attempt | None, client: ClientID) -> None:
        """It waited at a node: for values, for bytes, for a process, for the rest."""
        at_home = self._core == self._home
        missing = self._still_missing() if at_home and until_ns == self._t.end_ns else NO_OBJECT
        if missing:
            self._add(ARGUMENT, until_ns, item=missing)
            return
        if at_home and self._t.has_ended(self._life) and until_ns == self._end_ns:
            has_no_value = self._life.state == FAILED or self._life.error.startswith(JOB_OVER)
            blamed = self._t.failed_argument(self._life) if has_no_value else NO_OBJECT
            if blamed and not (run is not None and run.state == FAILED):
                self._add(ARGUMENT, until_ns, item=blamed)
                return
        if at_home:
            self._wait_for_arguments(ARGUMENT, until_ns, bytes_too=False)
        self._wait_for_arguments(FETCH, until_ns, bytes_too=True)
        seat = client or (run.worker if run is not None else NO_CLIENT)
        worker = self._t.history.workers.get((self._core, seat)) if seat else None
        if worker is not None and self._at_ns < worker.ready_ns <= until_ns:
            self._add(RESOURCE, worker.asked_ns)
            self._add(START, worker.ready_ns, client=worker.id)
        self._add(RESOURCE, until_ns)

    def _still_missing(self) -> ObjectID:
        """An argument whose value was not known when the trace ended."""
        if self._life.state != WAITING:
            return NO_OBJECT
        for item in self._life.args:
            producer = None if is_a_put(item) else self._t.history.tasks.get(task_of(item))
            if producer is not None and not self._t.has_ended(producer):
                return item
        return NO_OBJECT

    def _wait_for_arguments(self, kind: str, until_ns: int, *, bytes_too: bool) -> None:
        last, item = -1, NO_OBJECT
        for argument in self._life.args:
            for ns in self._t.became(argument, self._core, bytes_too=bytes_too):
                if last < ns and self._at_ns < ns <= until_ns:
                    last, item = ns, argument
        if item:
            self._add(kind, last, item=item)

    def _add(
        self,
        kind: str,
        ns: int,
        *,
        client: ClientID = NO_CLIENT,
        item: ObjectID = NO_OBJECT,
    ) -> None:
        """Up to that moment it was this; nothing if that moment is over."""
        until_ns = min(ns, self._limit_ns)
        if until_ns <= self._at_ns:
            return
        self._parts.append(
            Part(
                kind,
                self._at_ns,
                until_ns,
                self._number,
                self._core,
                self._node,
                client,
                item,
                self._text,
                self._is_lost,
            )
        )
        self._at_ns = until_ns


def clip(parts: Iterable[Part], windows: Sequence[tuple[int, int]]) -> Iterator[Part]:
    """What of the parts lies within the windows, which do not overlap."""
    starts = sorted(windows)
    for part in parts:
        first = max(0, bisect_right(starts, (part.started_ns, 0)) - 1)
        for started_ns, ended_ns in starts[first:]:
            if started_ns >= part.ended_ns:
                break
            begin, end = max(started_ns, part.started_ns), min(ended_ns, part.ended_ns)
            if begin < end:
                yield msgspec.structs.replace(part, started_ns=begin, ended_ns=end)
