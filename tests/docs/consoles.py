r"""Console blocks of the documentation: their commands are run, their output is held to the page.

In a block of the kind ```console, a line that begins with `$ ` is a command and what follows, up
to the next command, is what it prints. A line of three dots stands for any lines, three dots within
a line for anything. Numbers, their units of time or size, and how many spaces stand between words
may differ from what is printed; the words and the order of the lines may not. ` # exit 1` says that
a command ends so, ` <<< $'a\nb'` what it reads, as in bash. A command whose output is not shown
must end well all the same.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.docs.programs import EXAMPLES, ROOT

_PROGRAMS = {
    "detray": ["-m", "detray.cli"],
    "detray-sim": ["-m", "detray_sim.cli"],
    "python": [],
}
_EXIT = re.compile(r"\s+# exit (\d+)$")


class Command(NamedTuple):
    """A command of a page, the lines that it is said to print, and its exit code."""

    line: str
    printed: tuple[str, ...]
    status: int = 0


def commands(text: str) -> list[Command]:
    """All commands in the console blocks of a page (or a part of one), in order."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines: list[str] = []
        for line in block.splitlines():
            if line.startswith("$ "):
                lines = []
                found.append((line[2:], lines))
            elif found:
                lines.append(line)
    return [_command(line, lines) for line, lines in found]


def _command(line: str, lines: list[str]) -> Command:
    status = _EXIT.search(line)
    return Command(_EXIT.sub("", line), tuple(lines), int(status[1]) if status else 0)


def run_all(text: str, folder: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run the commands of a page in `folder`, one after the other, and compare.

    `$NAME` in a command is taken from the environment. Programs of docs/examples are there.
    """
    for path in EXAMPLES.glob("*.py"):
        (folder / path.name).write_bytes(path.read_bytes())
    variables = surroundings(environment)
    for command in commands(text):
        output = run_one(command, folder, variables)
        assert_printed(command, output)


def surroundings(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which commands find this tree, and lines of 100 columns."""
    path = f"{ROOT}{os.pathsep}{ROOT / 'sim'}"
    return {**os.environ, "COLUMNS": "100", **(more or {}), "PYTHONPATH": path}


def run_one(command: Command, folder: Path, variables: Mapping[str, str]) -> str:
    """What one command prints, stderr last. Raises AssertionError if it ends otherwise."""
    line, _, fed = command.line.partition(" <<< ")
    words = _expanded(line, variables)
    done = subprocess.run(
        [sys.executable, *_PROGRAMS[words[0]], *words[1:]],
        cwd=folder,
        env=dict(variables),
        input=_fed(fed),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == command.status, f"$ {command.line}\nexit {done.returncode}\n{output}"
    return output


def _fed(text: str) -> str:
    """What bash hands over for `<<< $'...'`, of whose escapes the pages use one."""
    return shlex.split(text.removeprefix("$"))[0].replace("\\n", "\n") + "\n" if text else ""


def _expanded(line: str, variables: Mapping[str, str]) -> list[str]:
    """The words of a command, its variables filled in."""
    filled = re.sub(r"\$(\w+)", lambda found: variables[found[1]], line)
    return shlex.split(filled)


def assert_printed(command: Command, output: str) -> None:
    """Every line that the page shows is in the output, in order, and nothing else between.

    Raises AssertionError.
    """
    said = "\n" + "\n".join(line_pattern(line.rstrip()) for line in command.printed)
    said = said.replace("\n" + _ANY + "\n", "\n(?:.*\n)*?").removesuffix("\n" + _ANY)
    if not command.printed or not command.printed[-1].strip():
        return
    is_open = command.printed[-1].strip() == "..."
    wanted = re.compile(said + ("" if is_open else r"\s*\Z"))
    lines = "\n" + "\n".join(line.rstrip() for line in output.splitlines())
    assert wanted.match(lines), f"$ {command.line}\nprinted\n{output}\nnot\n" + "\n".join(
        command.printed
    )


_ANY = "<any lines>"


_NUMBER = r"[-+]?\d(?:[\d,.]*\d)?(?: (?:ns|us|ms|s|min|B|kB|MB|GB)\b)?"


def line_pattern(line: str) -> str:
    """A line as a pattern: numbers are any numbers, dots are anything."""
    if line.strip() == "...":
        return _ANY
    parts = re.split(rf"(\.\.\.|{_NUMBER}|\s+)", line)
    return "".join(map(_part, parts))


def _part(part: str) -> str:
    if part == "...":
        return ".*"
    if re.fullmatch(_NUMBER, part):
        return _NUMBER
    if part and part.isspace():
        return r"\s+"
    return re.escape(part)
