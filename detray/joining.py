"""Joining a cluster: a driver's two connections to a node of this machine that runs already.

The first is like that of a driver that started its service (arena, welcome, frames); the second is
its log channel, which also carries its questions about the cluster (`runtime/log_channel.py`).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from detray import __version__
from detray.driver_logs import DriverLogs
from detray.errors import NodeDiedError, ServiceDiedError
from detray.nearby import LocalProcess
from detray.runtime.asking import summary_of
from detray.runtime.client import Client, connect
from detray.runtime.frames import frame

_CONNECT_S = 10.0


class JoinedNodeDiedError(ServiceDiedError, NodeDiedError):
    """The node of this machine that the program had joined died; the cluster may live on."""


class JoinedClient(Client):
    """A driver's end at a node that it did not start, and that stays when it leaves."""

    def __init__(self, *given: Any, joined: LocalProcess, **named: Any) -> None:  # Any: passed on
        named["on_end"] = self._note_why
        super().__init__(*given, **named)
        self._joined = joined
        self._is_lost = False
        self.ask: Callable[..., Any] | None = None
        """The log channel's `DriverLogs.ask`, once it is open."""

    def reports(self) -> list[dict[str, Any]]:
        """A summary of every node of the cluster, the dead ones with `alive` False.

        Raises EngineError if the head does not answer.
        """
        if self.ask is None:
            return [self.status()]
        return [summary_of(page) for page in self.ask("status")["nodes"]]

    def error(self) -> Exception:
        """What every call raises once the connection has ended."""
        if not self._is_lost:
            return super().error()
        node = self._joined
        return JoinedNodeDiedError(
            f"node {node.node} at {node.address} (pid {node.pid}), by which this program had "
            f"joined the cluster at {node.head}, is gone: {self._ended}. What it owned is lost; "
            "after detray.shutdown(), detray.init() joins again"
        )

    def _note_why(self, reason: str) -> None:
        self._is_lost = True


def join(
    node: LocalProcess, *, namespace: str, entrypoint: str, show: bool
) -> tuple[JoinedClient, DriverLogs]:
    """Become a driver at `node`; `show`: print what workers print.

    Raises ConnectionError if it does not let us in, with the likely reason.
    """
    if node.version and node.version != __version__:
        raise ConnectionError(
            f"the node at {node.address} runs detray {node.version}, this program {__version__}: "
            "both must run the same version"
        )
    sock = _open(node, ["hello", "driver", os.getpid(), namespace, entrypoint, __version__])
    try:
        client = connect(sock, node.directory, make=partial(JoinedClient, joined=node))
        assert isinstance(client, JoinedClient)
    except (ServiceDiedError, OSError) as problem:
        sock.close()
        raise ConnectionError(
            f"the node at {node.address} (pid {node.pid}) did not let this program in "
            f"({problem}). `detray status` shows whether it lives; {_log_path(node)} may say why"
        ) from None
    number = str(client.books.client)
    try:
        channel = _open(node, ["hello", "log", os.getpid(), "", number, __version__])
    except ConnectionError:
        client.close()
        raise
    logs = DriverLogs(channel, show=show)
    logs.start()
    client.ask = logs.ask
    return client, logs


def announce(node: LocalProcess) -> None:
    """Say which cluster was joined, on standard error, as Ray does."""
    web = f", its page is {node.web}" if node.web else ""
    text = f"detray: connected to the cluster at {node.head} by the node at {node.address}{web}"
    print(text, file=sys.stderr, flush=True)


def _open(node: LocalProcess, hello: list[Any]) -> socket.socket:
    """A connection to the node's service that has said who it is. Raises ConnectionError."""
    from detray.runtime.session import SOCKET_NAME

    path = os.path.join(node.directory, SOCKET_NAME)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(_CONNECT_S)
    try:
        sock.connect(path)
        sock.sendall(frame(msgspec.msgpack.encode([hello])))
    except OSError as problem:
        sock.close()
        raise ConnectionError(
            f"the node at {node.address} (pid {node.pid}) cannot be reached by {path}: {problem}"
        ) from None
    return sock


def _log_path(node: LocalProcess) -> str:
    return os.path.join(node.directory, "service.log")
