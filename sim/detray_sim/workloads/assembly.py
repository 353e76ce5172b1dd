"""From what a source says to a `Workload`: order the tasks, number them, check everything.

A reader fills `Draft`s in the order of its file and refers to tasks by their place in that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from detray_sim.workload import SECOND_NS, UNIT, TaskSpec, Workload, WorkloadError, validate

TIME_LIMIT_NS = 1 << 62
SIZE_LIMIT_BYTES = 1 << 62


@dataclass(slots=True)
class Draft:
    """A task as its source has it. Fields are those of `TaskSpec`; repeated inputs are one."""

    id: str
    name: str
    duration_ns: int = 0
    demand: tuple[tuple[str, int], ...] = (("CPU", UNIT),)
    inputs: list[tuple[int, int]] = field(default_factory=list)
    """(place of the producer among the drafts, number of its output)."""
    outputs: list[int] = field(default_factory=list)
    files_bytes: int = 0
    submit_ns: int = 0
    expected_ns: int = -1


def assemble(
    name: str,
    drafts: Sequence[Draft],
    source: str = "",
    recorded_makespan_ns: int = -1,
    recorded_nodes: tuple[int, ...] = (),
) -> Workload:
    """The workload of these tasks, in a topological order that keeps theirs where it can.

    Raises WorkloadError, for a cycle one that names it.
    """
    where = source or name
    for draft in drafts:
        for place, _ in draft.inputs:
            if not 0 <= place < len(drafts):
                raise WorkloadError(f"{where}: task {draft.id!r} takes from task number {place}")
    order = topological_order(
        where,
        [draft.id for draft in drafts],
        [[place for place, _ in draft.inputs] for draft in drafts],
    )
    number_of = [0] * len(drafts)
    for number, place in enumerate(order):
        number_of[place] = number
    workload = Workload(
        name=name,
        tasks=tuple(_task(drafts[place], number_of) for place in order),
        source=source,
        recorded_makespan_ns=recorded_makespan_ns,
        recorded_nodes=recorded_nodes,
    )
    try:
        return validate(workload)
    except WorkloadError as error:
        raise WorkloadError(f"{where}: {str(error).removeprefix(f'{name}: ')}") from None


def _task(draft: Draft, number_of: Sequence[int]) -> TaskSpec:
    inputs = dict.fromkeys((number_of[place], output) for place, output in draft.inputs)
    return TaskSpec(
        id=draft.id,
        name=draft.name,
        duration_ns=draft.duration_ns,
        demand=draft.demand,
        inputs=tuple(inputs),
        outputs=tuple(draft.outputs),
        files_bytes=draft.files_bytes,
        submit_ns=draft.submit_ns,
        expected_ns=draft.expected_ns,
    )


def topological_order(
    where: str, ids: Sequence[str], parents: Sequence[Sequence[int]]
) -> Sequence[int]:
    """Places such that each comes after its parents; of those possible, the smallest first.

    `ids` are for the message of the WorkloadError that a cycle raises; it begins with `where`.
    """
    if all(parent < place for place, above in enumerate(parents) for parent in above):
        return range(len(parents))
    children: list[list[int]] = [[] for _ in parents]
    missing = [0] * len(parents)
    for place, above in enumerate(parents):
        for parent in dict.fromkeys(above):
            children[parent].append(place)
            missing[place] += 1
    ready = [place for place, count in enumerate(missing) if count == 0]
    heapify(ready)
    order: list[int] = []
    while ready:
        place = heappop(ready)
        order.append(place)
        for child in children[place]:
            missing[child] -= 1
            if missing[child] == 0:
                heappush(ready, child)
    if len(order) < len(parents):
        cycle = _cycle(parents, missing)
        raise WorkloadError(
            f"{where}: tasks wait for each other: {_shown([ids[p] for p in cycle])}"
        )
    return order


def _cycle(parents: Sequence[Sequence[int]], missing: Sequence[int]) -> list[int]:
    """A cycle among the places that still miss a parent, from first to last in its direction."""
    place = next(place for place, count in enumerate(missing) if count)
    walked: dict[int, None] = {}
    while place not in walked:
        walked[place] = None
        place = next(parent for parent in parents[place] if missing[parent])
    trail = list(walked)
    cycle = trail[trail.index(place) :]
    cycle.reverse()
    smallest = cycle.index(min(cycle))
    return cycle[smallest:] + cycle[:smallest]


def _shown(cycle: Sequence[str]) -> str:
    names = [repr(name) for name in [*cycle, cycle[0]]]
    if len(names) > 10:
        names[5:-4] = [f"... {len(names) - 9} more ..."]
    return " -> ".join(names)


def seconds_to_ns(seconds: float, where: str) -> int:
    """Seconds as whole nanoseconds. Raises WorkloadError that says `where` for what is no time."""
    if not 0 <= seconds <= TIME_LIMIT_NS / SECOND_NS:
        raise WorkloadError(f"{where}: {seconds!r} s is no time that a task can take")
    return round(seconds * SECOND_NS)


def ns_to_seconds(time_ns: int) -> float:
    """Whole nanoseconds as seconds; `seconds_to_ns` gives the same back below 26 days."""
    return time_ns / SECOND_NS


def cpu_demand(cpus: float, where: str) -> tuple[tuple[str, int], ...]:
    """The demand of a task for this many CPUs, () for none. Raises WorkloadError."""
    if not 0 <= cpus <= 1_000_000:
        raise WorkloadError(f"{where}: {cpus!r} is no number of CPUs")
    amount = round(cpus * UNIT)
    return (("CPU", amount),) if amount else ()
