"""States of tasks and objects: a class per stage, carrying what is true in that stage only.

A task's record leaves its table when the task is done; `MOVES` says what may follow what, and
`detray.core.lifecycle` is the only place that assigns.

    Waiting ──> Ready ──> Assigned ──> (done)
       │          │  ^───────┘ retracted or retried
       └─> Placing ┘ (no fit here: the head decides)

An object:

    Pending ──> Inline ──> Stored        sealed by a put or a finished run; moved to disk
       │  └───> Stored ──> Stored
       └──────> Failed
"""

from __future__ import annotations

import msgspec


class Waiting(msgspec.Struct, frozen=True, gc=False, tag="waiting"):
    """Some top-level argument is not available; `Task.missing` counts them."""


class Ready(msgspec.Struct, frozen=True, gc=False, tag="ready"):
    """In the ready queue."""


class Placing(msgspec.Struct, frozen=True, gc=False, tag="placing"):
    """This node can never run it; the head was asked and has not named a node yet."""

    asked_ns: int
    offers: tuple[tuple[str, int], ...] | None = None
    """What the largest node has, once the head said that the demand is infeasible."""
    reported: bool = False


class Assigned(msgspec.Struct, frozen=True, gc=False, tag="assigned"):
    """Sent to a worker of this node, begun or not."""

    worker: int


TaskState = Waiting | Ready | Placing | Assigned
WAITING, READY = Waiting(), Ready()

MOVES: dict[type, tuple[type, ...]] = {
    Waiting: (Ready, Placing),
    Ready: (Assigned,),
    Placing: (Placing, Ready),
    Assigned: (Ready,),
}
"""Legal moves of a task; every state may also end."""


class Pending(msgspec.Struct, frozen=True, gc=False, tag="pending"):
    """No value yet."""


class Inline(msgspec.Struct, frozen=True, gc=False, tag="inline"):
    """The driver keeps the bytes by id; 0 bytes cannot be."""

    size_bytes: int


class Stored(msgspec.Struct, frozen=True, gc=False, tag="stored"):
    """In a block: segment 0 is the arena, others are files."""

    segment: int
    offset: int
    size_bytes: int


class Failed(msgspec.Struct, frozen=True, gc=False, tag="failed"):
    """There will be no value. `size_bytes` of pickled error are kept by id (0: none)."""

    failure: int
    text: str
    size_bytes: int = 0


ObjectState = Pending | Inline | Stored | Failed
PENDING = Pending()

OBJECT_MOVES: dict[type, tuple[type, ...]] = {
    Pending: (Inline, Stored, Failed),
    Inline: (Stored,),
    Stored: (Stored,),
    Failed: (),
}
