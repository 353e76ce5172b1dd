"""Clusters made up for the page's looks, and its picture in docs/images.

python -m tests.head.picture                        docs/images/cluster-page.png
python -m tests.head.picture --nodes 200 --dark --to /tmp/page.png
"""

from __future__ import annotations

import argparse
import random
import time

from detray.ids import NodeID
from detray.runtime.head.overview import Page
from tests.head.browser import browser
from tests.head.clusters import S, overview, summary
from tests.head.loop import page_of

CPUS = 8


def busy_cluster(nodes: int, second: int) -> Page:
    """The report of a cluster at work; its third node is dead, its second failing and silent."""
    view, t = overview(nodes, 100 * S)
    for number in range(nodes):
        view.heard(number, _busy(number, second), 100 * S)
    if nodes > 2:
        view.heard(1, summary(1, totals={"finished": 29_000}), 95 * S)
        failing = {"finished": 29_000, "failed": 17, "workers lost": 2}
        view.heard(1, summary(1, totals=failing, tasks={"running": 3, "ready": 9}), 96 * S)
        del t.nodes[NodeID(2)]
        view.buried(2, "it was silent for 5012 ms", 86 * S)
        text = "10.0.0.77:51234 does not know the cluster's token"
        view.note("stranger refused", text, 93 * S, count=3)
    return view.report(t, 100 * S)


def _busy(number: int, second: int) -> dict[str, object]:
    draw = random.Random(number).randrange
    running = (0, 2, 5, 7, 8, 8)[draw(6)]
    functions = ("count_words", "merge", "load_part")
    return summary(
        number,
        available={"CPU": (CPUS - running) * 10_000, "GPU": draw(3) * 10_000},
        tasks={
            "running": running, "sent": draw(40), "ready": draw(400), "waiting": draw(90),
            "fetching": draw(5), "delivered": draw(9), "blocked": draw(2),
        },
        totals={"finished": 12_000 * (number % 7 + 1) + second * (300 + draw(200)), "retried": 1},
        workers=[{"state": "busy", "task": functions[draw(3)]} for _ in range(running)],
        store={
            "size_bytes": 4_000_000_000, "used_bytes": draw(4_000_000_000),
            "segment_bytes": (0, 0, 300_000_000)[draw(3)],
        },
        transfers={"incoming": draw(3), "outgoing": draw(3), "received_bytes": draw(10**10)},
    )  # fmt: skip


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--seconds", type=int, default=20, help="of history in the curve")
    parser.add_argument("--height", type=int, default=1120)
    parser.add_argument("--to", default="docs/images/cluster-page.png")
    options = parser.parse_args()
    with page_of() as page, browser(dark=options.dark) as window:
        page.publish(busy_cluster(options.nodes, 0), time.monotonic_ns())
        window.set_window_size(1380, options.height)
        window.get(page.url)
        for second in range(1, options.seconds):
            time.sleep(1)
            page.publish(busy_cluster(options.nodes, second), time.monotonic_ns())
        time.sleep(0.5)
        window.save_screenshot(options.to)


if __name__ == "__main__":
    main()
