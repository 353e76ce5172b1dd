"""Workloads: made up, or read from the files of workflow systems, studies and recordings."""

from detray_sim.workloads.generators import GENERATORS, generate
from detray_sim.workloads.measures import Measures, b_levels, digest, measure

__all__ = ["GENERATORS", "Measures", "b_levels", "digest", "generate", "measure"]
