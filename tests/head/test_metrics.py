"""/metrics: what Prometheus reads is what the head reports."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from detray.runtime.head import metrics
from tests.head.clusters import S, node, overview, summary, tables

NOW = 100 * S
TEXT = "text/plain"


def scraped(count: int, **changes: Any) -> Any:  # Any: the families of the library's own parser
    """The metrics of a cluster, read back by Prometheus's parser."""
    pytest.importorskip("prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families

    view, t = overview(count)
    for number in range(count):
        view.heard(number, summary(number, **changes), NOW)
    body, kind = metrics.render(view.report(t, NOW), 0.25, TEXT)
    assert kind.startswith("text/plain")
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def values(family: Any) -> dict[tuple[str, ...], float]:  # Any: as above
    """By the node's number (not its name) and the values of the other labels."""
    found = {}
    for sample in family.samples:
        labels = sorted(sample.labels.items(), key=lambda item: (item[0] != "node", item))
        found[tuple(value for label, value in labels if label != "name")] = sample.value
    return found


def test_a_cluster_reads_back_as_it_was_told() -> None:
    """Tasks by state, totals as counters, resources as users give them, bytes as bytes."""
    found = scraped(2)
    assert values(found["detray_nodes_alive"]) == {(): 2}
    assert values(found["detray_head_epoch"]) == {(): 3}
    assert values(found["detray_report_age_seconds"]) == {(): 0.25}
    assert values(found["detray_node_tasks"])["1", "ready"] == 40
    assert values(found["detray_node_tasks_finished"])["1",] == 12_346
    assert values(found["detray_node_resource_capacity"])["0", "CPU"] == 8
    assert values(found["detray_node_resource_available"])["0", "GPU"] == 1
    assert values(found["detray_node_store_used_bytes"])["0",] == 750_000_000
    assert values(found["detray_node_transfer_bytes"])["0", "in"] == 10**9
    assert values(found["detray_node_link_resent_messages"])["0",] == 3
    assert values(found["detray_node_workers"])["0", "busy"] == 5


def test_names_units_and_types_follow_the_conventions() -> None:
    """A prefix, lower case, base units; only counters end in _total; a sentence of help each."""
    for name, family in scraped(1).items():
        assert re.fullmatch(r"detray_[a-z][a-z_]+", name)
        assert not re.search(r"_(ms|ns|kb|mb|total|count|sum|bucket)$", name), name
        assert len(family.documentation) > 10, name
        assert family.documentation.endswith("."), name
        for sample in family.samples:
            assert sample.name == (f"{name}_total" if family.type == "counter" else name)


def test_a_dead_node_has_no_series() -> None:
    """It is counted, and nothing else is said of it."""
    pytest.importorskip("prometheus_client")
    view, t = overview(2)
    del t.nodes[node(1).id]
    t.counts["nodes buried"] = 1
    text = metrics.render(view.report(t, NOW), 0, TEXT)[0].decode()
    assert "machine-1" not in text
    assert "detray_nodes_buried_total 1.0" in text


def test_a_node_that_was_never_heard_has_no_age() -> None:
    """Not a 0, which would be a lie."""
    pytest.importorskip("prometheus_client")
    from detray.runtime.head.overview import Overview
    from tests.head.clusters import FACTS

    report = Overview(FACTS).report(tables(node(0)), NOW)
    (ages,) = [f for f in metrics.families(report, 0) if f.name.endswith("summary_age_seconds")]
    assert ages.samples == []


def test_hostile_names_do_not_break_the_format() -> None:
    """Quotes, backslashes and newlines in a node's name come back as they were."""
    pytest.importorskip("prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families

    from detray.runtime.head.overview import Overview
    from tests.head.clusters import FACTS

    name = 'a"} 1\nevil{x="\\'
    row = node(0)
    row.name = name
    body, _ = metrics.render(Overview(FACTS).report(tables(row), NOW), 0, TEXT)
    families = {f.name: f for f in text_string_to_metric_families(body.decode())}
    assert families["detray_node_info"].samples[0].labels["name"] == name
    assert not any("evil" in family for family in families)


def test_openmetrics_is_spoken_to_whoever_asks_for_it() -> None:
    """Prometheus does."""
    pytest.importorskip("prometheus_client")
    view, t = overview(1)
    accept = "application/openmetrics-text;version=1.0.0"
    body, kind = metrics.render(view.report(t, NOW), 0, accept)
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_without_the_library_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """ModuleNotFoundError, for the page to answer with what to install."""
    view, t = overview(1)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ModuleNotFoundError):
        metrics.render(view.report(t, NOW), 0, TEXT)
