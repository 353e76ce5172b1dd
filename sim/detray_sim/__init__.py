"""Simulated clusters for detray: virtual time, made-up workloads, your own programs, faults."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detray_sim.exploring import ExplorationFailed as ExplorationFailed
    from detray_sim.exploring import explore as explore
    from detray_sim.exploring import replay as replay


def __getattr__(name: str) -> object:
    if name in ("ExplorationFailed", "explore", "replay"):
        from detray_sim import exploring  # late: not every use of the simulator runs programs

        return getattr(exploring, name)
    raise AttributeError(f"module 'detray_sim' has no attribute {name!r}")
