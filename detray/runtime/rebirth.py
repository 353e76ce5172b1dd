"""A node that was declared dead comes back as a new one, in the same process (PROTOCOL N16).

Everything of the old life is gone by then: its workers, its links, its session directory. `exec`
lets go of its memory, too, and keeps the number of the process for those who watch it.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import NoReturn

import msgspec

from detray.runtime.boot import BootConfig
from detray.runtime.session import create_session
from detray.runtime.spawn import ENTRY, encode_paths, interpreter_options

LOG_NAME = "service.log"


def come_back(boot: BootConfig, lifeline: socket.socket) -> NoReturn:
    """Become a fresh service with the same boot order; `lifeline` is handed on. Raises OSError."""
    session = create_session()
    starter, nobody = socket.socketpair()
    fresh = msgspec.structs.replace(boot, session_dir=session.directory)
    orders = os.memfd_create("detray-boot")
    os.write(orders, encode_paths(boot.sys_path) + msgspec.msgpack.encode(fresh))
    os.lseek(orders, 0, os.SEEK_SET)
    log_fd = os.open(
        os.path.join(session.directory, LOG_NAME), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
    )
    os.dup2(log_fd, 2)
    if lifeline.fileno() < 0:  # it had none
        lifeline = nobody
    fds = [starter.fileno(), lifeline.fileno(), orders, session.lock_fd]
    for fd in fds:
        os.set_inheritable(fd, True)
    numbers = [str(fd) for fd in fds]
    command = [sys.executable, *interpreter_options(), "-P", ENTRY]
    os.execv(sys.executable, [*command, "service", session.directory, *numbers])
