"""Whoever wants to know what an engine does while it does it."""

from __future__ import annotations

from detray.ids import ObjectID, TaskID
from detray.rerun.judging import Judgement


class Bystander:
    """Who is told what an engine does; this one does not care.

    `began` and `ended` frame the run of a recorded task, and those of others may lie between.
    """

    def began(self, task: TaskID, attempt: int) -> None:
        """A recorded task runs from now on."""

    def ended(self) -> None:
        """The one that began last has ended, and is judged."""

    def judged(self, task: TaskID, judgement: Judgement) -> None:
        """This is the verdict on it."""

    def kept(self, item: ObjectID, data: bytes, *, is_same: bool) -> None:
        """A value was made that others may take."""

    def unmade(self, task: TaskID, text: str) -> None:
        """A task does not make its values again: why."""
