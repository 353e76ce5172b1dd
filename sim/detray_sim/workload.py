"""A workload: what an experiment runs, as plain data, whatever file or generator it came from.

Tasks are numbered from 0; a task names what it takes as (task, output) pairs of tasks before it in
the list (the list is in topological order). Times are integer nanoseconds, sizes bytes, demands in
1/10,000 units sorted by name, as everywhere in detray.
"""

from __future__ import annotations

import msgspec

UNIT = 10_000
SECOND_NS = 1_000_000_000


class WorkloadError(ValueError):
    """A workload that cannot be run: one line that says what is wrong, and where."""


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One task: what it asks for, takes, computes and makes.

    `duration_ns` on a machine of speed 1. `inputs` are (task number, output number) pairs without
    repetition; `outputs` the sizes of what it returns, in bytes. `files` are bytes that it reads
    from outside the workflow (they cost nothing unless the scenario models a shared disk).
    """

    id: str
    """Unique within the workload; the name its source gave it."""
    name: str
    """What kind of task: function, category or program. Tasks of one name are coloured alike."""
    duration_ns: int
    demand: tuple[tuple[str, int], ...] = (("CPU", UNIT),)
    inputs: tuple[tuple[int, int], ...] = ()
    outputs: tuple[int, ...] = (0,)
    files_bytes: int = 0
    submit_ns: int = 0
    """When the driver submits it, at the earliest."""
    expected_ns: int = -1
    """What a policy may believe about its duration (-1: the truth, see the scenario's imode)."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks in topological order, and what their source recorded about the real execution."""

    name: str
    tasks: tuple[TaskSpec, ...]
    source: str = ""
    """Where it came from: a path, a generator and its parameters."""
    recorded_makespan_ns: int = -1
    recorded_nodes: tuple[int, ...] = ()
    """Cores of each machine of the recorded execution."""


def validate(workload: Workload) -> Workload:
    """The workload itself, if it can be run. Raises WorkloadError with what is wrong, and where."""
    seen: dict[str, int] = {}
    for number, task in enumerate(workload.tasks):
        where = f"{workload.name}: task {task.id!r}"
        if task.id in seen:
            raise WorkloadError(f"{where} is there twice (numbers {seen[task.id]} and {number})")
        seen[task.id] = number
        if task.duration_ns < 0:
            raise WorkloadError(f"{where} has a negative duration ({task.duration_ns} ns)")
        if task.submit_ns < 0 or task.files_bytes < 0 or any(size < 0 for size in task.outputs):
            raise WorkloadError(f"{where} has a negative size or time")
        if any(amount <= 0 for _, amount in task.demand):
            raise WorkloadError(f"{where} asks for nothing, or less, of a resource: {task.demand}")
        if len(set(task.inputs)) < len(task.inputs):
            raise WorkloadError(f"{where} names an input twice")
        for producer, output in task.inputs:
            if not 0 <= producer < number:
                raise WorkloadError(f"{where} takes from task number {producer}, not before it")
            if not 0 <= output < len(workload.tasks[producer].outputs):
                raise WorkloadError(
                    f"{where} takes output {output} of {workload.tasks[producer].id!r}, which has"
                    f" {len(workload.tasks[producer].outputs)}"
                )
    return workload
