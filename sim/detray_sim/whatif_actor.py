"""Processes that take the steps of a script, and the chains of computing that they carry.

What a process computes prolongs its chain; where it waits, the longer chain goes on: its own, or
that of what it waited for. Times before the first submission of all do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from detray.ids import ObjectID, is_put, task_of
from detray_sim import behaviour as do
from detray_sim.values import Blob
from detray_sim.whatif_script import (
    DRIVER,
    Await,
    Keep,
    Launch,
    Release,
    Rest,
    Spend,
    Step,
    Until,
)

if TYPE_CHECKING:
    from detray_sim.whatif_play import Stage


class Link(NamedTuple):
    """A chain of computing up to here: its length, and what it is made of."""

    total_ns: int
    before: Link | None
    name: str
    ns: int


def longer(one: Link | None, other: Link | None) -> Link | None:
    """The longer of two chains; of equals the first."""
    if other is None or (one is not None and one.total_ns >= other.total_ns):
        return one
    return other


def extended(chain: Link | None, name: str, ns: int) -> Link | None:
    """A chain and so much more."""
    if not ns:
        return chain
    return Link((chain.total_ns if chain is not None else 0) + ns, chain, name, ns)


class Actor:
    """A process that takes the steps of a script."""

    def __init__(self, stage: Stage, run: do.Run, chain: Link | None) -> None:
        self.stage = stage
        self.run = run
        self.name = DRIVER
        self.chain = chain
        self._host = stage.cluster.nodes[run.node]
        self._objects: dict[ObjectID, ObjectID] = {}
        """What stands for a recorded object."""
        self._uses: Counter[ObjectID] = Counter()
        self._began_ns = run.clock_ns()

    def meet(self, recorded: Sequence[ObjectID], found: Sequence[ObjectID]) -> None:
        """References came: which is which, their order says."""
        for item, actual in zip(recorded, found, strict=False):
            self._objects.setdefault(item, actual)
        self._uses.update(found)

    def known(self, recorded: Iterable[ObjectID], what: str) -> list[ObjectID]:
        """What stands for recorded objects; those that never came here are left out."""
        found = []
        for item in recorded:
            actual = self._objects.get(item)
            if actual is not None:
                found.append(actual)
            else:
                self._miss(item, what)
        return found

    def _miss(self, item: ObjectID, what: str) -> None:
        """Something is not there; results of tasks that are left out are told of with these."""
        if is_put(item) or task_of(item) in self.stage.ids:
            self.stage.ledger.lost[what] += 1

    def steps(self, steps: Iterable[Step]) -> do.Steps:
        """Take them."""
        for step in steps:
            match step:
                case Spend():
                    began_ns = self.run.clock_ns()
                    yield do.Compute(step.ns)
                    self._spent(began_ns, self._host.cpu_ns(step.ns))
                case Rest():
                    began_ns = self.run.clock_ns()
                    yield do.Sleep(step.ns)
                    self._spent(began_ns, step.ns)
                case Launch():
                    yield from self._launch(step.task)
                case Await():
                    yield from self._await(step)
                case Keep():
                    yield from self._keep(step)
                case Release():
                    yield from self._release(step.objects)
                case Until():
                    yield from self._until(step.ns)
        return ()

    def _spent(self, began_ns: int, ns: int) -> None:
        """So long it computed; what was before the first submission of all does not count."""
        origin_ns = self.stage.ledger.origin_ns
        if origin_ns >= 0:
            since_ns = self.run.clock_ns() - max(began_ns, origin_ns)
            self.chain = extended(self.chain, self.name, min(ns, since_ns))

    def _launch(self, number: int) -> do.Steps:
        stage, script = self.stage, self.stage.recording.tasks[number]
        args = self.known(script.args, "arguments that never came to who submitted them")
        refs = self.known(script.refs, "references that never came to who passed them on")
        captured = tuple(self.known(script.captured, "references in closures that never came"))
        ledger = stage.ledger
        if ledger.origin_ns < 0:
            ledger.origin_ns = self.run.clock_ns()
        ledger.first_ns.setdefault(script.name, self.run.clock_ns() - ledger.origin_ns)
        items = yield do.Submit(
            stage.remote(number, captured),
            args=tuple(dict.fromkeys(args)),
            refs=tuple(dict.fromkeys(refs)),
            token=number,
            size_bytes=max(8, script.size_bytes),
        )
        stage.born[number] = self.chain
        for index, item in enumerate(items):
            self._objects[ObjectID(script.id + items[index][16:])] = item
        self._uses.update(items)
        return ()

    def _keep(self, step: Keep) -> do.Steps:
        refs = tuple(dict.fromkeys(self.known(step.refs, "references put that never came")))
        try:
            item = yield do.PutValue(Blob(max(1, step.size_bytes), None), refs)
        except do.StoreRefused:
            self.stage.ledger.lost["values put for which a store had no room"] += 1
            return ()
        self._objects[step.object] = item
        self._uses[item] += 1
        self.stage.chains[item] = self.chain
        return ()

    def _release(self, objects: Iterable[ObjectID]) -> do.Steps:
        drops: list[ObjectID] = []
        for recorded in objects:
            actual = self._objects.pop(recorded, None)
            if actual is not None:
                drops += [actual] * self._uses.pop(actual, 0)
        if drops:
            yield do.DropRefs(drops)
        return ()

    def _until(self, ns: int) -> do.Steps:
        left_ns = self._began_ns + ns - self.run.clock_ns()
        if left_ns > 0:
            yield do.Sleep(left_ns)
            origin_ns = self.stage.ledger.origin_ns
            if origin_ns >= 0:
                name = "(submitted then)"
                self.chain = extended(None, name, self.run.clock_ns() - origin_ns)
        return ()

    # -------------------------------------------------------------- waiting

    def _await(self, step: Await) -> do.Steps:
        actual = {}
        for item in step.objects:
            if item in self._objects:
                actual[self._objects[item]] = item
            else:
                self._miss(item, "objects waited for that never came to who waited")
        missing = len(step.objects) - len(actual)
        needed = min(len(actual), max(0, step.needed - missing))
        if not needed:
            return ()
        if needed < len(actual) or not step.fetches:
            found = yield do.WaitFor(tuple(actual), needed)
            came = [item for item in actual if item in found][:needed]
            if needed < len(actual):
                self._exchange([actual[item] for item in came], step.taken)
        else:
            came = list(actual)
            for got in (yield do.GetValues(tuple(actual), raises=False)):
                self.meet(self.stage.recording.inside.get(actual[got.object], ()), got.refs)
        for item in came:
            self.chain = longer(self.chain, self.stage.chain_of(item))
        return ()

    def _exchange(self, came: Sequence[ObjectID], taken: Sequence[ObjectID]) -> None:
        """Others came than in the recording: they stand for each other from now on."""
        here, there = dict.fromkeys(came), dict.fromkeys(taken)
        new = [item for item in came if item not in there]
        old = [item for item in taken if item not in here and item in self._objects]
        objects = self._objects
        for one, other in zip(new, old, strict=False):
            objects[one], objects[other] = objects[other], objects[one]
