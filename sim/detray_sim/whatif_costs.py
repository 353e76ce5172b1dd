"""What the runtime itself took in a recording: costs for a simulator that is to play it again.

A recording says when a run was sent and when its worker began it, when a run ended and when its
node heard of it, when a worker was ordered and when it was ready. The medians of these replace what
`Costs` believes of such times. A program's own time for submitting, loading and storing is in
what its processes are recorded to have computed: it is not paid twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low
from typing import Any

import msgspec

from detray.core.effects import RunTask, StartWorker
from detray.core.stimuli import RunFailed, RunFinished, WorkerLost, WorkerReady
from detray.ids import ClientID
from detray_sim.costs import FREE, Costs

RESTED_NS = 1_000_000
"""Of shorter runs it is not the way that shows, but how busy everybody is."""
WAY_NS_MAX = 2_000_000
"""A way that is longer is that of a machine with too much to do."""
SAMPLES_MIN = 5
PRESETS = ("recorded", "measured", "free")
"""What the runtime takes: as long as it did in the recording; as `docs/performance.md` measured it;
no time at all."""
Seat = tuple[int, ClientID]


class Delays:
    """Collects them, step by step."""

    def __init__(self) -> None:
        self._open: dict[Seat, int] = {}
        """Runs that a worker has and has not reported."""
        self._sent: dict[Seat, int] = {}
        """When a worker that had nothing to do was sent a run."""
        self._ordered: dict[Seat, int] = {}
        self._used: set[Seat] = set()
        self._ways: list[int] = []
        self._starts: list[int] = []

    def watch(self, core: int, now_ns: int, stimuli: Sequence[Any], effects: Sequence[Any]) -> None:
        """A step of a local scheduler. (Any: messages of all kinds.)"""
        for stimulus in stimuli:
            kind = type(stimulus)
            if kind is RunFinished or kind is RunFailed:
                self._on_ended((core, stimulus.client), stimulus, now_ns)
            elif kind is WorkerReady:
                ordered_ns = self._ordered.pop((core, stimulus.client), -1)
                if ordered_ns >= 0:
                    self._starts.append(now_ns - ordered_ns)
            elif kind is WorkerLost:
                self._open.pop((core, stimulus.client), None)
        for effect in effects:
            kind = type(effect)
            if kind is RunTask:
                seat = (core, effect.client)
                if not self._open.get(seat):
                    self._sent[seat] = now_ns
                self._open[seat] = self._open.get(seat, 0) + 1
            elif kind is StartWorker:
                self._ordered[core, effect.client] = now_ns

    def _on_ended(self, seat: Seat, m: RunFinished | RunFailed, now_ns: int) -> None:
        self._open[seat] = max(0, self._open.get(seat, 0) - 1)
        sent_ns = self._sent.pop(seat, -1)
        if sent_ns < 0:
            return
        # A run that was sent to a resting worker: there and back again.
        there_ns, back_ns = m.started_ns - sent_ns, now_ns - m.ended_ns
        is_first = seat not in self._used
        self._used.add(seat)
        # Before its first run a worker loads much that it keeps.
        if min(there_ns, back_ns) >= 0 and m.ended_ns - m.started_ns >= RESTED_NS and not is_first:
            self._ways.append((there_ns + back_ns) // 2)

    def costs(self, preset: str) -> Costs:
        """One of PRESETS."""
        if preset == "free":
            return FREE
        base = msgspec.structs.replace(Costs(), submit_ns=0, run_ns=0)
        if preset == "measured":
            return base
        found: dict[str, int] = {}
        if len(self._ways) >= SAMPLES_MIN:
            # The step that sends takes a part of the way there.
            own_ns = (base.step_ns + base.stimulus_ns + 2 * base.effect_ns) // 2
            found["ipc_ns"] = max(0, min(WAY_NS_MAX, median_low(self._ways)) - own_ns)
        if self._starts:
            found["worker_start_ns"] = median_low(self._starts)
        return msgspec.structs.replace(base, **found)
