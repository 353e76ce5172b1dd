"""The documentation is in step with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.programs import ROOT, console_lines, pages
from tests.house.source import name_of

MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Relative links name files that exist."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    dead = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert dead == []


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_path_in_backticks_exists(page: Path) -> None:
    """`detray/...`, `docs/...`, `tests/...` and `sim/...` in the text are real."""
    named = re.findall(
        r"`((?:detray|docs|tests|sim|core|runtime|trace)/[\w./-]+\.(?:py|md))`", page.read_text()
    )
    missing = [
        name
        for name in named
        if not (ROOT / name).exists() and not (ROOT / "detray" / name).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_make_target_exists(page: Path) -> None:
    """`make something` in the text is a target of the Makefile."""
    text = page.read_text()
    named = re.findall(r"(?:^ {4}|`|\$ )make ([a-z-]+)", text, re.MULTILINE)
    assert [name for name in named if name not in MAKE_TARGETS] == []


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_command_exists(page: Path) -> None:
    """`$ detray something` in a console block is a command of `detray`."""
    commands = [line.split()[1] for line in console_lines(page) if line.startswith("detray ")]
    if not commands:
        return
    from detray import cli

    for command in sorted(set(commands)):
        with pytest.raises(SystemExit) as ended:
            cli.main([command, "--help"])
        assert ended.value.code == 0, command


def test_every_page_is_linked_from_somewhere() -> None:
    """A page that nobody links to is not found."""
    text = {page: page.read_text() for page in pages()}
    lost = [
        name_of(page)
        for page in pages()
        if page.name not in ("README.md", "CHANGELOG.md")
        and not any(page.name in words for other, words in text.items() if other != page)
    ]
    assert lost == []
