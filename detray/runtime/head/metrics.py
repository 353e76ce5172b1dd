"""The head's report as Prometheus metrics, made at each scrape from the newest report.

Everything below one node carries the labels `node` (its number, unique for ever) and `name`. Series
of a node end with it. Names, units and types follow the conventions of Prometheus: seconds, bytes,
`_total` for what only grows (and starts anew with the node's process).

The library is optional: `render` raises ModuleNotFoundError without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from detray.runtime.head.overview import Page

INSTALL = (
    "metrics need the package prometheus_client, which is not installed where the head runs: "
    "pip install 'detray[cluster]', then start the head again (docs/cluster.md)"
)

Sample = tuple[tuple[str, ...], float]
NODE = ("node", "name")


class Family(NamedTuple):
    """One metric: `kind` is "gauge" or "counter"; counters are named without `_total`."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    samples: Sequence[Sample]


def render(report: Page, age_s: float, accept: str) -> tuple[bytes, str]:
    """The metrics of a report that is `age_s` old, and their content type.

    `accept` is the scraper's header: text format, or OpenMetrics if it asks for that. Raises
    ModuleNotFoundError without prometheus_client.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Scrape(report, age_s))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class Scrape:
    """A collector of prometheus_client over one report."""

    def __init__(self, report: Page, age_s: float) -> None:
        self._report = report
        self._age_s = age_s

    def collect(self) -> Iterator[Any]:  # Any: metric families of an optional library
        """All metrics, as the library's own families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for family in families(self._report, self._age_s):
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = kind(family.name, family.help, labels=family.labels)
            for labels, value in family.samples:
                metric.add_metric(labels, value)
            yield metric


def families(report: Page, age_s: float) -> list[Family]:
    """What `render` shows, before it is text."""
    living = [node for node in report["nodes"] if node["alive"]]
    return [*_head(report, age_s, len(living)), *_nodes(living), *_per_kind(living)]


def _head(report: Page, age_s: float, living: int) -> Iterator[Family]:
    head, store = report["head"], report["head"]["store"]

    def gauge(name: str, text: str, value: float) -> Family:
        return Family(f"detray_{name}", "gauge", text, (), [((), value)])

    info = ((head["version"], head["cluster"], head["address"]), 1.0)
    yield Family(
        "detray_head_info", "gauge", "Version, cluster and address of the head; always 1.",
        ("version", "cluster", "address"), [info],
    )  # fmt: skip
    yield gauge("report_age_seconds", "Time since the head made this report.", age_s)
    yield gauge("head_epoch", "Starts of a head over this log; it grows with each.", head["epoch"])
    yield gauge("head_uptime_seconds", "Time since the head's process started.", head["up_s"])
    yield gauge("nodes_alive", "Members of the cluster.", living)
    yield Family(
        "detray_nodes_buried", "counter", "Nodes that died or left, since this head started.",
        (), [((), head["counts"].get("nodes buried", 0))],
    )  # fmt: skip
    yield gauge("jobs", "Driver programs that are connected.", len(report["jobs"]))
    yield gauge("placements_waiting", "Tasks that wait at the head for a node.", head["placing"])
    yield gauge(
        "tasks_unplaceable", "Tasks whose demand no node can ever meet as the cluster stands.",
        head["unplaceable"],
    )  # fmt: skip
    yield gauge(
        "unreachable_pairs", "Ordered pairs of nodes of which one cannot reach the other.",
        head["unreachable_pairs"],
    )  # fmt: skip
    yield gauge(
        "store_copy_reachable", "1 if the second copy of the head's log can be written.",
        int(store["reachable"]),
    )  # fmt: skip
    yield gauge(
        "store_copy_lag_records", "Records of the head's log that the second copy lacks.",
        store["lag_records"],
    )  # fmt: skip
    yield gauge(
        "store_copy_lag_seconds", "Age of the oldest record that the second copy lacks.",
        store["lag_s"],
    )  # fmt: skip


_NODE_VALUES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("summary_age_seconds", "gauge", ("age_s",), "Time since the node last told how it is."),
    ("backlog_tasks", "gauge", ("backlog",), "Ready tasks that have not begun, as last reported."),
    ("tasks_finished", "counter", ("totals", "finished"), "Tasks that ended with a value."),
    ("tasks_failed", "counter", ("totals", "failed"), "Tasks that ended with an error."),
    ("tasks_cancelled", "counter", ("totals", "cancelled"), "Tasks that were cancelled."),
    ("tasks_retried", "counter", ("totals", "retried"), "Further attempts at tasks."),
    ("workers_lost", "counter", ("totals", "workers lost"), "Worker processes that died."),
    ("objects_lost", "counter", ("totals", "objects lost"), "Values whose last copy went."),
    ("objects_rebuilt", "counter", ("totals", "rebuilt"), "Values made again from lineage."),
    ("spilled_bytes", "counter", ("totals", "spilled bytes"), "Bytes written to disk."),
    ("evicted_bytes", "counter", ("totals", "evicted bytes"), "Bytes of copies given up."),
    ("transfers_failed", "counter", ("totals", "transfers failed"), "Transfers that did not end."),
    ("store_size_bytes", "gauge", ("store", "size_bytes"), "Shared memory for objects."),
    ("store_used_bytes", "gauge", ("store", "used_bytes"), "Shared memory in use."),
    ("store_inline_bytes", "gauge", ("store", "inline_bytes"), "Small values in the service."),
    ("store_disk_bytes", "gauge", ("store", "segment_bytes"), "Values in files."),
    ("link_resent_messages", "counter", ("links", "resent_messages"), "Messages sent again."),
    ("link_reconnects", "counter", ("links", "reconnects"), "Connections made anew."),
)
"""(name, kind, where in a node's entry, help)."""

_NODE_KINDS: tuple[tuple[str, str, str, tuple[str, ...], str], ...] = (
    ("tasks", "gauge", "state", ("tasks",), "Unfinished tasks by state."),
    ("objects", "gauge", "state", ("objects",), "Objects the node knows, by state."),
    ("workers", "gauge", "state", ("workers",), "Worker processes by state."),
    ("resource_capacity", "gauge", "resource", ("resources", "total"), "What the node offers."),
    ("resource_available", "gauge", "resource", ("resources", "available"), "What is free of it."),
)
"""(name, kind, label, where the counts by that label are, help)."""

_DIRECTIONS: tuple[tuple[str, str, str, str, str], ...] = (
    ("transfers_active", "gauge", "incoming", "outgoing", "Blocks on their way."),
    ("transfers", "counter", "received", "sent", "Blocks that arrived, or left, whole."),
    ("transfer_bytes", "counter", "received_bytes", "sent_bytes", "Bytes of blocks."),
)
"""(name, kind, key of direction "in", key of direction "out", help)."""


def _nodes(living: list[Page]) -> Iterator[Family]:
    info = [((*_who(node), node["address"], str(node["incarnation"])), 1.0) for node in living]
    yield Family(
        "detray_node_info", "gauge", "Address and incarnation of a node; always 1.",
        (*NODE, "address", "incarnation"), info,
    )  # fmt: skip
    for name, kind, where, text in _NODE_VALUES:
        samples = [
            (_who(node), value) for node in living if (value := _at(node, where)) is not None
        ]
        yield Family(f"detray_node_{name}", kind, text, NODE, samples)
    links = [
        ((*_who(node), state), float(node["links"][state]))
        for node in living
        for state in ("up", "down")
    ]
    text = "Links of a node to others, by state."
    yield Family("detray_node_links", "gauge", text, (*NODE, "state"), links)


def _per_kind(living: list[Page]) -> Iterator[Family]:
    for name, kind, label, where, text in _NODE_KINDS:
        samples: list[Sample] = [
            ((*_who(node), key), value)
            for node in living
            for key, value in sorted(_at(node, where).items())
        ]
        yield Family(f"detray_node_{name}", kind, text, (*NODE, label), samples)
    for name, kind, incoming, outgoing, text in _DIRECTIONS:
        samples = [
            ((*_who(node), direction), node["transfers"][key])
            for node in living
            for direction, key in (("in", incoming), ("out", outgoing))
        ]
        yield Family(f"detray_node_{name}", kind, text, (*NODE, "direction"), samples)


def _who(node: Page) -> tuple[str, str]:
    return str(node["number"]), node["name"]


def _at(node: Page, where: Iterable[str]) -> Any:  # Any: a number or a dict of them
    """The value at a path; a counter that never counted is 0."""
    value: Any = node
    for key in where:
        value = value.get(key, 0)
    return value
