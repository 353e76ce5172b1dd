"""A machine in one process for recording traces: real cores, workers that are scripted.

Time is virtual: `now_ns` moves only as runs take time. Messages travel encoded, as on real sockets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from detray.core.config import GlobalConfig, LocalConfig
from detray.core.effects import (
    Effect,
    ExitWorker,
    GetAnswered,
    GrantBlock,
    InterruptRun,
    RetractRuns,
    RunTask,
    SendToHead,
    SendToNode,
    StartWorker,
)
from detray.core.global_scheduler import GlobalScheduler
from detray.core.local import LocalScheduler
from detray.core.outbox import Outbox
from detray.core.stimuli import (
    DriverConnected,
    FunctionExported,
    GetRequested,
    ObjectPut,
    RefsDropped,
    Return,
    RunFailed,
    RunFinished,
    RunsRetracted,
    Stimulus,
    TaskSubmitted,
    TemplateDefined,
    WorkerLost,
    WorkerReady,
)
from detray.errors import Failure
from detray.ids import (
    NO_TASK,
    ClientID,
    FunctionID,
    JobNumber,
    ObjectID,
    TaskID,
    TemplateID,
    child_prefix,
    child_task,
    function_id,
    put_object,
    return_object,
    root_task,
)
from detray.trace.flight import RING_BYTES
from detray.trace.format import HEAD, LOCAL
from detray.trace.recorder import Recorder, new_header

DRIVER = ClientID(-1)
JOB = JobNumber(1)
ROOT = root_task(JOB)
MS = 1_000_000
START_NS = 1_000_000 * MS

Body = Callable[["Machine", RunTask], "bool | str"]
"""What a task does: True if it finished, False if it never ends, "killed", or an error's text."""


class Machine:
    """Two cores, a recorder, a driver (client -1) and as many workers as the scheduler orders."""

    def __init__(
        self,
        path: Path | None = None,
        cpus: int = 4,
        entrypoint: str = "/home/ada/program.py",
        ring_bytes: int = RING_BYTES,
    ) -> None:
        local = LocalConfig(
            node_name="here", totals=(("CPU", cpus * 10_000),), arena_bytes=64 << 20
        )
        head = GlobalConfig()
        self.cores = (LocalScheduler(local), GlobalScheduler(head))
        header = new_header(
            local=local,
            head=head,
            entrypoint=entrypoint,
            wall_ns=1_700_000_000_000_000_000,
            monotonic_ns=START_NS,
            detray_version="test",
        )
        self.recorder = Recorder(header, self.cores, path, ring_bytes)
        self.now_ns = START_NS
        self.answers: dict[int, GetAnswered] = {}
        self.bodies: dict[int, Body] = {}
        self.run_ns = 5 * MS
        self._outbox = Outbox()
        self._inbox: deque[tuple[int, list[Stimulus]]] = deque()
        self._runs: dict[ClientID, deque[RunTask]] = {}
        self._made: dict[TaskID, int] = {}
        self._functions = 0
        self._requests = 0
        self.tell(DriverConnected(DRIVER, 4242, "", entrypoint))

    # ---------------------------------------------------------------- what a program does

    def define(self, name: str, body: Body | None = None, **options: int) -> TemplateID:
        """Export a function and its template."""
        number = self._functions
        self._functions += 1
        function = function_id(child_prefix(ROOT, 0, 0), number)
        template = TemplateID(number)
        self.bodies[number] = body or (lambda machine, run: True)
        self.tell(
            FunctionExported(DRIVER, FunctionID(function), name, 100),
            TemplateDefined(
                DRIVER,
                template,
                function,
                name,
                options.get("num_returns", 1),
                (("CPU", options.get("cpus", 10_000)),),
                options.get("max_retries", 3),
                False,
                0,
            ),
        )
        return template

    def submit(
        self,
        template: TemplateID,
        *args: ObjectID,
        parent: TaskID = ROOT,
        refs: tuple[ObjectID, ...] = (),
    ) -> ObjectID:
        """Call a function; the id of its first return."""
        task = child_task(child_prefix(parent, 0, 0), self._next(parent))
        depth = 0 if parent == ROOT else 1
        self.tell(TaskSubmitted(DRIVER, task, template, parent, depth, 20, args, refs))
        return return_object(task, 0)

    def put(self, size_bytes: int = 10, refs: tuple[ObjectID, ...] = ()) -> ObjectID:
        """Put a small value."""
        item = put_object(child_prefix(ROOT, 0, 0), self._next(ROOT))
        self.tell(ObjectPut(DRIVER, item, size_bytes, refs))
        return item

    def get(self, *items: ObjectID, blocks: TaskID = NO_TASK) -> int:
        """Ask for values; the request's number."""
        self._requests += 1
        self.tell(GetRequested(DRIVER, self._requests, items, len(items), True, True, -1, blocks))
        return self._requests

    def drop(self, *items: ObjectID) -> None:
        """Give references back."""
        self.tell(RefsDropped(DRIVER, items, (1,) * len(items)))

    def _next(self, parent: TaskID) -> int:
        index = self._made.get(parent, 0)
        self._made[parent] = index + 1
        return index

    # ---------------------------------------------------------------- what the machine does

    def tell(self, *stimuli: Stimulus) -> None:
        """Deliver to the local scheduler and settle."""
        self._inbox.append((LOCAL, list(stimuli)))
        self._settle()

    def work(self) -> None:
        """Let the workers run what they were sent, one run of each at a time, until all is done."""
        while any(self._runs.values()):
            self.now_ns += self.run_ns
            for worker in list(self._runs):
                self._work_one(worker)

    def _work_one(self, worker: ClientID) -> None:
        queue = self._runs.get(worker)
        if not queue:
            return
        run = queue.popleft()
        verdict = self.bodies[run.template & 0xFFFF_FFFF](self, run)
        started, ended = self.now_ns - self.run_ns + 1000, self.now_ns
        if verdict == "killed":
            rest = len(self._runs.pop(worker))
            self.tell(WorkerLost(worker, rest, False, "killed by signal SIGKILL"))
        elif isinstance(verdict, str):
            kind = int(Failure.APPLICATION)
            self.tell(
                RunFailed(worker, run.task, run.attempt, started, ended, kind, False, verdict, 9)
            )
        elif verdict:
            done = (Return(100),)
            self.tell(RunFinished(worker, run.task, run.attempt, started, ended, done))

    def _settle(self) -> None:
        while self._inbox:
            core, stimuli = self._inbox.popleft()
            metas = [msgspec.msgpack.encode(stimuli)]
            effects = self.cores[core].handle(*stimuli, now_ns=self.now_ns)  # type: ignore[arg-type]
            groups = self._outbox.encode_effects(effects)
            self.recorder.step(core, self.now_ns, metas, groups)
            self._perform(effects)

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendToHead(message):
                    self._inbox.append((HEAD, [message]))
                case SendToNode(_, message):
                    self._inbox.append((LOCAL, [message]))
                case StartWorker(client):
                    self._runs[client] = deque()
                    self._inbox.append((LOCAL, [WorkerReady(client, 5000 + client)]))
                case RunTask(client):
                    self._runs[client].append(effect)
                case RetractRuns(client, count):
                    queue = self._runs[client]
                    taken = min(count, max(0, len(queue) - 1))
                    for _ in range(taken):
                        queue.pop()
                    self._inbox.append((LOCAL, [RunsRetracted(client, taken)]))
                case ExitWorker(client):
                    del self._runs[client]
                    self._inbox.append((LOCAL, [WorkerLost(client, 0, True, "exited")]))
                case GetAnswered(_, request):
                    self.answers[request] = effect
                case InterruptRun() | GrantBlock():
                    raise NotImplementedError(effect)
                case _:
                    pass
