"""Notices: what the user of a job is to hear, whichever node noticed it.

Rule (PROTOCOL N20): what waits without a visible end is told on the terminal of the job's driver. A
node that is not the driver's sends it there; each infeasible demand is told once in a job, however
many nodes meet it. A notice is lost with the node that notices, and nothing else hangs on it.
"""

from __future__ import annotations

from detray.core.links import tell
from detray.core.peer_messages import NoticeSent
from detray.core.resources import Demand
from detray.core.step import Step
from detray.core.strategy import Strategy
from detray.core.tables import DRIVER
from detray.ids import JobNumber

LEVELS = ("warning", "error")
REPORTED_MAX = 1_000
"""So many different demands are told of at most."""
KIND_MAX = 40
"""Characters of its kind, which is a word."""
TEXT_MAX = 2_000
"""Characters of a notice from another node; what is longer is cut."""


def notify(
    s: Step,
    job: JobNumber,
    level: str,
    kind: str,
    text: str,
    demand: Demand = (),
    strategy: Strategy | None = None,
) -> None:
    """Tell the drivers of a job, here or at their node; once for each `demand` that it is about."""
    if demand and not _is_new(s, job, demand, strategy):
        return
    s.notify(job, level, kind, text)
    home = s.t.jobs_elsewhere.get(job)
    if home is not None:
        tell(s, home, NoticeSent, job, level, kind, text[:TEXT_MAX], demand, strategy)


def on_notice_sent(s: Step, m: NoticeSent) -> None:
    """Another node noticed something that drivers here should hear."""
    t = s.t
    is_here = any(client.job == m.job and client.kind == DRIVER for client in t.clients.values())
    if m.level not in LEVELS or not is_here or len(t.reported) >= REPORTED_MAX:
        s.count("stale")
        return
    if not m.demand or _is_new(s, m.job, m.demand, m.strategy):
        s.notify(m.job, m.level, m.kind[:KIND_MAX], f"{m.text[:TEXT_MAX]} (Seen by node {m.node}.)")


def _is_new(s: Step, job: JobNumber, demand: Demand, strategy: Strategy | None) -> bool:
    key = (job, demand, strategy)
    if key in s.t.reported:
        return False
    s.t.reported.append(key)
    return True
