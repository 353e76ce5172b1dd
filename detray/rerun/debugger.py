"""A task under pdb: stopped at its first line, and once more where it raises."""

from __future__ import annotations

import bdb
import pdb  # noqa: T100  # a command of ours starts it, when asked to
import sys
import traceback
from typing import Any

from detray.rerun.engine import CannotRerun

_OURS = ["detray.*", "detray"]
"""Modules that `step` does not stop in."""


def call_under_pdb(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the user's function; raises what it raises. (Any: the user's values.)

    Raises CannotRerun if the user leaves the debugger before its end.
    """
    debugger = _Debugger(skip=_OURS)
    try:
        value = debugger.runcall(function, *args, **kwargs)
        if debugger.is_left:
            raise CannotRerun("you left the debugger before the end of the task")
        return value
    except Exception as error:
        sys.settrace(None)
        trace = _of_the_user(error)
        traceback.print_exception(type(error), error, trace)
        sys.stderr.flush()
        print("the task raised: now post mortem, at the line that did (q to leave)", flush=True)
        try:
            pdb.post_mortem(trace)
        except bdb.BdbQuit:
            pass
        raise
    finally:
        sys.settrace(None)


class _Debugger(pdb.Pdb):
    """Knows whether the user left; `runcall` does not tell."""

    is_left = False

    def set_quit(self) -> None:
        self.is_left = True
        super().set_quit()


def _of_the_user(error: BaseException) -> Any:
    """The traceback without pdb's frames and ours, which come first. (Any: a traceback or None.)"""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "") in _FIRST:
        trace = trace.tb_next
    return trace or error.__traceback__


_FIRST = (__name__, "bdb", "pdb")
