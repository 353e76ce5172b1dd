"""States of tasks and objects: a class per stage, carrying what is true in that stage only.

A task's record leaves its table when the task is done; `MOVES` says what may follow what, and
`detray.core.lifecycle` is the only place that assigns.

    Waiting ──> Ready ──> Assigned ──> (done)
     ^ │ │        ^ ^────────┘ retracted or retried
     │ │ └─> Fetching  (arguments on their way here)
     │ └──> Placing ──> Delivered ──> (done)
     └─────────┴────────────┘ given back, retried, or an argument was lost

An object:

    Pending ──> Inline ──> Stored        sealed by a put or a finished run; moved to disk
     ^ │ └────> Stored ──> Stored
     │ ├──────> Failed
     │ └────> Elsewhere <──> Stored      at another node; pulled, or evicted again
     └── Gone <───┴────────────┘         the last copy is lost, the producer can run again
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


class Fetching(msgspec.Struct, frozen=True, gc=False, tag="fetching"):
    """It will run here; `Task.missing` arguments are not in this node's memory yet."""


class Delivered(msgspec.Struct, frozen=True, gc=False, tag="delivered"):
    """Sent to another node, which will report once.

    If that is before `until_ns`, its place serves again (`leases.py`).
    """

    node: int
    until_ns: int = 0


TaskState = Waiting | Ready | Placing | Assigned | Fetching | Delivered
WAITING, READY, FETCHING = Waiting(), Ready(), Fetching()

MOVES: dict[type, tuple[type, ...]] = {
    Waiting: (Ready, Placing, Fetching),
    Ready: (Assigned, Placing, Waiting, Fetching),
    Placing: (Placing, Ready, Fetching, Waiting, Delivered),
    Assigned: (Ready, Waiting),
    Fetching: (Ready, Waiting, Placing),
    Delivered: (Waiting,),
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


class Elsewhere(msgspec.Struct, frozen=True, gc=False, tag="elsewhere"):
    """Other nodes have the value (`Shared` says which), this one has not."""

    size_bytes: int


class Gone(msgspec.Struct, frozen=True, gc=False, tag="gone"):
    """No copy is left, or none was worth keeping; its producer can run again when it is wanted."""


ObjectState = Pending | Inline | Stored | Failed | Elsewhere | Gone
PENDING, GONE = Pending(), Gone()

OBJECT_MOVES: dict[type, tuple[type, ...]] = {
    Pending: (Inline, Stored, Failed, Elsewhere),
    Inline: (Stored, Failed),
    Stored: (Stored, Elsewhere, Gone, Failed, Pending),
    Failed: (),
    Elsewhere: (Stored, Gone, Failed, Pending, Elsewhere),
    Gone: (Pending, Failed),
}
