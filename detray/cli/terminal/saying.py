"""What a command says beside its answer: a line on standard error."""

from __future__ import annotations

import sys

from detray.trace.plain_text import one_line


def say(text: str) -> None:
    """One line, on standard error, whatever is in it."""
    print(f"detray: {one_line(text)}", file=sys.stderr, flush=True)
