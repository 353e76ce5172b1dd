"""A machine's disk: room, speed, and what may go wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detray_sim.costs import Costs, time_of
from detray_sim.draws import draw

if TYPE_CHECKING:
    from detray_sim.server import CoreServer

FULL = 1000


class Disk:
    """Keeps count of files. While `corrupts`, what is written is not what was meant.

    `slow_permille` 2000 is half as fast, with `fail_permille` 1000 everything fails.
    """

    def __init__(self, costs: Costs, seed: int, machine: int) -> None:
        self.free_bytes = costs.disk_bytes
        self.slow_permille = FULL
        self.fail_permille = 0
        self.corrupts = False
        self._rate = costs.disk_bytes_per_s
        self._files: dict[tuple[CoreServer, int], int] = {}
        self._seed = seed
        self._stream = f"disk{machine}"
        self._writes = 0

    def time_of(self, size_bytes: int) -> int:
        """Nanoseconds to write so much."""
        return time_of(size_bytes, self._rate) * self.slow_permille // FULL

    def strikes(self) -> bool:
        """True if an operation fails."""
        if not self.fail_permille:
            return False
        self._writes += 1
        return (
            draw(self._seed, self._stream, "fails", self._writes) * FULL >> 64 < self.fail_permille
        )

    def open(self, owner: CoreServer, segment: int, size_bytes: int) -> str:
        """Reserve room for a file; the reason if there is none."""
        if self.strikes():
            return "input/output error"
        if size_bytes > self.free_bytes:
            return "no space left on device"
        self.free_bytes -= size_bytes
        self._files[owner, segment] = size_bytes
        return ""

    def shrink(self, owner: CoreServer, segment: int, size_bytes: int) -> None:
        """Punch a hole."""
        left = self._files.get((owner, segment), 0)
        size_bytes = min(size_bytes, left)
        if size_bytes:
            self._files[owner, segment] = left - size_bytes
            self.free_bytes += size_bytes

    def close(self, owner: CoreServer, segment: int) -> None:
        """Remove a file."""
        self.free_bytes += self._files.pop((owner, segment), 0)

    def forget(self, owner: CoreServer) -> None:
        """Whoever had files here is gone: they are swept."""
        for key in [key for key in self._files if key[0] is owner]:
            self.free_bytes += self._files.pop(key)
