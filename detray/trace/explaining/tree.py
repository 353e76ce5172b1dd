"""Causes as a tree, and a conclusion of one line."""

from __future__ import annotations

import msgspec

from detray.trace.explaining.parts import ARGUMENT, GET, RUN
from detray.trace.explaining.words import ENDED
from detray.trace.quantities import time_text

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


# ------------------------------------------------------------------ one line for all


def because(failure: Cause) -> str:
    """The first failure of a chain, if it is another than the last."""
    first = failure
    while inner := [cause for cause in first.causes if cause.kind == FAILURE]:
        first = inner[0]
    return f"; the first to fail: {first.text}" if first is not failure else ""


def without_subject(name: str, text: str) -> str:
    """What a sentence says of its subject, which was named before."""
    return text.removeprefix(f"{name} ")


def chain_text(stuck: Cause, name: str) -> str:
    """The first links of a chain of waits; `name` is whose it is, and was named before."""
    texts = [f"it {without_subject(name, stuck.text)}"]
    inner = stuck.causes
    while inner and len(texts) < 4:
        texts.append(inner[0].text)
        inner = inner[0].causes
    return "; ".join(texts) + ("; and so on" if inner else "")


def conclude(times: tuple[Cause, ...], length_ns: int) -> str:
    """Where most of the time of a task that finished went, and why."""
    again = next((cause for cause in times if cause.part == "rebuilt"), None)
    if again is not None:
        total = time_text(length_ns)
        return f"finished, and {again.text}; the last end was {total} after its submission"
    ran_ns = sum(cause.length_ns for cause in times if cause.part == RUN)
    waits = [cause for cause in times if cause.part != RUN]
    total = time_text(length_ns)
    if not length_ns:
        return "took no time that its clock could tell"
    if not waits:
        return f"took {total}, all of it running"
    waited_ns = length_ns - ran_ns
    biggest = f"{time_text(waits[0].length_ns)} {_as_share(phrase(waits[0]))}"
    if waited_ns * 10 < length_ns:
        return f"ran {time_text(ran_ns)} of {total}; the longest wait: {biggest}"
    return f"waited {time_text(waited_ns)} of {total}: {biggest}"


def _as_share(text: str) -> str:
    """What was done in a share of the time, after its length: without the verb."""
    for verb in ("waited ", "was ", "stood still ", "had finished, and "):
        if text.startswith(verb):
            return text.removeprefix(verb)
    if text.startswith(ENDED):
        return "from its end until its owner heard of it"
    return text


def phrase(cause: Cause, hops: int = 3) -> str:
    """A wait, with the largest thing behind it."""
    inner = [deeper for deeper in cause.causes if deeper.kind == TIME]
    failures = [deeper for deeper in cause.causes if deeper.kind == FAILURE]
    if cause.part == "lost":
        return f"in what came to nothing ({cause.text})"
    if cause.part == "rest":
        return "in small parts"
    again = next((deeper for deeper in inner if deeper.part == "rebuilt"), None)
    if again is not None:
        return f"{cause.text}, which {again.text}"
    if cause.part not in (ARGUMENT, GET) or not hops:
        return cause.text
    if failures:
        return f"{cause.text}, which failed"
    if not inner or inner[0].part == "rest":
        return cause.text
    first = inner[0]
    if first.part == RUN:
        return f"{cause.text}, which took {time_text(first.length_ns)} to run"
    if first.part == "lost":
        return f"{cause.text}, of which {first.text}"
    return f"{cause.text}, which {phrase(first, hops - 1)}"
