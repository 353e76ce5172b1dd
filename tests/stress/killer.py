"""Kills random workers while a program runs."""

from __future__ import annotations

import os
import random
import signal
import threading

from detray.startup import running


class Killer:
    """A thread that kills a worker every so often, and counts how many."""

    def __init__(self, seed: str, every_s: float) -> None:
        self._random = random.Random(seed)
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.killed = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No more deaths after this returns."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        client = running().session.client
        while not self._stop.wait(self._random.uniform(0, 2 * self._every_s)):
            pids = sorted(row["pid"] for row in client.status("workers") if row["pid"])
            if not pids:
                continue
            try:
                os.kill(self._random.choice(pids), signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.killed += 1
