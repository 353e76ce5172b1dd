"""What a measurement asks of an engine."""

from __future__ import annotations

import os
from typing import Any

from detray.bench import measure

Handle = Any  # a reference or future of whichever engine is measured


class Unsupported(Exception):
    """The engine has no equal of what was asked: the table shows a dash."""


class Subject:
    """An engine that was started. What it cannot do raises `Unsupported`, the default here."""

    name = ""

    def start(self, workers: int, **options: Any) -> None:
        """Start it with this many worker processes; `options` are the engine's own."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it and every process of it."""
        raise NotImplementedError

    def one(self) -> None:
        """Run the empty task and wait for its result."""
        self.batch(1)

    def batch(self, count: int) -> None:
        """Submit `count` empty tasks, then get all results."""
        raise Unsupported

    def chain(self, length: int) -> None:
        """Submit tasks that each take the result of the one before, get the last result."""
        raise Unsupported

    def wait_all(self, count: int) -> None:
        """Submit `count` tasks and wait until all are done, without reading results."""
        raise Unsupported

    def wait_each(self, count: int) -> None:
        """Submit `count` tasks and learn of each one's end by itself."""
        raise Unsupported

    def fan_in(self, count: int) -> None:
        """Submit `count` tasks and one that takes all their results."""
        raise Unsupported

    def nested(self, parents: int, children: int) -> None:
        """Submit tasks that each submit `children` tasks and get their results."""
        raise Unsupported

    def results(self, count: int) -> list[Handle]:
        """Handles of `count` finished tasks with small results that nobody here has read."""
        raise Unsupported

    def put(self, value: object) -> Handle:
        """Store a value."""
        raise Unsupported

    def get(self, handle: Handle) -> object:
        """Read a value."""
        raise Unsupported

    def roles(self) -> dict[int, str]:
        """The processes that make up the engine: pid to "driver", "service" or "workers"."""
        driver = os.getpid()
        return {driver: "driver"} | dict.fromkeys(measure.descendants(driver), "workers")
