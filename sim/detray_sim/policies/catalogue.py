"""Policies by name: what each is, the knobs of the core that belong to it, and how it is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from detray.core.config import Policy
from detray.core.global_scheduler import GlobalScheduler
from detray.core.placement import POLICIES
from detray_sim.scenario import Scenario, ScenarioError
from detray_sim.workload import Workload

if TYPE_CHECKING:
    from detray_sim.cluster import SimCluster

Knobs = dict[str, bool | int | float | str]
FOR_EVER_NS = 10**17
"""Three years: longer than any experiment."""
MANY_ROUNDS = 1 << 30


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A policy as scenarios know it."""

    name: str
    line: str
    """What it does, for a list."""
    core: str = ""
    """The core's policy of that name."""
    knobs: Knobs = {}
    """Of `detray.core.config.Policy`, where they differ from production."""


ALWAYS: Knobs = {"hand_over": "always", "report_interval_ns": 0}
"""Every task is placed by the head, which hears of every change."""

CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="hybrid",
            line="production: a node keeps what it can run soon, the head places its surplus",
            core="hybrid",
        ),
        Entry(
            name="locality",
            line="where most bytes of the arguments are, then where most CPUs are free",
            core="locality",
            knobs=ALWAYS,
        ),
        Entry(name="spread", line="the emptiest node", core="spread", knobs=ALWAYS),
        Entry(name="random", line="any node with room", core="random", knobs=ALWAYS),
        Entry(
            name="stealing",
            line="as hybrid; nodes with a backlog give it back when others idle",
            core="hybrid",
            knobs=ALWAYS | {"rebalance": True, "queue_rounds": MANY_ROUNDS},
        ),
    )
}


def find(name: str) -> Entry:
    """The policy of that name. Raises ScenarioError."""
    if name not in CATALOGUE:
        raise ScenarioError(f"no policy is called {name!r}; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def core_policy(scenario: Scenario) -> Policy:
    """The knobs of all cores in a scenario. Raises ScenarioError.

    Production's, then those of the policy, then the scenario's own. Without faults nobody has to
    show signs of life: they would be most of what happens in a long run.
    """
    knobs: Knobs = {}
    if not (scenario.faults.rates or scenario.faults.planned):
        knobs |= {"heartbeat_ns": FOR_EVER_NS, "death_ns": 4 * FOR_EVER_NS}
        knobs |= {"deadlock_check_ns": FOR_EVER_NS}
    knobs |= find(scenario.policy.name).knobs
    knobs |= {"placement_interval_ns": scenario.policy.decision_interval_ns}
    known = Policy.__struct_fields__
    knobs |= {k: v for k, v in scenario.policy.parameters.items() if k in known}
    try:
        return msgspec.convert(knobs, Policy)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{scenario.file}: [policy.parameters] {error}") from None


def install(
    cluster: SimCluster,
    scenario: Scenario,
    workload: Workload,
    order: Sequence[int],
    seed: int,
) -> None:
    """Give the head of a fresh cluster its policy. `order`: task numbers as they are submitted."""
    entry = find(scenario.policy.name)
    core = cluster.head.core
    assert isinstance(core, GlobalScheduler)
    core.placement = POLICIES[entry.core](seed)


def check_policy(scenario: Scenario) -> None:
    """Raises ScenarioError if the scenario's policy does not exist, or not with its parameters."""
    core_policy(scenario)
