"""Two runs of a program on two clusters, compared by what all their processes recorded."""

from __future__ import annotations

from pathlib import Path

import detray
from detray.cluster_utils import Cluster
from detray.trace.collecting import collect
from detray.trace.comparing.diffing import diff
from detray.trace.reading import open_trace


def run(folder: Path, factor: int) -> Path:
    """A program whose tasks and values are spread over two nodes; the collected trace."""
    folder.mkdir()

    @detray.remote
    def make(number: int) -> bytes:
        return bytes([number]) * 300_000

    @detray.remote
    def measure(box: bytes) -> int:
        return len(box) * factor

    with Cluster() as cluster:
        for number in range(2):
            cluster.add_node(
                num_cpus=1,
                resources={f"n{number}": 100},
                record=str(folder / f"n{number}.trace"),
                object_store_memory=100 << 20,
            )
        cluster.connect()
        far, near = ({"resources": {f"n{number}": 1}} for number in (1, 0))
        put = detray.put(b"p" * 200_000)
        boxes = [make.options(**where).remote(number) for where in (far, near) for number in (1, 2)]
        sizes = [measure.options(**far).remote(box) for box in (*boxes, put)]
        assert sum(detray.get(sizes)) == 1_400_000 * factor
        detray.shutdown()
    path = folder / "all.trace"
    collect([open_trace(folder / f"n{number}.trace") for number in range(2)], path)
    return path


def test_runs_on_clusters_are_compared_by_digest(tmp_path: Path) -> None:
    """Drivers that join, and workers on every node, tell the digests of what they make."""
    detray.shutdown()
    one, two, other = (
        run(tmp_path / name, factor) for name, factor in (("a", 1), ("b", 1), ("c", 2))
    )
    same = diff(one, two)
    assert same.is_same and same.is_placed_alike, same.departures
    assert same.a.nodes == 2 and same.counts.common == 9 and same.counts.compared == 10
    assert same.a.has_digests and same.counts.by_size_only == 0
    found = diff(one, other)
    assert {(item.kind, item.name, item.is_first) for item in found.departures} == {
        ("result", "measure", True)
    }
    assert len(found.departures) == 5
