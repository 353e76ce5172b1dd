"""Standard output of the commands that tell of traces: text, whatever a trace says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detray.trace.plain_text import plain

LINE_MAX = 20_000
"""Characters of a line that people are shown."""
_LONG_LINE = re.compile(rf"([^\n]{{{LINE_MAX}}})([^\n]+)")


@contextmanager
def plain_output(*, cut: bool = True) -> Iterator[None]:
    """Let everything that is printed meanwhile be plain; with `cut`, no line is longer than that.

    Characters that the encoding of the terminal lacks are escaped, too.
    """
    kept: Any = sys.stdout  # Any: whatever stands in for it
    sys.stdout = _PlainStream(kept, cut)
    try:
        yield
    finally:
        sys.stdout = kept


class _PlainStream:
    """A text stream that writes what is plain to another, and else is that other."""

    def __init__(self, stream: Any, cut: bool) -> None:  # Any: as above
        self._stream = stream
        self._cut = cut

    def write(self, text: str) -> int:
        """Write; how much was asked for."""
        shown = plain(text)
        if self._cut and len(shown) > LINE_MAX:
            shown = _LONG_LINE.sub(_cut_off, shown)
        try:
            self._stream.write(shown)
        except UnicodeEncodeError as error:
            encoded = shown.encode(error.encoding, "backslashreplace")
            self._stream.write(encoded.decode(error.encoding))
        return len(text)

    def isatty(self) -> bool:
        """No: who asks would print colours."""
        return False

    def __getattr__(self, name: str) -> Any:  # Any: as above
        return getattr(self._stream, name)


def _cut_off(found: re.Match[str]) -> str:
    return f"{found[1]} ... ({len(found[2]):,} more characters; --json shows all)"
