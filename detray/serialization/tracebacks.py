"""The text of an exception as users want to see it: their frames, not ours."""

from __future__ import annotations

import os
import traceback

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INDENTED = "  "


def render(error: BaseException, function_name: str, pid: int, ip: str = "") -> str:
    """The remote traceback of `error`, chain and groups included, with a header that says where.

    Frames of detray are left out everywhere. What cannot be rendered (a `__str__` that raises, an
    exception chain a thousand deep) is said instead; this never raises.
    """
    header = f"detray::{function_name}() (pid={pid}{f', ip={ip}' if ip else ''})"
    try:
        story = traceback.TracebackException.from_exception(error, compact=True)
        _strip(story, set())
        body = "".join(story.format()).rstrip("\n")
    except (Exception, RecursionError) as problem:
        body = (
            f"{_INDENTED}(the traceback could not be rendered: {type(problem).__name__})\n"
            f"{type(error).__name__}"
        )
    prefix = "Traceback (most recent call last):\n"
    return f"{header}\n{body.removeprefix(prefix)}"


def _strip(story: traceback.TracebackException, seen: set[int]) -> None:
    if id(story) in seen:
        return
    seen.add(id(story))
    if story.stack:
        kept = [frame for frame in story.stack if not _is_ours(frame.filename)]
        story.stack = traceback.StackSummary.from_list(kept)
    for inner in (story.__cause__, story.__context__, *(story.exceptions or ())):
        if inner is not None:
            _strip(inner, seen)


def _is_ours(filename: str) -> bool:
    ours = filename.startswith(_PACKAGE) or "/detray_sim/" in filename
    return ours or "/cloudpickle/" in filename
