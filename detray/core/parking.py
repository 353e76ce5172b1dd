"""Results of runs elsewhere that wait, or that do not count."""

from __future__ import annotations

from detray.core import objects
from detray.core.lending import borrow
from detray.core.payloads import value_key
from detray.core.peer_messages import RunDone
from detray.core.states import PENDING
from detray.core.step import Step
from detray.ids import ObjectID, TaskID, return_object


def refs_of(s: Step, m: RunDone) -> list[ObjectID]:
    """The references in a result that exist here, as often as it names them."""
    rows = s.t.objects
    return [item for part in m.returns for item, _ in part.refs if item in rows]


def drop_parked(s: Step, name: TaskID) -> None:
    """The task of a parked result ends otherwise."""
    m = s.t.parked.pop(name, None)
    if m is not None:
        refuse(s, m, is_borrowed=True)
        objects.drop_contained(s, tuple(refs_of(s, m)))


def refuse(s: Step, m: RunDone, *, is_borrowed: bool = False) -> None:
    """A result that does not count: what it brought goes back (PROTOCOL T2)."""
    for index, part in enumerate(m.returns):
        item = return_object(m.task, index)
        if not is_borrowed:
            borrow(s, part.refs, m.node)
        row = s.t.objects.get(item)
        if part.is_kept:
            shared = row.shared if row is not None else None
            if shared is None or shared.keeper != m.node or shared.attempt != m.attempt:
                s.freed.setdefault(m.node, []).append(item)
        elif part.size_bytes > 0 and (m.attempt or row is None or row.state is PENDING):
            s.drops.append(value_key(item, m.attempt))
