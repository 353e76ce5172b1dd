"""Clusters on one machine under measurement: `detray bench --cluster`."""

from detray.bench.clusters.measurements import CLUSTER_MEASUREMENTS
from detray.bench.clusters.subject import CLUSTER_ENGINES

__all__ = ["CLUSTER_ENGINES", "CLUSTER_MEASUREMENTS"]
