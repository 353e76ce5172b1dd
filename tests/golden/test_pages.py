"""The pages about the core are in step with it."""

from __future__ import annotations

import re

from detray.trace.transcript.writing import SHRUNK
from tests.golden.pages import PARTS, rewritten
from tests.golden.play import transcripts
from tests.house.source import ROOT

ARCHITECTURE = ROOT / "docs" / "architecture.md"
PROTOCOL = ROOT / "docs" / "protocol.md"


def test_the_made_parts_of_the_architecture_are_up_to_date(rewrite: bool) -> None:
    """State diagrams, the life of one task, and where rows are found."""
    before = ARCHITECTURE.read_text()
    after = rewritten(before)
    assert all(f"<!-- made: {name} -->" in before for name in PARTS)
    if rewrite:
        ARCHITECTURE.write_text(after)
        return
    assert after.splitlines() == before.splitlines(), "pytest tests/golden --rewrite"


def test_the_protocol_names_every_transcript_and_no_other() -> None:
    """A rule names what shows it; a transcript belongs to a rule.

    But for what `detray shrink` wrote: it belongs to none before somebody has read it.
    """
    text = PROTOCOL.read_text()
    known = {path.stem for path in transcripts() if not path.read_text().startswith(SHRUNK)}
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", text))
    assert known <= named
    assert {name for name in named - known if "_" in name} == set()


def test_the_protocol_explains_every_rule_that_the_code_cites() -> None:
    """N, T and D numbers in docstrings and comments lead somewhere."""
    text = PROTOCOL.read_text()
    explained = set(re.findall(r"^\| ([NT]\d+) \|", text, re.MULTILINE))
    explained |= set(re.findall(r"\bD \d+", text))
    unknown = []
    for folder in ("detray", "sim", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for rule in re.findall(r"\b(?:[NT]\d{1,2}|D \d{1,2})\b", _prose(path.read_text())):
                if rule not in explained:
                    unknown.append(f"{path.relative_to(ROOT)}: {rule}")
    assert unknown == []


def test_rules_that_code_calls_protocol_are_found_there() -> None:
    """The word leads a reader to `docs/protocol.md`."""
    assert PROTOCOL.exists()
    assert "(protocol.md)" in ARCHITECTURE.read_text()


def _prose(source: str) -> str:
    """Comments and docstrings: type parameters and names in code are no citations."""
    found = re.findall(r'"""(.*?)"""|#([^\n]*)', source, re.DOTALL)
    return "\n".join(map("".join, found))
