"""Names in a rehearsal: what the ids, jobs and nodes of a tape are called when a part is played."""

from __future__ import annotations

from typing import Any

import msgspec

from detray.core.stimuli import FunctionExported, TemplateDefined
from detray.ids import (
    OBJECT_ID_BYTES,
    TASK_ID_BYTES,
    ClientID,
    FunctionID,
    JobNumber,
    NodeID,
    TemplateID,
)
from detray.trace.reducing.tape import Item


class Naming:
    """By what the tape says, what is said here. One for all cores of a rehearsal.

    With `is_lazy` definitions are said when something needs them, as a client does. With
    `keeps_numbers` jobs and nodes are numbered as on the tape: whoever numbers them is not played.
    """

    def __init__(self, is_lazy: bool, keeps_numbers: bool) -> None:
        self.ids: dict[bytes, bytes] = {}
        self.functions: dict[FunctionID, FunctionExported] = {}
        self.templates: dict[tuple[int, ClientID, TemplateID], TemplateDefined] = {}
        """By core, client and number, all of the tape."""
        self.jobs: dict[JobNumber, JobNumber] = {}
        self.nodes: dict[NodeID, NodeID] = {}
        self.is_lazy = is_lazy
        self._keeps_numbers = keeps_numbers

    def define(self, item: Item) -> None:
        """A definition of the tape, to be said when something needs it."""
        m = item.stimulus
        if isinstance(m, FunctionExported):
            self.functions[m.function] = m
        else:
            self.templates[item.core, m.client, m.template] = m

    def known(self, item: bytes) -> bytes | None:
        """What something is called here; None if it was not made here."""
        new = self.ids.get(item)
        if new is None and len(item) == OBJECT_ID_BYTES and item[TASK_ID_BYTES] < 0x80:
            task = self.ids.get(item[:TASK_ID_BYTES])
            if task is not None:
                new = self.ids[item] = task + item[TASK_ID_BYTES:]
        return new

    def foreign(self, item: bytes) -> bytes:
        """The same; what others made is taken as it comes, but for its job."""
        new = self.known(item)
        if new is None and len(item) in (TASK_ID_BYTES, OBJECT_ID_BYTES):
            if len(item) == OBJECT_ID_BYTES and item[TASK_ID_BYTES] < 0x80:
                return self.foreign(item[:TASK_ID_BYTES]) + item[TASK_ID_BYTES:]
            job = self.job(JobNumber(int.from_bytes(item[:4], "big")))
            new = self.ids[item] = job.to_bytes(4, "big") + item[4:]
        return item if new is None else new

    def job(self, number: JobNumber) -> JobNumber:
        """The number of a job that is heard of here."""
        if self._keeps_numbers:
            return number
        return self.jobs.setdefault(number, JobNumber(len(self.jobs) + 1))

    def node(self, number: NodeID) -> NodeID:
        """The number of a node; -2 if there is none here."""
        return number if self._keeps_numbers else self.nodes.get(number, NodeID(-2))

    def all_foreign(self, value: Any) -> Any:  # Any: a message, or a part of one
        """The same message with every id in it as it is called here."""
        if isinstance(value, bytes):
            return self.foreign(value)
        if isinstance(value, tuple):
            return tuple([self.all_foreign(part) for part in value])
        if isinstance(value, msgspec.Struct):
            names = value.__struct_fields__
            return type(value)(*[self.all_foreign(getattr(value, name)) for name in names])
        return value
