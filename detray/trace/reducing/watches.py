"""Watches: one for each kind of expectation, told every step, quick to say that nothing is wrong.

`before` comes ahead of a step and says how late it is: what was due by then is overdue, whatever
the step does. `after` comes behind it. Dates are nanoseconds; `None` as answer is good news.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Any

import msgspec

from detray.core import head_messages as hm
from detray.core.head_invariants import HEAD_INVARIANTS, check_head
from detray.core.head_tables import GlobalTables
from detray.core.invariants import INVARIANTS, InvariantBroken, check
from detray.core.resources import CPU, UNIT
from detray.core.strategy import AFFINITY, Strategy, is_labelled, is_named
from detray.core.tables import Tables
from detray.ids import OBJECT_ID_BYTES, TASK_ID_BYTES
from detray.trace.names import first_line
from detray.trace.quantities import time_text
from detray.trace.reducing.ledger import (
    ENDS,
    ENTERS,
    RUNS,
    SENT,
    WAITS,
    Change,
    Ledger,
    LedgerRow,
    state_in_words,
)

Part = str | bytes
"""Of a sentence: text, or an id that the reader is shown the name of."""


class Finding(msgspec.Struct, frozen=True):
    """What is wrong. `kind` is equal for what is wrong in the same way; `core` is where."""

    kind: str
    parts: tuple[Part, ...]
    core: int
    subjects: tuple[bytes, ...] = ()
    """Tasks or objects that it is about."""


class Watch:
    """Sees one run. What it does not look at, it need not override."""

    needs_ledger = True

    def begin(self, core: int, tables: Any) -> None:  # Any: tables of a node or a head
        """A core is there; what it did before nobody saw."""

    def before(self, ledger: Ledger, date_ns: int) -> Finding | None:
        """A step comes next, at that date."""
        return None

    def after(
        self, ledger: Ledger, core: int, date_ns: int, stimuli: Sequence[Any], tables: Any,
        changes: Sequence[Change],
    ) -> Finding | None:  # fmt: skip
        """A step of a core was taken. (Any: tables of a node or a head.)"""
        return None

    def end(self, ledger: Ledger) -> Finding | None:
        """Nothing comes any more."""
        return None


class WaitsTooLong(Watch):
    """No task waits more than so long; with `while_idle` only while it could use a free CPU."""

    def __init__(self, limit_ns: int, while_idle: bool) -> None:
        self._limit_ns = limit_ns
        self._while_idle = while_idle
        self._waiting: dict[str, list[tuple[int, int, LedgerRow]]] = {}
        """By what they ask for: heaps of (since, number, row); old entries are passed over."""
        self._idle_ns: dict[str, int] = {}
        """By what is asked for, since when a CPU is idle that would do."""

    def before(self, ledger: Ledger, date_ns: int) -> Finding | None:
        for key, heap in list(self._waiting.items()):
            while heap and heap[0][2].since_ns != heap[0][0]:
                heappop(heap)
            if not heap:
                del self._waiting[key]
                self._idle_ns.pop(key, None)
                continue
            since, _, row = heap[0]
            if self._while_idle:
                since = max(since, self._idle_ns.get(key, date_ns))
            if date_ns - since > self._limit_ns and ledger.confirm(row) is not None:
                return self._finding(ledger, row, date_ns - since)
        return None

    def _finding(self, ledger: Ledger, row: LedgerRow, waited_ns: int) -> Finding:
        why = state_in_words(ledger.tables[row.at], row)
        idle = "a CPU is idle, " if self._while_idle else ""
        parts = row.id, f" ({row.name}) waits for {time_text(waited_ns)}: {idle}{why}"
        return Finding(f"waits: {why}", parts, row.at, (row.id,))

    def after(
        self, ledger: Ledger, core: int, date_ns: int, stimuli: Sequence[Any], tables: Any,
        changes: Sequence[Change],
    ) -> Finding | None:  # fmt: skip
        for kind, row in changes:
            if kind == WAITS:
                heappush(self._waiting.setdefault(row.key, []), (row.since_ns, row.number, row))
        if self._while_idle:
            for key, heap in self._waiting.items():
                if not _is_cpu_idle(ledger, heap[0][2]):
                    self._idle_ns.pop(key, None)
                else:
                    self._idle_ns.setdefault(key, date_ns)
        return None


def _is_cpu_idle(ledger: Ledger, row: LedgerRow) -> bool:
    """True if a node that has all that the task asks for, busy or not, has the CPU free."""
    home = ledger.tables.get(row.at)
    task = home.tasks.get(row.id) if home is not None else None
    if home is None or task is None:
        return False
    template = home.templates[task.template]
    cpu = dict(template.demand).get("CPU", 0) or UNIT
    for tables in ledger.tables.values():
        totals = dict(tables.config.totals)
        if (
            tables.pool.available[CPU] >= cpu
            and not tables.fenced
            and all(totals.get(name, 0) >= amount for name, amount in template.demand)
            and _may_run_at(tables, template.strategy)
        ):
            return True
    return False


def _may_run_at(tables: Tables, strategy: Strategy | None) -> bool:
    if strategy is None:
        return True
    is_bound = strategy.kind == AFFINITY and not strategy.is_soft
    if is_bound and not is_named(strategy, tables.node):
        return False
    return is_labelled(strategy.hard, tables.node, tables.config.labels)


class RunsTooLong(Watch):
    """No task runs more than so long."""

    def __init__(self, limit_ns: int) -> None:
        self._limit_ns = limit_ns
        self._running: list[tuple[int, int, LedgerRow]] = []

    def before(self, ledger: Ledger, date_ns: int) -> Finding | None:
        heap = self._running
        while heap and heap[0][2].runs_ns != heap[0][0]:
            heappop(heap)
        if heap and date_ns - heap[0][0] > self._limit_ns:
            since, _, row = heap[0]
            state = state_in_words(ledger.tables.get(row.at), row)
            parts = row.id, f" ({row.name}) runs for {time_text(date_ns - since)}: {state}"
            return Finding(f"runs: {state}", parts, row.at, (row.id,))
        return None

    def after(
        self, ledger: Ledger, core: int, date_ns: int, stimuli: Sequence[Any], tables: Any,
        changes: Sequence[Change],
    ) -> Finding | None:  # fmt: skip
        for kind, row in changes:
            if kind == RUNS:
                heappush(self._running, (row.runs_ns, row.number, row))
        return None


class TakesTooLong(Watch):
    """A task finishes, or begins, within so long from its submission on."""

    def __init__(self, is_meant: Callable[[LedgerRow], bool], limit_ns: int, end: str) -> None:
        self._is_meant = is_meant
        self._limit_ns = limit_ns
        self._end = end
        """ENDS, or SENT: what is awaited."""
        self._open: list[tuple[int, int, LedgerRow]] = []
        self._done: set[int] = set()

    def before(self, ledger: Ledger, date_ns: int) -> Finding | None:
        heap = self._open
        while heap and heap[0][1] in self._done:
            heappop(heap)
        if heap and date_ns - heap[0][0] > self._limit_ns:
            row = heap[0][2]
            state = state_in_words(ledger.tables.get(row.at), row)
            verb = "finished" if self._end == ENDS else "begun"
            late = time_text(date_ns - heap[0][0])
            parts = row.id, f" ({row.name}) has not {verb} after {late}: {state}"
            return Finding(f"takes: {state}", parts, row.at, (row.id,))
        return None

    def after(
        self, ledger: Ledger, core: int, date_ns: int, stimuli: Sequence[Any], tables: Any,
        changes: Sequence[Change],
    ) -> Finding | None:  # fmt: skip
        for kind, row in changes:
            if kind == ENTERS and row.submitted_ns >= 0 and self._is_meant(row):
                heappush(self._open, (row.submitted_ns, row.number, row))
            if kind in (self._end, ENDS) and self._is_meant(row):
                self._done.add(row.number)
                if kind == ENDS and row.failed:
                    parts = row.id, f" ({row.name}) failed: {row.failed}"
                    return Finding("takes: it failed", parts, core, (row.id,))
        return None


class RunsBefore(Watch):
    """Nothing of the later kind is sent to a worker before something of the earlier one was."""

    def __init__(
        self, is_first: Callable[[LedgerRow], bool], is_later: Callable[[LedgerRow], bool]
    ) -> None:
        self._is_first = is_first
        self._is_later = is_later
        self._has_begun = False

    def after(
        self, ledger: Ledger, core: int, date_ns: int, stimuli: Sequence[Any], tables: Any,
        changes: Sequence[Change],
    ) -> Finding | None:  # fmt: skip
        for kind, row in changes:
            if kind != SENT:
                continue
            self._has_begun = self._has_begun or self._is_first(row)
            if not self._has_begun and self._is_later(row):
                parts = row.id, f" ({row.name}) is sent to a worker first"
                return Finding("order", parts, core, (row.id,))
        return None


class EveryTaskEnds(Watch):
    """At the end no task is left."""

    def end(self, ledger: Ledger) -> Finding | None:
        for row in ledger.rows.values():
            if not row.is_over:
                state = state_in_words(ledger.tables.get(row.at), row)
                parts = row.id, f" ({row.name}) has not ended: {state}"
                return Finding(f"ends: {state}", parts, row.at, (row.id,))
        return None


class Counted(Watch):
    """A total that a core keeps of what should not happen stays as it is."""

    needs_ledger = False

    def __init__(self, total: str, what: str) -> None:
        self._total = total
        self._what = what
        self._before: dict[int, int] = {}

    def begin(self, core: int, tables: Any) -> None:  # Any: tables of a node or a head
        if isinstance(tables, Tables):
            self._before[core] = tables.counts.get(self._total, 0)

    def after(
        self, ledger: Ledger, core: int, date_ns: int, stimuli: Sequence[Any], tables: Any,
        changes: Sequence[Change],
    ) -> Finding | None:  # fmt: skip
        if not isinstance(tables, Tables):
            return None
        count = tables.counts.get(self._total, 0)
        before = self._before.setdefault(core, 0)
        if count == before:
            return None
        self._before[core] = count
        kinds = {type(m).__name__: m for m in stimuli}
        kind = next((name for name in _CAUSES if name in kinds), "")
        subject = _subject(kinds[kind]) if kind else b""
        parts: tuple[Part, ...] = (self._what, f", as {kind} is told" if kind else "")
        if subject:
            parts = (*parts, ": ", subject)
        reason = getattr(kinds.get(kind), "summary", "") or getattr(kinds.get(kind), "reason", "")
        if reason:
            parts = (*parts, f" ({first_line(str(reason))[:80]})")
        return Finding(f"{self._total}: {kind}", parts, core, (subject,) if subject else ())


_CAUSES = (
    "RunFailed", "RunErred", "WorkerLost", "RunLost", "NodeBuried", "CopyMissing", "PullRefused",
    "ObjectMoved", "ObjectCorrupted", "WorkerStartFailed", "DemandInfeasible", "PlacementRefused",
    "ValueFailed", "GetDoomed", "TaskSubmitted",
)  # fmt: skip
"""Stimuli by which something goes wrong, the most telling first."""


def _subject(m: Any) -> bytes:  # Any: a stimulus
    return getattr(m, "task", b"") or getattr(m, "object", b"")


class TooMany(Watch):
    """A number that the tables of each node give stays within bounds."""

    needs_ledger = False

    def __init__(self, most: int, measure: Callable[[Tables], int], what: str) -> None:
        self._most = most
        self._measure = measure
        self._what = what
        """With {} for the number."""

    def after(
        self, ledger: Ledger, core: int, date_ns: int, stimuli: Sequence[Any], tables: Any,
        changes: Sequence[Change],
    ) -> Finding | None:  # fmt: skip
        if not isinstance(tables, Tables):
            return None
        number = self._measure(tables)
        if number <= self._most:
            return None
        return Finding(f"many: {self._what}", (self._what.format(number),), core)


class NoNodeDies(Watch):
    """The head buries nobody."""

    needs_ledger = False

    def after(
        self, ledger: Ledger, core: int, date_ns: int, stimuli: Sequence[Any], tables: Any,
        changes: Sequence[Change],
    ) -> Finding | None:  # fmt: skip
        for m in stimuli:
            if type(m) is hm.NodeBuried:
                return Finding("burial", (f"node {m.node} is dead: {m.reason}",), core)
        return None


class InvariantsHold(Watch):
    """Every invariant of every core holds.

    Checking costs as much as there are rows. So it is done as often as it costs no more than the
    steps do: after each step of a small core, now and then of a large one.
    """

    needs_ledger = False
    _ROWS_PER_STEP = 200

    def __init__(self) -> None:
        self._credit: dict[int, int] = {}

    def after(
        self, ledger: Ledger, core: int, date_ns: int, stimuli: Sequence[Any], tables: Any,
        changes: Sequence[Change],
    ) -> Finding | None:  # fmt: skip
        credit = self._credit.get(core, 0) + self._ROWS_PER_STEP
        if credit < _rows(tables):
            self._credit[core] = credit
            return None
        self._credit[core] = 0
        return broken_invariant(core, tables)


def broken_invariant(core: int, tables: Any) -> Finding | None:  # Any: of a node or a head
    """The first invariant of a core that does not hold."""
    try:
        if isinstance(tables, Tables):
            check(tables)
        elif isinstance(tables, GlobalTables):
            check_head(tables)
    except InvariantBroken as error:
        return _broken(core, *error.args)
    return None


def _broken(core: int, name: str, seen: object) -> Finding:
    """What the invariant says, and which rows it saw."""
    said = next(
        (
            (invariant.__doc__ or "").partition(": ")[2]
            for invariant in (*INVARIANTS, *HEAD_INVARIANTS)
            if invariant.__name__.startswith(f"{name.lower()}_")
        ),
        "",
    )
    text = " ".join(said.split()).rstrip(".")
    parts: list[Part] = [f"invariant {name} is broken ({text})"]
    ids = list(dict.fromkeys(_ids(seen)))[:_SEEN_MAX]
    for place, item in enumerate(ids):
        parts += [", " if place else ": ", item]
    return Finding(f"invariant {name}", tuple(parts), core, tuple(ids))


_SEEN_MAX = 3


def _ids(seen: Any) -> Iterator[bytes]:  # Any: rows, or parts of them
    if isinstance(seen, bytes):
        if len(seen) in (TASK_ID_BYTES, OBJECT_ID_BYTES):
            yield seen
    elif isinstance(seen, msgspec.Struct):
        for name in seen.__struct_fields__:
            yield from _ids(getattr(seen, name))
    elif isinstance(seen, tuple | list):
        for part in seen:
            yield from _ids(part)


def _rows(tables: Any) -> int:  # Any: as above
    if isinstance(tables, Tables):
        return len(tables.tasks) + len(tables.objects) + len(tables.workers)
    return len(getattr(tables, "requests", ()))


def waiting_tasks(tables: Tables) -> int:
    """Tasks of a node that wait for a worker or a place."""
    return sum(shape.count for shape in tables.shapes) + len(tables.placing)


def arena_permille(tables: Tables) -> int:
    """How full a node's arena is, in 1/1000."""
    size = tables.arena.size_bytes
    return tables.arena.used * 1000 // size if size else 0
