"""`detray why` of a real cluster: a machine dies with values that others wait for."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

import detray
from detray.cli.collect import fetch_recordings
from detray.cluster_utils import Cluster
from detray.trace.collecting import collect
from detray.trace.explaining.answering import why
from detray.trace.reading import Trace, open_trace
from tests.cluster.conftest import SOON_BURIED, detray_command
from tests.trace.test_parts import assert_whole, timeline_of


@detray.remote
def block(number: int) -> bytes:
    return bytes(3_000_000)


@detray.remote
def size(*values: bytes) -> int:
    return sum(map(len, values))


@pytest.mark.slow
def test_a_wait_leads_to_the_machine_that_died(tmp_path: Path) -> None:
    """Its values are made again; the conclusion says why, and the parts add up."""
    detray.shutdown()
    with Cluster() as cluster:
        for number in range(2):
            cluster.add_node(
                num_cpus=2,
                wait=False,
                resources={"near" if not number else "far": 100},
                record=str(tmp_path / f"n{number}.trace"),
                object_store_memory=100 << 20,
                **({"_system_config": SOON_BURIED} if not number else {}),
            )
        cluster.wait_ready()
        cluster.connect()
        refs = [block.options(resources={"far": 1}).remote(number) for number in range(2)]
        detray.wait(refs, num_returns=2, fetch_local=False)
        cluster.list_all_nodes()[1].kill_service()
        cluster.add_node(num_cpus=2, resources={"far": 100}, object_store_memory=100 << 20)
        ref = size.options(resources={"near": 1}).remote(*refs)
        assert detray.get(ref) == 6_000_000
        output = str(tmp_path / "all.trace")
        collect(fetched(cluster), output)
        detray.shutdown()
    trace = open_trace(output)
    answer = why(trace, ref.hex()[:32])
    assert "which was run again (attempt 1), for its value was lost: node" in answer.conclusion
    assert re.search(r"died: it was silent for \d+ ms", answer.conclusion), answer.conclusion
    assert_whole(timeline_of(trace))
    dead = next(n for n in timeline_of(trace).history.members.values() if n.buried_ns >= 0)
    status, out, _ = detray_command("why", output, f"node {dead.node}")
    assert status == 0
    assert "was declared dead" in out and "was made again by attempt 1" in out


def fetched(cluster: Cluster) -> list[Trace]:
    """What all living processes have recorded so far."""
    options = argparse.Namespace(
        address=cluster.address, token_file=None, tls_cert=None, tls_key=None, tls_ca=None
    )
    return [Trace(data, name, salvage=True) for name, data in fetch_recordings(options)]
