"""Tables, charts, traces and comparisons say what the records say, and say it the same twice."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detray_sim.report import (
    Chart,
    Limits,
    ReportError,
    bytes_chart,
    cluster_label,
    compare,
    comparison_chart,
    comparison_csv,
    comparison_json,
    comparison_text,
    gantt,
    knee,
    name_table,
    perfetto_json,
    read_comparison,
    read_result,
    read_tasks_csv,
    read_tasks_json,
    result_json,
    rich_table,
    scaling_chart,
    summary,
    summary_json,
    summary_rows,
    summary_text,
    tasks_csv,
    tasks_json,
    text_table,
    trace_items,
    utilisation_chart,
    write_comparison,
    write_run,
)
from detray_sim.report.intervals import compare_pairs, estimate, sign_p, t_quantile, wilcoxon_p
from detray_sim.report.layout import blocks, layout_of
from detray_sim.report.rows import Span, stack
from detray_sim.report.series import Bins, curve
from detray_sim.report.text import format_bytes, format_time
from detray_sim.result import NodeShape, RunResult, TaskRecord, TransferRecord
from detray_sim.workload import SECOND_NS, UNIT, TaskSpec, Workload, validate

MS = 1_000_000
NODES = (NodeShape(cpus=2), NodeShape(cpus=1))


def _task(number: int, name: str, node: int, ready: int, start: int, end: int) -> TaskRecord:
    return TaskRecord(
        number=number,
        id=f"{name}, {number}",  # a comma: CSV has to quote it
        name=name,
        node=node,
        worker=1,
        submitted_ns=0,
        ready_ns=ready * MS,
        started_ns=start * MS,
        finished_ns=end * MS,
    )


SIX = RunResult(
    workload="six",
    policy="by hand",
    seed=7,
    nodes=NODES,
    network="simple",
    makespan_ns=100 * MS,
    tasks=(
        _task(0, "load", 0, 0, 0, 20),
        _task(1, "load", 0, 0, 0, 30),
        _task(2, "load", 1, 0, 10, 20),
        _task(3, "work", 0, 30, 30, 70),  # on both cores of node 0
        _task(4, "work", 1, 20, 40, 90),
        msgspec.structs.replace(_task(5, "save", 0, 90, 92, 100), failed="disk full", attempt=2),
    ),
    transfers=(
        TransferRecord(
            source=0, target=1, size_bytes=4 << 20, started_ns=20 * MS, finished_ns=40 * MS, task=0
        ),
        TransferRecord(
            source=1, target=0, size_bytes=1 << 20, started_ns=90 * MS, finished_ns=92 * MS, task=4
        ),
    ),
    digest="d" * 64,
    core_steps=12,
    messages=3,
    wall_s=0.5,
)
"""Three loads, two works, a save that failed, on a node of two cores and one of one."""


def _spec(number: int, duration: int, inputs: tuple[int, ...], cores: int = 1) -> TaskSpec:
    return TaskSpec(
        id=SIX.tasks[number].id,
        name=SIX.tasks[number].name,
        duration_ns=duration * MS,
        inputs=tuple((producer, 0) for producer in inputs),
        demand=(("CPU", cores * UNIT),),
    )


WORKLOAD = validate(
    Workload(
        name="six",
        tasks=(
            _spec(0, 20, ()),
            _spec(1, 30, ()),
            _spec(2, 10, ()),
            _spec(3, 40, (1,), cores=2),
            _spec(4, 50, (0, 2)),
            _spec(5, 8, (3, 4)),
        ),
    )
)
NOTHING = RunResult(
    workload="nothing",
    policy="none",
    seed=0,
    nodes=NODES,
    network="instant",
    makespan_ns=0,
    tasks=(),
    transfers=(),
    digest="",
)
ONE = msgspec.structs.replace(
    NOTHING, workload="one", makespan_ns=20 * MS, tasks=SIX.tasks[:1], transfers=()
)
NEVER = msgspec.structs.replace(
    NOTHING, tasks=(TaskRecord(number=0, id="a", name="a", node=-1, worker=0),)
)

# ------------------------------------------------------------------------------ tables


def test_the_summary_of_six_tasks() -> None:
    """Every number of the summary, worked out by hand."""
    numbers = summary(SIX, WORKLOAD)
    assert numbers == {
        "workload": "six",
        "policy": "by hand",
        "seed": 7,
        "cluster": "1x2+1x1",
        "network": "simple",
        "tasks": 6,
        "failed": 1,
        "never_ran": 0,
        "makespan_s": 0.1,
        "critical_path_s": 0.078,
        "lower_bound_s": 0.078,
        "work_s": 0.198,  # 20 + 30 + 10 + 2 * 40 + 50 + 8
        "utilisation": pytest.approx(0.198 / 0.3),
        "node_utilisation": [pytest.approx(0.69), pytest.approx(0.6)],
        "queue_mean_s": pytest.approx(0.032 / 6),
        "queue_p50_s": 0.0,
        "queue_p95_s": 0.02,
        "bytes_moved": 5 << 20,
        "transfers": 2,
        "core_steps": 12,
        "messages": 3,
        "wall_s": 0.5,
        "cpu_s": 0.0,
        "digest": "d" * 64,
    }
    assert json.loads(summary_json(numbers)) == numbers


def test_without_the_workload_there_are_no_bounds_and_a_task_is_one_core() -> None:
    """What cannot be known is None, and nothing is guessed."""
    numbers = summary(SIX)
    assert (numbers["critical_path_s"], numbers["lower_bound_s"]) == (None, None)
    assert numbers["work_s"] == pytest.approx(0.158)


def test_the_summary_of_nothing_divides_by_nothing() -> None:
    """No tasks, no makespan, no nodes: zeros and Nones."""
    for result in (NOTHING, NEVER, msgspec.structs.replace(NOTHING, nodes=())):
        numbers = summary(result, Workload(name="nothing", tasks=()) if not result.tasks else None)
        assert (numbers["utilisation"], numbers["queue_mean_s"]) == (0.0, None)
        assert "makespan" in summary_text(numbers)
    assert summary(NEVER)["never_ran"] == 1


def test_tables_of_tasks_read_back_without_loss() -> None:
    """CSV and JSON keep every field of every record; a whole result keeps everything."""
    for result in (SIX, ONE, NOTHING, NEVER):
        assert read_tasks_csv(tasks_csv(result)) == result.tasks
        assert read_tasks_json(tasks_json(result)) == result.tasks
        assert read_result(result_json(result)) == result


def test_the_csv_of_tasks_says_how_long_each_waited_and_ran() -> None:
    """Two columns more than the record has."""
    rows = list(csv.DictReader(tasks_csv(SIX).splitlines()))
    assert [int(row["queued_ns"]) // MS for row in rows] == [0, 0, 10, 0, 20, 2]
    assert [int(row["ran_ns"]) // MS for row in rows] == [20, 30, 10, 40, 50, 8]
    assert rows[0]["id"] == "load, 0"
    assert next(csv.DictReader(tasks_csv(NEVER).splitlines()))["ran_ns"] == "-1"


def test_another_table_is_refused() -> None:
    """A CSV of something else is an error, not a list of zeros."""
    with pytest.raises(msgspec.ValidationError):
        read_tasks_csv("a,b\n1,2\n")


def test_tasks_by_name() -> None:
    """The name that took longest first."""
    assert [(row[0], row[1]) for row in name_table(SIX)] == [("work", 2), ("load", 3), ("save", 1)]
    assert name_table(SIX)[0][2:5] == (0.09, 0.045, 0.05)


def test_a_cluster_is_named_by_its_kinds() -> None:
    """Equal nodes are counted; a speed other than 1 is said."""
    fast = msgspec.structs.replace(
        NOTHING, nodes=(NodeShape(cpus=4),) * 8 + (NodeShape(cpus=2, speed_permille=1500),)
    )
    assert cluster_label(fast) == "8x4+1x2@1.5"
    assert cluster_label(msgspec.structs.replace(NOTHING, nodes=())) == "no nodes"


def test_a_plain_table_aligns_numbers_right() -> None:
    """Text to the left, numbers to the right, nothing behind the last letter."""
    assert text_table(("name", "s"), [("a", 1.5), ("longer", None)]) == (
        "name      s\n------  ---\na       1.5\nlonger    -"
    )


def test_a_table_of_rich_holds_the_same_cells() -> None:
    """And a name in brackets is text, not markup."""
    console = pytest.importorskip("rich.console").Console(width=80)
    with console.capture() as capture:
        console.print(rich_table(("what", "value"), [*summary_rows(summary(SIX)), ("[red]", "x")]))
    assert "100 ms" in capture.get()
    assert "[red]" in capture.get()


def test_without_rich_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, one command."""
    monkeypatch.setitem(sys.modules, "rich.box", None)
    with pytest.raises(ReportError, match=r"pip install 'detray\[cli\]'"):
        rich_table(("a",), [])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ReportError, match=r"pip install 'detray\[sim\]'"):
        gantt(SIX)


def test_times_and_sizes_are_written_for_people() -> None:
    """Four digits, and the unit that fits."""
    assert [format_time(ns) for ns in (0, 12, 1500, 2_345_678, 98_765 * SECOND_NS)] == [
        "0 s",
        "12 ns",
        "1.5 µs",
        "2.346 ms",
        "98,765 s",
    ]
    assert [format_bytes(size) for size in (0, 1023, 1536, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "3 GiB",
    ]


# ------------------------------------------------------------------------ rows and bins

spans = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 9), st.integers(1, 3)), max_size=30
).map(lambda found: [Span(a, a + d, key, w) for key, (a, d, w) in enumerate(found)])


@settings(deadline=None)
@given(spans)
def test_rows_never_overlap_and_are_as_few_as_possible(found: list[Span]) -> None:
    """As many rows as are ever needed at once, by what takes any time."""
    rows = stack(found)
    assert [len(rows[span.key]) for span in found] == [span.width for span in found]
    lasting = [span for span in found if span.finished_ns > span.started_ns]
    for a in lasting:
        for b in lasting:
            if a.key < b.key and a.started_ns < b.finished_ns and b.started_ns < a.finished_ns:
                assert not set(rows[a.key]) & set(rows[b.key])
    if lasting and len(lasting) == len(found):
        busiest = max(
            sum(s.width for s in found if s.started_ns <= time < s.finished_ns)
            for time in range(40)
        )
        assert max(row for own in rows.values() for row in own) + 1 == busiest


def test_rows_side_by_side_are_one_block() -> None:
    """Neighbours join, gaps separate."""
    assert blocks((0, 1, 2, 5, 7, 8)) == [(0, 3), (5, 1), (7, 2)]


def test_the_layout_of_six_tasks() -> None:
    """Three slots; the task of two cores is as high as its node."""
    plan = layout_of(SIX, WORKLOAD, 10)
    assert (plan.rows, plan.merged) == (3, False)
    assert plan.tasks == {0: (0,), 1: (1,), 2: (2,), 3: (0, 1), 4: (2,), 5: (0,)}
    assert [band.name for band in layout_of(SIX, None, 2).bands] == ["node 0", "node 1"]
    whole = layout_of(SIX, None, 1)
    assert ([band.name for band in whole.bands], whole.row_slots) == (["nodes 0–1"], (3,))


@settings(deadline=None)
@given(spans, st.integers(1, 50))
def test_bins_keep_the_area(found: list[Span], count: int) -> None:
    """However the range is cut, the sum over all parts is the sum of all intervals."""
    bins = Bins(40, count)
    for span in found:
        bins.add(span.started_ns, span.finished_ns, span.width)
    area = sum((span.finished_ns - span.started_ns) * span.width for span in found)
    assert sum(bins.levels()) * bins.width == pytest.approx(area)


def test_a_curve_of_few_changes_is_exact() -> None:
    """Edges are the times of changes; of many changes, equal parts."""
    edges, levels = curve([(0, 10, 1.0), (5, 20, 2.0)], 30)
    assert (edges, levels) == ([0, 5, 10, 20, 30], [1, 3, 2, 0])
    edges, levels = curve([(i, i + 1, 1.0) for i in range(100)], 100, points=10)
    assert (len(edges), levels) == (11, pytest.approx([1.0] * 10))
    assert curve([], 0) == ([0.0, 1.0], [0.0])


# ------------------------------------------------------------------------------ charts


def _sized(chart: Chart, width: int, height: int | None = None) -> None:
    """The SVG is XML, the PNG as large as it should be, in pixels."""
    root = ET.fromstring(chart.svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in chart.svg
    assert chart.png[:8] == b"\x89PNG\r\n\x1a\n"
    size = struct.unpack(">II", chart.png[16:24])
    assert size[0] == width
    assert height is None or size[1] == height
    assert len(chart.png) > 3000


@pytest.mark.parametrize("result", [SIX, ONE, NOTHING, NEVER], ids=["six", "one", "none", "never"])
def test_every_chart_of_a_run_is_drawn_and_equal_twice(result: RunResult) -> None:
    """Also of one task, of no task, and of a task that never ran."""
    workload = WORKLOAD if result is SIX else None
    for width, draw in (
        (1584, lambda: gantt(result, workload)),
        (1224, lambda: utilisation_chart(result, workload)),
        (1224, lambda: bytes_chart(result)),
    ):
        chart = draw()
        _sized(chart, width)
        assert chart == draw()


def test_a_chart_is_equal_in_every_process() -> None:
    """Neither hashes of strings nor a user's own style of matplotlib reach the picture."""
    program = (
        "import hashlib\nimport matplotlib\nmatplotlib.rcParams['font.size'] = 17\n"
        "from tests.sim.test_reports import SIX, WORKLOAD\nfrom detray_sim.report import gantt\n"
        "print(hashlib.sha256(b''.join(gantt(SIX, WORKLOAD))).hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == hashlib.sha256(b"".join(gantt(SIX, WORKLOAD))).hexdigest()


def test_too_much_to_draw_becomes_an_aggregate() -> None:
    """Density instead of bars, a curve instead of lines, rows for nodes instead of slots."""
    bars = gantt(SIX, WORKLOAD)
    assert b"<image" not in bars.svg
    dense = gantt(SIX, WORKLOAD, Limits(bars=3))
    assert b"<image" in dense.svg
    assert b"<image" in gantt(SIX, WORKLOAD, Limits(rows=1)).svg
    curve_below = gantt(SIX, WORKLOAD, Limits(lines=1))
    assert b"<image" not in curve_below.svg
    _sized(curve_below, 1584)


def test_importing_reports_loads_no_toolkit() -> None:
    """matplotlib takes half a second: only who draws pays."""
    program = (
        "import sys, detray_sim.report\n"
        "print([m for m in ('matplotlib', 'rich', 'numpy', 'simpy') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_report_is_a_folder_of_files(tmp_path: Path) -> None:
    """The same names for every run, readable by what wrote them."""
    write_run(tmp_path / "run", SIX, WORKLOAD)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "bytes.png",
        "bytes.svg",
        "gantt.png",
        "gantt.svg",
        "result.json",
        "summary.json",
        "tasks.csv",
        "tasks.json",
        "trace.json",
        "utilisation.png",
        "utilisation.svg",
    ]
    assert read_result((tmp_path / "run" / "result.json").read_bytes()) == SIX
    write_comparison(tmp_path / "several", [SIX])
    assert len(list((tmp_path / "several").iterdir())) == 5


# ---------------------------------------------------------------------------- Perfetto


def test_the_trace_holds_every_task_and_transfer() -> None:
    """Complete events on named threads of named processes, none overlapping on its thread."""
    trace = json.loads(perfetto_json(SIX, WORKLOAD))
    items = trace["traceEvents"]
    complete = [item for item in items if item["ph"] == "X"]
    assert len(complete) == len(SIX.tasks) + len(SIX.transfers)
    named = {(m["pid"], m["tid"]) for m in items if m["name"] == "thread_name"}
    assert {(item["pid"], item["tid"]) for item in complete} == named
    assert [m["args"]["name"] for m in items if m["name"] == "process_name"] == [
        "node 0 (2 CPU)",
        "node 1 (1 CPU)",
    ]
    for item in complete:
        assert item["ts"] >= 0 <= item["dur"]
    failed = [item for item in complete if "failed" in item["args"]]
    assert [(item["name"], item["ts"], item["args"]["attempt"]) for item in failed] == [
        ("save", 92_000.0, 2)
    ]


def test_arrows_go_from_producer_to_transfer_to_taker() -> None:
    """Each arrow begins and ends within a slice of its thread."""
    items = trace_items(SIX, WORKLOAD)
    slices = [item for item in items if item["ph"] == "X"]
    starts = {item["id"]: item for item in items if item["ph"] == "s"}
    ends = {item["id"]: item for item in items if item["ph"] == "f"}
    assert starts.keys() == ends.keys() == {0, 1, 2, 3}
    for point in (*starts.values(), *ends.values()):
        assert any(
            s["pid"] == point["pid"]
            and s["tid"] == point["tid"]
            and s["ts"] <= point["ts"] <= s["ts"] + s["dur"]
            for s in slices
        )
    assert {item["id"] for item in trace_items(SIX) if item["ph"] == "s"} == {0, 2}


def test_a_trace_of_nothing_is_a_trace() -> None:
    """Two processes without threads."""
    assert {item["ph"] for item in trace_items(NOTHING)} == {"M"}
    assert trace_items(NEVER) == trace_items(NOTHING)


# ------------------------------------------------------------------------- comparisons


def _run(policy: str, seed: int, makespan_s: float, **other: object) -> RunResult:
    changes = {"policy": policy, "seed": seed, "makespan_ns": round(makespan_s * SECOND_NS)}
    return msgspec.structs.replace(SIX, **{**changes, **other})


RUNS = [_run("a", seed, 10 + seed) for seed in range(5)] + [
    _run("b", seed, 12 + seed + (seed % 2) / 2) for seed in range(6)
]


def test_students_t_agrees_with_the_tables() -> None:
    """Odd and even degrees of freedom, few and many. Source: any table of t, two-sided 95 %."""
    table = {1: 12.7062, 2: 4.30265, 3: 3.18245, 4: 2.77645, 9: 2.26216, 30: 2.04227, 120: 1.97993}
    for freedom, quantile in table.items():
        assert t_quantile(freedom) == pytest.approx(quantile, abs=6e-6)
    assert t_quantile(5, 0.99) == pytest.approx(4.03214, abs=6e-6)
    assert t_quantile(1000) == pytest.approx(t_quantile(1001), abs=1e-5)


def test_an_interval_of_five_values() -> None:
    """Mean 12, deviation 1.5811, t 2.7764: 12 +- 1.963; one value has no interval."""
    sample = estimate([10, 11, 12, 13, 14])
    assert sample.half_width == pytest.approx(1.96324, abs=1e-5)
    assert estimate([3.0]).half_width is None
    assert estimate([3.0, 3.0]).half_width == 0.0


def test_exact_p_values() -> None:
    """By hand: 5 heads in 5; signed ranks 1 to 5 all positive; ties; nothing at all."""
    assert sign_p(0, 5) == pytest.approx(2 / 32)
    assert sign_p(0, 0) == wilcoxon_p([0.0, 0.0]) == 1.0
    assert wilcoxon_p([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)
    # Ranks 1.5, 1.5, 3 with the signs - + +: sums of at most 1.5 come from {}, {1.5}, {1.5}.
    assert wilcoxon_p([-1, 1, 2]) == pytest.approx(2 * 3 / 8)
    exact = wilcoxon_p([(-1) ** (i % 3) * i for i in range(1, 201)])
    normal = wilcoxon_p([(-1) ** (i % 3) * i for i in range(1, 202)])
    assert exact == pytest.approx(normal, rel=0.25)


def test_pairs_forget_the_noise_that_they_share() -> None:
    """Means apart by less than their spread, and yet slower on every seed."""
    pairs = compare_pairs([11.0, 52.0, 103.0], [10.0, 50.0, 100.0])
    assert (pairs.lower, pairs.equal, pairs.higher, pairs.difference.mean) == (0, 0, 3, 2.0)


def test_a_comparison_finds_the_best_and_pairs_the_seeds() -> None:
    """b runs a seed more than a; five are shared."""
    best, other = compare(RUNS).rows
    assert (best.policy, best.n, best.mean_s, best.ratio, best.paired) == ("a", 5, 12.0, 1.0, None)
    assert (other.min_s, other.max_s, other.ratio) == (12.0, 17.5, pytest.approx(14.75 / 12))
    assert other.paired is not None
    assert (other.paired.against, other.paired.seeds, other.paired.slower) == ("a", 5, 5)
    assert other.paired.mean_difference_s == pytest.approx(2.2)
    assert other.paired.wilcoxon_p == pytest.approx(0.0625)


def test_a_comparison_as_text_csv_and_json() -> None:
    """The text names the group; CSV has a line per policy; JSON reads back."""
    comparison = compare(RUNS)
    text = comparison_text(comparison)
    assert text.startswith("six on 1x2+1x1, network simple\n")
    assert "slower on 5 of 5 seeds" in text
    rows = list(csv.DictReader(comparison_csv(comparison).splitlines()))
    assert [(row["policy"], row["paired_slower"]) for row in rows] == [("a", ""), ("b", "5")]
    assert read_comparison(comparison_json(comparison)) == comparison
    assert comparison_text(compare([])) == "nothing to compare\n"


def test_equal_runs_count_once_and_contradictions_are_refused() -> None:
    """The same seed twice with another makespan means that something else differed."""
    assert compare([*RUNS, RUNS[0]]) == compare(RUNS)
    with pytest.raises(ReportError, match="seed 0 took"):
        compare([*RUNS, _run("a", 0, 99.0)])


def test_charts_of_many_runs_are_equal_twice() -> None:
    """One workload in seconds, two as ratios, very many as boxes, none as a sentence."""
    twice = [*RUNS, *(msgspec.structs.replace(run, workload="again") for run in RUNS)]
    many = [_run("a", 0, 1 + n, workload=f"w{n}") for n in range(70)]
    for runs in (RUNS, twice, many, RUNS[:1], []):
        chart = comparison_chart(compare(runs))
        _sized(chart, struct.unpack(">I", chart.png[16:20])[0])
        assert chart == comparison_chart(compare(runs))


def test_the_knee_is_where_more_nodes_stop_paying() -> None:
    """Perfect scaling has its knee at the end; Amdahl's law with a serial tenth at 9 nodes."""
    assert knee({n: 64 / n for n in (1, 2, 4, 8)}) == 8
    # n (f + (1 - f) / n)^2 is least at n = (1 - f) / f.
    assert knee({n: 0.1 + 0.9 / n for n in range(1, 40)}) == 9
    assert knee({1: 5.0, 2: 5.0}) == 1
    with pytest.raises(ValueError, match="no points"):
        knee({})


def test_the_scaling_chart_is_drawn_for_many_few_and_no_points() -> None:
    """One workload only: several have no common curve."""
    runs = [
        _run(policy, seed, 8 / n + 0.1 * seed, nodes=(NodeShape(cpus=2),) * n)
        for policy in ("a", "b")
        for n in (1, 2, 4, 8)
        for seed in (0, 1)
    ]
    for known, workload in ((runs, WORKLOAD), (runs[:1], None), ([], None), ([NOTHING], None)):
        chart = scaling_chart(known, workload)
        _sized(chart, 1080, 691)
        assert chart == scaling_chart(known, workload)
    with pytest.raises(ReportError, match="one workload"):
        scaling_chart([SIX, ONE])
