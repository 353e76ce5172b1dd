"""Placement policies for experiments: the core's own, and those that know the workload."""

from detray_sim.policies.catalogue import (
    CATALOGUE,
    Entry,
    check_policy,
    core_policy,
    find,
    make_head,
    make_placement,
    needs_tracker,
)
from detray_sim.policies.knowledge import Knowledge
from detray_sim.policies.pairs import Pairs
from detray_sim.policies.priorities import FewestBytes, Knowing
from detray_sim.policies.tracker import Tracker

__all__ = [
    # by name
    "CATALOGUE",
    "Entry",
    "check_policy",
    "core_policy",
    "find",
    "make_head",
    "make_placement",
    "needs_tracker",
    # to write one's own
    "FewestBytes",
    "Knowing",
    "Knowledge",
    "Pairs",
    "Tracker",
]
