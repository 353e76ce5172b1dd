"""The command `detray-sim`."""

from detray_sim.cli.command import main

__all__ = ["main"]
