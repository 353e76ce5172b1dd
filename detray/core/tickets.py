"""Tickets: what a client waits for."""

from __future__ import annotations

from detray.core.effects import ClientMessage, Place
from detray.ids import ObjectID


class Ticket:
    """Something awaited from the service: the answer to a get, to a wish for a block, a status.

    `found` has, per object answered so far, its bytes, or (place, bytes) if it needs more than
    that: a failure, a block, references inside. It owns the grants and pins in it until somebody
    takes them out. `done` is set when nothing more will come; `answer` is the message that said so,
    None if the service went away instead.
    """

    __slots__ = ("answer", "done", "found", "group", "objects", "timed_out")

    def __init__(
        self, objects: tuple[ObjectID, ...] = (), group: TicketGroup | None = None
    ) -> None:
        self.objects = objects
        self.group = group
        self.found: dict[ObjectID, bytes | tuple[Place, bytes]] = {}
        self.answer: ClientMessage | None = None
        self.timed_out = False
        self.done = False

    def finish(self, answer: ClientMessage | None, done: list[Ticket]) -> None:
        """Nothing more will come. Appends what is done by this to `done`."""
        self.answer = answer
        self.done = True
        done.append(self)
        group = self.group
        if group is not None:
            group.finished.append(self)
            group.done = True
            done.append(group)


class TicketGroup(Ticket):
    """Done as soon as one of its members is; `finished` are those, until somebody takes them."""

    __slots__ = ("finished",)

    def __init__(self) -> None:
        super().__init__()
        self.finished: list[Ticket] = []

    def take(self) -> list[Ticket]:
        """The finished members; the group waits for others from now on."""
        finished, self.finished = self.finished, []
        self.done = False
        return finished
