"""What a trace says, shown as text whatever is in it.

Names of functions, messages of errors and reasons of deaths come from whoever ran, or wrote, the
file. On a terminal they must not move the cursor, change its colours or title, or look like another
line of the answer. What does is shown as Python would write it: `\\x1b[31m`.
"""

from __future__ import annotations

import re

_UNSEEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Control characters, other line ends, and those that turn the direction of writing."""
_MOVING = re.compile(f"[{_UNSEEN}]")
_BREAKING = re.compile(f"[{_UNSEEN}\t\n]")


def plain(text: str) -> str:
    """The same text, in lines as it is, with nothing in it that a terminal would obey."""
    return _MOVING.sub(_escaped, text)


def one_line(text: str) -> str:
    """As `plain`, on one line: a name that holds a line end is no second line of an answer."""
    return _BREAKING.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]
