"""Why a program cannot go on: who waits for what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detray_sim.liveness import diagnose

if TYPE_CHECKING:
    from detray_sim.cluster import SimCluster
    from detray_sim.engine.tasks import Tasks

SECOND = 1_000_000_000


def describe(cluster: SimCluster, tasks: Tasks, patience_ns: int) -> str:
    """The text of the error that ends a deadlocked program: its wait-for graph."""
    tables = {
        node.node_id: node.core.tables
        for node in cluster.nodes
        if node.is_alive and node.node_id is not None
    }
    lines = diagnose(tables).lines
    for machine, node in enumerate(cluster.nodes):
        if not node.is_alive:
            lines.append(f"node {machine} is down")
    begun = ", ".join(tasks.unfinished) or "none"
    return (
        f"nothing has happened for {patience_ns // SECOND} virtual seconds, and nothing will: the "
        f"program waits for ever. Tasks that began and wait: {begun}. Who waits for what:\n  "
        + "\n  ".join(lines or ["nobody waits for a task: the program waits for something else"])
    )
