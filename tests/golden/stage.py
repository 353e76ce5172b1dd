"""The stage of a transcript: a `World`, the cast, and what each client was given so far.

The stage keeps what a real client or driver of the core would know (grants and pins received, the
run that was sent, the move that was ordered), so that a directive names only what matters.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from detray.core import effects as ef
from detray.core.config import Policy
from detray.core.stimuli import Stimulus
from detray.core.tables import Tables
from detray.ids import ClientID, ObjectID, TaskID
from tests.golden.cast import Cast
from tests.golden.script import ScriptError, Words, number
from tests.golden.speech import say
from tests.support.world import World

_WORLD_NUMBERS = {"cpus", "prestart"}


class Stage:
    """Performs steps and says what came out."""

    def __init__(self) -> None:
        self.cast = Cast()
        self._world: World | None = None
        self.grants: dict[ClientID, Counter[ObjectID]] = {}
        self.pins: dict[ClientID, Counter[ObjectID]] = {}
        self.sent: dict[TaskID, ef.RunTask] = {}
        self.moves: dict[ObjectID, ef.MoveObject] = {}
        self.requests: Counter[ClientID] = Counter()
        self.templates: dict[tuple[object, ...], int] = {}

    @property
    def world(self) -> World:
        """The world; made by `config`, or as it comes."""
        if self._world is None:
            self._world = World(1, prestart=1)
        return self._world

    @property
    def tables(self) -> Tables:
        """The local scheduler's tables, to read."""
        return self.world.local.tables

    def configure(self, words: Words) -> None:
        """Make the world: `config cpus=2 prestart=2 arena=1MiB door=1 pipeline_depth_max=1`."""
        if self._world is not None:
            raise ScriptError("config must come first")
        policies = {f.name for f in msgspec.structs.fields(Policy)}
        options, policy, totals = {}, {}, {}
        for key in words.options:
            if key in policies:
                policy[key] = words.number(key)
            elif key in _WORLD_NUMBERS:
                options[key] = words.number(key)
            elif key == "arena":
                options["arena_bytes"] = words.number(key)
            elif key == "infeasible":
                options[key] = words.text(key)  # type: ignore[assignment]  # the one string
            else:
                totals[key] = int(float(words.text(key)) * 10_000)
        options["stop_with_last_driver"] = not words.flag("shared")
        self._world = World(policy=Policy(**policy), totals=totals, **options)  # type: ignore[arg-type]

    # -------------------------------------------------------------- one step

    def step(self, stimuli: list[Stimulus], advance_ns: int) -> list[str]:
        """Feed one step; every effect of it, and of what the head answers, in words."""
        world = self.world
        before = len(world.log)
        world.do(*stimuli, advance_ns=advance_ns or 1_000)
        lines = []
        for entry, (_, heard, effects) in enumerate(world.log[before:]):
            if entry:
                lines += [f"head -> {type(message).__name__}" for message in heard]
            for effect in effects:
                self._see(effect)
                lines += say(effect, self.cast)
        return lines or ["nothing"]

    def _see(self, effect: ef.Effect) -> None:
        match effect:
            case ef.RunTask():
                self.sent[effect.task] = effect
                self._receive(effect.client, effect.args)
                self.received(effect.client, effect.refs)
            case ef.DefineFunction():
                self.received(effect.client, effect.refs)
            case ef.GetAnswered():
                self._receive(effect.client, effect.places)
            case ef.MoveObject():
                self.moves[effect.object] = effect
            case _:
                pass

    def _receive(self, client: ClientID, places: tuple[ef.Place, ...]) -> None:
        for place in places:
            self.received(client, place.refs)
            if place.segment != ef.INLINE and not place.failure:
                self.pins.setdefault(client, Counter())[place.object] += 1

    # -------------------------------------------------------------- the clients' books

    def received(self, client: ClientID, items: tuple[ObjectID, ...]) -> None:
        """A client got one grant of each."""
        self.grants.setdefault(client, Counter()).update(items)

    def count(self, words: Words, books: dict[ClientID, Counter[ObjectID]], client: ClientID,
              items: tuple[ObjectID, ...]) -> tuple[int, ...]:  # fmt: skip
        """How many of each the client gives back: what it received, or what the script says."""
        mine = books.setdefault(client, Counter())
        if given := words.text("count"):
            return tuple(number(given) for _ in items)
        return tuple(mine.pop(item, 0) for item in items)

    def front(self, worker: ClientID) -> tuple[TaskID, int, int]:
        """What a worker runs: task, attempt, depth."""
        row = self.tables.workers.get(worker)
        if row is None or not row.runs:
            raise ScriptError(f"w{worker} runs nothing")
        run = row.runs[0]
        return run.task, run.attempt, self.tables.tasks[run.task].spec.depth
