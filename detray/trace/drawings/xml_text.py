"""Text that may stand in XML: error messages bring colours of terminals and worse."""

from __future__ import annotations

import re

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """The text with what XML 1.0 does not allow, escaped or not, replaced by U+FFFD."""
    return _FORBIDDEN.sub("\ufffd", text)
