"""What a tree of causes comes to, in one line."""

from __future__ import annotations

from detray.trace.explaining.parts import ARGUMENT, GET, RUN
from detray.trace.explaining.tree import FAILURE, TIME, Cause
from detray.trace.explaining.words import ENDED
from detray.trace.quantities import time_text


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
