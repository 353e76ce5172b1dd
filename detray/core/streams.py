"""Streams: the counters that name what one thread of one attempt creates (`detray.ids`)."""

from __future__ import annotations

from detray.ids import FunctionID, ObjectID, TaskID, child_prefix, function_id, put_object


class Stream:
    """One thread's counters: 0 is the executing thread, others follow in order of first use."""

    __slots__ = ("attempt", "depth", "exports", "number", "parent", "prefix", "puts", "tasks")

    def __init__(self, parent: TaskID, attempt: int, number: int, depth: int) -> None:
        self.parent = parent
        self.attempt = attempt
        self.number = number
        self.depth = depth
        """Of the children: 1 for what a driver submits."""
        self.prefix = b""
        self.tasks = self.puts = self.exports = 0

    def name(self) -> bytes:
        """Compute the prefix. Lazy: most runs create nothing and need no hash."""
        self.prefix = child_prefix(self.parent, self.attempt, self.number)
        return self.prefix

    def next_put(self) -> ObjectID:
        """The name of the next put."""
        index = self.puts
        self.puts = index + 1
        return put_object(self.prefix or self.name(), index)

    def next_export(self) -> FunctionID:
        """The name of the next exported function."""
        index = self.exports
        self.exports = index + 1
        return function_id(self.prefix or self.name(), index)


class RunContext:
    """What runs in a process: the driver's own program, or a worker's current run.

    `executing` is the thread that runs it; `streams` are by thread.
    """

    __slots__ = ("attempt", "demand", "depth", "executing", "name", "streams", "task", "units")

    def __init__(
        self,
        task: TaskID,
        attempt: int,
        depth: int,
        name: str,
        executing: int,
        units: tuple[tuple[str, tuple[int, ...]], ...] = (),
        demand: tuple[tuple[str, int], ...] = (),
    ) -> None:
        self.task = task
        self.attempt = attempt
        self.depth = depth
        self.name = name
        self.executing = executing
        self.units = units
        """Assigned device numbers by resource name, "GPU" for one."""
        self.demand = demand
        self.streams: dict[int, Stream] = {}

    def open_stream(self, thread: int) -> Stream:
        """The stream of a thread that creates something here for the first time."""
        if thread == self.executing:
            number = 0
        else:
            number = 1 + len(self.streams) - (self.executing in self.streams)
        stream = self.streams[thread] = Stream(self.task, self.attempt, number, self.depth + 1)
        return stream
