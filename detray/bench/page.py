"""The table of a run as Markdown, for docs/performance.md.

`python -m detray.bench.page FILE` prints it from the JSON that `detray bench --output FILE` wrote,
so that no number on the page is typed by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from detray.bench.rows import BY_NAME, YARDSTICKS
from detray.bench.table import number, ratio

_ENGINES = ("detray", "ray", "dask", "pool", "executor", "loky")


def as_markdown(document: dict[str, Any]) -> str:
    """One line for each row; beside a peer's number, how many times better detray is."""
    present = [name for name in _ENGINES if any(name in row["engines"] for row in document["rows"])]
    lines = [
        "| | " + " | ".join(present) + " | goal | verdict |",
        "|---|" + "---:|" * len(present) + "---|---|",
    ]
    for row in document["rows"]:
        medians = {name: cell["median"] for name, cell in row["engines"].items()}
        cells = [_cell(row, name, medians) for name in present]
        goals = ", ".join(goal["goal"] for goal in row["goals"])
        verdicts = ", ".join(goal["verdict"] for goal in row["goals"])
        lines.append(f"| {row['title']} | {' | '.join(cells)} | {goals} | {verdicts} |")
    about = document["about"]
    before, after = about["load_before"][0], about["load_after"][0]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines += [
        "",
        f"{about['date']}, Python {about['python']}, {about['cpus']} CPUs, "
        f"load {before:.1f} before and {after:.1f} after; {versions}.",
    ]
    return "\n".join(lines)


def _cell(row: dict[str, Any], name: str, medians: dict[str, float]) -> str:
    if name not in medians:
        return ""
    text = f"{number(medians[name])} {row['unit']}"
    if name != "detray" and "detray" in medians and not row["name"].startswith(YARDSTICKS):
        text += f" ({ratio(BY_NAME[row['name']], medians['detray'], medians[name]):.3g}x)"
    return text


if __name__ == "__main__":
    print(as_markdown(json.loads(Path(sys.argv[1]).read_text())))
