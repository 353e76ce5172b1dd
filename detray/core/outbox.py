"""What a step sends, sorted by destination and encoded once.

Theory of operation
-------------------
A core returns one list of effects. Whoever drives it sends each client one frame with all that is
meant for it, and performs the rest, the orders, itself. Sorting and encoding are pure, so that the
bytes that go out on the sockets are also the bytes that a trace digests, and a replay that runs
this module over fresh cores gets the same bytes (PROTOCOL T6).

Canonical order: the clients in the order in which the step first names them, each with its messages
in the order of the effects; then all orders, in the order of the effects, as one last group.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

import msgspec

from detray.core.effects import ClientMessage, Effect, Order

if TYPE_CHECKING:
    from detray.ids import ClientID

CLIENT_MESSAGES: frozenset[type] = frozenset(get_args(ClientMessage))
"""The effects that travel in the frame of their `client`."""
ORDERS: frozenset[type] = frozenset(get_args(Order))
"""The effects that the driver performs itself."""


class Outbox:
    """Sorts and encodes effects. It keeps nothing but its encoder: one may serve every core."""

    __slots__ = ("_encode",)

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode

    def group(
        self, effects: Iterable[Effect]
    ) -> tuple[dict[ClientID, list[ClientMessage]], list[Order]]:
        """The messages by client, in the order in which clients first appear, and the orders."""
        messages: dict[ClientID, list[ClientMessage]] = {}
        orders: list[Order] = []
        for effect in effects:
            if type(effect) in CLIENT_MESSAGES:
                client = effect.client  # type: ignore[union-attr]  # the table says it is a message
                queue = messages.get(client)
                if queue is None:
                    messages[client] = [effect]  # type: ignore[list-item]  # the same
                else:
                    queue.append(effect)  # type: ignore[arg-type]  # the same
            else:
                orders.append(effect)  # type: ignore[arg-type]  # the table says it is none
        return messages, orders

    def encode(
        self, messages: dict[ClientID, list[ClientMessage]], orders: list[Order]
    ) -> list[bytes]:
        """The groups as msgpack arrays: one per client in the order of `messages`, then the orders.

        `zip(messages, groups)` pairs each client with the meta bytes of its frame. Without orders
        there is no last group.
        """
        encode = self._encode
        groups = [encode(queue) for queue in messages.values()]
        if orders:
            groups.append(encode(orders))
        return groups

    def encode_effects(self, effects: Iterable[Effect]) -> list[bytes]:
        """Both at once, for whoever only compares."""
        return self.encode(*self.group(effects))
