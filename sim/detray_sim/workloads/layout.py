"""What generators draw their graphs on, and the parameters that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import sqrt

import msgspec
from msgspec import field as parameter

from detray_sim.draws import LAWS, Draws
from detray_sim.workload import UNIT, TaskSpec, Workload, WorkloadError, validate

TASKS_MAX = 10_000_000
"""A generator stops here: whoever asks for more has mistaken a parameter."""


@dataclass(slots=True)
class _Place:
    id: str
    kind: str
    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[float, ...]
    weight: float


@dataclass(slots=True)
class Layout:
    """Tasks and who takes from whom, times and sizes not yet drawn."""

    name: str
    places: list[_Place] = field(default_factory=list)

    def add(
        self,
        kind: str,
        label: str,
        inputs: Iterable[tuple[int, int]] = (),
        outputs: tuple[float, ...] = (1.0,),
        weight: float = 1.0,
    ) -> int:
        """Add a task, give back its number. Raises WorkloadError if there are too many.

        `inputs` are (task number, output number). `outputs` and `weight` are multiples of the
        generator's size and duration; the id is kind and label.
        """
        number = len(self.places)
        if number >= TASKS_MAX:
            raise WorkloadError(f"{self.name}: more than {TASKS_MAX} tasks; reduce its parameters")
        once = tuple(dict.fromkeys(inputs))
        self.places.append(_Place(f"{kind}-{label}", kind, once, outputs, weight))
        return number


class Generator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all generators take: how long tasks are and how large their outputs, and the spread.

    `cv` is the standard deviation over the mean. It says how far "uniform" and "lognormal" spread;
    "constant" has none, that of "exponential" is 1.
    """

    duration_ns: int = parameter(default=100_000_000, name="duration")
    """Mean duration of a task of weight 1."""
    duration_law: str = "constant"
    """"constant", "uniform", "exponential" or "lognormal"."""
    duration_cv: float = 0.5
    size_bytes: int = parameter(default=1 << 20, name="size")
    """Mean size of an output of weight 1."""
    size_law: str = "constant"
    size_cv: float = 0.5
    cpus: float = 1.0
    """What each task asks for; 0: nothing."""

    def __post_init__(self) -> None:
        for what in ("duration", "size"):
            law, cv = getattr(self, f"{what}_law"), getattr(self, f"{what}_cv")
            if law not in LAWS:
                raise ValueError(f"{what}_law is {law!r}; there are {', '.join(LAWS)}")
            if not 0 <= cv <= 100:
                raise ValueError(f"{what}_cv is from 0 to 100, not {cv!r}")
            if law == "uniform" and cv > 1 / sqrt(3.0):
                raise ValueError(f"{what}_cv of a uniform law is at most 0.577, not {cv!r}")
        if self.duration_ns < 0 or self.size_bytes < 0:
            raise ValueError("a duration or size is negative")
        if not 0 <= self.cpus <= 1_000_000:
            raise ValueError(f"cpus is from 0 to 1000000, not {self.cpus!r}")
        self.check()

    def check(self) -> None:
        """Raise ValueError if the parameters of the shape make no sense together."""

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        """Add the tasks in topological order."""
        raise NotImplementedError

    def at_least(self, least: int, *names: str) -> None:
        """Raise ValueError unless each of these parameters is at least `least`."""
        for name in names:
            if getattr(self, name) < least:
                raise ValueError(f"{name} is at least {least}, not {getattr(self, name)}")


def realise(generator: Generator, name: str, seed: int) -> Workload:
    """The workload: the generator's layout with durations and sizes drawn. Raises WorkloadError."""
    draws = Draws(seed, name)
    layout = Layout(name)
    generator.lay_out(layout, draws)
    amount = round(generator.cpus * UNIT)
    demand = (("CPU", amount),) if amount else ()
    duration = _drawn(draws, "duration", generator.duration_law, generator.duration_cv)
    size = _drawn(draws, "size", generator.size_law, generator.size_cv)
    tasks: list[TaskSpec] = []
    objects = 0
    for number, place in enumerate(layout.places):
        outputs = []
        for part in place.outputs:
            outputs.append(size(objects, generator.size_bytes * part))
            objects += 1
        mean_ns = generator.duration_ns * place.weight
        tasks.append(
            TaskSpec(
                id=place.id,
                name=place.kind,
                duration_ns=duration(number, mean_ns),
                demand=demand,
                inputs=place.inputs,
                outputs=tuple(outputs),
                expected_ns=round(mean_ns),
            )
        )
    return validate(Workload(name=name, tasks=tuple(tasks), source=_source(generator, name, seed)))


def _drawn(draws: Draws, purpose: str, law: str, cv: float) -> Callable[[int, float], int]:
    """Draws the k-th value of this mean."""
    if law == "constant":
        return lambda k, mean: round(mean)
    return lambda k, mean: round(mean * draws.spread(purpose, k, law, cv))


def _source(generator: Generator, name: str, seed: int) -> str:
    given = ", ".join(f"{key}={getattr(generator, key)!r}" for key in generator.__struct_fields__)
    return f"{name}({given}; seed={seed})"
