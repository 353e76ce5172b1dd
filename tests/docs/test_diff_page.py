"""`docs/diff.md`: its program is run as the page says, and its commands print what stands there."""

from __future__ import annotations

from pathlib import Path

from tests.docs.consoles import run_all
from tests.docs.programs import DOCS, python_blocks, run_program

PAGE = DOCS / "diff.md"


def test_the_commands_of_the_page_print_what_stands_there(tmp_path: Path) -> None:
    """One program, three files of rates; then the same from Python."""
    prices, asking = python_blocks(PAGE)
    (tmp_path / "prices.py").write_text(prices)
    page = PAGE.read_text().replace("/home/ada", str(tmp_path))
    # How much else had ended when the first failure ended the program, is a matter of time.
    ended = "results      the same, of 8 compared\nfailures     9 differences\n"
    assert page.count(ended) == 1
    page = page.replace(ended, "results      the same, ...\nfailures     9 differences...\n")
    # By how much the time changed is told as a share, or as a factor if it is a large one.
    assert page.count(" (+46%)\n") == 1
    page = page.replace(" (+46%)\n", "...\n")
    run_all(page, tmp_path)
    first, second = run_program(asking, tmp_path).splitlines()
    assert first == "False {'submission': 0, 'placement': 0, 'result': 9, 'failure': 0}"
    assert second.startswith("rate return 0 21 B ")
