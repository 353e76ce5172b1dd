"""Reports as text: what is in them, that equal traces give equal pages, and what harm cannot do."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

import detray.trace
from detray.cli import main
from detray.core.config import LocalConfig
from detray.core.local import LocalScheduler
from detray.trace.gathering.history import history_of
from detray.trace.play import Maker, schedulers
from detray.trace.reporting.choosing import blocks, choose
from detray.trace.reporting.columns import Columns
from detray.trace.reporting.gathering import gather
from detray.trace.reporting.making import assembled, page_of, report_text
from detray.trace.usage import QUANTITIES, UsageSampler
from tests.trace.programs import many, recorded, troubles
from tests.trace.reports import HOSTILE, hostile, pipeline, synthetic
from tests.trace.simulated import run_cluster

pytest.importorskip("networkx")


def unpacked(page: str) -> tuple[dict[str, Any], dict[str, list[int]]]:  # Any: JSON
    """The head and the columns of a page, read as its script reads them."""
    packed = re.search(r'<script type="text/plain" id="packed">([^<]*)</script>', page)
    assert packed
    data = zlib.decompress(base64.b64decode(packed[1]))
    at = 4 + int.from_bytes(data[:4], "little")
    head = json.loads(data[4:at])
    columns = {}
    for name, count, planes, is_delta in head["columns"]:
        values = [0] * count
        for plane in range(planes):
            for place in range(count):
                values[place] |= data[at + place] << 8 * plane
            at += count
        values = [-(v + 1) // 2 if v % 2 else v // 2 for v in values]
        if is_delta:
            for place in range(1, count):
                values[place] += values[place - 1]
        columns[name] = values
    assert at == len(data)
    return head, columns


@pytest.mark.parametrize("delta", [False, True])
def test_columns_hold_what_was_put_in(delta: bool) -> None:
    """Any integer that a browser can count to; larger ones are cut, not refused."""
    values = [0, -1, 1, 255, 256, -(2**53) + 1, 2**53 - 1, 7]
    columns = Columns()
    columns.add("some", values, delta=delta)
    columns.add("none", [])
    columns.add("huge", [2**64, -(2**70)])
    columns.add_lists("lists", [[1, 2], [], [3]])
    head, found = unpacked(
        f'<script type="text/plain" id="packed">{columns.pack({"a": 1})}</script>'
    )
    assert head["a"] == 1
    assert found["some"] == values and found["none"] == []
    assert found["huge"] == [2**53 - 1, -(2**53) + 1]
    assert (found["lists#"], found["lists"]) == ([2, 0, 1], [1, 2, 3])


def test_a_report_says_of_tasks_what_the_history_does(tmp_path: Path) -> None:
    """Names, states, errors, and times to the microsecond."""
    trace = recorded(tmp_path / "run.trace", pipeline)
    head, columns = unpacked(report_text(trace))
    history = history_of(trace)
    lives = list(history.tasks.values())
    assert [head["functions"][f] for f in columns["t.function"]] == [life.name for life in lives]
    assert [head["states"][s] for s in columns["t.state"]] == [life.state for life in lives]
    assert [head["texts"][e] for e in columns["t.error"]] == [life.error for life in lives]
    ids = [
        head["prefixes"][prefix] + f"{count:08x}"
        for prefix, count in zip(columns["t.prefix"], columns["t.count"], strict=True)
    ]
    assert ids == [life.id.hex() for life in lives]
    runs = [run for life in lives for run in life.attempts]
    took = [round((r.ended_ns - r.started_ns) / 1000) if r.started_ns >= 0 else -1 for r in runs]
    assert [value - 1 for value in columns["a.took"]] == took
    assert head["summary"]["tasks"] == len(lives) == 13
    assert head["summary"]["states"] == {"failed": 1, "finished": 12}
    assert head["leftOut"] == 0
    rows = {row["name"]: row for row in head["functionRows"]}
    assert rows["clean"]["retries"] == 1 and rows["parse"]["failed"] == 1
    assert sum(row["count"] for row in head["functionRows"]) == 13


def test_equal_traces_give_equal_pages(tmp_path: Path) -> None:
    """To the byte; under another title only the title differs."""
    trace = recorded(tmp_path / "run.trace", pipeline, troubles)
    page = report_text(trace)
    assert report_text(detray.trace.open(tmp_path / "run.trace")) == page
    assert "<title>Night · detray</title>" in report_text(trace, title="Night")


def test_the_page_allows_only_its_own_script_and_style(tmp_path: Path) -> None:
    """By their digests; nothing else is loaded, sent or run."""
    page = report_text(recorded(tmp_path / "run.trace", troubles))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    for tag, source in (("script", "<script>"), ("style", "<style>")):
        inside = page.split(source)[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none'; ")
    assert "unsafe" not in policy[1] and "http" not in policy[1]
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_no_text_of_a_trace_is_markup(tmp_path: Path) -> None:
    """Neither names nor errors nor the title can end the script or begin another."""
    clean = report_text(recorded(tmp_path / "run.trace", troubles), title="x")
    page = report_text(hostile(tmp_path / "hostile.trace"), title=HOSTILE + "@@data@@\udc80")
    assert 'onerror="' not in page and "<img" not in page
    for tag in ("<script", "</script", "<style", "</style", "<title", "<body"):
        assert page.count(tag) == clean.count(tag)
    head, _ = unpacked(page)
    assert HOSTILE in head["functions"]


def test_the_template_is_filled_in_one_go() -> None:
    """What a title says is not looked through for further places."""
    assert assembled("@@data@@", "PACKED").count("PACKED") == 1


def test_numbers_that_cannot_be_are_shown_and_break_nothing(tmp_path: Path) -> None:
    """A stranger's trace may say that a run ended long before it began."""
    found = synthetic(tmp_path / "few.trace", 300)
    for number, life in enumerate(found.history.tasks.values()):
        run = life.attempts[0]
        if number % 3 == 0:
            run.started_ns, run.ended_ns, run.sent_ns = 2**63 - 1, -(2**62), 2**62
        elif number % 3 == 1:
            run.started_ns, run.ended_ns, life.num_returns = -(2**62), 2**63 - 1, -5
        else:
            life.num_returns, life.submitted_ns = 200, 2**63
    head, columns = unpacked(page_of(found))
    assert head["summary"]["tasks"] == len(columns["t.state"]) == 300


# ------------------------------------------------------------------ memory and tasks over time


def sampled(points_max: int, values: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Starts and heights of a series in which only the arena's use changes."""
    sampler = UsageSampler(points_max)
    tables = LocalScheduler(
        LocalConfig(node_name="n", totals=(("CPU", 10_000),), arena_bytes=1 << 20)
    ).tables
    for now_ns, used in values:
        tables.arena.used = used
        sampler.look(tables, now_ns)
    usage = sampler.usage()
    return usage.starts_ns, usage.values[QUANTITIES.index("arena_bytes")]


def test_a_peak_between_two_points_is_kept() -> None:
    """However short it was, and however often spans were joined."""
    values = [(n * 1000, 7 if n != 3210 else 99) for n in range(10_000)]
    starts, heights = sampled(100, values)
    assert len(starts) <= 101
    assert max(heights) == 99
    assert heights[0] == 7 and heights[-1] == 7


def test_what_does_not_change_takes_no_room() -> None:
    """Values hold until the next start."""
    starts, heights = sampled(100, [(0, 5), (10_000, 5), (20_000_000, 5), (20_000_500, 8)])
    assert list(zip(starts, heights, strict=True)) == [(0, 5), (20_000_000, 8)]


def test_a_value_that_fell_between_two_spans_is_not_drawn_on() -> None:
    """A span's height is its own: after a peak the series says so."""
    starts, heights = sampled(100, [(0, 5), (100, 50), (200, 5), (9000, 6)])
    assert list(zip(starts, heights, strict=True)) == [(0, 50), (1000, 5), (9000, 6)]


def test_memory_is_that_of_the_tables(tmp_path: Path) -> None:
    """As a fresh scheduler has them after each step of the trace."""
    cluster = run_cluster(nodes=2)
    from detray_sim.traces import write_trace

    write_trace(cluster, tmp_path / "two.trace")
    trace = detray.trace.open(tmp_path / "two.trace")
    found = gather(trace)
    assert found.usage_note == ""
    highest: dict[int, int] = {}
    cores = [maker.make() for maker in schedulers(trace.header)]
    for step in trace.steps():
        core: Any = cores[step.core]
        core.handle(*step.stimuli(), now_ns=step.now_ns)
        if step.core in found.usage:
            used = core.tables.arena.used
            highest[step.core] = max(highest.get(step.core, 0), used)
    place = QUANTITIES.index("arena_bytes")
    assert {core: max(usage.values[place]) for core, usage in found.usage.items()} == highest
    assert sum(highest.values()) > 0


def test_a_trace_that_decides_otherwise_is_told_all_the_same(tmp_path: Path) -> None:
    """The history is whole; the page says from which step on the tables are not known."""
    trace = recorded(tmp_path / "run.trace", many)

    def makers(header: Any) -> list[Maker]:  # Any: a header
        local, head = schedulers(header)

        class Forgetful(LocalScheduler):
            def handle(self, *stimuli: Any, now_ns: int) -> Any:  # Any: as of its base
                effects = super().handle(*stimuli, now_ns=now_ns)
                return effects[:-1] if now_ns > trace.header.monotonic_ns + 50_000_000 else effects

        return [Maker(lambda: Forgetful(header.cores[0].config), local.restore), head]

    found = gather(trace, makers)
    assert re.match(r"step \d+ plays otherwise than it was recorded", found.usage_note)
    assert len(found.history.tasks) == len(history_of(trace).tasks) == 800
    head, _ = unpacked(report_text(trace, makers=makers))
    assert head["usageNote"] == found.usage_note


# ------------------------------------------------------------------ more tasks than fit


def test_of_too_many_tasks_the_telling_ones_are_kept(tmp_path: Path) -> None:
    """Those in trouble above all; everything else is counted, and drawn together."""
    found = synthetic(tmp_path / "few.trace", 5000)
    history = found.history
    kept = choose(history, set(), 400)
    troubled = [life for life in history.tasks.values() if life.state != "finished"]
    assert len(kept) == 400
    assert troubled and all(life in kept for life in troubled)
    longest = max(
        history.tasks.values(), key=lambda t: t.attempts[0].ended_ns - t.attempts[0].started_ns
    )
    assert longest in kept
    ids = {life.id for life in kept}
    together = blocks(history, ids, found.ended_ns - found.began_ns)
    assert sum(block.runs for block in together) == 5000 - 400
    for block in together:
        assert 0 < block.busy_ns <= block.ended_ns - block.started_ns


def test_the_page_says_what_it_left_out(tmp_path: Path) -> None:
    """And its sums are those of all tasks."""
    trace = recorded(tmp_path / "run.trace", many)
    head, columns = unpacked(report_text(trace, tasks_max=100))
    assert head["leftOut"] == 700
    assert len(columns["t.state"]) == 100
    assert head["summary"]["tasks"] == 800 == head["functionRows"][0]["count"]
    assert sum(columns["b.count"]) == 700


# ------------------------------------------------------------------ the command


def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the trace, or where it is told."""
    recorded(tmp_path / "run.trace", pipeline)
    assert main(["report", str(tmp_path / "run.trace")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path}/run.html: 0.") and err == ""
    page = (tmp_path / "run.html").read_text()
    assert main(["report", str(tmp_path / "run.trace"), "-o", str(tmp_path / "b"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["output"], said["size_bytes"]) == (str(tmp_path / "b"), len(page.encode()))
    assert (tmp_path / "b").read_text() == page


def test_the_command_does_not_write_over_the_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is a file that is no trace anything to report of: one line each."""
    path = recorded(tmp_path / "run.trace", pipeline).name
    before = Path(path).read_bytes()
    assert main(["report", path, "-o", path]) == 2
    (tmp_path / "no").write_text("no trace")
    assert main(["report", str(tmp_path / "no")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "is the trace itself" in first and "is not a detray trace" in second
    assert Path(path).read_bytes() == before


def test_no_progress_is_shown_where_nobody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal the line is wiped in the end."""
    recorded(tmp_path / "run.trace", pipeline)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["report", str(tmp_path / "run.trace")]) == 0
    err = capsys.readouterr().err
    assert err.startswith("\rreading: 0 of ") and err.endswith("\r\x1b[K")
