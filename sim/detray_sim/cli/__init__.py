"""The command `detray-sim`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from detray.cli.terminal.entry import Main, run_command

__all__ = ["main"]

_OF_THE_EXTRA = ("simpy", "networkx", "matplotlib")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 where the extra is not installed.

    Without `argv` the process is to end then.
    """
    return run_command("detray-sim", _load, argv)


def _load() -> Main:
    try:
        from detray_sim.cli.command import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OF_THE_EXTRA:
            raise
        hint = "the simulator is an extra: python -m pip install 'detray[sim]'"
        print(f"detray-sim: {error.name} is not installed; {hint}", file=sys.stderr)
        return lambda argv: 2
    return run
