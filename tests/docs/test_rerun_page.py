"""`docs/rerun.md`: its program fails as it says, and its commands print what they print there.

`python -m tests.docs.test_rerun_page` runs the walk and writes what came into the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.docs.consoles import commands, surroundings
from tests.docs.programs import DOCS, assert_keeps_promises, python_blocks

PAGE = DOCS / "rerun.md"
HOME = "/home/ada"
_CONSOLE = re.compile(r"^```console\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_VARIES = [
    (re.compile(r" +[\d,]+\.\d{3} ms"), " 0.1 ms"),
    (re.compile(r"in \d+\.\d s"), "in 0.1 s"),
    (re.compile(r"pid=\d+"), "pid=1"),
    (re.compile(r"(a hundred of them:|the result was) \d+"), r"\1 1"),
    (re.compile(r"now \d+$", re.MULTILINE), "now 1"),
]
"""What another run prints otherwise, and what stands for it in a comparison."""


def walk(directory: Path) -> list[tuple[str, str]]:
    """Run the commands of the page there, after its program was saved; each with its output."""
    (directory / "meters.py").write_text(python_blocks(PAGE)[0])
    return [(line, _run(line, directory)) for line, *_ in commands(PAGE.read_text())]


def _run(command: str, directory: Path) -> str:
    tools = directory / "bin"
    tools.mkdir(exist_ok=True)
    for name, arguments in (("python", ""), ("detray", "-m detray.cli")):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        tool.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=directory,
        env=surroundings({"PATH": f"{tools}:{os.environ['PATH']}"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stdout.replace(str(directory), HOME).splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def plain(text: str) -> str:
    """The same from every run, and (carets aside) under every Python."""
    text = re.sub(r"^ *[\^~]+ *\n", "", text, flags=re.MULTILINE)
    for pattern, instead in _VARIES:
        text = pattern.sub(instead, text)
    return text


def test_the_walk_goes_as_the_page_says(tmp_path: Path) -> None:
    """From a program that dies to the line and the input at fault, and to the task of chance."""
    pytest.importorskip("numpy")
    for (line, output), command in zip(walk(tmp_path), commands(PAGE.read_text()), strict=True):
        expected = "".join(f"{line}\n" for line in command.printed)
        assert plain(output) == plain(expected), line
    source = python_blocks(PAGE)[1]
    script = tmp_path / "again.py"
    script.write_text(source)
    assert_keeps_promises(source, _run("python again.py", tmp_path))


def rewrite() -> None:
    """Put what the commands print now into the page."""
    with tempfile.TemporaryDirectory(prefix="walk-") as scratch:
        outputs = iter(walk(Path(scratch)))

    def block(found: re.Match[str]) -> str:
        lines = [line for line in found[1].splitlines() if line.startswith("$ ")]
        return "```console\n" + "".join(f"{line}\n{next(outputs)[1]}" for line in lines) + "```\n"

    PAGE.write_text(_CONSOLE.sub(block, PAGE.read_text()))


if __name__ == "__main__":
    rewrite()
