"""Programs out of the documentation: how they are found, run, and held to what they promise.

A promise is a comment `# prints RESULT` on a line of the program. The output must contain every
promised line, in order; `...` in a promise stands for anything.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"


def run_program(source: str, directory: Path, *, timeout_s: float = 60) -> str:
    """Run Python source as a script in a directory of its own; its output, if it succeeds."""
    script = directory / "program.py"
    script.write_text(source)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def promises(source: str) -> list[str]:
    """What the program says it prints."""
    return [found.strip() for found in re.findall(r"#.*?\bprints (.+)$", source, re.MULTILINE)]


def assert_keeps_promises(source: str, output: str) -> None:
    """Every promise appears as a line of the output, in the order of the program."""
    lines = iter(output.splitlines())
    for promise in promises(source):
        pattern = re.escape(promise).replace(re.escape("..."), ".*")
        for line in lines:
            if re.fullmatch(pattern, line):
                break
        else:
            raise AssertionError(f"never printed, or out of order: {promise}\noutput:\n{output}")


def python_blocks(page: Path) -> list[str]:
    """The blocks of Python of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def console_lines(page: Path) -> list[str]:
    """The commands after a `$` in the console blocks of a page."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line[2:].strip() for block in blocks for line in block.splitlines() if line[:2] == "$ "]


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
