"""Causes as a tree."""

from __future__ import annotations

import msgspec

DEPTH = 5
"""How far causes are followed, unless told otherwise."""
DEPTH_MAX = 100
"""How far they are followed at all: further back one asks about what is there."""
CAUSES_MAX = 6
"""Causes of one thing that are told; the rest is summed up."""
CHAIN_MAX = 30
"""Failures, or waits, of a chain that are told."""
SMALL = 200
"""Parts below 1/200 of the whole are told together."""
FOLLOWED = 20
"""A wait is followed if it is at least 1/20 of the largest beside it."""

TIME, EVENT, FAILURE, MEANWHILE, STUCK = "time", "event", "failure", "meanwhile", "stuck"
"""Kinds of causes: a share of the time; something that happened; why it failed; what else ran then;
what it still waits for."""


class Cause(msgspec.Struct, frozen=True):
    """One cause, and what is behind it, the largest first.

    Causes of kind "time" side by side add up to the time of what they explain, or, one level down,
    to as much of it as is known. `part` says which part it is (`parts.PARTS`, "lost", "rebuilt").
    Times are nanoseconds since the trace began; -1 if they are not known, or there is none.
    `about` is a short name to ask about, "" if there is none; `detail` several lines, a traceback.
    """

    kind: str
    text: str
    length_ns: int = -1
    started_ns: int = -1
    ended_ns: int = -1
    part: str = ""
    about: str = ""
    detail: str = ""
    causes: tuple[Cause, ...] = ()


class Why(msgspec.Struct, frozen=True):
    """What a trace says of why. Times as in `Cause`; `length_ns` -1 where there is no length."""

    subject: str
    conclusion: str
    started_ns: int = -1
    ended_ns: int = -1
    length_ns: int = -1
    causes: tuple[Cause, ...] = ()


def ordered(causes: list[Cause]) -> tuple[Cause, ...]:
    """The largest first."""
    return tuple(sorted(causes, key=lambda cause: (-cause.length_ns, cause.started_ns)))


def summed(causes: tuple[Cause, ...]) -> tuple[Cause, ...]:
    """The largest, and the rest as one: what is too many, or too small to matter."""
    total = sum(max(0, cause.length_ns) for cause in causes)
    kept = [cause for cause in causes[:CAUSES_MAX] if cause.length_ns * SMALL >= total]
    rest = causes[len(kept) :]
    if len(rest) < 2:
        return causes
    length_ns = sum(max(0, cause.length_ns) for cause in rest)
    return (*kept, Cause(TIME, f"{len(rest)} smaller parts", length_ns, part="rest"))
