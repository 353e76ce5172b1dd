"""Opening a file to record to: nobody else's meanwhile, readable by its owner only, and empty."""

from __future__ import annotations

import errno
import fcntl
import os
import stat


def open_to_record(path: str) -> int:
    """A descriptor of `path` to write to; what was there is gone.

    Two sessions that wrote to one file would leave a file that nobody can read. The lock that tells
    them apart ends with the process that has it, however that ends. (Reading the file in that
    process ends it, too: it is there for mistakes, not for safety.)

    Raises OSError, with EBUSY if another process records to it.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            _lock(fd, path)
            os.fchmod(fd, 0o600)  # One that was there would keep the mode that it had.
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            text = "another session records to this file: name another"
            raise OSError(errno.EBUSY, text, path) from None
        # Some network file systems have no locks.
