"""Oracles: what must hold while a cluster runs, and what must have come of it at the end.

Three prices: the invariants of a core after each of its steps (O(rows), so every step in small
worlds, some in large ones); what must hold between nodes, now and then; and at the end the results
against a naive executor, who may have run how often, and that nothing is left of what was dropped.

What fails raises `Violation` with the oracle's name. A failure of a task is no violation if a fault
that struck explains it, by the table `Kind.excuses`, or the program itself does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from detray.core.head_invariants import check_head
from detray.core.head_tables import GlobalTables
from detray.core.invariants import InvariantBroken, check, may_run_here
from detray.core.states import Assigned, Stored
from detray.core.status import TOPICS, describe
from detray.core.step import Step
from detray.core.tables import HERE, Object, Tables
from detray.errors import Failure
from detray.ids import NodeID, ObjectID, is_put, task_of
from detray_sim.faults import FaultLog
from detray_sim.scripts import Await, Diary, Outcome, Program, Read

if TYPE_CHECKING:
    pass


class Violation(AssertionError):
    """Something that must hold does not: (oracle, what was seen)."""

    def __init__(self, oracle: str, seen: str) -> None:
        super().__init__(oracle, seen)
        self.oracle = oracle
        self.seen = seen


# ---------------------------------------------------------------------------------- steps


def check_core(tables: Tables) -> None:
    """The invariants of one local scheduler."""
    try:
        check(tables)
    except InvariantBroken as broken:
        name, seen = broken.args
        raise Violation(f"invariant {name}", f"{type(seen).__name__}: {seen!r}"[:2000]) from None
    for task in tables.tasks.values():
        if type(task.state) is Assigned and not may_run_here(tables, task):
            raise Violation("B7 a run where it must not be", f"node {tables.node}: {task!r}")


def check_head_core(tables: GlobalTables) -> None:
    """The invariants of a global scheduler."""
    try:
        check_head(tables)
    except InvariantBroken as broken:
        name, seen = broken.args
        raise Violation(f"invariant {name}", f"{seen!r}"[:2000]) from None


# ---------------------------------------------------------------------------------- nodes


class Between:
    """What must hold between nodes; `look` at any moment between two events."""

    def __init__(self) -> None:
        self._known: dict[NodeID, dict[ObjectID, None]] = {}
        """By node, objects that it had a row of at an earlier look."""

    def look(self, tables: Mapping[NodeID, Tables], uses: Mapping[NodeID, set[ObjectID]]) -> None:
        """`tables` of the nodes that live and are not fenced; `uses` of their processes."""
        for node, t in tables.items():
            for item, row in t.objects.items():
                shared = row.shared
                if shared is not None and shared.home != HERE:
                    self._check_borrow(node, item, t, tables)
            self._check_links(node, t, tables)
            _check_status(node, t)
        self._check_owners(tables)
        self._check_primaries(tables)
        self._check_uses(tables, uses)

    def _check_borrow(
        self, node: NodeID, item: ObjectID, t: Tables, tables: Mapping[NodeID, Tables]
    ) -> None:
        """B1: what a node borrowed, its owner lent to it."""
        shared = t.objects[item].shared
        assert shared is not None
        owner = tables.get(shared.home)
        if owner is None or shared.orphan or shared.claims != 2:
            return
        if node not in owner.peers or shared.home not in t.peers:
            return  # one of them has buried the other
        row = owner.objects.get(item)
        lent = row.shared.lent.get(node, 0) if row is not None and row.shared else 0
        if lent < shared.received:
            raise Violation(
                "B1 a borrow without a grant",
                f"node {node} holds {item.hex()} with {shared.received} grants,"
                f" its owner {shared.home} knows of {lent}: {row!r}",
            )

    def _check_links(self, node: NodeID, t: Tables, tables: Mapping[NodeID, Tables]) -> None:
        """B2: nobody received what was not sent."""
        for number, peer in t.peers.items():
            other = tables.get(number)
            back = other.peers.get(node) if other is not None else None
            if back is not None and back.received > peer.sent:
                raise Violation(
                    "B2 a link brought what was not sent",
                    f"node {number} received {back.received} of {node}, which sent {peer.sent}",
                )

    def _check_owners(self, tables: Mapping[NodeID, Tables]) -> None:
        """B3: an object has one owner."""
        owners: dict[ObjectID, NodeID] = {}
        for node, t in tables.items():
            for item, row in t.objects.items():
                if row.shared is None or row.shared.home == HERE:
                    other = owners.setdefault(item, node)
                    if other != node:
                        raise Violation(
                            "B3 two owners", f"{item.hex()} is owned by {other} and {node}"
                        )

    def _check_primaries(self, tables: Mapping[NodeID, Tables]) -> None:
        """B4: one node at most keeps the primary copy of an object, by its owner's word."""
        for node, t in tables.items():
            for item, row in t.objects.items():
                shared = row.shared
                if shared is None or shared.home == HERE or not shared.is_primary:
                    continue
                owner = tables.get(shared.home)
                owned = owner.objects.get(item) if owner is not None else None
                if owner is None or owned is None or node not in owner.peers:
                    continue
                keeper = owned.shared.keeper if owned.shared is not None else HERE
                same = owned.shared is not None and owned.shared.attempt == shared.attempt
                if same and keeper == HERE and type(owned.state) is Stored:
                    raise Violation(
                        "B4 two primary copies",
                        f"{item.hex()} of attempt {shared.attempt} at {node} and its owner",
                    )

    def _check_uses(
        self, tables: Mapping[NodeID, Tables], uses: Mapping[NodeID, set[ObjectID]]
    ) -> None:
        """B5: what a living process uses is not forgotten by its node.

        A node may not have heard of it yet, so only what it knew before counts.
        """
        for node, t in tables.items():
            known = self._known.setdefault(node, {})
            for item in uses.get(node, ()):
                if item in t.objects:
                    known[item] = None
                elif item in known:
                    raise Violation(
                        "B5 freed while in use", f"{item.hex()} is used at {node}, which forgot it"
                    )


def _check_status(node: NodeID, t: Tables) -> None:
    """B6: whatever goes on, a node can tell people about it, in rows with the same columns."""
    step = Step(t)
    for topic in TOPICS:
        try:
            told = describe(step, topic, 20)
            msgspec.msgpack.encode(told)
        except Exception as problem:
            seen = f"{topic} of node {node}: {type(problem).__name__}: {problem}"
            raise Violation("B6 status raised", seen) from problem
        if isinstance(told, list) and len({tuple(row) for row in told}) > 1:
            raise Violation(
                "B6 rows of different columns", f"{topic} of node {node}: {told!r}"[:2000]
            )


# ---------------------------------------------------------------------------------- results


REPAIRED = (
    Failure.WORKER_CRASHED,
    Failure.NODE_DIED,
    Failure.OBJECT_LOST,
    Failure.OWNER_DIED,
    Failure.OUT_OF_MEMORY,
)
"""What retries without end, and lineage, keep from a program whose driver's node lives."""


class Expectation:
    """What one program may find, given what struck."""

    def __init__(
        self,
        program: Program,
        naive: Mapping[str, Outcome],
        diary: Diary,
        log: FaultLog,
        *,
        few_workers: bool = False,
        short_lineage: bool = False,
    ) -> None:
        self.program = program
        self.naive = naive
        self.diary = diary
        self.log = log
        self._errs = any(script.fails for script in program.scripts)
        self._wavers = any(script.fails > 0 for script in program.scripts)
        self._excuses = log.excuses
        if program.is_sturdy and not short_lineage and not log.is_beyond_repair:
            # Whatever dies, the driver's node has all that it takes to do it again.
            self._excuses = {
                failure: kinds for failure, kinds in log.excuses.items() if failure not in REPAIRED
            }
        self._deadlocks = few_workers or _may_deadlock(program)

    def check(self) -> None:
        """All that was read and run so far. Raises Violation."""
        seen: dict[ObjectID, Outcome] = {}
        for path, item, outcome, reader in self.diary.reads:
            self._check_outcome(path, outcome, reader)
            before = seen.setdefault(item, outcome)
            if before is not outcome:
                self._check_same(path, before, outcome)
        for task, count in self.diary.begun.items():
            script = self.program.scripts[self.diary.scripts[task]]
            if script.retries == 0 and count > 1:
                raise Violation(
                    "R3 began more than once",
                    f"{script.name} ({self.diary.paths[task]}) began {count} times",
                )

    def _check_outcome(self, path: str, outcome: Outcome, reader: str) -> None:
        """R1: a value is what the naive executor found; a failure has an explanation."""
        expected = self.naive.get(path)
        if outcome.failure:
            if expected is None or expected.failure != outcome.failure:
                self._explain(path, outcome, reader)
            return
        if outcome.is_stained or expected is None or expected.is_stained:
            return
        if expected.failure:
            if not self._wavers or not self.log.struck:
                raise Violation(
                    "R1 a value where none can be", f"{path}: {outcome} instead of {expected}"
                )
        elif expected.token != outcome.token:
            raise Violation("R1 a wrong value", f"{path}: {outcome} instead of {expected}")

    def _explain(self, path: str, outcome: Outcome, reader: str) -> None:
        failure = Failure(outcome.failure)
        if failure in self._excuses:
            return
        match failure:
            case Failure.APPLICATION if self._errs:
                return
            case Failure.CANCELLED if self.diary.cancels:
                return
            case Failure.CANCELLED if reader and Failure.WORKER_CRASHED in self.log.excuses:
                return  # seen by the child of an attempt that died, about to be cancelled too
            case Failure.WORKER_CRASHED if self.diary.cancels:
                return  # cancelled by force
            case Failure.DEADLOCK if self._deadlocks:
                return
            case Failure.INFEASIBLE if self.program.insists:
                return
            case _:
                pass
        raise Violation(
            f"R2 {failure.name} for no reason",
            f"{path} failed: {outcome.text!r}; struck: {sorted(self.log.struck)}",
        )

    def _check_same(self, path: str, before: Outcome, now: Outcome) -> None:
        """R4: all readers of one reference saw one value."""
        if before.failure or now.failure or before.token == now.token:
            return  # a value may be lost after it was read; what fails stays failed: see below
        if before.is_stained and self.log.loses_data:
            return  # made again, differently, as it may be
        raise Violation("R4 two values of one object", f"{path}: {before}, then {now}")


def _may_deadlock(program: Program) -> bool:
    """True if some run that waits holds more than CPU, which alone is given back meanwhile."""
    return any(
        any(name != "CPU" for name, _ in script.demand)
        and any(type(step) in (Read, Await) for step in script.steps)
        for script in program.scripts[1:]
    )


# ---------------------------------------------------------------------------------- the end


def leftovers(node: NodeID, t: Tables, pinned: Mapping[ObjectID, None]) -> Iterator[str]:
    """What is left at a node after everything was dropped, one line each, but for `pinned`."""
    if t.tasks:
        first = next(iter(t.tasks.values()))
        yield f"tasks: {type(first.state).__name__}, {len(t.tasks)} at node {node}, {first!r}"
    rest = [row for item, row in t.objects.items() if item not in pinned]
    if rest:
        what = f"{type(rest[0].state).__name__} {_holds(rest[0])}"
        yield f"objects: {what}, {len(rest)} at node {node}, {rest!r}"[:1200]
    for name in ("moves", "block_queue", "resuming", "pulls", "parked", "placing"):
        table = getattr(t, name)
        if table:
            yield f"{name}: some, at node {node}, {table!r}"[:400]
    if t.blocked_count or t.pulling_bytes:
        yield f"counts: blocked or pulling, {t.blocked_count} and {t.pulling_bytes} at node {node}"
    if not pinned:
        if t.arena.used or t.inline_bytes:
            yield f"bytes: some, {t.arena.used} in the arena, {t.inline_bytes} inline, node {node}"
        if t.pasts:
            yield f"lineage: some, {len(t.pasts)} at node {node}, {list(t.pasts.values())!r}"[:800]
        live = [segment for segment in t.segments.values() if segment.live]
        if live:
            yield f"segments: live, at node {node}, {live!r}"[:400]
    for client in t.clients.values():
        if client.pins or client.blocks or client.gets:
            yield f"clients: with pins, blocks or gets, {client.id} of {node}, {client!r}"[:400]


def _holds(row: Object) -> str:
    """Why an object stays: the names of what holds it."""
    names = [name for name in ("granted", "uses", "containers", "pins") if getattr(row, name)]
    if row.moving:
        names.append("moving")
    shared = row.shared
    if shared is not None:
        names += [
            n for n in ("lent", "in_flight", "lineage", "needed", "claims") if getattr(shared, n)
        ]
        names.append("own" if shared.home == HERE else "foreign")
    return "held by " + (" ".join(names) or "nothing")


def pinned_by_jobs(tables: Iterable[Tables]) -> dict[ObjectID, None]:
    """What jobs keep until they end: pinned by hand, in closures, and what these need."""
    everywhere = list(tables)
    found: dict[ObjectID, None] = {}
    for t in everywhere:
        for pins in t.job_pins.values():
            found.update(pins)
        for function in t.functions.values():
            found.update(dict.fromkeys(function.refs))
    stack = list(found)
    while stack:
        item = stack.pop()
        for t in everywhere:
            row = t.objects.get(item)
            inside = row.refs if row is not None else ()
            past = None if is_put(item) else t.pasts.get(task_of(item))
            if past is not None:  # its producer can run again, and needs what it took
                inside = (*inside, *past.spec.args, *past.spec.refs)
            for ref in inside:
                if ref not in found:
                    found[ref] = None
                    stack.append(ref)
    return found


def check_nothing_left(tables: Mapping[NodeID, Tables]) -> None:
    """Q1: after all was dropped, nothing stays."""
    pinned = pinned_by_jobs(tables.values())
    lines = [line for node, t in tables.items() for line in leftovers(node, t, pinned)]
    if lines:
        kind, _, what = lines[0].partition(": ")
        raise Violation(f"Q1 {kind} are left", "\n".join([what.split(", ")[0], *lines]))
