"""The head's process: feeds the global scheduler, keeps its log, answers questions."""

from __future__ import annotations

from typing import NoReturn


def main(*, client_fd: int, boot_fd: int, lock_fd: int) -> NoReturn:
    """Be the head until somebody stops it. The descriptors are those of `entry.py`."""
    raise SystemExit(f"not yet: {client_fd} {boot_fd} {lock_fd}")
