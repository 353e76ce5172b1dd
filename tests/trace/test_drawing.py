"""Drawings that can be read: what is marked, what is left out, what a box of many says."""

from __future__ import annotations

import re
import xml.etree.ElementTree as xml
from collections import Counter

import pytest

from detray.trace.drawings.collapse import DEPTH_MAX, NODES_MAX, WIDTH_MAX, collapse
from detray.trace.drawings.dot import to_dot
from detray.trace.drawings.svg import to_svg
from detray.trace.graphs.critical import critical_path
from detray.trace.graphs.graph import build
from detray.trace.quantities import size_text, time_text
from tests.trace.graphs import MS, Sketch
from tests.trace.programs import many, recorded, troubles

SVG = "{http://www.w3.org/2000/svg}"


def fork_join(width: int, failed: int = 0) -> Sketch:
    """One task, many that take what it made, one that takes what these made."""
    sketch = Sketch()
    sketch.task("first", 0, 0, 1, 3)
    for number in range(width):
        state = "failed" if number < failed else "finished"
        begin = 3 + number
        sketch.task(
            f"m{number}", 1, begin, begin, begin + 1, ["first"], function="middle", state=state
        )
    last = 3 + width
    sketch.task("last", 2, last, last, last + 2, [f"m{number}" for number in range(width)])
    return sketch


def boxes(svg: str) -> dict[str, xml.Element]:
    """The groups of nodes by the first line of their text."""
    groups = xml.fromstring(svg).iter(f"{SVG}g")
    return {g.findtext(f"{SVG}text") or "": g for g in groups if g.find(f"{SVG}title") is not None}


def legend_of(svg: str) -> list[str]:
    (key,) = [g for g in xml.fromstring(svg).iter(f"{SVG}g") if g.get("class") == "legend"]
    return [text.text or "" for text in key.iter(f"{SVG}text")]


def test_the_critical_path_is_marked_where_it_goes():
    """Tasks, the objects between them and the lines; not what it passes by."""
    sketch = Sketch()
    sketch.task("a", 0, 1, 2, 5, worker=1)
    sketch.task("b", 0, 1, 2, 9, worker=2, size_bytes=200)
    sketch.task("c", 0, 10, 11, 15, ["a", "b"], worker=1)
    svg = to_svg(sketch.graph, critical_path(sketch.graph))
    found = {label: g.get("class") for label, g in boxes(svg).items()}
    assert found == {"root": None, "a": None, "b": "critical", "c": "critical", "200 B": "critical",
                     "100 B": None}  # fmt: skip
    marked = [p for p in xml.fromstring(svg).iter(f"{SVG}path") if p.get("class") == "critical"]
    assert [p.findtext(f"{SVG}title") for p in marked] == ["produces: 200 B", "consumes: 200 B"]
    assert legend_of(svg)[-1] == "on the critical path"
    assert "critical" not in re.sub("<style>.*</style>", "", to_svg(sketch.graph), flags=re.DOTALL)
    assert to_dot(sketch.graph, critical_path(sketch.graph)).count("penwidth") == 5


def test_ways_of_the_path_that_are_no_edges_are_drawn_too():
    """b waited for the worker that a had: no data goes that way."""
    sketch = Sketch()
    sketch.task("a", 0, 1, 2, 8)
    sketch.task("b", 0, 1, 9, 12)
    svg = to_svg(sketch.graph, critical_path(sketch.graph))
    titles = [title.text for title in xml.fromstring(svg).iter(f"{SVG}title")]
    assert "critical path: worker" in titles
    assert legend_of(svg)[-2:] == ["on the critical path", "was waited for"]
    assert "constraint=false" in to_dot(sketch.graph, critical_path(sketch.graph))


def test_what_failed_is_red_and_counted():
    """A box of a hundred of which two failed says so."""
    svg = to_svg(fork_join(100, failed=2).graph)
    box = boxes(svg)["middle x 100"]
    assert box.get("class") == "failed"
    assert [text.text for text in box.iter(f"{SVG}text")] == ["middle x 100", "100 ms, 2 failed"]
    assert "failed" in legend_of(svg)
    assert "failed" not in legend_of(to_svg(fork_join(100).graph))


def test_a_box_of_many_says_how_much_of_it_is_critical():
    """How many of its tasks, and how long the path ran in them."""
    sketch = fork_join(100)
    svg = to_svg(sketch.graph, critical_path(sketch.graph))
    lines = [text.text for text in boxes(svg)["middle x 100"].iter(f"{SVG}text")]
    assert lines == ["middle x 100", "100 ms", "critical: 100, 100 ms"]


def test_tooltips_tell_what_does_not_fit():
    """Every node and edge has one; times are for people."""
    svg = to_svg(fork_join(3).graph)
    tooltip = boxes(svg)["first"].findtext(f"{SVG}title") or ""
    assert "ran for 2 ms" in tooltip and "worker: 1" in tooltip
    paths = [p for p in xml.fromstring(svg).iter(f"{SVG}path") if p.get("d") != "M0 0L8 4L0 8z"]
    edges = [p for p in paths if p.find(f"{SVG}title") is not None]
    assert len(edges) == fork_join(3).graph.number_of_edges()


def test_the_legend_has_only_what_is_there(tmp_path):
    """Of a task and its value there is little to explain."""
    sketch = Sketch()
    sketch.task("a", 0, 0, 1, 2)
    assert legend_of(to_svg(sketch.graph)) == ["task", "object", "launches", "data"]
    troubled = legend_of(to_svg(build(recorded(tmp_path / "t", troubles))))
    assert troubled == ["task", "object", "failed", "launches", "data", "reference inside"]


def test_who_launches_many_is_tied_to_what_takes_no_data():
    """Twenty dotted lines beside the data would cover it; the legend says that some are missing."""
    sketch = Sketch()
    sketch.task("t0", 0, 0, 1, 2)
    for number in range(1, 20):
        sketch.task(f"t{number}", 0, 0, number + 1, number + 2, [f"t{number - 1}"])
    svg = to_svg(sketch.graph)
    lines = Counter(p.get("class") for p in xml.fromstring(svg).iter(f"{SVG}path"))
    assert lines["launched"] == 1 + 1  # and one in the legend
    assert "launches what takes no data" in legend_of(svg)
    few = to_svg(fork_join(5).graph)
    assert few.count('class="launched"') == 7 + 1


def test_levels_are_kept_while_they_can_be_seen():
    """Eight stages of a hundred tasks are drawn as eight boxes, not as one that feeds itself."""
    sketch = Sketch()
    before: list[str] = []
    for stage in range(8):
        names = [f"s{stage}t{number}" for number in range(100)]
        for number, name in enumerate(names):
            args = before[number : number + 1]
            sketch.task(name, 0, stage, stage, stage + 1, args, function="stage")
        before = names
    shown = collapse(sketch.graph)
    labels = Counter(label for _, label in shown.nodes(data="label"))
    assert labels["stage x 100"] == 8


def test_a_row_of_too_many_is_collapsed_though_the_graph_is_small():
    """Forty boxes beside each other are not read on any screen."""
    sketch = Sketch()
    for number in range(WIDTH_MAX + 1):
        sketch.task(f"t{number}", 0, 0, 1, 2, function="wide")
    assert len(sketch.graph) < NODES_MAX
    assert len(collapse(sketch.graph)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("depth", [DEPTH_MAX, 10_000])
def test_drawings_of_100_000_tasks_are_small(depth):
    """However the tasks hang together, what is drawn fits a page and a megabyte."""
    sketch = Sketch()
    for number in range(100_000):
        chain, place = divmod(number, depth)
        args = [f"t{number - 1}"] if place else []
        sketch.task(f"t{number}", 0, place, place, place + 1, args, function=f"f{chain % 7}")
    svg = to_svg(sketch.graph, critical_path(sketch.graph))
    assert len(svg) < 1_000_000
    assert xml.fromstring(svg).tag == f"{SVG}svg"
    counts = [int(n.replace(",", "")) for n in re.findall(r">f[0-9] x ([0-9,]+)<", svg)]
    assert sum(counts) == 100_000


def test_boxes_of_a_back_edge_are_inside_the_picture(tmp_path):
    """A chain of one function feeds itself; the line around it has room."""
    sketch = Sketch()
    for number in range(200):
        args = [f"t{number - 1}"] if number else []
        sketch.task(f"t{number}", 0, number, number, number + 1, args, function="step")
    svg = to_svg(sketch.graph)
    width = int(re.search(r'width="(\d+)"', svg).group(1))  # type: ignore[union-attr]
    for path in xml.fromstring(svg).iter(f"{SVG}path"):
        numbers = [float(number) for number in re.findall(r"-?[0-9.]+", path.get("d") or "")]
        assert all(0 <= x <= width for x in numbers[::2])
    assert collapse(build(recorded(tmp_path / "t", many))).number_of_nodes() <= NODES_MAX


def test_sizes_and_times_have_three_digits():
    """No 1e+03 where a unit ends."""
    assert [size_text(n) for n in (0, 999, 1000, 999_400, 999_600, 10**12)] == [
        "0 B", "999 B", "1 kB", "999 kB", "1 MB", "1 TB",
    ]  # fmt: skip
    times = (0, 999, 1_000, 999_400, 999_600, MS, 999_600_000, 1_234_000_000, 99_960_000_000)
    assert [time_text(n) for n in times] == [
        "0 ns", "999 ns", "1 us", "999 us", "1 ms", "1 ms", "1 s", "1.23 s", "100 s",
    ]  # fmt: skip
