"""Whether a process that is not ours lives."""

from __future__ import annotations

import time
from pathlib import Path

_PATIENCE_S = 20.0


def lives(pid: int) -> bool:
    """True until its end, whether or not that was noticed."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def gone(pid: int) -> bool:
    """True once it has ended, for which the kernel, or who is to end it, may take a moment."""
    deadline = time.monotonic() + _PATIENCE_S
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not lives(pid)
