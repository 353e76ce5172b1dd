"""Child processes: how they ended, how they are killed, what they are called.

Shared by the zygote, which forks workers, and the service, which adopts them if the zygote dies.
"""

from __future__ import annotations

import os
import signal

CONTROL_BYTES_MAX = 1 << 16
"""Size of the largest message between service and zygote."""


def exit_status(pid: int) -> int | None:
    """The status of the dead child `pid`, which stays a zombie; None while it lives.

    An exit code, or the negative number of a signal. Raises ChildProcessError if it is no child.
    """
    facts = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if facts is None:
        return None
    return facts.si_status if facts.si_code == os.CLD_EXITED else -facts.si_status


def kill_group(pid: int) -> None:
    """SIGKILL a worker and all it started, except what left its process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def rename_process(name: str) -> None:
    """What `top` and `ps -o comm` show for this process; at most 15 characters count."""
    try:
        with open("/proc/self/comm", "w") as file:
            file.write(name)
    except OSError:
        pass  # cosmetic
