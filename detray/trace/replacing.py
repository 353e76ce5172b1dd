"""Writing a file that is there whole, or as it was before, whenever the writer ends."""

from __future__ import annotations

import os
from collections.abc import Iterable

PRIVATE, SHARED = 0o600, 0o666
"""Modes of files: for their owner only; for whom the umask allows."""


def write_whole(
    path: str | os.PathLike[str], pieces: Iterable[bytes], *, mode: int = PRIVATE
) -> str:
    """Write a file, all of it or nothing; its path. Raises OSError that names the file."""
    target = os.fspath(path)
    partial = f"{target}.part"
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(fd, "wb") as file:
            for piece in pieces:
                file.write(piece)
        os.replace(partial, target)
    except BaseException as problem:
        try:
            os.unlink(partial)
        except OSError:
            pass
        if isinstance(problem, OSError) and problem.filename in (None, partial):
            raise OSError(problem.errno, problem.strerror, target) from None
        raise
    return target
