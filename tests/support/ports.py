"""Ports for what a test starts, ends and starts again at the same place."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Where the kernel takes the ports from that nobody names: for listeners and for connections."""


def free_port() -> int:
    """A port that nobody listens on, and that the kernel gives to nobody meanwhile."""
    below = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    draw = random.SystemRandom()  # tests beside this one draw others
    while True:
        port = draw.randrange(_LOWEST, below) if below > 2 * _LOWEST else 0
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
