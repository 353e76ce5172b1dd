"""How many starts and ends of flows a second of CPU time computes: `python -m ...bench.network`.

The pattern is that of neighbours merged: each task pulls one object from another node, at random,
and the next pull begins when one ends, so that always so many are on their way.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

import msgspec

from detray_sim.network import MaxMinNetwork, Network, SimpleNetwork, uniform

NODES = 32
FLOWS = 10_000
BYTES_PER_S = 1_250_000_000
LATENCY_NS = 50_000
SIZE_BYTES = 16_000_000


class NetworkRow(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement: `flow_events` are starts and ends."""

    model: str
    nodes: int
    concurrent: int
    flow_events: int
    cpu_s: float
    events_per_cpu_s: int
    virtual_s: float
    """How long the flows took, in virtual time."""


def main(argv: list[str]) -> int:
    """Print a row for each model and number of concurrent flows."""
    parser = argparse.ArgumentParser(prog="python -m detray_sim.bench.network", description=__doc__)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--flows", type=int, default=FLOWS)
    parser.add_argument("--concurrent", type=int, nargs="+", default=[16, 64, 128, 256, 512])
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args(argv)
    rows = [
        measure(model, options.nodes, concurrent, options.flows)
        for model in ("simple", "maxmin")
        for concurrent in options.concurrent
    ]
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
        return 0
    print(
        f"{'model':8} {'nodes':>5} {'concurrent':>10} {'flow-events/CPU-s':>18} {'virtual s':>10}"
    )
    for row in rows:
        print(
            f"{row.model:8} {row.nodes:5} {row.concurrent:10} {row.events_per_cpu_s:18,}"
            f" {row.virtual_s:10.3f}"
        )
    return 0


def measure(model: str, nodes: int, concurrent: int, flows: int) -> NetworkRow:
    """Run `flows` pulls, `concurrent` at a time, in one of the models."""
    shape = uniform(nodes, BYTES_PER_S, LATENCY_NS)
    network: Network = MaxMinNetwork(shape) if model == "maxmin" else SimpleNetwork(shape)
    pulls = _pulls(nodes, flows)
    begun = time.process_time()
    end_ns = _run(network, pulls, concurrent)
    cpu_s = time.process_time() - begun
    return NetworkRow(
        model=model,
        nodes=nodes,
        concurrent=concurrent,
        flow_events=2 * flows,
        cpu_s=cpu_s,
        events_per_cpu_s=int(2 * flows / cpu_s),
        virtual_s=end_ns / 1e9,
    )


def _pulls(nodes: int, flows: int) -> list[tuple[int, int, int, int]]:
    """Source, target, bytes, and how long after an end the next pull begins."""
    chance = random.Random(1)
    pulls = []
    for _ in range(flows):
        source, target = chance.sample(range(nodes), 2)
        size_bytes = int(SIZE_BYTES * chance.uniform(0.5, 1.5))
        pulls.append((source, target, size_bytes, chance.randrange(1_000_000)))
    return pulls


def _run(network: Network, pulls: list[tuple[int, int, int, int]], concurrent: int) -> int:
    """Drive the network as a simulator does: every start and every end is an instant of its own."""
    now_ns, begun = 0, 0
    waiting = sorted((pull[3], flow) for flow, pull in enumerate(pulls[:concurrent]))
    waiting.reverse()
    begun = len(waiting)
    while True:
        end_ns = network.next_finish_ns()
        if waiting and (end_ns is None or waiting[-1][0] <= end_ns):
            now_ns, flow = waiting.pop()
            source, target, size_bytes, _ = pulls[flow]
            network.start(flow, source, target, size_bytes, now_ns)
        elif end_ns is not None:
            now_ns = end_ns
            for _ in network.finished(now_ns):
                if begun < len(pulls):
                    waiting.append((now_ns + pulls[begun][3], begun))
                    begun += 1
            waiting.sort(reverse=True)
        else:
            return now_ns


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
