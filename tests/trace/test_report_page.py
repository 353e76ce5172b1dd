"""The report in a real browser: what a person sees, and what a stranger's trace cannot do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from detray.trace.gathering.history import history_of
from detray.trace.gathering.lives import FAILED
from detray.trace.names import short
from detray.trace.reporting.making import page_of, report
from tests.head.browser import browser
from tests.trace.programs import many, recorded
from tests.trace.reports import HOSTILE, hostile, pipeline, spread, synthetic
from tests.trace.simulated import run_cluster

pytest.importorskip("networkx")
pytestmark = pytest.mark.slow
PATIENCE_S = 40


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:  # Any: selenium is optional
    """One browser for all tests here; skips them, with the reason, where there is none."""
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def small(folder: Path) -> Path:
    """A page of one node, with a failure and a lost worker."""
    return report(recorded(folder / "small.trace", pipeline), folder / "small.html")


def show(window: Any, page: Path, fragment: str = "") -> None:
    """Load a page and wait until it is all there, and painted."""
    window.get("about:blank")  # else only the fragment would change
    window.get(page.as_uri() + fragment)
    see(
        window,
        lambda: bool(script(window, "document.body.dataset.ready")),
        lambda: text(window, "main"),
    )
    let_it_paint(window)


def let_it_paint(window: Any) -> None:
    """Return when what was due for the next frame, and what that led to, has been done."""
    window.execute_async_script(
        "const next = requestAnimationFrame; next(() => next(() => next(arguments[0])));"
    )


def script(window: Any, expression: str) -> Any:  # Any: whatever it gives
    return window.execute_script(f"return {expression}")


def text(window: Any, selector: str) -> str:
    return str(window.find_element("css selector", selector).text)


def see(window: Any, what: Callable[[], bool], why: Callable[[], str]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if what():
            return
        time.sleep(0.03)
    raise AssertionError(why())


def see_text(window: Any, selector: str, wanted: str) -> None:
    see(window, lambda: wanted in text(window, selector), lambda: text(window, selector))


def errors(window: Any) -> list[str]:
    return [entry["message"] for entry in window.get_log("browser")]


def press(window: Any, keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(window).send_keys(keys).perform()


def search(window: Any, wanted: str) -> list[str]:
    """What is found, line by line."""
    box = window.find_element("css selector", "#query")
    box.clear()
    box.send_keys(wanted)
    return [item.text for item in window.find_elements("css selector", "#found li")]


def picture(window: Any) -> str:
    """The timeline's rows as they are drawn now."""
    return str(script(window, "document.getElementById('rows').toDataURL()"))


def test_it_opens_without_errors_and_without_the_network(window: Any, small: Path) -> None:
    """Everything is in the file."""
    show(window, small)
    assert errors(window) == []
    assert script(window, "performance.getEntriesByType('resource').length") == 0
    assert text(window, "h1") == "program.py"
    summary = text(window, "#summary")
    assert "Tasks\n13\n12 finished, 1 failed" in summary
    assert "1 attempt was repeated, 1 worker lost" in summary
    assert script(window, "document.getElementById('trouble').hidden")
    assert text(window, "#range").endswith("ms")


def test_zooming_and_panning_change_what_is_shown(window: Any, small: Path) -> None:
    """By keys, by buttons, by dragging and with the wheel; and 0 shows all again."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    show(window, small)
    whole, words = picture(window), text(window, "#range")
    rows = window.find_element("css selector", "#rows")

    def changed(before: str) -> None:
        see(window, lambda: text(window, "#range") != before, lambda: text(window, "#range"))

    press(window, "+")
    changed(words)
    see(window, lambda: picture(window) != whole, lambda: "the same picture")
    closer = text(window, "#range")
    ActionChains(window).drag_and_drop_by_offset(rows, 150, 0).perform()
    changed(closer)
    press(window, "0")
    see(window, lambda: text(window, "#range") == words, lambda: text(window, "#range"))
    see(window, lambda: picture(window) == whole, lambda: "another picture")
    ActionChains(window).scroll_from_origin(ScrollOrigin.from_element(rows), 0, -300).perform()
    changed(words)
    window.find_element("css selector", "#zoom-all").click()
    see(window, lambda: text(window, "#range") == words, lambda: text(window, "#range"))
    axis = window.find_element("css selector", "#axis")
    ActionChains(window).drag_and_drop_by_offset(axis, 200, 0).perform()  # selects a span
    changed(words)


def test_a_click_on_a_run_opens_its_story(window: Any, small: Path) -> None:
    """In the words of `detray story`; with links that lead on, and a way back."""
    from selenium.webdriver import ActionChains

    show(window, small)
    rows = window.find_element("css selector", "#rows")
    middle = rows.size["width"] // 2
    for x in range(150, rows.size["width"] - 20, 6):  # along the row of worker 1
        ActionChains(window).move_to_element_with_offset(
            rows, x - middle, 28 - rows.size["height"] // 2
        ).click().perform()
        if script(window, "!document.getElementById('panel').hidden"):
            break
    story = text(window, "#panel-body")
    assert story.startswith("task\nload\n1.")
    assert "driver 1 submits load (" in story
    assert "is sent to worker 1" in story
    assert "worker 1 finished load (" in story and ": 100 B" in story
    assert "#at=task%3A1." in window.current_url
    (goes_to,) = (
        a for a in window.find_elements("css selector", "#panel-body ul a") if "clean" in a.text
    )
    name = goes_to.text
    goes_to.click()
    see_text(window, "#panel-body h2", "clean")
    assert name.split("(")[1].rstrip(")") in text(window, "#panel-body")
    window.back()
    see_text(window, "#panel-body h2", "load")
    press(window, "\ue00c")  # Escape
    assert script(window, "document.getElementById('panel').hidden")


def test_search_finds_by_name_id_error_and_worker(window: Any, small: Path, folder: Path) -> None:
    """With the keyboard alone."""
    history = history_of(recorded(folder / "again.trace", pipeline))
    (failed,) = (life for life in history.tasks.values() if life.state == FAILED)
    show(window, small)
    press(window, "/")
    assert script(window, "document.activeElement.id") == "query"
    assert f"task\nparse {short(failed.id)}\nfailed" in search(window, short(failed.id))
    assert any(short(failed.id) in line for line in search(window, failed.id.hex()))
    assert any("row 7 is empty" in line for line in search(window, "ROW 7"))
    assert search(window, "worker 2")[0].startswith("worker\nworker 2")
    assert any(line.startswith("object\n") for line in search(window, short(failed.id) + "/0"))
    assert search(window, "no such thing") == ["Nothing is called so, and no error says it."]
    assert search(window, "parse")[0] == "function\nparse\n1 call"
    press(window, "\ue015\ue007")  # down, Enter
    see_text(window, "#panel-body h2", "parse")
    assert "ValueError: row 7 is empty" in text(window, "#panel-body")


def test_an_address_leads_to_a_thing_and_a_span(window: Any, small: Path, folder: Path) -> None:
    """As it was copied from the address bar; one that leads nowhere shows the page."""
    history = history_of(recorded(folder / "third.trace", pipeline))
    (failed,) = (life for life in history.tasks.values() if life.state == FAILED)
    show(window, small, f"#at=task:{short(failed.id)}&t=0.002-0.006")
    assert text(window, "#panel-body h2") == "parse"
    assert text(window, "#range").startswith("0.002000 s to 0.006000 s")
    show(window, small, "#at=worker:0.2")
    assert text(window, "#panel-body h2") == "worker 2"
    for wrong in (
        "#at=task:9.aaaaaa.1",
        "#at=worker:%3Cb%3E",
        "#t=9-1&at=constructor:1",
        "#%%%",
        "#at=group:__proto__",
    ):
        show(window, small, wrong)
        assert script(window, "document.getElementById('panel').hidden"), wrong
    assert errors(window) == []


def test_the_critical_path_can_be_hidden(window: Any, small: Path) -> None:
    """In the timeline and in the graph; its steps are a list."""
    show(window, small)
    before = picture(window)
    window.find_element("css selector", "#show-path").click()
    see(window, lambda: picture(window) != before, lambda: "the same picture")
    assert "no-path" in script(window, "document.body.className")
    press(window, "c")
    see(window, lambda: picture(window) == before, lambda: "another picture")
    assert "the program itself" in text(window, "#path") or "computing" in text(window, "#path")
    assert window.find_elements("css selector", "#path ol li")
    assert window.find_elements("css selector", "#graph .box.onpath")


def test_tables_sort_by_any_column(window: Any, small: Path) -> None:
    """One way, and the other."""
    show(window, small)

    def column(number: int) -> list[str]:
        found: list[str] = script(
            window,
            f"[...document.querySelectorAll('#function-table td:nth-child({number})')]"
            ".map(cell => cell.textContent)",
        )
        return found

    names = column(1)
    assert sorted(names) == ["clean", "gather", "load", "parse", "part"]
    heads = {
        b.text.split()[0]: b
        for b in window.find_elements("css selector", "#function-table th button")
        if b.text
    }
    heads["Function"].click()
    assert column(1) == sorted(names)
    heads["Function"].click()
    assert column(1) == sorted(names, reverse=True)
    heads["Calls"].click()
    assert [int(n) for n in column(2)] == [4, 4, 3, 1, 1]


def test_what_failed_with_its_argument_is_listed_after_its_cause(window: Any, folder: Path) -> None:
    """It has no end of its own, and that it was submitted earlier says nothing."""
    show(window, report(recorded(folder / "spread.trace", spread), folder / "spread.html"))
    lines = text(window, "#failure-list").splitlines()
    cause, after = lines.index("ValueError: no numbers"), lines.index("an argument failed")
    assert cause < after
    assert "—" in lines[cause:after]


def test_what_went_wrong_is_listed_and_leads_to_it(window: Any, small: Path) -> None:
    """Failures with their texts, lost workers with the runs they took along, repeated attempts."""
    show(window, small)
    wrong = text(window, "#failure-list")
    assert "ValueError: row 7 is empty" in wrong
    assert "is gone\nkilled by signal SIGKILL\nwith its run of clean (" in wrong
    assert (
        "was run again\nAttempt 0 came to nothing: killed by signal SIGKILL. Attempt 1 finished."
        in wrong
    )
    words = text(window, "#range")
    window.find_element("css selector", "#failure-list button.when").click()
    see(window, lambda: text(window, "#range") != words, lambda: words)


def test_the_graph_opens_stories(window: Any, small: Path) -> None:
    """Of a task, and of groups of equals."""
    show(window, small)
    boxes = window.find_elements("css selector", "#graph .box")
    assert len(boxes) == 1 + 13 + 14  # the program, tasks, what they return and the put
    (parse,) = (box for box in boxes if box.text == "parse")
    parse.click()
    see_text(window, "#panel-body h2", "parse")
    assert "chosen" in parse.get_attribute("class")


def test_several_nodes_have_rows_a_table_and_a_picker(window: Any, folder: Path) -> None:
    """And where one of them dies, it is said everywhere."""
    from detray.trace.reading import open_trace
    from detray_sim.traces import write_trace

    write_trace(run_cluster(nodes=3), folder / "three.trace")
    page = report(open_trace(folder / "three.trace"), folder / "three.html")
    show(window, page, "#at=node:1")
    assert text(window, "#panel-body h2").startswith("node ")
    assert len(window.find_elements("css selector", "#node-table tbody tr")) == 3
    assert text(window, "#pick-node option") == "all nodes"
    before = script(window, "document.getElementById('chart-tasks').toDataURL()")
    window.find_elements("css selector", "#pick-node option")[1].click()
    see(
        window,
        lambda: script(window, "document.getElementById('chart-tasks').toDataURL()") != before,
        lambda: "the same chart",
    )
    assert "clocks of their own" in text(window, "#notes")
    assert errors(window) == []


def test_hostile_names_are_text(window: Any, folder: Path) -> None:
    """Markup in names, errors and programs is shown, not obeyed, wherever one looks."""
    page = report(hostile(folder / "hostile.trace"), folder / "hostile.html")
    show(window, page)
    title = window.title
    for key in ("function", "task", "worker", "object"):
        for found in search(
            window,
            {"function": "onerror", "task": "valueerror", "worker": "worker 1", "object": "/put"}[
                key
            ],
        ):
            assert "owned" not in window.title, found
    for name in ("__proto__", "constructor", "@@data@@"):
        assert any(name in line for line in search(window, name)), name
    for box in window.find_elements("css selector", "#graph .box"):
        window.execute_script(
            "arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", box
        )
        assert script(window, "!document.getElementById('panel').hidden")
    for reference in script(window, "[...document.querySelectorAll('a.ref')].map(a => a.hash)")[
        :60
    ]:
        window.execute_script("location.hash = arguments[0]", reference)
    assert HOSTILE in text(window, "#function-table")
    assert HOSTILE in text(window, "#failures")
    assert script(window, "window.owned === undefined") and window.title == title
    assert script(window, "document.querySelectorAll('img, iframe, object, embed').length") == 0
    assert script(window, "document.scripts.length") == 1  # the data is taken away once it is read
    assert errors(window) == []


def test_a_script_from_elsewhere_would_not_run(window: Any, small: Path) -> None:
    """The policy holds even if something were put into the page."""
    show(window, small)
    window.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.owned = 1';"
        "const i = document.createElement('img'); i.setAttribute('onerror', 'window.owned = 1');"
        "i.src = 'http://127.0.0.1:9/'; document.body.append(s, i);"
    )
    said = errors(window)
    assert script(window, "window.owned === undefined")
    assert len([line for line in said if "Content Security Policy" in line]) >= 2, said


def test_a_run_without_tasks_says_so(window: Any, folder: Path) -> None:
    """Empty states instead of empty boxes."""
    page = report(recorded(folder / "nothing.trace"), folder / "nothing.html")
    show(window, page)
    assert "Nothing: every attempt of every task finished" in text(window, "#failures")
    assert "No task was submitted" in text(window, "#functions")
    assert "No worker was started" in text(window, "#nodes")
    assert errors(window) == []


@pytest.mark.parametrize("width", [420, 800, 1280, 1920])
def test_nothing_sticks_out(window: Any, small: Path, width: int) -> None:
    """On a wide screen and on a narrow one: tables scroll in their frames, the page does not."""
    window.set_window_size(width, 900)
    try:
        show(window, small, "#at=worker:0.1")
        inside, whole = script(
            window, "[document.documentElement.clientWidth, document.documentElement.scrollWidth]"
        )
        assert whole <= inside
    finally:
        window.set_window_size(1380, 1000)


def test_what_is_left_out_is_told(window: Any, folder: Path) -> None:
    """At the top, and in the story of the runs that are drawn together."""
    page = report(recorded(folder / "many.trace", many), folder / "many.html", tasks_max=60)
    show(window, page)
    notes = text(window, "#notes")
    assert "800 tasks are in this trace" in notes and "The other 740" in notes
    show(window, page, "#at=block:3")
    assert "too many tasks to tell each of them" in text(window, "#panel-body")


@pytest.mark.timeout(600)
def test_a_hundred_thousand_tasks_fit_and_open(window: Any, folder: Path) -> None:
    """At most 5 MB, with times that do not repeat; it zooms, finds and tells as a small one."""
    found = synthetic(folder / "large.trace", 100_000)
    page = folder / "large.html"
    page.write_text(page_of(found), encoding="utf-8")
    assert page.stat().st_size <= 5_000_000
    show(window, page)
    assert "Tasks\n100,000\n" in text(window, "#summary")
    words = text(window, "#range")
    press(window, "+++")
    see(window, lambda: text(window, "#range") != words, lambda: words)
    item = list(found.history.tasks)[77_777]
    assert any(short(item) in line for line in search(window, short(item)))
    press(window, "\ue007")
    see_text(window, "#panel-body", short(item))
    assert errors(window) == []


def test_two_fingers_zoom_and_one_moves(window: Any, small: Path) -> None:
    """On a touch screen; lifting them opens no story."""
    show(window, small)
    left, top, width = script(
        window,
        "(() => { const box = document.getElementById('rows').getBoundingClientRect();"
        " return [box.left, box.top, box.width]; })()",
    )
    middle, y = left + width / 2, top + 10

    def touch(kind: str, *places: float) -> None:
        points = [{"x": x, "y": y, "id": number} for number, x in enumerate(places)]
        window.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def range_changed(before: str) -> str:
        see(window, lambda: text(window, "#range") != before, lambda: before)
        return text(window, "#range")

    whole = text(window, "#range")
    touch("touchStart", middle - 40)
    touch("touchStart", middle - 40, middle + 40)
    for apart in range(48, 128, 8):
        touch("touchMove", middle - apart, middle + apart)
    touch("touchEnd")
    closer = range_changed(whole)
    assert closer.count(" to ") == 1
    touch("touchStart", middle)
    for way in range(8, 88, 8):
        touch("touchMove", middle - way)
    touch("touchEnd")
    range_changed(closer)
    assert script(window, "document.getElementById('panel').hidden")
    assert errors(window) == []


def test_on_paper_nothing_is_cut(window: Any, folder: Path) -> None:
    """All rows are there, and tables are as wide as the page; afterwards the rows scroll again."""
    page = folder / "sixty.html"
    page.write_text(page_of(synthetic(folder / "sixty.trace", 2_000)), encoding="utf-8")
    show(window, page)
    high = "document.getElementById('rows').getBoundingClientRect().height"
    before = script(window, high)
    every = script(window, "document.getElementById('spacer').offsetHeight")
    assert before < every  # there is more than the screen shows
    media, size = "Emulation.setEmulatedMedia", "Emulation.setDeviceMetricsOverride"
    a4 = {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    try:
        window.execute_cdp_cmd(media, {"media": "print"})
        window.execute_cdp_cmd(size, a4)
        see(window, lambda: bool(script(window, "innerWidth == 718")), lambda: "not as wide")
        let_it_paint(window)  # a page that was resized fits its rows to the screen again
        window.execute_script("dispatchEvent(new Event('beforeprint'))")
        assert script(window, high) == every
        cut = script(
            window,
            "[document.documentElement, ...document.querySelectorAll('section, main *')]"
            ".filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1"
            " && getComputedStyle(e).overflowX !== 'visible' || e === document.documentElement"
            " && e.scrollWidth > e.clientWidth).map(e => e.id || e.className || e.tagName)",
        )
        assert cut == []
    finally:
        window.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        window.execute_cdp_cmd(media, {"media": ""})
        window.execute_script("dispatchEvent(new Event('afterprint'))")
    see(window, lambda: script(window, high) == before, lambda: str(script(window, high)))


def test_a_frame_asks_the_page_once_how_wide_it_is(window: Any, folder: Path) -> None:
    """Each such question may lay the whole page out; a frame draws thousands of runs."""
    page = folder / "two.html"
    page.write_text(page_of(synthetic(folder / "two.trace", 2_000)), encoding="utf-8")
    show(window, page)
    asked, frames = window.execute_async_script(
        """
        const done = arguments[0], lanes = document.getElementById("lanes");
        const wide = lanes.clientWidth, canvas = document.getElementById("rows");
        let asked = 0, frames = 0, left = 12;
        Object.defineProperty(lanes, "clientWidth", {get() { asked++; return wide; }});
        const clear = CanvasRenderingContext2D.prototype.setTransform;
        canvas.getContext("2d").setTransform = function (...to) {
          frames++;
          return clear.apply(this, to);
        };
        function next() {
          if (!left--) return done([asked, frames]);
          canvas.dispatchEvent(new WheelEvent("wheel", {bubbles: true, cancelable: true,
            deltaY: -20, clientX: canvas.getBoundingClientRect().left + 400}));
          requestAnimationFrame(next);
        }
        next();
        """
    )
    assert 0 < asked <= frames
