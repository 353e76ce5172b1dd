"""What `diff` knows of one run, under names that it has in common with another run.

CommonNames
-----
An id says where it comes from: parent, attempt of the parent, stream and index (PROTOCOL N2, N17).
The job number is not part of that, and neither should the attempt be: the attempt of a parent that
counted, its last, is compared with the one that counted in the other run. So everything gets the id
that it would have had if each of its ancestors had begun once, and jobs are numbered from 0 in
their order. For most runs that is the id as it is, but for the job.

A stream is a thread of the attempt, numbered by its first submission. Stream 0 is the one that runs
the task; what others submit has names that depend on which of them came first (`is_firm`).
"""

from __future__ import annotations

from typing import NamedTuple

from detray.core.payloads import template_number
from detray.core.stimuli import (
    BlockSealed,
    FunctionExported,
    GetRequested,
    ObjectPut,
    RunFinished,
    TaskSubmitted,
    TemplateDefined,
)
from detray.ids import (
    ClientID,
    FunctionID,
    ObjectID,
    TaskID,
    child_prefix,
    job_of,
    return_object,
    root_task,
)
from detray.trace.gathering.history import BEFORE, History, follow, new_history
from detray.trace.gathering.lives import TaskLife
from detray.trace.graphs.stops import stretches, waits_of
from detray.trace.play import Makers, Opening, tell
from detray.trace.reading import Trace

STREAMS_MAX = 64
"""Threads of one attempt that are told apart; what further ones submit keeps its id."""
_EARLIER = 1 << 31
"""Added to the distance from the last attempt, of attempts before it."""


class Submission(NamedTuple):
    """How a task was called. `options` are those of its template, by name, but for the function."""

    size_bytes: int
    digest: bytes
    function: FunctionID
    options: tuple[tuple[str, object], ...]


class Said(NamedTuple):
    """Which client said something, and as the how manieth of all that was said."""

    client: tuple[int, ClientID]
    """By the number of its core and its own."""
    number: int


class ExportedCode(NamedTuple):
    """An exported function; its digest says whether its pickled code is the same."""

    name: str
    digest: bytes
    refs: tuple[ObjectID, ...]


class RunRecord:
    """One run: its history, digests, submissions, and the common names of everything in it."""

    def __init__(self, trace: Trace, makers: Makers) -> None:
        """Gather it all. Raises TraceError."""
        self.trace = trace
        self.history = new_history(trace)
        self.submissions: dict[TaskID, Submission] = {}
        self.definitions: dict[FunctionID, ExportedCode] = {}
        self.digests: dict[ObjectID, bytes] = {}
        self.has_digests = False
        self.said: dict[bytes, Said] = {}
        """When tasks were submitted and objects put, by their own ids."""
        self.asked: dict[tuple[int, ClientID, ObjectID], int] = {}
        """When a client first asked for an object."""
        self.made_otherwise: dict[ObjectID, int] = {}
        """Returns that an attempt made again with another digest: that attempt."""
        self._templates: dict[tuple[int, int], tuple[FunctionID, tuple[tuple[str, object], ...]]]
        self._templates = {}
        self._count = 0
        for item in tell(trace, makers):
            if follow(self.history, trace, item) and not isinstance(item, Opening):
                for stimulus in item.stimuli:
                    self._count += 1
                    self._take(item.step.core, stimulus)
        self.history.close()
        self.history.use_dates(trace.header)
        self.names = CommonNames(self.history)
        self.tasks: dict[TaskID, TaskLife] = {}
        """By common name; those of which only the name is known are left out."""
        for life in self.history.tasks.values():
            if life.name != BEFORE or life.attempts:
                self.tasks[self.names.task(life.id)] = life
        self.stood_ns = _standstills(self.history)
        """How long the last attempt of a task stood still in `get` or `wait`, by its own id."""
        self.objects = {
            self.names.object(life.id): life
            for life in self.history.objects.values()
            if life.size_bytes >= 0
        }

    @property
    def is_whole(self) -> bool:
        """True if it begins with the run and ends with it: what is not in it did not happen."""
        trace = self.trace
        return trace.complete and not trace.goes_on and trace.first_step == 0

    def _take(self, core: int, m: object) -> None:
        match m:
            case TaskSubmitted():
                number = template_number(m.client, m.template)
                function, options = self._templates.get((core, number), (FunctionID(b""), ()))
                self.submissions[m.task] = Submission(m.size_bytes, m.digest, function, options)
                self.said.setdefault(m.task, Said((core, m.client), self._count))
            case GetRequested():
                for item in (*m.objects, *m.also):
                    self.asked.setdefault((core, m.client, item), self._count)
            case RunFinished():
                for index, part in enumerate(m.returns):
                    if part.digest:
                        self._see(return_object(m.task, index), part.digest, m.attempt)
            case ObjectPut() | BlockSealed():
                self.said.setdefault(m.object, Said((core, m.client), self._count))
                if m.digest:
                    self._see(m.object, m.digest, 0)
            case TemplateDefined():
                key = core, template_number(m.client, m.template)
                self._templates[key] = m.function, _options(m)
            case FunctionExported():
                self.definitions[m.function] = ExportedCode(m.name, m.digest, m.refs)

    def _see(self, item: ObjectID, digest: bytes, attempt: int) -> None:
        self.has_digests = True
        if self.digests.setdefault(item, digest) != digest:
            self.made_otherwise[item] = attempt


def _options(m: TemplateDefined) -> tuple[tuple[str, object], ...]:
    return (
        ("num_returns", m.num_returns),
        ("resources", m.demand),
        ("max_retries", m.max_retries),
        ("retry_exceptions", (m.retry_application_errors, m.size_bytes)),
        ("max_calls", m.max_calls),
        ("scheduling_strategy", m.strategy),
    )


class Origin(NamedTuple):
    """Where a prefix of ids comes from: a name for the same in every run, and how firm that is."""

    prefix: bytes
    """Eight bytes."""
    parent: TaskID
    """Its common name."""
    attempt: int
    """0 for the attempt that counted, then the one before it and so on."""
    stream: int
    """-1 if not known."""
    is_firm: bool


class CommonNames:
    """The common names of one run's tasks, objects and functions."""

    def __init__(self, history: History) -> None:
        self._tasks = history.tasks
        jobs = {job_of(item) for item in history.tasks}
        jobs.update(program.job for program in history.programs.values() if program.job)
        self.jobs = sorted(jobs)
        self._ranks = {job: rank.to_bytes(4, "big") for rank, job in enumerate(self.jobs)}
        self._origins: dict[bytes, Origin] = {}
        """By the first twelve bytes of an id."""
        for life in history.tasks.values():
            self._trace_back(life.id[:12], life.parent)
        for value in history.objects.values():
            if value.is_put:
                self._trace_back(value.id[:12], value.producer)

    def task(self, item: TaskID) -> TaskID:
        """A task by its common name."""
        return TaskID(self._rank(item) + self._prefix(item) + item[12:])

    def object(self, item: ObjectID) -> ObjectID:
        """An object by its common name."""
        return ObjectID(self._rank(item) + self._prefix(item) + item[12:])

    def objects(self, items: tuple[ObjectID, ...]) -> tuple[ObjectID, ...]:
        """Objects by their common names, in their order."""
        return tuple(map(self.object, items))

    def function(self, item: FunctionID) -> FunctionID:
        """A function by its common name."""
        return FunctionID(self._rank(item) + self._prefix(item) + item[12:]) if item else item

    def origin(self, item: bytes) -> Origin:
        """Where a task, or a put, comes from."""
        found = self._origins.get(item[:12])
        return found or Origin(item[4:12], TaskID(self._rank(item) + bytes(12)), 0, -1, False)

    def _rank(self, item: bytes) -> bytes:
        return self._ranks.get(job_of(item), b"\xff" + item[1:4])

    def _prefix(self, item: bytes) -> bytes:
        known = self._origins.get(item[:12])
        return known.prefix if known is not None else item[4:12]

    def _trace_back(self, prefix: bytes, parent: TaskID) -> None:
        """Find the origin of a prefix, and before it those of all its ancestors."""
        wanted = [(prefix, parent)]
        while wanted:
            prefix, parent = wanted[-1]
            if prefix in self._origins or not parent:
                wanted.pop()
                continue
            above = self._tasks.get(parent)
            is_known = parent[:12] in self._origins or above is None or not above.parent
            if not is_known and above is not None and len(wanted) <= len(self._tasks):
                wanted.append((parent[:12], above.parent))
                continue
            self._origins[prefix] = self._find(prefix, parent)
            wanted.pop()

    def _find(self, prefix: bytes, parent: TaskID) -> Origin:
        life = self._tasks.get(parent)
        numbers = [run.number for run in life.attempts] if life is not None else []
        attempts = [number for number in numbers if 0 <= number < _EARLIER]
        last = max(attempts, default=0)
        name = self.task(parent)
        is_root = parent == root_task(job_of(parent))
        above = self._origins.get(parent[:12])
        is_firm = is_root or (above is not None and above.is_firm)
        for attempt in dict.fromkeys((*attempts, 0)):
            for stream in range(STREAMS_MAX):
                if child_prefix(parent, attempt, stream) == prefix:
                    distance = last - attempt
                    common = TaskID(bytes(4) + name[4:])
                    number = distance and _EARLIER + distance
                    own = child_prefix(common, number, stream)[4:]
                    return Origin(own, name, distance, stream, is_firm and not stream)
        return Origin(prefix[4:], name, 0, -1, False)


def _standstills(history: History) -> dict[TaskID, int]:
    found = {}
    for task, waits in waits_of(history).items():
        life = history.tasks.get(task)
        run = life.last if life is not None else None
        if run is not None and 0 <= run.started_ns <= run.ended_ns:
            spans = stretches(waits, run.started_ns, run.ended_ns)
            found[task] = sum(end_ns - begin_ns for begin_ns, end_ns in spans)
    return found
