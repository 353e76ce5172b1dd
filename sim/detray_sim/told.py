"""R5: a deadlock that a node tells is one.

A get that fails with a deadlock takes the result from a program for good, so nothing that goes on
anywhere may have been able to answer it. When a node tells one, the tables of all living nodes are
asked (`supposing.py`) what could still finish if infeasible demands were met, runs that go on end,
and the get waited on. This supposes less than would happen, never more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detray.core.effects import GetAnswered
from detray.core.stimuli import GetRequested
from detray.core.tables import Get, Tables, Worker
from detray.errors import Failure
from detray.ids import ClientID, NodeID
from detray_sim.supposing import Supposed


class Told:
    """Knows the gets that block runs, and judges the deadlocks that are told of them."""

    def __init__(self) -> None:
        self._asked: dict[tuple[int, ClientID, int], GetRequested] = {}
        """By core, client and request."""

    def step(
        self,
        core: int,
        t: Tables,
        stimuli: Sequence[Any],
        effects: Sequence[Any],
        living: Callable[[], Mapping[NodeID, Tables]],
    ) -> str:
        """What a node told that is no deadlock; "" as a rule. (Any: messages of all kinds.)

        `core`: its number; `living`: the tables of all nodes that live, as they are now.
        """
        for asked in stimuli:
            if type(asked) is GetRequested and asked.blocks:
                self._asked[core, asked.client, asked.request] = asked
        for answer in effects:
            if type(answer) is not GetAnswered or answer.more:
                continue
            request = self._asked.pop((core, answer.client, answer.request), None)
            texts = [p.text for p in answer.places if p.failure == Failure.DEADLOCK]
            if request is not None and texts and self._is_wrong(t, request, living()):
                return texts[0]
        return ""

    def _is_wrong(self, t: Tables, asked: GetRequested, tables: Mapping[NodeID, Tables]) -> bool:
        worker: Worker | None = t.workers.get(asked.client)
        if t.node not in tables or worker is None or worker.blocked or not worker.runs:
            return False
        if worker.runs[0].task != asked.blocks:
            return False
        needed = len(asked.objects) if asked.fail_fast else asked.needed
        get = Get(
            asked.client, asked.request, 0, asked.objects, needed, needed, asked.fail_fast,
            asked.fetch, -1, asked.client,
        )  # fmt: skip
        supposed = Supposed(tables, joins=True, told=(t.node, worker, get))
        return all(entry[2] is not get for entry in supposed.blocked)
