"""The first code of a service process: forks the zygote, then each side imports what it needs.

Rules
-----
- Run as a script, by its path: importing `detray` must not come before the fork. Both halves import
  at the same time on two cores, and every millisecond here is one of `init`.
- Only builtin modules until the fork (`import socket` alone costs 3 to 20 ms).

Arguments: `service SESSION_DIR CLIENT_FD LOG_FD BOOT_FD LOCK_FD`, the same with `head` for the head
of a cluster, or, for a zygote that replaces a dead one, `zygote SESSION_DIR CONTROL_FD BOOT_FD
LOCK_FD`. The boot pipe carries a u32, so many bytes of sys.path joined by NUL, and (but for a
zygote) the boot order in msgpack.
"""

import _signal
import _socket
import os
import sys


def read_paths(fd: int) -> list[str]:
    """The module search path, from the front of the boot pipe."""
    size = int.from_bytes(_read_exactly(fd, 4), "little")
    return [os.fsdecode(part) for part in _read_exactly(fd, size).split(b"\0")]


def _read_exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(fd, size - len(data))
        if not piece:
            # The driver died while it started us.
            os._exit(1)
        data += piece
    return data


def _lead_session() -> None:
    """Ctrl-C and hang-ups of the terminal are not ours. One that came back leads one already."""
    if os.getsid(0) != os.getpid():
        os.setsid()


def _run_service(session_dir: str, client_fd: int, log_fd: int, boot_fd: int, lock_fd: int) -> None:
    _lead_session()
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    control_fd, zygote_fd = ours.detach(), theirs.detach()
    zygote_pid = os.fork()
    if zygote_pid == 0:
        # The lock stays open: the directory is in use until the zygote has cleaned up.
        for fd in (client_fd, log_fd, boot_fd, control_fd):
            os.close(fd)
        _run_zygote(session_dir, zygote_fd)
        return
    os.close(zygote_fd)
    from detray.runtime.service import main

    del sys.modules["typing_extensions"]
    main(
        client_fd=client_fd,
        log_fd=log_fd,
        boot_fd=boot_fd,
        lock_fd=lock_fd,
        control_fd=control_fd,
        zygote_pid=zygote_pid,
    )


def _run_head(client_fd: int, log_fd: int, boot_fd: int, lock_fd: int) -> None:
    _lead_session()
    from detray.runtime.head.main import main

    del sys.modules["typing_extensions"]
    main(client_fd=client_fd, log_fd=log_fd, boot_fd=boot_fd, lock_fd=lock_fd)


def _run_zygote(session_dir: str, control_fd: int) -> None:
    from detray.runtime.zygote import main

    del sys.modules["typing_extensions"]
    main(control_fd, session_dir)


if __name__ == "__main__":
    # Ctrl-C in the driver's terminal is the driver's: it reaches neither this process nor workers.
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    mode, directory, *fds = sys.argv[1:]
    sys.path[:] = read_paths(int(fds[1 if mode == "zygote" else 2]))
    # msgspec looks for it first and is content without; it would cost 15 ms. Given back afterwards.
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    if mode == "service":
        _run_service(directory, *map(int, fds))
    elif mode == "head":
        _run_head(*map(int, fds))
    else:
        os.close(int(fds[1]))
        _run_zygote(directory, int(fds[0]))
