"""The page in a real browser: what a person sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from detray.runtime.head.web import WebPage
from tests.head.browser import browser
from tests.head.clusters import S, overview, summary
from tests.head.loop import page_of
from tests.head.picture import busy_cluster

pytestmark = pytest.mark.slow
PATIENCE_S = 40
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:  # Any: selenium is optional
    """One browser for all tests here; skips them, with the reason, where there is none."""
    with browser() as found:
        yield found


@pytest.fixture
def page(window: Any) -> Iterator[WebPage]:
    """A page on a port of its own, which the browser leaves before it is closed."""
    with page_of(lambda answer: answer(b"TRACE" * 100)) as web:
        yield web
        leave(window)


def leave(window: Any) -> None:
    """Or it goes on to ask, nobody answers, and the next test hears of that."""
    window.get("about:blank")
    errors(window)


def publish(page: WebPage, nodes: int, second: int = 0, *, age_s: float = 0) -> None:
    page.publish(busy_cluster(nodes, second), time.monotonic_ns() - int(age_s * S))


def text(window: Any, selector: str) -> str:
    return str(window.find_element("css selector", selector).text)


def see(window: Any, what: Callable[[], bool], why: Callable[[], str]) -> None:
    """Wait until something is there. (Elements may be replaced while they are looked at.)"""
    from selenium.common.exceptions import StaleElementReferenceException

    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            if what():
                return
        except StaleElementReferenceException:
            pass
        time.sleep(0.05)
    raise AssertionError(why())


def see_text(window: Any, selector: str, wanted: str) -> None:
    see(window, lambda: wanted in text(window, selector), lambda: text(window, selector))


def see_live(window: Any, page: WebPage, nodes: int) -> None:
    """Until the browser shows a report that is no older than a head that lives would have it."""

    def is_live() -> bool:
        publish(page, nodes)  # again: a browser that is slow to begin finds the first one stale
        return "live" in text(window, "#pulse") and body_class(window) == ""

    see(window, is_live, lambda: f"{text(window, '#pulse')} {body_class(window)!r}")


def body_class(window: Any) -> str:
    return str(window.find_element("css selector", "body").get_attribute("class"))


def errors(window: Any) -> list[str]:
    return [entry["message"] for entry in window.get_log("browser") if entry["level"] == "SEVERE"]


def test_a_person_sees_nodes_tasks_failures_and_jobs(window: Any, page: WebPage) -> None:
    """And no error in the console: the content policy allows all that the page does."""
    publish(page, 4)
    window.get(page.url)
    see_live(window, page, 4)
    assert window.title == "detray · 3 nodes"
    lines = [row.text for row in window.find_elements("css selector", "#nodes tr")]
    assert [line.split()[1] for line in lines] == [f"machine-{n}" for n in (0, 1, 3, 2)]
    assert "head" in lines[0]
    assert "heard 4 s ago" in lines[1]
    assert "dead for 14 s: it was silent for 5012 ms" in lines[3]
    assert "17 tasks failed" in text(window, "#failures")
    assert "does not know the cluster's token" in text(window, "#failures")
    assert "program-1.py" in text(window, "#jobs")
    assert "running" in text(window, "#tasks-legend")
    assert "file:/var/lib/detray" in text(window, "#store")
    assert errors(window) == []


def test_it_follows_what_happens(window: Any, page: WebPage) -> None:
    """Without a reload."""
    publish(page, 1)
    window.get(page.url)
    see_text(window, "#tiles", "12,000")
    publish(page, 1, 10)
    see(window, lambda: "12,000" not in text(window, "#tiles"), lambda: text(window, "#tiles"))


def test_a_task_that_runs_for_another_node_is_counted_once(window: Any, page: WebPage) -> None:
    """Where it runs, not where it was delivered from."""
    view, t = overview(2)
    view.heard(0, summary(tasks={"delivered": 2, "running": 1}), 100 * S)
    view.heard(1, summary(tasks={"running": 2}), 100 * S)
    page.publish(view.report(t, 100 * S), time.monotonic_ns())
    window.get(page.url)
    see_text(window, "#tasks-note", "3 unfinished")
    assert text(window, "#tasks-legend") == "3 running"


def test_it_turns_grey_when_the_head_stops_answering(window: Any) -> None:
    """It keeps what it showed, says how old it is, and comes back."""
    with page_of() as page:
        publish(page, 2)
        window.get(page.url)
        see_live(window, page, 2)
        publish(page, 2, age_s=30)
        see_text(window, "#pulse", "the head does not answer · this is ")
        assert int(text(window, "#pulse").split()[-3]) >= 30
        assert body_class(window) == "stale"
        opacity = window.find_element("css selector", "main").value_of_css_property("filter")
        assert opacity == "grayscale(1)"
        see_live(window, page, 2)
    see_text(window, "#pulse", "the head does not answer")
    assert "machine-0" in text(window, "#nodes")
    leave(window)


def test_hostile_names_are_text(window: Any, page: WebPage) -> None:
    """Of tasks, nodes, programs and failures: markup in them is shown, not obeyed."""
    view, t = overview(1)
    said = summary(
        tasks={HOSTILE: 3},
        workers=[{"state": HOSTILE, "task": HOSTILE}],
        drivers=[{"pid": 1, "job": 1, "entrypoint": HOSTILE}],
        totals={HOSTILE: 1},
        total={"CPU": 10_000, HOSTILE: 10_000},
    )
    view.heard(0, said, 100 * S)
    view.note(HOSTILE, HOSTILE, 100 * S)
    for row in t.nodes.values():
        row.name = row.address = HOSTILE
    for number, job in list(t.jobs.items()):
        t.jobs[number] = type(job)(number, job.node, HOSTILE, HOSTILE)
    page.publish(view.report(t, 100 * S), time.monotonic_ns())
    window.get(page.url)
    see_text(window, "#nodes", "onerror")
    for place in ("#failures", "#jobs", "#tasks-legend"):
        assert "<script>" in text(window, place), place
    assert window.find_elements("css selector", "main img, main script") == []
    assert window.title == "detray · 1 node"
    assert errors(window) == []


def test_two_hundred_nodes_can_be_read(window: Any, page: WebPage) -> None:
    """One square each, a filter, and columns that sort."""
    publish(page, 200)
    window.get(page.url)
    see_text(window, "#nodes", "machine-199")
    assert len(window.find_elements("css selector", "#strip i")) == 200
    window.find_element("css selector", "#filter").send_keys("machine-17")
    see_text(window, "#nodes-note", "11 of 200")
    see(window, lambda: len(column(window, 1)) == 11, lambda: str(column(window, 1)))
    window.find_element("css selector", "#filter").send_keys("\b" * len("machine-17"))
    (finished,) = (
        button
        for button in window.find_elements("css selector", "#nodes-head button")
        if button.text.startswith("Finished")
    )
    finished.click()

    def is_sorted() -> bool:
        counts = [int(cell.replace(",", "")) for cell in column(window, 7)]
        return len(counts) == 199 and counts == sorted(counts, reverse=True)

    see(window, is_sorted, lambda: str(column(window, 7)))
    assert errors(window) == []


def column(window: Any, number: int) -> list[str]:
    """The cells of living nodes in one column, as of one moment."""
    cells = f"#nodes tr:not(.dead) td:nth-child({number})"
    found: list[str] = window.execute_script(
        f"return [...document.querySelectorAll('{cells}')].map(cell => cell.textContent)"
    )
    return found


@pytest.mark.parametrize("nodes", [1, 4, 200])
@pytest.mark.parametrize("width", [420, 1380])
def test_nothing_sticks_out(window: Any, page: WebPage, nodes: int, width: int) -> None:
    """On a wide screen and on a narrow one: tables scroll in their frames, the page does not."""
    publish(page, nodes)
    window.set_window_size(width, 900)
    window.get(page.url)
    see_text(window, "#nodes", "machine-0")
    inside, whole = window.execute_script(
        "return [document.documentElement.clientWidth, document.documentElement.scrollWidth]"
    )
    assert whole <= inside


def test_the_trace_is_downloaded_by_its_link(window: Any, page: WebPage) -> None:
    """Whole, under a name with the time."""
    publish(page, 1)
    window.set_window_size(1380, 900)
    window.get(page.url)
    see_live(window, page, 1)
    window.find_element("css selector", "#trace").click()

    def is_there() -> bool:
        found = list(window.downloads.rglob("detray-*.trace"))
        return [path.read_bytes() for path in found] == [b"TRACE" * 100]

    see(window, is_there, lambda: str(list(window.downloads.rglob("*.trace*"))))
