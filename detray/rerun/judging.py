"""Whether a task that ran again did what it did then."""

from __future__ import annotations

from typing import Any

import msgspec

from detray.errors import Failure
from detray.ids import TaskID
from detray.rerun.comparison import difference
from detray.rerun.recorded import Recorded
from detray.runtime.deaths import OOM_REASON, death_reason
from detray.serialization.digests import digest
from detray.serialization.values import deserialize

SAME, DIFFERS, UNKNOWN, CANNOT = "same", "differs", "unknown", "cannot"
"""Verdicts. UNKNOWN: it ran, but there is nothing to compare with. CANNOT: it did not run."""
_FROM_OUTSIDE = (OOM_REASON, *(death_reason(-n, struck_by_oom=False) for n in (9, 15)))
"""Deaths that a task does not die by itself, as a rule."""
_BYTES_COMPARED_MAX = 256 << 20
"""Longer values are not unpickled for a comparison: their bytes say enough."""


class Outcome(msgspec.Struct):
    """How a run ended: with `returns`, or an error (`kind`, `summary`), or the end of its process.

    `died` tells the latter in the words that a service has for it. `payload` is the pickled error.
    """

    returns: list[bytes] | None = None
    kind: int = 0
    summary: str = ""
    traceback: str = ""
    payload: bytes = b""
    died: str = ""
    stack: str = ""
    duration_ns: int = 0

    @property
    def text(self) -> str:
        """What happened, in a few words."""
        if self.died:
            return f"its process ends: {self.died}"
        if self.returns is None:
            return f"it raises {self.summary}"
        return "it returns"


class Judgement(msgspec.Struct):
    """A verdict, and the sentence that goes with it. `remarks` tell what else was other than then.

    A task whose puts or calls differ is not the same even if it returns the same.
    """

    verdict: str
    text: str
    remarks: list[str] = []


def judge(recorded: Recorded, task: TaskID, attempt: int, now: Outcome) -> Judgement:
    """Compare a run with the attempt that was recorded."""
    state, reason = recorded.ending(task, attempt)
    if state == "finished" and (task, attempt) not in recorded.results:
        return Judgement(
            UNKNOWN, f"its result is in the payload file of the node that ran it; {now.text}"
        )
    if state == "finished":
        if now.returns is None:
            return Judgement(DIFFERS, f"it returned a value then; now {now.text}")
        return _judge_returns(recorded, task, attempt, now.returns)
    if state == "failed":
        return _judge_error(recorded, task, attempt, now)
    if state == "lost":
        return _judge_death(reason.partition("\n")[0], now)
    if state == "cancelled":
        return Judgement(UNKNOWN, f"it was cancelled then: nothing to compare with; {now.text}")
    return Judgement(UNKNOWN, f"how it ended then was not recorded; {now.text}")


def _judge_death(reason: str, now: Outcome) -> Judgement:
    """Its worker was lost: did the task do that?"""
    if now.died == reason:
        return Judgement(SAME, f"it dies again: {now.died}")
    if reason in _FROM_OUTSIDE or reason.startswith("node "):
        text = f"its worker was lost then, and not by itself ({reason}): nothing to compare with"
        return Judgement(UNKNOWN, f"{text}; {now.text}")
    return Judgement(DIFFERS, f"its worker was lost then ({reason}); now {now.text}")


def _judge_returns(
    recorded: Recorded, task: TaskID, attempt: int, returns: list[bytes]
) -> Judgement:
    parts = recorded.results[task, attempt]
    if len(parts) != len(returns):
        return Judgement(DIFFERS, f"it returned {len(parts)} values then, now {len(returns)}")
    verdict, texts = SAME, []
    for index, (part, now) in enumerate(zip(parts, returns, strict=True)):
        path = "the result" if len(parts) == 1 else f"return {index}"
        then = recorded.returned(task, attempt, index)
        if then is not None:
            text = differing(then, now, path)
            if text:
                verdict = DIFFERS
            elif then != now:
                text = f"{path} is equal, though pickled otherwise"
        elif part.digest:
            same = part.size == len(now) and part.digest == digest(now)
            verdict = verdict if same else DIFFERS
            text = "" if same else _digests_differ(path, part.size, len(now))
        elif part.size != len(now):
            verdict, text = DIFFERS, f"{path} had {part.size:,} bytes, now {len(now):,}"
        else:
            verdict = UNKNOWN if verdict == SAME else verdict
            text = f"{path} was not kept, and has no digest: nothing to compare with"
        if text:
            texts.append(text)
    return Judgement(verdict, "; ".join(texts) or "the result is the same, to the byte")


def _digests_differ(path: str, then: int, now: int) -> str:
    return (
        f"{path} is not the same: {then:,} bytes then, {now:,} now, of another digest (the value "
        "was too large to be kept, so what differs in it is not known)"
    )


def differing(then: bytes | memoryview, now: bytes | memoryview, path: str) -> str:
    """Where two pickled values differ; "" if they are equal, perhaps pickled otherwise."""
    if then == now:
        return ""
    if max(len(then), len(now)) > _BYTES_COMPARED_MAX:
        return f"{path} is pickled otherwise ({len(then):,} bytes then, {len(now):,} now)"
    try:
        values: tuple[Any, Any] = deserialize(bytes(then)), deserialize(bytes(now))
        return difference(*values, path)
    except Exception as problem:  # whatever unpickling raises, and the user's ==
        return f"{path} is pickled otherwise, and cannot be compared: {_told(problem)}"


def _judge_error(recorded: Recorded, task: TaskID, attempt: int, now: Outcome) -> Judgement:
    then = recorded.errors[task, attempt]
    if now.summary == then.summary and not now.died and now.returns is None:
        return Judgement(SAME, f"it raises the same error: {now.summary}")
    if then.kind not in (Failure.APPLICATION, Failure.SERIALIZATION):
        return Judgement(UNKNOWN, f"it failed then, and not by itself: {then.summary}; {now.text}")
    return Judgement(DIFFERS, f"it raised {then.summary} then; now {now.text}")


def _told(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}"
