"""The first code of a service process: forks the zygote, then each side imports what it needs.

Rules
-----
- Run as a script, by its path: importing `detray` must not come before the fork. Both halves import
  at the same time on two cores, and every millisecond here is one of `init`.
- Only builtin modules until the fork (`docs/performance.md`: `import socket` alone costs 3 to 20 ms).

Arguments: `service SESSION_DIR CLIENT_FD LOG_FD BOOT_FD LOCK_FD` or, for a zygote that replaces a dead
one, `zygote SESSION_DIR CONTROL_FD BOOT_FD LOCK_FD`. The boot pipe carries a u32, so many bytes of sys.path
joined by NUL, and a msgpack `BootConfig`.
"""

import _signal
import _socket
import os
import sys


def read_boot(fd: int) -> tuple[list[str], bytes]:
    """The module search path and the still encoded BootConfig, read to the end of the pipe."""
    chunks = []
    while chunk := os.read(fd, 1 << 16):
        chunks.append(chunk)
    os.close(fd)
    data = b"".join(chunks)
    end = 4 + int.from_bytes(data[:4], "little")
    return [os.fsdecode(part) for part in data[4:end].split(b"\0")], data[end:]


def _run_service(session_dir: str, client_fd: int, log_fd: int, boot_fd: int, lock_fd: int) -> None:
    # Ctrl-C in the driver's terminal is the driver's: it reaches neither this process nor workers.
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    os.setsid()
    sys.path[:], boot = read_boot(boot_fd)
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    control_fd, zygote_fd = ours.detach(), theirs.detach()
    zygote_pid = os.fork()
    if zygote_pid == 0:
        # The lock stays open: the directory is in use until the zygote has cleaned up.
        for fd in (client_fd, log_fd, control_fd):
            os.close(fd)
        _run_zygote(session_dir, zygote_fd, boot)
        return
    os.close(zygote_fd)
    from detray.runtime.service import main

    main(
        boot,
        client_fd=client_fd,
        log_fd=log_fd,
        lock_fd=lock_fd,
        control_fd=control_fd,
        zygote_pid=zygote_pid,
    )


def _run_zygote(session_dir: str, control_fd: int, boot: bytes) -> None:
    from detray.runtime.zygote import main

    main(control_fd, boot, session_dir)


if __name__ == "__main__":
    mode, directory, *fds = sys.argv[1:]
    if mode == "service":
        _run_service(directory, *map(int, fds))
    else:
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
        sys.path[:], config = read_boot(int(fds[1]))
        _run_zygote(directory, int(fds[0]), config)
