"""`detray bench`: how fast detray and its peers are, measured in one run on one machine."""

from detray.bench.command import main

__all__ = ["main"]
