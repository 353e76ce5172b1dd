"""Why something was slow, failed or never ended, as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detray.trace.plain_text import one_line
from detray.trace.quantities import time_text

if TYPE_CHECKING:
    from detray.trace.explaining.tree import Cause, Why


def why_text(answer: Why) -> str:
    """An answer for people: the conclusion, then the tree of causes."""
    lines = [one_line(f"{answer.subject} {answer.conclusion}")]
    for cause in answer.causes:
        lines += _lines(cause, 1)
    return "\n".join(lines)


def _lines(cause: Cause, level: int) -> list[str]:
    if cause.length_ns >= 0:
        head = time_text(cause.length_ns)
    elif cause.started_ns >= 0 or cause.ended_ns >= 0:
        head = f"@{max(cause.started_ns, cause.ended_ns) / 1e9:.6f}"
    else:
        head = ""
    lead = "meanwhile: " if cause.kind == "meanwhile" else ""
    lines = [f"{'    ' * level}{head:>9}  {lead}{one_line(cause.text)}"]
    lines += [f"{'    ' * level}{'':>9}    {line}" for line in cause.detail.splitlines()]
    for inner in cause.causes:
        lines += _lines(inner, level + 1)
    return lines
