"""detray and Ray: one program, two modules."""

from __future__ import annotations

import importlib
import os
from typing import Any

from detray.bench import measure, work
from detray.bench.subjects.subject import Handle, Subject

_STORE_BYTES = 6 << 30


class RayLike(Subject):
    """An engine with Ray's programming model, reached through its module."""

    options: dict[str, Any] = {}  # noqa: RUF012  # keywords of two different init functions

    def __init__(self) -> None:
        self.engine: Any = importlib.import_module(self.name)  # no stubs for either

    def start(self, workers: int, **options: Any) -> None:
        engine = self.engine
        options = {"object_store_memory": _STORE_BYTES} | self.options | options
        engine.init(num_cpus=workers, **options)
        self.nothing = nothing = engine.remote(work.nothing)
        self.echo = engine.remote(work.echo)
        self.count = engine.remote(work.count)

        def parent(children: int) -> int:
            return len(engine.get([nothing.remote() for _ in range(children)]))

        self.parent = engine.remote(parent)

    def stop(self) -> None:
        self.engine.shutdown()

    def one(self) -> None:
        self.engine.get(self.nothing.remote())

    def batch(self, count: int) -> None:
        submit = self.nothing.remote
        self.engine.get([submit() for _ in range(count)])

    def chain(self, length: int) -> None:
        link = self.echo.remote(0)
        for _ in range(length - 1):
            link = self.echo.remote(link)
        self.engine.get(link)

    def wait_all(self, count: int) -> None:
        submit = self.nothing.remote
        self.engine.wait([submit() for _ in range(count)], num_returns=count)

    def wait_each(self, count: int) -> None:
        submit = self.nothing.remote
        rest = [submit() for _ in range(count)]
        while rest:
            _ready, rest = self.engine.wait(rest)

    def fan_in(self, count: int) -> None:
        submit = self.echo.remote
        self.engine.get(self.count.remote(*[submit(index) for index in range(count)]))

    def nested(self, parents: int, children: int) -> None:
        self.engine.get([self.parent.remote(children) for _ in range(parents)])

    def results(self, count: int) -> list[Handle]:
        handles = [self.echo.remote(index) for index in range(count)]
        self.engine.wait(handles, num_returns=count)
        return handles

    def put(self, value: object) -> Handle:
        return self.engine.put(value)

    def get(self, handle: Handle) -> object:
        value: object = self.engine.get(handle)
        return value


class Detray(RayLike):
    """detray itself."""

    name = "detray"

    def roles(self) -> dict[int, str]:
        driver = os.getpid()
        roles = dict.fromkeys(measure.descendants(driver), "workers")
        roles |= dict.fromkeys(measure.children(driver), "service")
        return roles | {driver: "driver"}


class Ray(RayLike):
    """Ray, as a library user starts it, without what only prints or serves web pages."""

    name = "ray"
    options = {"logging_level": "ERROR", "log_to_driver": False, "include_dashboard": False}  # noqa: RUF012

    def roles(self) -> dict[int, str]:
        import psutil

        roles = {os.getpid(): "driver"}
        for child in psutil.Process().children(recursive=True):
            try:
                is_worker = child.cmdline()[:1] and child.cmdline()[0].startswith("ray::")
            except psutil.Error:
                continue
            roles[child.pid] = "workers" if is_worker else "service"
        return roles
