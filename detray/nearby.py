"""Processes of clusters that this user runs on this machine, and which of them a program joins.

They are found by their session directories (`runtime/session.py`): a lock that is held says that a
process lives, `cluster.json` what it is (it writes that when it is ready). `init` looks here
whenever nobody told it where to go, so this module is light.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from detray.runtime.net.address import Address, parse_address
from detray.runtime.session import INFO_NAME, TOKEN_NAME, live_sessions
from detray.settings import AUTO, LOCAL


class LocalProcess(NamedTuple):
    """A head or a node of a cluster that is up on this machine."""

    directory: str
    """Its session directory."""
    kind: str
    """"head" or "node"."""
    pid: int
    cluster: str
    head: str
    """host:port of the head, as this process knows it."""
    address: str
    """host:port where it listens."""
    node: int
    """Its NodeID, -1 for a head."""
    web: str
    started_ns: int
    is_tied: bool
    """It ends with the program that started it: nobody joins it without being told to."""
    is_with_head: bool
    """A node that was started together with the head."""
    version: str

    @property
    def token_path(self) -> str:
        """The file with the cluster's secret."""
        return os.path.join(self.directory, TOKEN_NAME)


def find_local() -> list[LocalProcess]:
    """Cluster processes of this user on this machine, the oldest first."""
    found = []
    for session in live_sessions():
        info = _read(os.path.join(session.directory, INFO_NAME))
        if info:
            process = _process(session.directory, info)
            # Its zygote keeps the directory while it cleans up after a service that died.
            if _is_running(process.pid):
                found.append(process)
    return sorted(found, key=lambda process: (process.started_ns, process.pid))


def find_node(address: str) -> LocalProcess | None:
    """The node of this machine that a program with that address joins; None: a private session.

    `address` is "" (join a cluster that `detray start` started here, if there is one), "auto"
    (there must be one), "local" (a private session), or host:port of a head.

    Raises ConnectionError if there is no such node here.
    """
    if address == LOCAL:
        return None
    processes = find_local()
    if address in ("", AUTO):
        nodes = [p for p in processes if p.kind == "node"]
        free = [p for p in nodes if not p.is_tied]
        if address == "":
            return _newest_cluster(free)
        if not nodes:
            raise ConnectionError(_no_node_at_all(processes))
        return _newest_cluster(free or nodes)
    nodes = [p for p in of_address(processes, address) if p.kind == "node"]
    if not nodes:
        raise ConnectionError(
            f"address={address!r}: no node of that cluster runs on this machine, and a program "
            f"joins by a node of its own machine. Run `detray start --address={address}` here first"
        )
    return _first(nodes)


def of_address(processes: Sequence[LocalProcess], address: str) -> list[LocalProcess]:
    """Those of `processes` whose cluster's head is at `address`, whatever it is called there.

    Raises ValueError if `address` is not host:port.
    """
    wanted = parse_address(address)
    clusters = {p.cluster for p in processes if is_same_place(parse_address(p.head), wanted)}
    return [p for p in processes if p.cluster in clusters]


def is_same_place(left: Address, right: Address) -> bool:
    """True if both are the same port of the same machine, as far as names can tell."""
    if left.port != right.port:
        return False
    if left.host.lower() == right.host.lower():
        return True
    ours, theirs = _numbers(left.host), _numbers(right.host)
    return bool(ours & theirs) or (_is_here(ours) and _is_here(theirs))


def _numbers(host: str) -> set[str]:
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def _is_here(numbers: set[str]) -> bool:
    """True if one of these addresses is one of this machine's."""
    for number in sorted(numbers):
        family = socket.AF_INET6 if ":" in number else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((number, 0))
            return True
        except OSError:
            continue
    return False


def _newest_cluster(nodes: Sequence[LocalProcess]) -> LocalProcess | None:
    """The node to join of the cluster that was begun last, as far as this machine shows."""
    clusters: dict[str, list[LocalProcess]] = {}
    for node in nodes:  # the oldest first
        clusters.setdefault(node.cluster, []).append(node)
    return _first(list(clusters.values())[-1]) if clusters else None


def _first(nodes: Sequence[LocalProcess]) -> LocalProcess:
    """The node that came with the head, else the oldest."""
    return min(nodes, key=lambda node: (not node.is_with_head, node.started_ns, node.pid))


def _no_node_at_all(processes: Sequence[LocalProcess]) -> str:
    if processes:
        head = processes[-1].head
        return (
            f"address='auto': the head at {head} runs on this machine, but no node does. Start one "
            f"with `detray start --address={head}`"
        )
    return (
        "address='auto': no node of a cluster of yours runs on this machine. Start a cluster with "
        "`detray start --head`, or join one with `detray start --address=HOST:PORT`"
    )


def _process(directory: str, info: dict[str, Any]) -> LocalProcess:
    return LocalProcess(
        directory,
        str(info.get("kind", "")),
        int(info.get("pid", 0)),
        str(info.get("cluster", "")),
        str(info.get("head", "")),
        str(info.get("address", "")),
        int(info.get("node", -1)),
        str(info.get("web", "")),
        int(info.get("started_ns", 0)),
        bool(info.get("tied", 0)),
        bool(info.get("with_head", 0)),
        str(info.get("version", "")),
    )


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return pid > 0


def _read(path: str) -> dict[str, Any]:  # Any: JSON
    """What such a file says; nothing while it is not there, or half written."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return {}
    import json  # 3 ms that most programs need not spend

    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
