"""The stage of a transcript: one node or several, the cast, and what each was given so far.

The stage keeps what a real client or driver of the core would know (grants and pins received, the
run that was sent, the move that was ordered), so that a directive names only what matters. On one
node messages to the head and back are part of the step; between several they wait in links
(`cluster.py`).
"""

from __future__ import annotations

import re

import msgspec

from detray.core.config import Policy
from detray.core.stimuli import DriverConnected, Stimulus
from detray.core.tables import Tables
from detray.trace.transcript.cast import Cast
from detray.trace.transcript.scene import Scene
from detray.trace.transcript.script import ScriptError, Words
from detray.trace.transcript.speech import say
from tests.golden.cluster import Cluster
from tests.golden.seats import Seat
from tests.support.world import World

_WORLD_NUMBERS = {"cpus", "prestart"}
_POLICIES = {field.name: type(field.default) for field in msgspec.structs.fields(Policy)}


class Stage(Scene):
    """Performs steps and says what came out."""

    def __init__(self) -> None:
        self.cast = Cast()
        self.cluster: Cluster | None = None
        self._seat: Seat | None = None

    @property
    def seat(self) -> Seat:
        """The node that a directive is about; one is made by `config`, or as it comes."""
        if self._seat is None:
            self._seat = Seat(World(1, prestart=1))
        return self._seat

    def sit(self, name: str) -> None:
        """Turn to the node of this name; "" is the first."""
        if self.cluster is None:
            if name:
                raise ScriptError(f"{name}: there is one node only")
        else:
            self._seat = self.cluster.seat(name)

    @property
    def world(self) -> World:
        """The world of the node that was spoken of last."""
        return self.seat.world

    @property
    def worlds(self) -> list[World]:
        """All nodes that there were, the dead among them."""
        return self.cluster.worlds if self.cluster is not None else [self.world]

    @property
    def tables(self) -> Tables:
        """The tables of its local scheduler, to read."""
        return self.world.local.tables

    @property
    def now_ns(self) -> int:
        """The clock, which all share."""
        return self.cluster.now_ns if self.cluster is not None else self.world.now_ns

    def configure(self, words: Words) -> None:
        """Make the world: `config cpus=2 prestart=2 arena=1MiB door=1 pipeline_depth_max=1`."""
        if self._seat is not None:
            raise ScriptError("config must come first")
        options, policy, totals = settings(words)
        options["stop_with_last_driver"] = not words.flag("shared")
        self._seat = Seat(World(policy=policy, totals=totals, **options))  # type: ignore[arg-type]

    def assemble(self, words: Words) -> list[str]:
        """Make several nodes: `nodes a b c cpus=2 b.GPU=1 hand_over=always apart store loads`.

        With `store` the head keeps a log, and processes have names (`life`), unless `nameless`.
        """
        if self._seat is not None:
            raise ScriptError("nodes must come first")
        drivers = words.list("driver")
        words.options.pop("driver", None)
        apart, store = words.flag("apart"), words.flag("store")
        nameless = words.flag("nameless")
        self.cluster = Cluster(
            self.cast, *settings(words), apart=apart, store=store, nameless=nameless
        )
        shows_loads = words.flag("loads")
        lines = self.cluster.open(words.names)
        for name in drivers:
            self.sit(name)
            client = self.cast.name_client("d1")
            self.cluster.step(name, DriverConnected(client, 101, "", "d1.py"))
            self.cluster.settle()
            lines.append(f"{name}: d1 has job {self.tables.clients[client].job}")
        self.cluster.shows_loads = shows_loads
        self.sit("")
        return lines

    # -------------------------------------------------------------- one step

    def step(self, stimuli: list[Stimulus], advance_ns: int) -> list[str]:
        """Feed one step; every effect of it, and of what the head answers, in words."""
        if self.cluster is not None:
            return self.cluster.step(self.seat.name, *stimuli, advance_ns=advance_ns or 1_000)
        world = self.world
        before = len(world.log)
        world.do(*stimuli, advance_ns=advance_ns or 1_000)
        lines = []
        for entry, (_, heard, effects) in enumerate(world.log[before:]):
            if entry:
                lines += [f"head -> {type(message).__name__}" for message in heard]
            for effect in effects:
                self.seat.see(effect)
                lines += say(effect, self.cast)
        return lines or ["nothing"]


def settings(words: Words) -> tuple[dict[str, object], Policy, dict[str, int]]:
    """What the words say of the world, of its policy, and of custom resources."""
    options: dict[str, object] = {}
    policy: dict[str, object] = {}
    totals: dict[str, int] = {}
    for key in words.options:
        if key in _POLICIES:
            kind = _POLICIES[key]
            policy[key] = kind(words.text(key) if kind is str else words.number(key))
        elif key in _WORLD_NUMBERS:
            options[key] = words.number(key)
        elif key == "arena":
            options["arena_bytes"] = words.number(key)
        elif key == "labels":  # labels=b.zone:eu,c.zone:us
            labels = [re.split("[.:]", word) for word in words.list(key)]
            options[key] = tuple(sorted(map(tuple, labels)))
        elif key == "infeasible":
            options[key] = words.text(key)
        else:
            totals[key] = int(float(words.text(key)) * 10_000)
    return options, Policy(**policy), totals  # type: ignore[arg-type]  # keys are its fields
