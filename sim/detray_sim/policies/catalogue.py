"""Policies by name: what each is, the knobs of the core that belong to it, and how it is made."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import msgspec

from detray.core.config import GlobalConfig, Policy
from detray.core.global_scheduler import GlobalScheduler
from detray.core.placement import POLICIES, Placement
from detray_sim.policies.head import KnowingHead
from detray_sim.policies.pairs import Dls, Etf
from detray_sim.policies.priorities import BLevel, Heft, Knowing, Mcp, RandomStatic, TLevel
from detray_sim.policies.tracker import Tracker
from detray_sim.scenario import PolicyChoice, Scenario, ScenarioError

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
    kind: type[Knowing] | None = None
    """A class that knows the workload."""
    knobs: Knobs = {}
    """Of `detray.core.config.Policy`, where they differ from production."""


ALWAYS: Knobs = {"hand_over": "always", "report_interval_ns": 0}
"""Every task is placed by the head, which hears of every change."""
FULL: Knobs = ALWAYS | {"queue_rounds": MANY_ROUNDS}
"""Policies that count themselves: the head's own idea of what is full stays out of their way."""
ONE_EACH: Knobs = FULL | {"pipeline_depth_max": 1}

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
            line="queues at the nodes, which give tasks back when others idle",
            core="hybrid",
            knobs=ALWAYS | {"rebalance": True, "queue_rounds": MANY_ROUNDS},
        ),
        Entry(
            name="random-static",
            line="any node, drawn beforehand, whatever waits there",
            kind=RandomStatic,
            knobs=ONE_EACH,
        ),
        Entry(
            name="blevel",
            line="HLFET: longest way to the end first, on a free core with fewest bytes to fetch",
            kind=BLevel,
            knobs=ONE_EACH,
        ),
        Entry(
            name="tlevel",
            line="what could begin first goes first, on a free core with fewest bytes to fetch",
            kind=TLevel,
            knobs=ONE_EACH,
        ),
        Entry(
            name="heft",
            line="HEFT-like: by upward rank, where it ends first with all that is queued or moving",
            kind=Heft,
            knobs=ONE_EACH,
        ),
        Entry(
            name="mcp",
            line="MCP-like: by latest start, where it begins first",
            kind=Mcp,
            knobs=ONE_EACH,
        ),
        Entry(name="etf", line="the task and node that can begin first", kind=Etf, knobs=ONE_EACH),
        Entry(
            name="dls",
            line="the task and node with the largest b-level less start",
            kind=Dls,
            knobs=ONE_EACH,
        ),
    )
}
"""By name. A scenario may also name a class, as "package.module:Class"."""


def find(choice: PolicyChoice, file: str) -> Entry:
    """The policy that a scenario names. Raises ScenarioError."""
    name = choice.name
    if name in CATALOGUE:
        return CATALOGUE[name]
    if ":" not in name:
        known = ", ".join(CATALOGUE)
        raise ScenarioError(
            f"{file}: [policy] name: {name!r} is none of {known}, nor a class as module:Class"
        )
    module, _, attribute = name.partition(":")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ScenarioError(f"{file}: [policy] name: {name!r}: {error}") from None
    if not (isinstance(kind, type) and issubclass(kind, Knowing)):
        raise ScenarioError(f"{file}: [policy] name: {name!r} is no subclass of Knowing")
    return Entry(name=name, line=kind.__doc__ or "", kind=kind, knobs=ONE_EACH)


def core_policy(scenario: Scenario) -> Policy:
    """The knobs of all cores in a scenario. Raises ScenarioError.

    Production's, then those of the policy, then the scenario's own. Without faults nobody has to
    show signs of life: they would be most of what happens in a long run.
    """
    knobs: Knobs = {}
    if not (scenario.faults.rates or scenario.faults.planned):
        knobs |= {"heartbeat_ns": FOR_EVER_NS, "death_ns": 4 * FOR_EVER_NS}
        knobs |= {"deadlock_check_ns": FOR_EVER_NS}
    entry = find(scenario.policy, scenario.file)
    knobs |= entry.knobs
    if scenario.policy.decision_interval_ns:
        knobs["placement_interval_ns"] = scenario.policy.decision_interval_ns
    known = Policy.__struct_fields__
    for key, value in scenario.policy.parameters.items():
        if key in known:
            knobs[key] = value
        elif key != "ahead" or entry.kind is None or type(value) is not int or value < 0:
            raise ScenarioError(f"{scenario.file}: [policy.parameters] {key}: {_hint(entry)}")
    try:
        return msgspec.convert(knobs, Policy)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{scenario.file}: [policy.parameters] {error}") from None


def _hint(entry: Entry) -> str:
    own = "ahead, a whole number from 0 on; " if entry.kind is not None else ""
    return f"{entry.name} knows no such parameter or value; it has {own}and the knobs of the core"


def check_policy(scenario: Scenario) -> None:
    """Raises ScenarioError if the scenario's policy does not exist, or not with its parameters."""
    core_policy(scenario)


def needs_tracker(scenario: Scenario) -> bool:
    """Whether the policy of a scenario knows its workload."""
    return find(scenario.policy, scenario.file).kind is not None


def make_head(scenario: Scenario, config: GlobalConfig) -> GlobalScheduler:
    """The global scheduler of a scenario, with a policy that knows nothing yet of a workload."""
    entry = find(scenario.policy, scenario.file)
    return GlobalScheduler(config) if entry.kind is None else KnowingHead(config)


def make_placement(scenario: Scenario, seed: int, tracker: Tracker | None) -> Placement:
    """The policy of a scenario; `tracker` if it `needs_tracker`."""
    entry = find(scenario.policy, scenario.file)
    if entry.kind is None:
        return POLICIES[entry.core](seed)
    assert tracker is not None
    own: dict[str, Any] = {}  # Any: checked by `core_policy`
    if "ahead" in scenario.policy.parameters:
        own["ahead"] = scenario.policy.parameters["ahead"]
    return entry.kind(tracker, seed, **own)
