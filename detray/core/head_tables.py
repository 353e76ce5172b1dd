"""The tables of the global scheduler: plain data, ids instead of pointers."""

from __future__ import annotations

import msgspec

from detray.core.config import GlobalConfig
from detray.core.durable import DurableEvent, DurableTables, Job
from detray.core.head_messages import PlacementRequested, WaitsReported
from detray.core.placement import Node
from detray.ids import ClientID, JobNumber, NodeID, TaskID


class Kind(msgspec.Struct):
    """Requests that compete for the same: equal job, demand and strategy.

    `queue`: heap of (rank, number, task, attempt); entries of answered requests are skipped.
    `passed_over`: placements made while none of these found room. `reserved`: the node that is kept
    for the next of them (-1: none).
    """

    job: JobNumber
    queue: list[tuple[int, int, TaskID, int]] = []
    passed_over: int = 0
    reserved: NodeID = NodeID(-1)


class GlobalTables(msgspec.Struct):
    """All state of the head between two steps (a policy's own state aside).

    `durable` is what a head that comes back has; it changes with `HeadStep.record` only. All else
    is soft. `nodes` has a row for each of its members, in the same order.
    """

    config: GlobalConfig
    durable: DurableTables
    unsaved: list[DurableEvent] = []
    """Recorded and not ordered to be persisted yet: those of the step under way."""
    jobs_before: JobNumber = JobNumber(1)
    """Of the jobs below, which an earlier head began, all that are open are known."""
    now_ns: int = 0
    next_number: int = 0
    nodes: dict[NodeID, Node] = {}
    roomy: dict[NodeID, None] = {}
    """Nodes with free CPU (or none at all), the one longest not chosen first."""
    spare: dict[NodeID, None] = {}
    """Nodes without, whose queue is not full; in the same order."""
    requests: dict[TaskID, PlacementRequested] = {}
    """Asked and not answered yet."""
    kinds: dict[str, Kind] = {}
    """Those of `requests` by what they compete for; a kind without any goes."""
    shares: dict[JobNumber, int] = {}
    """What jobs were charged for places while several waited; `share`: where the last one stood."""
    share: int = 0
    last: JobNumber = JobNumber(-1)
    """The job that got a place last: it does not begin when others come."""
    unplaced: dict[TaskID, PlacementRequested] = {}
    """Requests that no node can meet as the cluster stands; tried again when a node joins."""
    unreachable: dict[str, int] = {}
    """By "a b": since when a says that it cannot reach b (one way may be open, the other not)."""
    waits_round: int = 0
    waits_ns: int = 0
    waits_open: bool = False
    """Not all have answered yet."""
    waits: dict[NodeID, WaitsReported] = {}
    """What nodes said in this round of who waits for whom."""
    doomed: list[tuple[NodeID, ClientID, int]] = []
    """Gets that were stuck in the round before."""
    check_ns: int = 0
    place_ns: int = 0
    counts: dict[str, int] = {}

    @property
    def jobs(self) -> dict[JobNumber, Job]:
        """The jobs that are open."""
        return self.durable.jobs
