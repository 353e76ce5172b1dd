"""The command `detray`."""

from detray.cli.command import main

__all__ = ["main"]
