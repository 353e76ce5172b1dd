"""The scene that directives speak in: the cast, and the books of the node that is spoken to.

A `Scene` is one of the stages of the tests, where cores answer each other, or the telling of
`telling.py`, where a core is told what it was told.
"""

from __future__ import annotations

from collections import Counter

from detray.core import effects as ef
from detray.core.tables import Tables
from detray.ids import ClientID, NodeID, ObjectID, TaskID
from detray.trace.transcript.cast import Cast
from detray.trace.transcript.script import ScriptError, Words, number


class SceneBooks:
    """What a real client or driver of one node's core would know, so that a directive need not say
    it: grants and pins received, the run that was sent, the move that was ordered.
    """

    def __init__(self) -> None:
        self.grants: dict[ClientID, Counter[ObjectID]] = {}
        """By client, grants received."""
        self.pins: dict[ClientID, Counter[ObjectID]] = {}
        """By client, view pins received."""
        self.sent: dict[TaskID, ef.RunTask] = {}
        self.moves: dict[ObjectID, ef.MoveObject] = {}
        self.requests: Counter[ClientID] = Counter()
        """By client, the number of its last request."""
        self.templates: dict[tuple[object, ...], int] = {}
        self.receiving: dict[tuple[ObjectID, int], NodeID] = {}

    def see(self, effect: ef.Effect) -> None:
        """Enter into the books what an effect gives to whom."""
        match effect:
            case ef.RunTask():
                self.sent[effect.task] = effect
                self._receive(effect.client, effect.args)
                self.received(effect.client, effect.refs)
            case ef.DefineFunction():
                self.received(effect.client, effect.refs)
            case ef.GetAnswered():
                self._receive(effect.client, effect.places)
            case ef.MoveObject():
                self.moves[effect.object] = effect
            case ef.ReceiveObject():
                key = (effect.object, effect.attempt)
                assert key not in self.receiving, f"{effect}: received twice at once"
                self.receiving[key] = effect.node
            case _:
                pass

    def _receive(self, client: ClientID, places: tuple[ef.Place, ...]) -> None:
        for place in places:
            self.received(client, place.refs)
            if place.segment != ef.INLINE and not place.failure:
                self.pins.setdefault(client, Counter())[place.object] += 1

    def received(self, client: ClientID, items: tuple[ObjectID, ...]) -> None:
        """A client got one grant of each."""
        self.grants.setdefault(client, Counter()).update(items)


class Scene:
    """Whom a directive is said to, and what the names in it mean."""

    cast: Cast

    @property
    def seat(self) -> SceneBooks:
        """The books of the node that is spoken to."""
        raise NotImplementedError

    @property
    def tables(self) -> Tables:
        """The tables of its local scheduler, to read."""
        raise NotImplementedError

    @property
    def grants(self) -> dict[ClientID, Counter[ObjectID]]:
        """By client, grants received."""
        return self.seat.grants

    @property
    def pins(self) -> dict[ClientID, Counter[ObjectID]]:
        """By client, view pins received."""
        return self.seat.pins

    @property
    def requests(self) -> Counter[ClientID]:
        """By client, the number of its last request."""
        return self.seat.requests

    def node_number(self, name: str) -> NodeID:
        """The number of the node that is, or was, called so."""
        return self.cast.node_number(name)

    def link_seq(self, kind: type, source: NodeID) -> int:
        """The number of the next message, of this kind, of another core (-1: the head)."""
        raise ScriptError("here messages between cores are delivered, not told")

    def received(self, client: ClientID, items: tuple[ObjectID, ...]) -> None:
        """A client got one grant of each."""
        self.seat.received(client, items)

    def count(self, words: Words, books: dict[ClientID, Counter[ObjectID]], client: ClientID,
              items: tuple[ObjectID, ...]) -> tuple[int, ...]:  # fmt: skip
        """How many of each the client gives back: what it received, or what the script says."""
        mine = books.setdefault(client, Counter())
        if given := words.text("count"):
            return tuple(number(given) for _ in items)
        return tuple(mine.pop(item, 0) for item in items)

    def front(self, worker: ClientID) -> tuple[TaskID, int, int]:
        """What a worker runs: task, attempt, depth."""
        row = self.tables.workers.get(worker)
        if row is None or not row.runs:
            raise ScriptError(f"w{worker} runs nothing")
        run = row.runs[0]
        return run.task, run.attempt, self.tables.tasks[run.task].spec.depth
