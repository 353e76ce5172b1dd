"""The causes of what became of a task, walked back.

Its time is split (`parts.py`), the largest part first, and what it waited for is asked the same
question: within the time of the wait, and to a bound. For what failed it is the chain back to the
first failure; for what never ended, the chain of what waits for what. (Objects, workers and nodes:
`things.py`, which asks here about the tasks behind them.)
"""

from __future__ import annotations

import msgspec

from detray.errors import Failure
from detray.ids import (
    NO_CLIENT,
    NO_OBJECT,
    ClientID,
    NodeID,
    ObjectID,
    TaskID,
    task_of,
)
from detray.trace.explaining.conclusions import (
    because,
    chain_text,
    conclude,
    phrase,
    without_subject,
)
from detray.trace.explaining.parts import (
    ARGUMENT,
    FETCH,
    GET,
    KEPT,
    PLACE,
    QUEUE,
    REPORT,
    RESOURCE,
    RUN,
    Part,
    Timeline,
    clip,
)
from detray.trace.explaining.tree import (
    CAUSES_MAX,
    CHAIN_MAX,
    DEPTH,
    EVENT,
    FAILURE,
    FOLLOWED,
    MEANWHILE,
    STUCK,
    TIME,
    Cause,
    Why,
    ordered,
    summed,
)
from detray.trace.explaining.words import away_text, meanwhile_text, part_text, reason_text
from detray.trace.gathering.history import History
from detray.trace.gathering.lives import (
    CANCEL_ASKED,
    CANCELLED,
    FAILED,
    FINISHED,
    LOST,
    REFUSED,
    SENT,
    Attempt,
    TaskLife,
)
from detray.trace.names import first_line, is_a_put, short
from detray.trace.quantities import time_text

WORDS_MIN = 8
"""An error that is shorter may stand in another by chance."""
Windows = list[tuple[int, int]]


class Explainer:
    """Finds causes in a dated history; at most `depth` levels of them."""

    def __init__(self, timeline: Timeline, depth: int = DEPTH) -> None:
        self.timeline = timeline
        self.history: History = timeline.history
        self.depth = depth

    def since(self, ns: int) -> int:
        """A date as nanoseconds since the trace began; -1 stays -1."""
        return ns - self.timeline.begin_ns if ns >= 0 else -1

    def at(self, ns: int) -> str:
        """ " at 1.234567 s", "" if it is not known when."""
        return f" at {self.since(ns) / 1e9:.6f} s" if ns >= 0 else ""

    def named(self, task: TaskID) -> str:
        """A task by its function and short name."""
        life = self.history.tasks.get(task)
        return f"{life.name} ({short(task)})" if life is not None else short(task)

    def value_named(self, item: ObjectID) -> str:
        """An object by its short name, and who makes it."""
        life = None if is_a_put(item) else self.history.tasks.get(task_of(item))
        return f"{short(item)} of {life.name}" if life is not None else short(item)

    def producer(self, item: ObjectID) -> TaskLife | None:
        """The task that returns an object; None for a put, and if the trace does not know it."""
        return None if not item or is_a_put(item) else self.history.tasks.get(task_of(item))

    # ------------------------------------------------------------------ a task

    def explain_task(self, life: TaskLife) -> Why:
        """Where its time went, why it failed, or what it still waits for."""
        timeline = self.timeline
        started_ns, ended_ns = timeline.began_ns(life), timeline.ended_ns(life)
        times = self.times(life, [(started_ns, ended_ns)], self.depth, (life.id,))
        length_ns = ended_ns - started_ns
        causes: tuple[Cause, ...] = times
        if life.state in (FAILED, CANCELLED):
            failure = self.failure(life)
            conclusion = without_subject(self.named(life.id), failure.text) + because(failure)
            if life.state == CANCELLED and times and times[0].part != RUN:
                before = phrase(times[0])
                conclusion += (
                    f"; before that {times[0].text if times[0].part == 'lost' else f'it {before}'}"
                )
            causes = (failure, *times)
        elif not timeline.has_ended(life):
            stuck = self.stuck(life)
            conclusion = f"had not ended when the trace ended, {time_text(length_ns)} after "
            conclusion += (
                "its submission: " if life.submitted_ns >= 0 else "it was first heard of: "
            )
            conclusion += chain_text(stuck, self.named(life.id))
            causes = (stuck, *times)
        else:
            conclusion = conclude(times, length_ns)
        return Why(
            self.named(life.id), conclusion, self.since(started_ns), self.since(ended_ns),
            length_ns, causes,
        )  # fmt: skip

    def times(
        self, life: TaskLife, windows: Windows, depth: int, path: tuple[TaskID, ...]
    ) -> tuple[Cause, ...]:
        """Where the time of a task within these windows went, the largest first."""
        parts = self.timeline.parts(life)
        rebuilt = _rebuilt(life, parts)
        groups: dict[int, list[Part]] = {}
        for part in clip(parts, windows):
            is_apart = part.is_lost or (part.attempt in rebuilt and part.kind != KEPT)
            groups.setdefault(part.attempt if is_apart else -1, []).append(part)
        causes: list[Cause] = []
        for number, members in groups.items():
            inner = self._groups(life, members, depth if number < 0 else depth - 1, path)
            if number < 0:
                causes += inner
            else:
                causes.append(self._attempt(life, number, members, inner, rebuilt.get(number)))
        return summed(ordered(causes))

    def _attempt(
        self,
        life: TaskLife,
        number: int,
        parts: list[Part],
        inner: tuple[Cause, ...],
        lost: str | None,
    ) -> Cause:
        """An attempt that came to nothing, or that made a lost value again."""
        run = next((run for run in life.attempts if run.number == number), None)
        begin, end = parts[0].started_ns, parts[-1].ended_ns
        length_ns = sum(part.length_ns for part in parts)
        if parts[0].is_lost and run is not None:
            text = f"attempt {number} was lost: {self.loss(run)}"
            if run.state != LOST:
                text = f"attempt {number} failed and was tried again: {first_line(run.error)}"
            kind = "lost"
        else:
            text, kind = f"was run again (attempt {number}), for its value was lost", "rebuilt"
            text += f": {lost}" if lost else ""
        return Cause(
            TIME, text, length_ns, self.since(begin), self.since(end), kind, causes=summed(inner)
        )

    def loss(self, run: Attempt) -> str:
        """Why an attempt was lost, in words."""
        if run.error.startswith("node ") or not run.worker:
            return first_line(run.error)
        return f"{self.worker_named(run.core, run.worker)} died: {first_line(run.error)}"

    def _groups(
        self, life: TaskLife, parts: list[Part], depth: int, path: tuple[TaskID, ...]
    ) -> tuple[Cause, ...]:
        """Equal parts as one, each with what is behind it."""
        groups: dict[tuple[object, ...], list[Part]] = {}
        for part in parts:
            key = (part.kind, part.item, part.core, part.node, part.client, part.text)
            groups.setdefault(key, []).append(part)
        largest = max((_length(group) for group in groups.values()), default=0)
        causes = []
        for group in groups.values():
            first, length_ns = group[0], _length(group)
            inner: tuple[Cause, ...] = ()
            if depth > 1 and length_ns * FOLLOWED >= largest:
                windows = [(part.started_ns, part.ended_ns) for part in group]
                inner = self._behind(life, first, windows, depth - 1, path)
            causes.append(
                Cause(
                    TIME, part_text(self, life, first), length_ns, self.since(first.started_ns),
                    self.since(group[-1].ended_ns), first.kind,
                    short(first.item) if first.item else "", causes=inner,
                )
            )  # fmt: skip
        return ordered(causes)

    def _behind(
        self, life: TaskLife, part: Part, windows: Windows, depth: int, path: tuple[TaskID, ...]
    ) -> tuple[Cause, ...]:
        """What is behind a part of a task's time."""
        if part.kind in (ARGUMENT, GET):
            producer = self.producer(part.item)
            if producer is None or producer.id in path:
                return ()
            inner = self.times(producer, windows, depth, (*path, producer.id))
            if producer.state in (FAILED, CANCELLED) and life.state == FINISHED:
                inner = (self.failure(producer), *inner)  # else the chain of failures told it
            return inner
        if part.kind == FETCH:
            return (*self._transfers(part, windows), *self._loss_of(part, windows, depth, path))
        if part.kind in (RESOURCE, QUEUE) and part.core >= 0:
            return self._meanwhile(life, part, windows)
        if part.kind == PLACE:
            return self._head_changes(life, windows)
        return ()

    def _loss_of(
        self, part: Part, windows: Windows, depth: int, path: tuple[TaskID, ...]
    ) -> tuple[Cause, ...]:
        """What was to be fetched was lost meanwhile, and made again."""
        producer = self.producer(part.item)
        if producer is None or producer.id in path:
            return ()
        if all(part.kind == REPORT for part in clip(self.timeline.parts(producer), windows)):
            return ()
        return self.times(producer, windows, depth, (*path, producer.id))

    def _transfers(self, part: Part, windows: Windows) -> tuple[Cause, ...]:
        begin, end = windows[0][0], windows[-1][1]
        found: list[Cause] = []
        for transfer in self.timeline.transfers_of(part.item, part.core):
            until_ns = transfer.ended_ns if transfer.ended_ns >= 0 else self.timeline.end_ns
            if transfer.began_ns < end and until_ns > begin and len(found) < CAUSES_MAX:
                found.append(away_text(self, transfer, until_ns))
        return tuple(found)

    def _meanwhile(self, life: TaskLife, part: Part, windows: Windows) -> tuple[Cause, ...]:
        """What ran there meanwhile, the longest first: not a share of the time but its reason."""
        client = part.client if part.kind == QUEUE else NO_CLIENT
        runs: dict[tuple[TaskID, int], int] = {}
        for begin, end in windows:
            for inside, other, run in self.timeline.runs_between(part.core, begin, end, client):
                if other is not life:
                    key = (other.id, run.number)
                    runs[key] = runs.get(key, 0) + inside
        ranked = sorted(runs.items(), key=lambda entry: -entry[1])
        found = [
            Cause(MEANWHILE, f"{self.named(task)} ran", inside, about=short(task))
            for (task, _), inside in ranked[:3]
        ]
        if len(ranked) > 3:
            names = [self.history.tasks[task].name for (task, _), _ in ranked[3:]]
            text = meanwhile_text(names)
            found.append(Cause(MEANWHILE, text, sum(inside for _, inside in ranked[3:])))
        return tuple(found)

    def _head_changes(self, life: TaskLife, windows: Windows) -> tuple[Cause, ...]:
        return tuple(
            Cause(
                EVENT, f"another head began to speak, under epoch {change.epoch}",
                started_ns=self.since(change.at_ns),
            )
            for change in self.history.head_changes
            if change.core == life.core
            and any(begin <= change.at_ns <= end for begin, end in windows)
        )  # fmt: skip

    # ------------------------------------------------------------------ failures

    def failure(self, life: TaskLife) -> Cause:
        """Why a task failed or was cancelled, back to the first failure of the chain."""
        chain: list[Cause] = []
        seen: set[TaskID] = set()
        current: TaskLife | None = life
        while current is not None and current.id not in seen and len(chain) < CHAIN_MAX:
            seen.add(current.id)
            cause, current = self._failure(current)
            chain.append(cause)
        return _nested(chain)

    def _failure(self, life: TaskLife) -> tuple[Cause, TaskLife | None]:
        """One failure, and the task whose failure is behind it."""
        name = self.named(life.id)
        ended_ns = self.since(self.timeline.ended_ns(life))
        last = life.last
        if life.state == CANCELLED:
            return self._cancelled(life, name, ended_ns), None
        if last is not None and last.state == LOST:
            text = f"{name} failed: {self.loss(last)}{_budget(life, last)}"
            detail = _detail(last)
            return Cause(
                FAILURE, text, ended_ns=ended_ns, detail=detail, causes=self.death(last)
            ), None
        if last is not None and last.state == FAILED:
            where = (
                f" on worker {last.worker}{self.history.where(last.core)}" if last.worker else ""
            )
            verb = "raised" if last.failure in (0, Failure.APPLICATION) else "failed:"
            budget = _budget(life, last) if life.retries_errors else ""
            text = f"{name} {verb} {first_line(last.error)}{where}{budget}"
            source, is_told = self._failed_get(life, last)
            refused = self._refused_get(life, last)
            cause = Cause(FAILURE, text, ended_ns=ended_ns, detail=_detail(last), causes=refused)
            if source is not None and not is_told:
                text = f"its last get had been told that {self.named(source.id)} failed"
                beside = Cause(EVENT, text, about=short(source.id))
                return msgspec.structs.replace(cause, causes=(*refused, beside)), None
            return cause, source
        for move in life.moved(REFUSED):
            return Cause(FAILURE, f"{name} failed: {move.text}", ended_ns=ended_ns), None
        blamed = self.timeline.failed_argument(life)
        if blamed:
            text = f"{name} failed because its argument {self.value_named(blamed)} did"
            return Cause(FAILURE, text, ended_ns=ended_ns, about=short(blamed)), self.producer(
                blamed
            )
        return Cause(FAILURE, f"{name} failed: {life.error}", ended_ns=ended_ns), None

    def _refused_get(self, life: TaskLife, run: Attempt) -> tuple[Cause, ...]:
        """That its last get was failed without an object to blame."""
        last = next(reversed(self.timeline.waits_of(life, run)), None)
        if last is None or not last.refusal:
            return ()
        text, _, detail = last.refusal.partition("\n")
        at_ns = self.since(last.ended_ns)
        return (
            Cause(EVENT, f"its get failed: {text}", started_ns=at_ns, detail=detail.strip("\n")),
        )

    def _failed_get(self, life: TaskLife, run: Attempt) -> tuple[TaskLife | None, bool]:
        """The task whose failure this run was told in its last get; and whether its error says so.

        The error does if it, or its traceback, has the words of the first failure behind that.
        """
        waits = self.timeline.waits_of(life, run)
        source = self.producer(waits[-1].failed) if waits and waits[-1].failed else None
        if source is None:
            return None, False
        first = source
        for _ in range(CHAIN_MAX):
            below = self.producer(self.timeline.failed_argument(first) or NO_OBJECT)
            if below is None:
                break
            first = below
        words = [first.id.hex(), first_line(first.error)]
        told = f"{run.error}\n{run.traceback}"
        return source, any(len(word) >= WORDS_MIN and word in told for word in words)

    def _cancelled(self, life: TaskLife, name: str, ended_ns: int) -> Cause:
        for move in life.moved(CANCEL_ASKED):
            how = f" {move.text}" if move.text else ""
            who = reason_text(self, move.client, move.core)
            text = f"{name} was cancelled: {who} asked for it{how}{self.at(move.at_ns)}"
            return Cause(FAILURE, text, ended_ns=ended_ns)
        why_not = life.error or "nobody in the trace asked for it"
        return Cause(FAILURE, f"{name} was cancelled: {why_not}", ended_ns=ended_ns)

    def death(self, run: Attempt) -> tuple[Cause, ...]:
        """What is known of the death of the worker, or the node, that had begun a run."""
        worker = self.history.workers.get((run.core, run.worker)) if run.worker else None
        if worker is not None and worker.lost_ns >= 0:
            by = "by order of its node" if worker.killed_ns >= 0 else "on its own"
            text = (
                f"worker {worker.id}{self.history.where(worker.core)} (pid {worker.pid}) died {by}"
            )
            return (
                Cause(
                    EVENT,
                    f"{text}: {first_line(worker.reason) or 'it left'}",
                    started_ns=self.since(worker.lost_ns),
                ),
            )
        member = self.history.members.get(run.node)
        if member is not None and member.buried_ns >= 0:
            text = f"node {member.node} was declared dead: {member.reason}"
            return (Cause(EVENT, text, started_ns=self.since(member.buried_ns)),)
        return ()

    # ------------------------------------------------------------------ what never ended

    def stuck(self, life: TaskLife) -> Cause:
        """What a task waits for where the trace ends, to the root of the wait."""
        chain: list[Cause] = []
        path: list[TaskID] = []
        current: TaskLife | None = life
        while current is not None and len(chain) < CHAIN_MAX:
            if current.id in path:
                text = f"{self.named(current.id)} again: they wait for each other"
                chain.append(Cause(STUCK, text, about=short(current.id)))
                break
            path.append(current.id)
            cause, current = self._stuck(current)
            chain.append(cause)
        return _nested(chain)

    def _stuck(self, life: TaskLife) -> tuple[Cause, TaskLife | None]:
        """What one task waits for at the end, and the task that is behind that."""
        name = self.named(life.id)
        if self.timeline.has_ended(life):
            text = f"{name}, which is {life.state}"
            return Cause(STUCK, text, about=short(life.id)), None
        parts = self.timeline.parts(life)
        if not parts:
            return Cause(STUCK, f"{name}, which was submitted as the trace ended"), None
        last = parts[-1]
        text = f"{name} {part_text(self, life, last, is_open=True)}"
        cause = Cause(
            STUCK, text, last.length_ns, self.since(last.started_ns), part=last.kind,
            about=short(life.id),
        )  # fmt: skip
        if last.kind in (ARGUMENT, GET):
            return cause, self.producer(last.item)
        if last.kind in (QUEUE, RESOURCE) and last.core >= 0:
            return cause, self._holder(life, last)
        return cause, None

    def _holder(self, life: TaskLife, part: Part) -> TaskLife | None:
        """A run that has not ended and holds what the task waits for: the oldest."""
        client = part.client if part.kind == QUEUE else NO_CLIENT
        for other in self.history.tasks.values():
            run = other.last
            if run is None or other is life or run.state != SENT or run.core != part.core:
                continue
            if client and run.worker != client:
                continue
            if run.worker and (not client or run.sent_ns <= part.started_ns):
                return other
        return None

    def worker_named(self, core: int, client: ClientID) -> str:
        """A worker in words."""
        return f"worker {client}{self.history.where(core)}"

    def node_named(self, core: int, node: NodeID) -> str:
        """A node in words; "this node" where there is only one."""
        if self.history.names and core >= 0:
            return self.history.names[core]
        return f"node {node}" if node >= 0 and core < 0 else "this node"


def _nested(chain: list[Cause]) -> Cause:
    """The first of a chain, each with the next below its own causes."""
    result = chain[-1]
    for outer in reversed(chain[:-1]):
        result = msgspec.structs.replace(outer, causes=(*outer.causes, result))
    return result


def _rebuilt(life: TaskLife, parts: list[Part]) -> dict[int, str]:
    """Attempts that were made because a value was lost, and why it was."""
    found = {}
    finished = False
    for run in life.attempts:
        if finished:
            kept = [part for part in parts if part.kind == KEPT and part.attempt == run.number]
            found[run.number] = kept[-1].text if kept else ""
        finished = finished or run.state == FINISHED
    return found


def _detail(run: Attempt) -> str:
    """Where it happened: the traceback of an error, the stack of a crash."""
    return run.traceback.strip() or run.error.partition("\n")[2].strip()


def _length(parts: list[Part]) -> int:
    return sum(part.length_ns for part in parts)


def _budget(life: TaskLife, run: Attempt) -> str:
    if life.max_retries <= 0:
        return f", attempt {run.number}" if run.number else ""
    return f", attempt {run.number} of max_retries={life.max_retries}"
