"""Functions of the standard library that mean the simulated process, while its code runs.

`os._exit` and `os.kill` of the own process, called in a task, end the simulated worker. With
`patch_time`, time is virtual. Threads that are no part of the simulation get the real ones.
"""

from __future__ import annotations

import os
import signal
import time
from _thread import get_ident
from collections.abc import Callable
from typing import Any

from detray_sim.engine.client import SimClient

EPOCH_NS = 946_684_800 * 1_000_000_000
"""The virtual world begins with the year 2000."""


class Patches:
    """Puts functions in the place of others, and takes them away again."""

    def __init__(self, client: SimClient) -> None:
        self._client = client
        self._undo: list[tuple[Any, str, Any]] = []  # Any: modules, and what is in them

    def install(self) -> None:
        """From now on."""
        self._put(os, "_exit", self._leave(os._exit))
        self._put(os, "kill", self._kill(os.kill))
        if self._client.options.patch_time:
            self._put(time, "sleep", self._sleep(time.sleep))
            for name, base_ns in (("time", EPOCH_NS), ("monotonic", 0), ("perf_counter", 0)):
                self._put(time, name, self._seconds(getattr(time, name), base_ns))
                name_ns = f"{name}_ns"
                self._put(time, name_ns, self._nanoseconds(getattr(time, name_ns), base_ns))

    def remove(self) -> None:
        """No more."""
        while self._undo:
            setattr(*self._undo.pop())

    def _put(self, module: Any, name: str, function: Callable[..., object]) -> None:
        self._undo.append((module, name, getattr(module, name)))
        setattr(module, name, function)

    def _is_here(self) -> bool:
        return get_ident() == self._client.seat.ident

    def _is_task(self) -> bool:
        return self._client.is_worker and self._is_here()

    def _leave(self, real: Callable[[int], object]) -> Callable[[int], object]:
        def _exit(status: int) -> object:
            if self._is_task():
                self._client.end_process(f"exited with status {status & 0xFF}")
            return real(status)

        return _exit

    def _kill(self, real: Callable[[int, int], object]) -> Callable[[int, int], object]:
        def kill(pid: int, number: int) -> object:
            if number and pid == os.getpid() and self._is_task():
                name = signal.Signals(number).name
                self._client.end_process(f"killed by signal {int(number)} ({name})")
            return real(pid, number)

        return kill

    def _sleep(self, real: Callable[[float], object]) -> Callable[[float], object]:
        def sleep(seconds: float) -> object:
            if not self._is_here():
                return real(seconds)
            if seconds < 0:
                raise ValueError("sleep length must be non-negative")
            self._client.sleep(seconds)
            return None

        return sleep

    def _seconds(self, real: Callable[[], float], base_ns: int) -> Callable[[], float]:
        clock = self._client.cluster.clock

        def seconds() -> float:
            return (base_ns + clock.now_ns) / 1e9 if self._is_here() else real()

        return seconds

    def _nanoseconds(self, real: Callable[[], int], base_ns: int) -> Callable[[], int]:
        clock = self._client.cluster.clock

        def nanoseconds() -> int:
            return base_ns + clock.now_ns if self._is_here() else real()

        return nanoseconds
