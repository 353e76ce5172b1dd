"""Recorded tasks run again, in this process, with what they had (docs/rerun.md)."""

from __future__ import annotations

from detray.rerun.choosing import ListedTask, list_tasks
from detray.rerun.everything import Summary, run_all
from detray.rerun.judging import CANNOT, DIFFERS, SAME, UNKNOWN
from detray.rerun.running import Report, RerunError, open_recorded, run

__all__ = [
    "CANNOT",
    "DIFFERS",
    "SAME",
    "UNKNOWN",
    "Report",
    "RerunError",
    "Summary",
    "ListedTask",
    "list_tasks",
    "open_recorded",
    "run",
    "run_all",
]
