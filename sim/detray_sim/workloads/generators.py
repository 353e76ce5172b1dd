"""Made-up workloads: `generate("grid", seed=1, width=10)`; `GENERATORS` lists them by name.

Each generator is a Struct of its parameters that checks them, and lays out its graph. Equal
parameters and seed give the equal workload everywhere, and a draw belongs to one task: a wider grid
begins with other tasks, but the tenth task of a chain takes as long in a chain of 20 as of 2,000.
"""

from __future__ import annotations

import msgspec

from detray_sim.draws import Draws
from detray_sim.workload import Workload, WorkloadError
from detray_sim.workloads.layout import Generator, Layout, realise


def generate(kind: str, seed: int = 0, **parameters: object) -> Workload:
    """The workload of a generator by name. Parameters: the fields of its Struct in `GENERATORS`.

    Raises WorkloadError for an unknown name or parameter, a wrong type or a senseless value.
    """
    shape = GENERATORS.get(kind)
    if shape is None:
        raise WorkloadError(f"no generator is called {kind!r}; there are {', '.join(GENERATORS)}")
    known = shape.__struct_fields__
    for key in parameters:
        if key not in known:
            raise WorkloadError(f"{kind} has no parameter {key!r}; it has {', '.join(known)}")
    spelled = dict(zip(known, shape.__struct_encode_fields__, strict=True))
    try:
        generator = msgspec.convert({spelled[k]: v for k, v in parameters.items()}, shape)
    except msgspec.ValidationError as error:
        raise WorkloadError(f"{kind}: {error}") from None
    return realise(generator, kind, seed)


class Bag(Generator, frozen=True, kw_only=True):
    """Independent tasks."""

    tasks: int = 100

    def check(self) -> None:
        self.at_least(1, "tasks")

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        for index in range(self.tasks):
            layout.add("task", str(index))


class Chain(Generator, frozen=True, kw_only=True):
    """One task after the other, each with what the one before it made."""

    length: int = 100

    def check(self) -> None:
        self.at_least(1, "length")

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        for index in range(self.length):
            layout.add("link", str(index), [(index - 1, 0)] if index else [])


class ForkJoin(Generator, frozen=True, kw_only=True):
    """Rounds of one task that feeds `width` tasks that feed one, which opens the next round."""

    width: int = 10
    rounds: int = 1

    def check(self) -> None:
        self.at_least(1, "width", "rounds")

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        source = layout.add("fork", "0")
        for turn in range(1, self.rounds + 1):
            branches = [
                layout.add("branch", f"{turn}.{index}", [(source, 0)])
                for index in range(self.width)
            ]
            source = layout.add("join", str(turn), [(branch, 0) for branch in branches])


class MapReduce(Generator, frozen=True, kw_only=True):
    """Each of `maps` tasks makes one output for each of `reduces` tasks (all to all).

    `size` is that of one such part.
    """

    maps: int = 20
    reduces: int = 10

    def check(self) -> None:
        self.at_least(1, "maps", "reduces")

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        maps = [
            layout.add("map", str(index), outputs=(1.0,) * self.reduces)
            for index in range(self.maps)
        ]
        for index in range(self.reduces):
            layout.add("reduce", str(index), [(source, index) for source in maps])


class TreeReduce(Generator, frozen=True, kw_only=True):
    """Leaves whose results are merged, `arity` at a time, until one is left."""

    leaves: int = 64
    arity: int = 2

    def check(self) -> None:
        self.at_least(1, "leaves")
        self.at_least(2, "arity")

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        level = [layout.add("leaf", str(index)) for index in range(self.leaves)]
        height = 0
        while len(level) > 1:
            height += 1
            groups = [level[at : at + self.arity] for at in range(0, len(level), self.arity)]
            # A group of one has nothing to merge: it moves up as it is.
            level = [
                group[0]
                if len(group) == 1
                else layout.add("merge", f"{height}.{index}", [(part, 0) for part in group])
                for index, group in enumerate(groups)
            ]


class Stencil(Generator, frozen=True, kw_only=True):
    """`steps` sweeps over `width` cells; a cell takes itself and its neighbours of the last sweep.

    `reach` is how far neighbours are away; with `periodic`, the ends are neighbours too.
    """

    width: int = 20
    steps: int = 10
    reach: int = 1
    periodic: bool = False

    def check(self) -> None:
        self.at_least(1, "width", "steps")
        self.at_least(0, "reach")

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        for step in range(self.steps):
            for cell in range(self.width):
                near = range(cell - self.reach, cell + self.reach + 1) if step else range(0)
                if self.periodic:
                    cells = [place % self.width for place in near]
                else:
                    cells = [place for place in near if 0 <= place < self.width]
                above = (step - 1) * self.width
                layout.add("cell", f"{step}.{cell}", [(above + place, 0) for place in cells])


class Cholesky(Generator, frozen=True, kw_only=True):
    """The tiled Cholesky factorisation of a matrix of `tiles` x `tiles` tiles of `size` bytes.

    `duration` is that of a triangular solve; the others weigh as their operations do (for tiles of
    n x n: potrf n^3/3, trsm and syrk n^3, gemm 2n^3).
    """

    tiles: int = 8

    def check(self) -> None:
        self.at_least(1, "tiles")

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        written: dict[tuple[int, int], int] = {}
        """Who wrote a tile last."""

        def kernel(kind: str, label: str, tile: tuple[int, int], *read: int, weight: float) -> int:
            sources = [*read, *([written[tile]] if tile in written else [])]
            written[tile] = layout.add(kind, label, [(s, 0) for s in sources], weight=weight)
            return written[tile]

        for k in range(self.tiles):
            corner = kernel("potrf", str(k), (k, k), weight=1 / 3)
            column = {
                i: kernel("trsm", f"{i}.{k}", (i, k), corner, weight=1.0)
                for i in range(k + 1, self.tiles)
            }
            for i in range(k + 1, self.tiles):
                for j in range(k + 1, i):
                    reads = column[i], column[j]
                    kernel("gemm", f"{i}.{j}.{k}", (i, j), *reads, weight=2.0)
                kernel("syrk", f"{i}.{k}", (i, i), column[i], weight=1.0)


class Pipeline(Generator, frozen=True, kw_only=True):
    """Items that pass through stages; with `in_order`, a stage takes them one after the other.

    Between two stages an item is `size` bytes; that a stage is free again costs none.
    """

    items: int = 20
    stages: int = 5
    in_order: bool = True

    def check(self) -> None:
        self.at_least(1, "items", "stages")

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        for item in range(self.items):
            for stage in range(self.stages):
                number = item * self.stages + stage
                inputs = [(number - 1, 0)] if stage else []
                if self.in_order and item:
                    inputs.append((number - self.stages, 1))
                outputs = (1.0, 0.0) if self.in_order else (1.0,)
                layout.add(f"stage-{stage}", str(item), inputs, outputs)


class Nested(Generator, frozen=True, kw_only=True):
    """Tasks that launch `fan_out` tasks each, `depth` levels deep, and gather what they return.

    A task that launches others is two here: what it does before (weight 1/2, no bytes handed down)
    and after its children (weight 1/2).
    """

    fan_out: int = 4
    depth: int = 3

    def check(self) -> None:
        self.at_least(1, "fan_out")
        self.at_least(0, "depth")

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        opened = [[layout.add("launch", "0", outputs=(0.0,), weight=0.5)]] if self.depth else []
        for level in range(1, self.depth):
            parents = [parent for parent in opened[-1] for _ in range(self.fan_out)]
            opened.append(
                [
                    layout.add("launch", f"{level}.{i}", [(parent, 0)], (0.0,), 0.5)
                    for i, parent in enumerate(parents)
                ]
            )
        above = [parent for parent in opened[-1] for _ in range(self.fan_out)] if opened else [-1]
        results = [
            layout.add("leaf", str(index), [(parent, 0)] if parent >= 0 else [])
            for index, parent in enumerate(above)
        ]
        for level in range(self.depth - 1, -1, -1):
            groups = [
                results[at : at + self.fan_out] for at in range(0, len(results), self.fan_out)
            ]
            results = [
                layout.add("gather", f"{level}.{i}", [(part, 0) for part in group], weight=0.5)
                for i, group in enumerate(groups)
            ]


class MergeNeighbours(Generator, frozen=True, kw_only=True):
    """`count` producers in a ring, and a task for each pair of neighbours that takes both."""

    count: int = 100

    def check(self) -> None:
        self.at_least(1, "count")

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        for index in range(self.count):
            layout.add("produce", str(index))
        for index in range(self.count):
            layout.add("merge", str(index), [(index, 0), ((index + 1) % self.count, 0)])


class Grid(Generator, frozen=True, kw_only=True):
    """A wavefront: each cell takes the one to its left and the one above it."""

    width: int = 10
    height: int = 10

    def check(self) -> None:
        self.at_least(1, "width", "height")

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        for row in range(self.height):
            for column in range(self.width):
                number = row * self.width + column
                inputs = [(number - 1, 0)] if column else []
                if row:
                    inputs.append((number - self.width, 0))
                layout.add("cell", f"{row}.{column}", inputs)


class Layered(Generator, frozen=True, kw_only=True):
    """A random graph in layers: a task takes from 1 to `degree` tasks of the layer before its own.

    With `varied`, layers have from 1 to 2 * `width` - 1 tasks, as likely each; else `width`. One
    task in `skips` (0: none) takes one more, from any layer before that.
    """

    layers: int = 10
    width: int = 10
    degree: int = 3
    varied: bool = False
    skips: int = 0

    def check(self) -> None:
        self.at_least(1, "layers", "width", "degree")
        self.at_least(0, "skips")

    def lay_out(self, layout: Layout, draws: Draws) -> None:
        last, number = range(0), 0
        for layer in range(self.layers):
            width = self.width
            if self.varied:
                width = 1 + draws.integer("width", layer, 2 * self.width - 1)
            first = number
            for index in range(width):
                inputs = self._parents(number, last, draws) if layer else []
                layout.add("task", f"{layer}.{index}", [(parent, 0) for parent in inputs])
                number += 1
            last = range(first, number)

    def _parents(self, number: int, last: range, draws: Draws) -> list[int]:
        count = 1 + draws.integer("degree", number, min(self.degree, len(last)))
        chosen = [last[at] for at in draws.sample("parents", number, len(last), count)]
        if self.skips and last.start and draws.integer("skips", number, self.skips) == 0:
            chosen.append(draws.integer("skipped", number, last.start))
        return chosen


GENERATORS: dict[str, type[Generator]] = {
    "bag": Bag,
    "chain": Chain,
    "cholesky": Cholesky,
    "fork_join": ForkJoin,
    "grid": Grid,
    "layered": Layered,
    "map_reduce": MapReduce,
    "merge_neighbours": MergeNeighbours,
    "nested": Nested,
    "pipeline": Pipeline,
    "stencil": Stencil,
    "tree_reduce": TreeReduce,
}
"""Name to generator, as scenarios and `generate` know them."""
