"""Which differences between two runs follow from others, and which come first.

Theory of operation
-------------------
A task hands on what it returns, what it puts and what it submits. It can know its arguments, the
values behind references in them, and what its children made. So a difference in what it hands on
*follows* if something that it can know differs, and is a *beginning* if nothing does: then the code
is not deterministic, or looked at something outside. A program's own submissions are judged in the
same way; it has no arguments. What a task submits, or puts, cannot depend on a child that it asks
for only afterwards.

Where the children of one stream have other functions in both runs, matching them by number ends:
what follows in that stream is compared, but not believed to begin anything.

Nothing is read by anybody who has no reference to it, so this finds no beginning that is none,
as far as digests tell; it may take for a consequence what has another cause as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from detray.ids import ClientID, ObjectID, TaskID, is_put, return_object, task_of
from detray.trace.comparing.runs import Origin, RunRecord
from detray.trace.gathering.endings import JOB_OVER
from detray.trace.gathering.lives import CANCELLED, FAILED, FINISHED, ObjectLife, TaskLife
from detray.trace.names import first_line

SAME, OTHER, NOT_KNOWN = "same", "other", "not known"
_ADDRESS = re.compile(r"\b0x[0-9a-f]+\b|\(pid[ =]\d+(?:, ip=[^)\s]*)?\)")


class Pair(NamedTuple):
    """A task in both runs; None where it is not."""

    name: TaskID
    a: TaskLife | None
    b: TaskLife | None


class Judge:
    """Says of everything with a common name whether it is the same, and what follows from what."""

    def __init__(self, a: RunRecord, b: RunRecord, pairs: dict[TaskID, Pair]) -> None:
        self._a = a
        self._b = b
        self._pairs = pairs
        self._children: dict[TaskID, list[TaskID]] = {}
        for name in pairs:
            self._children.setdefault(self.origin_parent(name), []).append(name)
        self._reach: dict[ObjectID, bool] = {}
        """Objects of which it is known whether they, or anything behind them, differ."""
        self._calls: dict[TaskID, tuple[str, ...]] = {}
        self._spoiled: dict[TaskID, list[TaskID]] = {}
        self._asked: dict[tuple[bool, TaskID, tuple[int, ClientID]], int] = {}
        self._splits: dict[tuple[TaskID, int], int] = {}
        """Where matching ends: by parent and stream, the first child with another function."""
        for pair in pairs.values():
            if pair.a is not None and pair.b is not None and pair.a.name != pair.b.name:
                origin = self.origin(pair.name)
                key, number = (origin.parent, origin.stream), index_of(pair.name)
                self._splits[key] = min(number, self._splits.get(key, number))

    # ------------------------------------------------------------------ the same?

    def value(self, name: ObjectID) -> str:
        """Whether an object has the same value in both runs."""
        mine, theirs = self._a.objects.get(name), self._b.objects.get(name)
        if mine is None or theirs is None:
            return NOT_KNOWN
        if mine.size_bytes != theirs.size_bytes or self._refs(mine, theirs):
            return OTHER
        if mine.refs and mine.refs != theirs.refs:
            return SAME  # Ids are in the bytes, and differ in what is no difference.
        ours, others = self._a.digests.get(mine.id), self._b.digests.get(theirs.id)
        return OTHER if ours and others and ours != others else SAME

    def _refs(self, mine: ObjectLife, theirs: ObjectLife) -> bool:
        if not (mine.refs or theirs.refs):
            return False
        return self._a.names.objects(mine.refs) != self._b.names.objects(theirs.refs)

    def ending(self, pair: Pair) -> str:
        """Whether a task ended alike; where a trace does not show an end, that is not known."""
        a, b = pair.a, pair.b
        if a is None or b is None or not has_ended(a) or not has_ended(b):
            return NOT_KNOWN
        is_same = a.state == b.state and error_text(a) == error_text(b)
        return SAME if is_same and attempts_of(a) == attempts_of(b) else OTHER

    def outcome_differs(self, name: TaskID) -> bool:
        """True if it ended in another state, or an object of it has another value."""
        pair = self._pairs.get(name)
        if pair is None or pair.a is None or pair.b is None:
            return False
        a, b = pair.a, pair.b
        if has_ended(a) and has_ended(b) and (a.state, error_text(a)) != (b.state, error_text(b)):
            return True
        return any(self.reaches(item) for item in returns_of(pair))

    def call(self, name: TaskID) -> tuple[str, ...]:
        """In what its submission differs: "function", "arguments", or options by name."""
        found = self._calls.get(name)
        if found is None:
            found = self._calls[name] = tuple(self._compare_calls(self._pairs[name]))
        return found

    def _compare_calls(self, pair: Pair) -> Iterable[str]:
        a, b = pair.a, pair.b
        if a is None or b is None:
            return
        if a.name != b.name:
            yield "function"
        mine, theirs = self._a.submissions.get(a.id), self._b.submissions.get(b.id)
        names_a, names_b = self._a.names, self._b.names
        refs_differ = names_a.objects(a.refs) != names_b.objects(b.refs)
        if names_a.objects(a.args) != names_b.objects(b.args) or refs_differ:
            yield "arguments"
        elif mine is not None and theirs is not None:
            # Ids are in the bytes of what has references.
            is_plain = not a.refs or a.refs == b.refs
            has_both = mine.digest and theirs.digest and is_plain
            if mine.size_bytes != theirs.size_bytes or (has_both and mine.digest != theirs.digest):
                yield "arguments"
        if mine is None or theirs is None:
            return
        for (option, value), (_, other) in zip(mine.options, theirs.options, strict=False):
            if value != other:
                yield option

    def code_differs(self, pair: Pair) -> bool:
        """True if the pickled function has another digest.

        No difference by itself: a comment above the function, or another path of the file, changes
        it as well.
        """
        found = []
        for record, life in ((self._a, pair.a), (self._b, pair.b)):
            call = record.submissions.get(life.id) if life is not None else None
            definition = record.definitions.get(call.function) if call is not None else None
            if definition is None or not definition.digest or definition.refs:
                return False
            found.append(definition.digest)
        return found[0] != found[1]

    # ------------------------------------------------------------------ what follows

    def reaches(self, name: ObjectID) -> bool:
        """True if an object differs, or one behind a reference in it, or its producer's end."""
        known = self._reach.get(name)
        if known is not None:
            return known
        seen: dict[ObjectID, None] = {name: None}
        found = False
        queue = [name]
        for item in queue:
            if self._reach.get(item) or self._differs(item):
                found = True
                break
            for record in (self._a, self._b):
                life = record.objects.get(item)
                for inner in record.names.objects(life.refs) if life is not None else ():
                    if inner not in seen:
                        seen[inner] = None
                        queue.append(inner)
        if not found:
            self._reach.update(dict.fromkeys(seen, False))
        self._reach[name] = found
        return found

    def _differs(self, item: ObjectID) -> bool:
        if self.value(item) == OTHER:
            return True
        if is_put(item):
            return False
        pair = self._pairs.get(task_of(item))
        if pair is None or pair.a is None or pair.b is None:
            return False
        return has_ended(pair.a) and has_ended(pair.b) and pair.a.state != pair.b.state

    def follows(self, name: TaskID) -> bool:
        """True if what a task returned, put or raised follows from another difference."""
        if not self.is_matched(name) or self.knew_otherwise(name) or self._spoiled_children(name):
            return True
        return any(self._is_called_otherwise(child) for child in self._children.get(name, ()))

    def call_follows(self, name: TaskID) -> bool:
        """True if how, or that, a task was submitted follows from another difference."""
        pair = self._pairs[name]
        origin = self.origin(name)
        parent = self._pairs.get(origin.parent)
        if not self.is_matched(name) or (parent is not None and self.knew_otherwise(parent.name)):
            return True
        if pair.a is None or pair.b is None:
            if origin.attempt:
                return True  # Only one of them was begun so often.
            if parent is not None and self.ending(parent) == OTHER:
                return True  # In one of them it did not come so far.
        ids = [life.id if life is not None else b"" for life in (pair.a, pair.b)]
        return self._knew_before(origin.parent, ids[0], ids[1])

    def put_follows(self, name: ObjectID) -> bool:
        """True if the value of a put follows from another difference."""
        a, b = self._a.objects[name].id, self._b.objects[name].id
        parent = self._a.names.origin(a).parent
        return self.knew_otherwise(parent) or self._knew_before(parent, a, b)

    def is_matched(self, name: TaskID) -> bool:
        """False from where the children of a stream, or of one above, do not fit together."""
        for _ in range(len(self._pairs)):
            origin = self.origin(name)
            split = self._splits.get((origin.parent, origin.stream), _NEVER)
            if index_of(name) > split:
                return False
            if origin.parent not in self._pairs:
                break
            name = origin.parent
        return True

    def _is_called_otherwise(self, name: TaskID) -> bool:
        pair = self._pairs[name]
        if pair.a is None or pair.b is None:
            return not self.origin(name).attempt
        return bool(self.call(name))

    def knew_otherwise(self, name: TaskID) -> bool:
        """True if a task was given something else: by its call, or behind a reference in it."""
        pair = self._pairs.get(name)
        if pair is None:
            return False
        if pair.a is None or pair.b is None or self.call(name):
            return True
        names = self._a.names
        items = names.objects((*pair.a.args, *pair.a.refs, *self._captured(pair.a)))
        return any(self.reaches(item) for item in items)

    def _captured(self, life: TaskLife) -> tuple[ObjectID, ...]:
        call = self._a.submissions.get(life.id)
        definition = self._a.definitions.get(call.function) if call is not None else None
        return definition.refs if definition is not None else ()

    def _spoiled_children(self, name: TaskID) -> list[TaskID]:
        """The children of a task whose outcome differs."""
        found = self._spoiled.get(name)
        if found is None:
            children = self._children.get(name, ())
            found = self._spoiled[name] = [
                child for child in children if self.outcome_differs(child)
            ]
        return found

    def _knew_before(self, parent: TaskID, a: bytes, b: bytes) -> bool:
        """True if `parent` asked for a spoiled child before it said `a`, or `b` in run B."""
        for record, item in ((self._a, a), (self._b, b)):
            said = record.said.get(item)
            if said is not None and self._first_asked(record, parent, said.client) < said.number:
                return True
        return False

    def _first_asked(self, record: RunRecord, parent: TaskID, client: tuple[int, ClientID]) -> int:
        """When that client first asked for something that a spoiled child of `parent` returned."""
        key = (record is self._a, parent, client)
        found = self._asked.get(key)
        if found is None:
            found = _NEVER
            for child in self._spoiled_children(parent):
                life = record.tasks.get(child)
                for item in returns_of(Pair(life.id, life, None)) if life is not None else ():
                    found = min(found, record.asked.get((*client, item), _NEVER))
            self._asked[key] = found
        return found

    def origin_parent(self, name: TaskID) -> TaskID:
        """The common name of the task that submitted one."""
        return self.origin(name).parent

    def origin(self, name: TaskID) -> Origin:
        """Where a task comes from."""
        for record in (self._a, self._b):
            life = record.tasks.get(name)
            if life is not None:
                return record.names.origin(life.id)
        return Origin(name[4:12], TaskID(name[:4] + bytes(12)), 0, -1, False)


_NEVER = 1 << 32


def index_of(name: TaskID) -> int:
    """The number of a child within its stream."""
    return int.from_bytes(name[12:16], "big")


def returns_of(pair: Pair) -> list[ObjectID]:
    """What a task returns, by common names."""
    counts = [life.num_returns for life in (pair.a, pair.b) if life is not None]
    count = min(max(counts, default=0), _RETURNS_MAX)
    return [return_object(pair.name, index) for index in range(count)]


_RETURNS_MAX = 1 << 16
"""A trace that lies about more makes nobody wait."""


def has_ended(life: TaskLife) -> bool:
    """True if it came to an end of its own, not with its job."""
    if life.state == CANCELLED and life.error.startswith(JOB_OVER):
        return False
    return life.state in (FINISHED, FAILED, CANCELLED)


def error_text(life: TaskLife) -> str:
    """Its error in one line, without what differs in every run; "" if it has none."""
    return _ADDRESS.sub("...", first_line(life.error)) if life.state != FINISHED else ""


def attempts_of(life: TaskLife) -> int:
    """How often it was begun, or given up with its worker."""
    return max(1, len(life.attempts))
