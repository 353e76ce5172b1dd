"""Why a process died, in words."""

from __future__ import annotations

import signal

OOM_REASON = "killed by the kernel's out-of-memory killer"


def death_reason(status: int | None, *, struck_by_oom: bool) -> str:
    """What a status (exit code, or negative signal number; None: nobody knows) means.

    >>> death_reason(-11, struck_by_oom=False)
    'killed by signal 11 (SIGSEGV)'
    """
    if status is None:
        return "ended while nobody watched it"
    if status >= 0:
        return f"exited with status {status}"
    if status == -signal.SIGKILL and struck_by_oom:
        return OOM_REASON
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    return f"killed by signal {-status} ({name})"


class OomWatch:
    """Whether the kernel's out-of-memory killer struck since it was last asked.

    The control group's own count (cgroup 2) is exact; the machine's count may be about somebody
    else.
    """

    def __init__(self) -> None:
        self._path = _count_file()
        self._seen = self._read()

    def struck(self) -> bool:
        """True if there was a kill since the last call (or since the start)."""
        before, self._seen = self._seen, self._read()
        return self._seen > before

    def _read(self) -> int:
        try:
            with open(self._path, "rb") as file:
                for line in file:
                    if line.startswith(b"oom_kill "):
                        return int(line.split()[1])
        except OSError:
            pass  # not Linux, or not readable: nobody can tell
        return 0


def _count_file() -> str:
    try:
        with open("/proc/self/cgroup") as file:
            for line in file:
                if line.startswith("0::"):
                    path = f"/sys/fs/cgroup{line[3:].strip()}/memory.events"
                    with open(path, "rb"):
                        return path
    except OSError:
        pass  # cgroup 1, or the root group, which has no such file
    return "/proc/vmstat"
