"""The command `detray`."""

from __future__ import annotations

from collections.abc import Sequence

from detray.cli.terminal.entry import Main, run_command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Without `argv` the process is to end then."""
    return run_command("detray", _load, argv)


def _load() -> Main:
    from detray.cli.command import main as run

    return run
