"""How a command begins and how its process ends: without a word of Python's.

A command imports much, which takes a while; Ctrl-C would meet an import and Python would print its
traceback. What is printed last leaves when the process ends, behind all handling of errors; a
reader that is gone by then, or a full disk, would be one more complaint of Python's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

Main = Callable[[Sequence[str] | None], int]
"""Runs a command line (None: the process's own); returns the exit code."""
_INTERRUPTED = 130


def run_command(name: str, load: Callable[[], Main], argv: Sequence[str] | None) -> int:
    """Import the command `name` with `load` and run it; returns the exit code.

    Without `argv` this is all that the process does, and it ends here: what was printed is written,
    and from now on an interrupt ends it at once.
    """
    _open_closed()
    if argv is not None:
        return load()(argv)
    status = _INTERRUPTED
    try:
        with _quiet():
            run = load()
        status = run(None)
    except SystemExit as end:  # of argparse, which has printed the help
        if end.code is not None and not isinstance(end.code, int):
            raise
        status = end.code or 0
    except KeyboardInterrupt:
        pass  # It came between two handlers.
    return _written(name, status)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Ctrl-C end this process at once. An import may swallow an exception, but not that."""
    kept = signal.getsignal(signal.SIGINT)
    if kept is not signal.default_int_handler:
        yield  # Somebody ignores it (nohup), or has better to do.
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, kept)


def _written(name: str, status: int) -> int:
    """The exit code, when all that was printed is written or never will be."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Nobody is left to catch what it raises.
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError as error:
            # Python would try again, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if not isinstance(error, BrokenPipeError) and stream is sys.stdout:
                with suppress(OSError):
                    print(f"{name}: standard output: {error.strerror}", file=sys.stderr)
                status = status or 2
    return status


def _open_closed() -> None:
    """Give a process whose output was closed before it began (`>&-`) one that nobody reads."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # until the process ends
