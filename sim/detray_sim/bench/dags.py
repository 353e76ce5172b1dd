"""The programs of the prediction study: small seeded DAGs of tasks that sleep or compute.

A task is a "sleep" or a "compute" by its `name`; it takes 10 to 60 ms, asks for one CPU and returns
nothing to speak of. On a machine with few cores, sleeping tasks let the number of workers be the
resource; computing ones are real only up to its cores.
"""

from __future__ import annotations

import msgspec

from detray_sim.draws import Draws
from detray_sim.workload import TaskSpec, Workload, validate
from detray_sim.workloads import b_levels, generate

SHAPES: tuple[tuple[str, dict[str, object]], ...] = (
    ("chain", {"length": 16}),
    ("fork_join", {"width": 12, "rounds": 2}),
    ("layered", {"layers": 6, "width": 6, "varied": True}),
    ("map_reduce", {"maps": 14, "reduces": 8}),
    ("tree_reduce", {"leaves": 16}),
    ("mixed", {"layers": 5, "width": 7, "skips": 3}),
    ("bag", {"tasks": 30}),
    ("grid", {"width": 5, "height": 5}),
    ("layered", {"layers": 10, "width": 3}),
    ("fork_join", {"width": 7, "rounds": 3}),
)
"""In turn. A mixed one is layered, with tasks of both kinds where there are cores for it."""
SHORTEST_MS, LONGEST_MS = 10, 60
MS = 1_000_000
WORKERS = ((1, 2, 4, 8), (2, 3, 5, 7), (1, 3, 6, 8))
ORDERS = ("given", "longest")
"""How the program submits: as the generator made the tasks, or longest way to the end first."""


class Dag(msgspec.Struct, frozen=True, kw_only=True):
    """A program of the study and the numbers of workers that it is run with."""

    name: str
    kind: str
    """"sleep", "compute" or "both"."""
    workload: Workload
    workers: tuple[int, ...]

    def order(self, name: str) -> list[int]:
        """Task numbers in one of the ORDERS of submission; each after its producers."""
        count = len(self.workload.tasks)
        if name == "given":
            return list(range(count))
        level = b_levels(self.workload)
        return sorted(range(count), key=lambda number: (-level[number], number))


def study_dags(count: int = 20, seed: int = 1, cores: int = 2) -> list[Dag]:
    """That many programs; every fifth computes, and so do half of the tasks of mixed ones."""
    return [_dag(index, seed, cores) for index in range(count)]


def _dag(index: int, seed: int, cores: int) -> Dag:
    shape, parameters = SHAPES[index % len(SHAPES)]
    kind = "both" if shape == "mixed" else "compute" if index % 5 == 4 else "sleep"
    draws = Draws(seed, f"study {index}")
    base = generate("layered" if shape == "mixed" else shape, seed + index, **parameters)
    tasks = tuple(_task(task, number, kind, draws) for number, task in enumerate(base.tasks))
    workers: tuple[int, ...] = WORKERS[index % len(WORKERS)]
    if kind != "sleep":
        workers = tuple(range(1, min(8, cores) + 1))
    name = f"{index:02}-{shape}-{kind}"
    workload = validate(Workload(name=name, tasks=tasks, source=f"{base.source} study {seed}"))
    return Dag(name=name, kind=kind, workload=workload, workers=workers)


def _task(task: TaskSpec, number: int, kind: str, draws: Draws) -> TaskSpec:
    length_ms = draws.uniform("length", number, SHORTEST_MS, LONGEST_MS)
    computes = kind == "compute" or (kind == "both" and draws.integer("kind", number, 2) == 0)
    producers = dict.fromkeys(producer for producer, _ in task.inputs)
    return TaskSpec(
        id=task.id,
        name="compute" if computes else "sleep",
        duration_ns=round(length_ms * 10) * MS // 10,
        inputs=tuple((producer, 0) for producer in producers),
        outputs=(1,),
    )
