"""Ends that are closed after each test, and a check that no descriptor is left."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from detray.runtime.net.address import Address
from tests.net.peers import End, Loop
from tests.net.proxy import Proxy


@pytest.fixture
def loop() -> Loop:
    """The loop that all ends of a test share."""
    return Loop()


@pytest.fixture
def end(loop: Loop) -> Iterator[Callable[..., End]]:
    """Makes ends; when the test is over every descriptor that it opened must be closed."""
    before = _descriptors()
    made: list[End] = []

    def make(node: int, **how: Any) -> End:
        made.append(End(loop, node, **how))
        return made[-1]

    yield make
    for one in made:
        one.hub.close()
    for thread in threading.enumerate():
        if thread.name.startswith("resolve "):
            thread.join()  # a name server's socket is not ours
    left = _descriptors() - before
    assert not left, f"descriptors left open: {left}"


@pytest.fixture
def proxy(loop: Loop, end: Callable[..., End]) -> Iterator[Callable[[Address], Proxy]]:
    """Makes proxies; closed before the check for descriptors."""
    made: list[Proxy] = []

    def make(target: Address) -> Proxy:
        made.append(Proxy(loop, target))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def taken() -> Iterator[Address]:
    """An address that nobody else gets: whoever of ours wants it may listen there, again and again.

    Who binds a port and lets it go finds it with another program before long.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield Address(*sock.getsockname())


def _descriptors() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except OSError:
            continue
    return {name for name in found if "socket" in name or "eventfd" in name}
