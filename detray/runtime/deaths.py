"""Why a process died, in words."""

from __future__ import annotations

import os
import signal

OOM_REASON = "killed by the kernel's out-of-memory killer"
STACK_CHARS_MAX = 2_000
_STACK_BYTES_READ = 1 << 16
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


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


def crash_stack(fd: int) -> str:
    """What `faulthandler` wrote to a file as its process died; "" if nothing.

    The first line says what happened; the thread's frames follow, the one at fault first, our own
    left out. At most `STACK_CHARS_MAX` characters, whole lines.
    """
    text = os.pread(fd, _STACK_BYTES_READ, 0).decode("utf-8", "replace")
    # What is not a crash's is nobody's: user code can write to any descriptor.
    what, _, stacks = text.partition("\n\n")
    if not what.startswith("Fatal Python error: ") or "\n" in what:
        return ""
    lines = [f"{what[: STACK_CHARS_MAX // 2]} (most recent call first)"]
    size = len(lines[0])
    for line in _frames(stacks):
        size += 1 + len(line)
        if size > STACK_CHARS_MAX:
            break
        lines.append(line)
    return "\n".join(lines)


def _frames(stacks: str) -> list[str]:
    """Of the thread that crashed; of the main one, which is last, if Python did not know it."""
    threads = [part for part in stacks.split("\n\n") if "hread 0x" in part.partition("\n")[0]]
    crashed = [part for part in threads if part.startswith("Current thread")] or threads[-1:]
    lines = crashed[0].split("\n")[1:] if crashed else []
    return [line for line in lines if line and not line.startswith(f'  File "{_PACKAGE}')]


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
