"""The page about the graph: its programs run, its commands print what it shows."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from detray.trace.drawings.collapse import NODES_MAX, WIDTH_MAX
from tests.docs.consoles import Command, commands, run_one, surroundings
from tests.docs.programs import DOCS, assert_keeps_promises, python_blocks, run_program

PAGE = DOCS / "graph.md"
KINDS = {"run", "program", "place", "queue", "start", "arguments", "get", "lost", "unknown"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trace of the page's first program."""
    pytest.importorskip("networkx")
    folder = tmp_path_factory.mktemp("page")
    program = python_blocks(PAGE)[0]
    assert_keeps_promises(program, run_program(program, folder))
    return folder


def said(folder: Path, command: str) -> list[str]:
    """What it prints now."""
    return run_one(Command(command, ()), folder, surroundings()).splitlines()


def shown(command: str) -> list[str]:
    """What the page says that a command prints."""
    [found] = [known for known in commands(PAGE.read_text()) if known.line == command]
    return list(found.printed)


def test_the_summary_is_as_the_page_shows_it(ran: Path) -> None:
    """What does not depend on time, to the letter; the rest by its shape."""
    command = "detray graph run.trace"
    page, now = shown(command), said(ran, command)
    assert page[:4] == now[:4]
    masked = [[re.sub(r"[0-9.,]+ [a-z]+", "#", line) for line in lines] for lines in (page, now)]
    assert [line.split("#")[0] for line in masked[0]] == [line.split("#")[0] for line in masked[1]]
    assert xml.fromstring((ran / "run.svg").read_text()).tag.endswith("svg")


def test_the_critical_path_is_a_table_of_parts(ran: Path) -> None:
    """The page's kinds and ties are all there are, and each is explained."""
    command = "detray graph run.trace --critical"
    text = PAGE.read_text()
    for lines in (shown(command), said(ran, command)):
        head = next(line for line in lines if line.startswith("at  "))
        at = head.index("what")
        rows = lines[lines.index(head) + 1 :]
        kinds = {row[at : head.index("function")].strip() for row in rows if " shorter" not in row}
        assert "run" in kinds and kinds <= KINDS
    assert all(f"| `{kind}` |" in text for kind in KINDS)


def test_the_table_of_functions_has_the_columns_of_the_page(ran: Path) -> None:
    """And the functions of the program."""
    command = "detray graph run.trace --functions"
    page, now = shown(command), said(ran, command)
    assert page[0].split() == now[0].split()
    names = [sorted(line.split()[:2] for line in lines[1:]) for lines in (page, now)]
    assert names[0] == names[1]


def test_the_other_commands_write_what_they_say(ran: Path) -> None:
    """Each of the page's commands runs; --json is JSON."""
    for command in commands(PAGE.read_text()):
        run_one(command, ran, surroundings())
    assert json.loads((ran / "run.wf.json").read_text())["schemaVersion"] == "1.5"
    assert (ran / "run.graphml").read_text().startswith("<?xml")
    numbers = json.loads("\n".join(said(ran, "detray graph run.trace --json")))
    assert numbers["tasks"] == 13 and numbers["span_ns"] <= numbers["critical_path"]["length_ns"]


def test_the_python_of_the_page_runs(ran: Path) -> None:
    """On the trace that its first program left."""
    program = python_blocks(PAGE)[1]
    assert_keeps_promises(program, run_program(program, ran))
    assert 'class="critical"' in (ran / "critical.svg").read_text()


def test_the_pictures_and_numbers_of_the_page_are_there() -> None:
    """Both drawings are small files, and the page knows the limits."""
    text = PAGE.read_text()
    for name in re.findall(r"\]\((images/[a-z-]+\.svg)\)", text):
        assert (DOCS / name).stat().st_size < 50_000
        xml.fromstring((DOCS / name).read_text())
    assert f"more than {NODES_MAX} nodes" in text and f"more than {WIDTH_MAX} beside" in text
