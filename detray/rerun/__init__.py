"""Recorded tasks run again, in this process, with what they had (docs/rerun.md)."""

from __future__ import annotations

from detray.rerun.choosing import ListedTask, list_tasks
from detray.rerun.judging import CANNOT, DIFFERS, SAME, UNKNOWN
from detray.rerun.running import Report, RerunError, Summary, open_recorded, run, run_all

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
