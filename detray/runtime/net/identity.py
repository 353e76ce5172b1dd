"""Who is at the other end: what two processes tell each other once the token is proved.

The greetings of a connection, each at most `GREETING_BYTES_MAX` of msgpack::

    dialler  -> Introduction            who it is
    acceptor -> Reception               who it is, or Refusal
    dialler  -> Acceptance              go, or Refusal

`session` numbers the session that the sender has on this link, counted through its life: with the
life it says whether the two ends go on with a session or begin one. `handled` acknowledges, as the
`ack` of a session frame does, so that a reconnect does not repeat what has arrived.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

GREETING_BYTES_MAX = 4096
_Life = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
_Kind = Annotated[str, msgspec.Meta(pattern="^(node|head|tool)$")]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """A process as it presents itself to another one."""

    kind: _Kind
    """"node", "head" or "tool"."""
    cluster: str
    """The cluster's id; must be equal. "" for who has not learned it yet."""
    version: str
    """`detray.__version__`; must be equal."""
    life: _Life
    """32 hex digits, random: one life of one process."""
    node: Annotated[int, msgspec.Meta(ge=-1)] = -1
    """NodeID; -1 before admission and for heads and tools."""
    epoch: _Count = 0
    """A head's epoch; for a node the highest that it has seen. 0: none."""
    address: str = ""
    """Where this process listens; "" for tools."""
    name: str = ""
    """For people."""


CLUSTER_STOPPED = "the cluster was stopped"
"""Why a head that ends in order takes leave of its nodes: they end as well."""


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """A peer is turned away, or a link ended, and why.

    With `is_buried` the cluster goes on without whoever gets this: it must come back empty, under
    a new id (PROTOCOL D 37).
    """

    is_buried: bool
    reason: str


class Introduction(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The dialler's first greeting."""

    hello: Hello


class Reception(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    """The acceptor lets the dialler in."""

    hello: Hello
    session: _Count
    handled: _Count


class Acceptance(msgspec.Struct, frozen=True, array_like=True, tag="go"):
    """The dialler found whom it meant; frames follow."""

    session: _Count
    handled: _Count


Greeting = Introduction | Reception | Acceptance | Refusal

encode_greeting = msgspec.msgpack.Encoder().encode
decode_greeting = msgspec.msgpack.Decoder(Greeting).decode
"""Raises msgspec.MsgspecError."""
