"""The engines under measurement, each behind the same few verbs."""

from detray.bench.subjects.registry import PEERS, START_PROGRAMS, is_installed, make
from detray.bench.subjects.subject import Subject, Unsupported

__all__ = ["PEERS", "START_PROGRAMS", "Subject", "Unsupported", "is_installed", "make"]
