"""The ten-line program of the README; run as a script, it prints the program."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def ten_lines() -> str:
    """The first block of Python in the README."""
    found = re.search(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, "the README has lost its program"
    return found[1]


if __name__ == "__main__":
    print(ten_lines())
