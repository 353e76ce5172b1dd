"""What a swarm has and has not met: kinds of messages, rare events, kinds and pairs of faults.

A generator that never makes something finds no bug in it, and nobody notices. So a report counts
what was made, and lists what was not.
"""

from __future__ import annotations

from collections import Counter
from typing import get_args

import msgspec

from detray.core.effects import Effect
from detray.core.stimuli import Stimulus
from detray_sim.faults import KINDS
from detray_sim.programs import KINDS as PROGRAMS
from detray_sim.trial import Verdict

UNREACHABLE = {
    "ObserverConnected": "programs of the simulator do not ask for status",
    "StatusRequested": "as above",
    "ReportStatus": "as above",
    "FailRequest": "a simulated client that makes no sense is a bug",
    "StopNode": "clusters of worlds outlive their drivers",
    "DumpRecorder": "worlds have no flight recorder",
}
"""Messages that no world can show, and why."""


class Coverage(msgspec.Struct):
    """What the seeds of a swarm met."""

    seeds: int = 0
    seen: Counter[str] = msgspec.field(default_factory=Counter)
    """By kind of message, or "count: ..." of a core: in how many seeds."""
    programs: Counter[str] = msgspec.field(default_factory=Counter)
    ends: Counter[str] = msgspec.field(default_factory=Counter)
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    pairs: Counter[str] = msgspec.field(default_factory=Counter)

    def add(self, verdict: Verdict) -> None:
        """One seed more."""
        self.seeds += 1
        self.seen.update(verdict.seen)
        self.programs[verdict.program] += 1
        self.ends[verdict.end] += 1
        self.faults.update(verdict.faults)
        names = sorted(verdict.faults)
        for place, name in enumerate(names):
            self.pairs.update([f"{name}+{other}" for other in names[place + 1 :]])

    @property
    def pair_share(self) -> float:
        """Which share of all pairs of kinds of faults struck in one seed at least once."""
        kinds = len(KINDS)
        return len(self.pairs) / (kinds * (kinds - 1) // 2)

    @property
    def missing(self) -> dict[str, list[str]]:
        """What never came up, though it can."""
        messages = {kind.__name__ for kind in (*get_args(Stimulus), *get_args(Effect))}
        return {
            "messages": sorted(messages - set(self.seen) - UNREACHABLE.keys()),
            "faults": sorted(KINDS.keys() - self.faults.keys()),
            "programs": sorted(PROGRAMS.keys() - self.programs.keys()),
            "ends": sorted({"done", "stuck", "lost"} - self.ends.keys()),
        }
