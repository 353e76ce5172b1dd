"""Placement policies for experiments: the core's own, and those that know the workload."""

from detray_sim.policies.catalogue import CATALOGUE, Entry, check_policy, core_policy, find, install

__all__ = ["CATALOGUE", "Entry", "check_policy", "core_policy", "find", "install"]
