"""Network models: how long messages and bulk transfers between nodes take, in virtual time."""

from detray_sim.network.instant import InstantNetwork
from detray_sim.network.links import Link, NetworkShape, Nic, matrix, uniform
from detray_sim.network.maxmin import MaxMinNetwork
from detray_sim.network.model import Network
from detray_sim.network.simple import SimpleNetwork

__all__ = [
    "InstantNetwork",
    "Link",
    "MaxMinNetwork",
    "Network",
    "NetworkShape",
    "Nic",
    "SimpleNetwork",
    "matrix",
    "uniform",
]
