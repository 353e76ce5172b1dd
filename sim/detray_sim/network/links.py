"""Bandwidths and latencies: as a scenario gives them, and as faults have scaled them by now.

Everything is integers. A rate is in 2**-20 bytes per second, work in rate times nanoseconds, so
progress is exact: no rounding error can pile up, or leave a byte that never arrives. What is
rounded is a rate, down, once, when it is set.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

RATE_BITS = 20
WORK_PER_BYTE = 1_000_000_000 << RATE_BITS
"""One byte, as rate x nanoseconds."""
FULL = 1000
"""Permille of a link that nothing has slowed."""


class Nic(msgspec.Struct, frozen=True):
    """A node's network card, full duplex: bytes per second out of the node, and into it."""

    up_bytes_per_s: int
    down_bytes_per_s: int


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One direction between two nodes that differs from the rest."""

    source: int
    target: int
    bytes_per_s: int = 0
    """All flows over it together have at most this; 0: only the network cards limit them."""
    latency_ns: int = -1
    """-1: the latency of the network."""


class NetworkShape(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster's network as a scenario describes it."""

    nics: tuple[Nic, ...]
    latency_ns: int = 0
    links: tuple[Link, ...] = ()


def uniform(nodes: int, bytes_per_s: int, latency_ns: int) -> NetworkShape:
    """So many equal nodes on a switch that is never the bottleneck."""
    return NetworkShape(nics=(Nic(bytes_per_s, bytes_per_s),) * nodes, latency_ns=latency_ns)


def matrix(
    bytes_per_s: Sequence[Sequence[int]], latency_ns: Sequence[Sequence[int]]
) -> NetworkShape:
    """Every pair given: `[source][target]`; the diagonals are ignored.

    A card is as fast as the fastest of its links.
    """
    nodes = range(len(bytes_per_s))
    pairs = [(source, target) for source in nodes for target in nodes if source != target]
    links = tuple(
        Link(
            source=source,
            target=target,
            bytes_per_s=bytes_per_s[source][target],
            latency_ns=latency_ns[source][target],
        )
        for source, target in pairs
    )
    up, down = [1] * len(nodes), [1] * len(nodes)
    for link in links:
        up[link.source] = max(up[link.source], link.bytes_per_s)
        down[link.target] = max(down[link.target], link.bytes_per_s)
    return NetworkShape(nics=tuple(map(Nic, up, down)), links=links)


class Links:
    """A shape and what has been scaled of it."""

    def __init__(self, shape: NetworkShape) -> None:
        """Raises ValueError if a bandwidth is not positive, or a link leads nowhere."""
        self.nodes = len(shape.nics)
        self._nics = shape.nics
        self._latency_ns = shape.latency_ns
        self._links = {(link.source, link.target): link for link in shape.links}
        self._node_permille = [FULL] * self.nodes
        self._link_permille: dict[tuple[int, int], int] = {}
        _validate(shape)
        latencies = [self.latency_ns(link.source, link.target) for link in shape.links]
        if len(self._links) < self.nodes * (self.nodes - 1):
            latencies.append(shape.latency_ns)
        self.least_latency_ns = min(latencies, default=0)

    def check_pair(self, source: int, target: int) -> None:
        """Raises ValueError if one of two nodes does not exist."""
        if not (0 <= source < self.nodes and 0 <= target < self.nodes):
            raise ValueError(f"nodes are 0 to {self.nodes - 1}, not {source} and {target}")

    def scale_node(self, node: int, permille: int) -> None:
        """Both directions of a node's card. Raises ValueError if there is no such node."""
        self.check_pair(node, node)
        self._node_permille[node] = _check_permille(permille)

    def scale_link(self, source: int, target: int, permille: int) -> None:
        """One direction between two nodes. Raises ValueError if one does not exist."""
        self.check_pair(source, target)
        self._link_permille[source, target] = _check_permille(permille)

    def up(self, node: int) -> int:
        """The rate at which a node can send."""
        return _scaled(self._nics[node].up_bytes_per_s, self._node_permille[node])

    def down(self, node: int) -> int:
        """The rate at which a node can receive."""
        return _scaled(self._nics[node].down_bytes_per_s, self._node_permille[node])

    def limited(self) -> list[tuple[int, int]]:
        """The pairs whose link has, from the beginning, a bandwidth of its own, in order."""
        return sorted(pair for pair, link in self._links.items() if link.bytes_per_s)

    def own_limit(self, source: int, target: int) -> int | None:
        """The rate that a link itself allows; None: whatever the two cards allow."""
        permille = self._link_permille.get((source, target), FULL)
        link = self._links.get((source, target))
        if link is not None and link.bytes_per_s:
            return _scaled(link.bytes_per_s, permille)
        if permille == FULL:
            return None
        up, down = self._nics[source].up_bytes_per_s, self._nics[target].down_bytes_per_s
        return _scaled(min(up, down), permille)

    def speed(self, source: int, target: int) -> int:
        """The rate of a single flow that has the network for itself."""
        cards = min(self.up(source), self.down(target))
        limit = self.own_limit(source, target)
        return cards if limit is None else min(cards, limit)

    def latency_ns(self, source: int, target: int) -> int:
        """Of the first byte."""
        if source == target:
            return 0
        link = self._links.get((source, target))
        return self._latency_ns if link is None or link.latency_ns < 0 else link.latency_ns

    def message_ns(self, source: int, target: int, size_bytes: int) -> int | None:
        """How long a message takes that nothing contends with; None if its link is cut."""
        if source == target:
            return 0
        speed = self.speed(source, target)
        if not speed:
            return None
        return self.latency_ns(source, target) - (-size_bytes * WORK_PER_BYTE // speed)


def work_of(size_bytes: int) -> int:
    """A flow's size as work: at least one byte, because an empty object must cross as well."""
    return max(size_bytes, 1) * WORK_PER_BYTE


def bytes_of(work: int) -> int:
    """Work in bytes, rounded up."""
    return -(-work // WORK_PER_BYTE)


def _scaled(bytes_per_s: int, permille: int) -> int:
    return (bytes_per_s << RATE_BITS) * permille // FULL


def _check_permille(permille: int) -> int:
    if permille < 0:
        raise ValueError(f"a link cannot have {permille} thousandths of its bandwidth")
    return permille


def _validate(shape: NetworkShape) -> None:
    nodes = len(shape.nics)
    if any(min(nic.up_bytes_per_s, nic.down_bytes_per_s) <= 0 for nic in shape.nics):
        raise ValueError("a network card needs a positive bandwidth; cut it with scale_node")
    for link in shape.links:
        if not (0 <= link.source < nodes and 0 <= link.target < nodes):
            raise ValueError(f"{link} leads to a node that is not there: nodes 0 to {nodes - 1}")
        if link.source == link.target or link.bytes_per_s < 0:
            raise ValueError(f"{link} needs two different nodes and no negative bandwidth")
    if len({(link.source, link.target) for link in shape.links}) < len(shape.links):
        raise ValueError("a pair of nodes has more than one link")
