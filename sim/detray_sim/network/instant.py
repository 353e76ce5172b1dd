"""A network that takes no time: what remains of a makespan is computing and scheduling."""

from __future__ import annotations

from detray_sim.network.links import FULL


class InstantNetwork:
    """Flows end at the time they start, messages take 0 ns; only what is cut stands still."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[int, int, int]] = {}
        """Flows over something cut: source, target, bytes."""
        self._ended: list[tuple[int, int]] = []
        """Time and id of flows that were not reported yet."""
        self._node_permille: dict[int, int] = {}
        self._link_permille: dict[tuple[int, int], int] = {}

    def start(self, flow_id: int, source: int, target: int, size_bytes: int, now_ns: int) -> None:
        """A flow begins, and ends unless it is cut."""
        if size_bytes < 0 or flow_id in self._waiting or self._is_ended(flow_id):
            raise ValueError(f"flow {flow_id} of {size_bytes} bytes: in use, or a negative size")
        if self._is_cut(source, target):
            self._waiting[flow_id] = (source, target, size_bytes)
        else:
            self._ended.append((now_ns, flow_id))

    def cancel(self, flow_id: int, now_ns: int) -> int:
        """A flow is never reported; the bytes of it that were not sent."""
        if flow_id in self._waiting:
            return self._waiting.pop(flow_id)[2]
        if not self._is_ended(flow_id):
            raise ValueError(f"there is no flow {flow_id} to cancel")
        self._ended = [item for item in self._ended if item[1] != flow_id]
        return 0

    def finished(self, now_ns: int) -> list[int]:
        """All that are not cut, by (end, id)."""
        ended = [flow_id for _, flow_id in sorted(self._ended)]
        self._ended.clear()
        return ended

    def next_finish_ns(self) -> int | None:
        """The time of the first start that was not reported yet."""
        return min(self._ended)[0] if self._ended else None

    def latency_ns(self, source: int, target: int, size_bytes: int, now_ns: int) -> int | None:
        """0, or None if it is cut."""
        return None if self._is_cut(source, target) else 0

    def scale_node(self, node: int, permille: int, now_ns: int) -> None:
        """0 cuts a node off; anything else is as fast as ever."""
        self._node_permille[node] = permille
        self._release(now_ns)

    def scale_link(self, source: int, target: int, permille: int, now_ns: int) -> None:
        """0 cuts one direction between two nodes; anything else is as fast as ever."""
        self._link_permille[source, target] = permille
        self._release(now_ns)

    def _is_ended(self, flow_id: int) -> bool:
        return any(flow_id == ended for _, ended in self._ended)

    def _is_cut(self, source: int, target: int) -> bool:
        if source == target:
            return False
        nodes = self._node_permille
        return 0 in (
            nodes.get(source, FULL),
            nodes.get(target, FULL),
            self._link_permille.get((source, target), FULL),
        )

    def _release(self, now_ns: int) -> None:
        for flow_id, (source, target, _) in list(self._waiting.items()):
            if not self._is_cut(source, target):
                del self._waiting[flow_id]
                self._ended.append((now_ns, flow_id))
