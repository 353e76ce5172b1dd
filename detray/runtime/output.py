"""A worker's stdout and stderr: lines, and which task wrote them.

Both are pipes to the service. Before the first write of a run with another name than the stream's
last one, a marker line says the name; the service takes markers out and prefixes lines with it.
"""

from __future__ import annotations

import io
import sys

MARKER = "\x00detray-name:"


class TaskOutput(io.TextIOWrapper):
    """A line-buffered text stream that announces the writing task's name."""

    def __init__(self, fd: int, outputs: Outputs) -> None:
        super().__init__(
            io.BufferedWriter(io.FileIO(fd, "wb", closefd=False)),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        self._outputs = outputs
        self._announced = ""
        self._at_line_start = True

    def write(self, text: str) -> int:
        """Write text, after the marker if another task writes now."""
        if text:
            outputs = self._outputs
            outputs.written = True
            if outputs.name != self._announced:
                self._announced = outputs.name
                start = "" if self._at_line_start else "\n"
                super().write(f"{start}{MARKER}{outputs.name}\n")
            self._at_line_start = text[-1] == "\n"
        return super().write(text)


class Outputs:
    """The worker's two streams. `name` is the running task's; `written` if a flush is worth it."""

    def __init__(self) -> None:
        self.name = ""
        self.written = False
        self._streams = (TaskOutput(1, self), TaskOutput(2, self))

    def install(self) -> None:
        """Make them `sys.stdout` and `sys.stderr`."""
        sys.stdout, sys.stderr = self._streams
        # What looks behind print, like faulthandler or a subprocess, uses descriptors 1 and 2.
        sys.__stdout__, sys.__stderr__ = self._streams  # type: ignore[misc]  # "Final" there

    def flush(self) -> None:
        """Send what was written."""
        if not self.written:
            return
        self.written = False
        for stream in self._streams:
            try:
                stream.flush()
            except (OSError, ValueError):  # The service is gone, or user code closed it.
                continue
