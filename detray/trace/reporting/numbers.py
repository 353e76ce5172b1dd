"""Numbers instead of names: every thing in a report by its place in a list.

A task is told by its place among the tasks of the report, an object by its place among the objects.
Ids are kept as a *prefix* (the first twelve bytes, shared by all that one run of a parent made) and
a count, so a browser can say every id in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from detray.ids import OBJECT_ID_BYTES, TASK_ID_BYTES, ClientID, ObjectID, TaskID, return_object
from detray.trace.gathering.history import History, Seat
from detray.trace.gathering.lives import TaskLife

PREFIX_BYTES = 12
RETURNS_MAX = 64
"""Returns beyond this many of one task are listed only if they are known."""
TEXT_BYTES_MAX = 6_000_000
"""Of all texts together, before they are compressed; what comes later is left out, and says so."""
LEFT_OUT = "(this text is left out: the report has room for so many only, the trace has it)"


class Listing:
    """Texts (or bytes) by number, in the order of their first mention."""

    def __init__(self) -> None:
        self.places: dict[str | bytes, int] = {}

    def place(self, item: str | bytes) -> int:
        """The number of an item, new if it was not there."""
        return self.places.setdefault(item, len(self.places))

    def items(self) -> list[str | bytes]:
        """All of them."""
        return list(self.places)


class Numbers:
    """The places of tasks, objects and seats."""

    def __init__(self, history: History, tasks: Iterable[TaskLife]) -> None:
        self.history = history
        self.lives = list(tasks)
        self.tasks: dict[TaskID, int] = {life.id: n for n, life in enumerate(self.lives)}
        self.named: list[TaskID] = []
        """Tasks of which only the id is told; their places follow those of `lives`."""
        self.prefixes = Listing()
        self.texts = Listing()
        self.texts.place("")
        self._text_bytes = 0
        self.functions = Listing()
        for name in sorted({life.name for life in history.tasks.values()}):
            self.functions.place(name)
        self.seats: dict[Seat, int] = {}
        for seat in sorted(history.workers) + sorted(history.programs, key=lambda s: (s[0], -s[1])):
            self.seat(*seat)
        self.returns = [max(0, min(life.num_returns, RETURNS_MAX)) for life in self.lives]
        """How many objects of each task have a place of their own, known or not."""
        self.objects: dict[ObjectID, int] = {}
        for item in self._returned():
            self.objects[item] = len(self.objects)
        self.returned = len(self.objects)
        self.others: list[ObjectID] = []
        """Objects after those that the tasks return: what was put, and what is only mentioned."""

    def task(self, item: TaskID) -> int:
        """A task's place; one that is not told of gets a place for its name only."""
        place = self.tasks.get(item)
        if place is None:
            place = self.tasks[item] = len(self.tasks)
            self.named.append(item)
        return place

    def task_or_none(self, item: TaskID) -> int:
        """One more than a task's place, 0 for no task."""
        return self.task(item) + 1 if len(item) == TASK_ID_BYTES else 0

    def object(self, item: ObjectID) -> int:
        """An object's place."""
        place = self.objects.get(item)
        if place is None:
            place = self.objects[item] = len(self.objects)
            self.others.append(item)
        return place

    def items(self, items: Iterable[ObjectID]) -> list[int]:
        """The places of objects; what is no id is passed over."""
        return [self.object(item) for item in items if len(item) == OBJECT_ID_BYTES]

    def seat(self, core: int, client: ClientID) -> int:
        """The place of a worker or driver."""
        return self.seats.setdefault((core, client), len(self.seats))

    def function(self, name: str) -> int:
        """The number of a function's name."""
        return self.functions.place(name)

    def text(self, text: str) -> int:
        """The number of a text; 0 is the empty one."""
        if text not in self.texts.places:
            if self._text_bytes + len(text) > TEXT_BYTES_MAX:
                text = LEFT_OUT
            self._text_bytes += len(text)
        return self.texts.place(text)

    def prefix(self, item: bytes) -> int:
        """The number of an id's first bytes."""
        return self.prefixes.place(item[:PREFIX_BYTES])

    def _returned(self) -> Iterator[ObjectID]:
        for life, count in zip(self.lives, self.returns, strict=True):
            for index in range(count):
                yield return_object(life.id, index)


def count_of(item: bytes) -> int:
    """What follows the prefix of a task's or object's id."""
    return int.from_bytes(item[PREFIX_BYTES:TASK_ID_BYTES], "big")


def code(value: int | None) -> int:
    """A number that may be unknown, as one that is never 0 unless it is."""
    if value is None:
        return 0
    return value + 1 if value >= 0 else value
