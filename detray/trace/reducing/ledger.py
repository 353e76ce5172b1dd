"""What each task of a run is doing, kept up to date step by step: what expectations look at.

A row is a task wherever it is known. The steps say which tasks may have changed, the tables of the
core say how: so a step costs what happened in it, not what there is.

A task *waits* from when all that it takes is at hand until it is sent to a worker, also while the
head is asked where, and while it is on its way to another node. It *runs* while its run is the
first in the queue of its worker, also while it stands still in a `get`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detray.core import effects as ef
from detray.core import head_messages as hm
from detray.core import peer_messages as pm
from detray.core import stimuli as st
from detray.core.states import Assigned, Delivered, Failed, Fetching, Placing, Ready, Waiting
from detray.core.tables import HERE, Tables, Task
from detray.ids import ClientID, TaskID, return_object, task_of

ENTERS, WAITS, SENT, RUNS, ENDS = "enters", "waits", "sent", "runs", "ends"
"""What may become of a task in a step."""


class LedgerRow:
    """A task: `at` is the core where it is now, `owner` where it was submitted (-1: not known).

    Times are dates in nanoseconds, -1 where they do not apply. `submitted_ns` is -1 for tasks that
    were there before the trace.
    """

    __slots__ = (
        "at", "failed", "id", "is_over", "key", "name", "number", "owner", "parent", "runs_ns",
        "since_ns", "submitted_ns",
    )  # fmt: skip

    def __init__(self, item: TaskID, number: int) -> None:
        self.id = item
        self.number = number
        self.name = ""
        self.key = ""
        """Equal for tasks that ask for the same, at any node."""
        self.parent = TaskID(b"")
        self.owner = -1
        self.at = -1
        self.submitted_ns = -1
        self.since_ns = -1
        """It waits since then."""
        self.runs_ns = -1
        """It runs since then."""
        self.is_over = False
        self.failed = ""
        """Why it failed, if it did."""


Change = tuple[str, LedgerRow]
_PRODUCED = (st.RunFinished, st.RunFailed, pm.RunDone, pm.RunErred, pm.RunLost)
_NAMED = (
    st.TaskSubmitted, pm.RunDelivered, pm.RunReturned, hm.Placed, hm.DemandInfeasible,
    hm.PlacementRefused,
)  # fmt: skip
_ARRIVED = (
    st.ObjectPut, st.BlockSealed, pm.ValueSent, pm.ValueFound, pm.ValueFailed, st.ObjectArrived,
)  # fmt: skip
_SENDS = (ef.SendToPeer, ef.SendToHead)
_MOVING = (pm.RunDelivered, pm.RunReturned, hm.PlacementRequested)
_ALL = (st.ClientLost, hm.JobClosed, hm.NodeBuried)


class Ledger:
    """All tasks. `tables` are those of the local schedulers, by the number of their core."""

    def __init__(self) -> None:
        self.rows: dict[TaskID, LedgerRow] = {}
        self.tables: dict[int, Tables] = {}
        self._takers: dict[tuple[int, bytes], dict[TaskID, None]] = {}
        """By core and the first 16 bytes of what is awaited: who waits for it."""
        self._queues: dict[tuple[int, ClientID], list[TaskID]] = {}
        self._children: dict[TaskID, list[TaskID]] = {}
        self._changes: list[Change] = []

    def begin(self, core: int, tables: Tables, date_ns: int) -> list[Change]:
        """A core is watched from here on; what it has already waits since now."""
        self.tables[core] = tables
        self._changes = []
        for worker in tables.workers.values():
            for run in worker.runs:
                self._queues.setdefault((core, worker.id), []).append(run.task)
        for item in list(tables.tasks):
            self._look(core, item, date_ns)
        for queue in [queue for (at, _), queue in self._queues.items() if at == core]:
            self._run_first(queue, date_ns)
        return self._changes

    def step(
        self, core: int, date_ns: int, stimuli: Sequence[Any], effects: Sequence[Any]
    ) -> list[Change]:
        """A step of a local scheduler, which its tables have behind them; what changed."""
        self._changes = []
        touched: dict[TaskID, None] = {}
        fronts: list[list[TaskID]] = []
        for m in stimuli:
            self._touch(core, m, touched, fronts)
        for effect in effects:
            kind = type(effect)
            if kind is ef.RunTask:
                queue = self._queues.setdefault((core, effect.client), [])
                queue.append(effect.task)
                fronts.append(queue)
                touched[effect.task] = None
            elif kind in _SENDS and type(effect.message) in _MOVING:
                touched[effect.message.task] = None
        while touched:
            ended = [item for item in touched if self._look(core, item, date_ns)]
            touched = {}
            for item in ended:
                touched.update(self._takers.pop((core, item), ()))
        for queue in fronts:
            self._run_first(queue, date_ns)
        return self._changes

    def confirm(self, row: LedgerRow) -> Task | None:
        """The task of a row that waits, as its core has it; None if it does not wait after all."""
        tables = self.tables.get(row.at)
        task = tables.tasks.get(row.id) if tables is not None else None
        if task is not None and type(task.state) in (Ready, Placing):
            return task
        row.since_ns = -1
        if task is not None:
            self._await(row.at, task)
        return None

    # -------------------------------------------------------------- which

    def _touch(
        self, core: int, m: Any, touched: dict[TaskID, None], fronts: list[list[TaskID]]
    ) -> None:  # Any: a stimulus
        kind = type(m)
        if kind in _PRODUCED:
            touched[m.task] = None
            touched.update(self._takers.pop((core, m.task), ()))
            queue = self._queues.get((core, getattr(m, "client", ClientID(0))))
            if queue is not None and m.task in queue:
                queue.remove(m.task)
                fronts.append(queue)
        elif kind in _NAMED:
            touched[m.task] = None
        elif kind in _ARRIVED:
            touched.update(self._takers.pop((core, m.object[:16]), ()))
        elif kind is pm.FunctionShipped:
            touched.update(self._takers.pop((core, m.function), ()))
        elif kind is st.RunsRetracted:
            queue = self._queues.get((core, m.client), [])
            for _ in range(min(m.count, len(queue))):
                touched[queue.pop()] = None
        elif kind is st.WorkerLost:
            for item in self._queues.pop((core, m.client), ()):
                touched[item] = None
                touched.update(self._takers.pop((core, item), ()))
        elif kind is st.CancelRequested:
            self._touch_family(task_of(m.object), touched)
        elif kind is pm.RunCancelled:
            self._touch_family(m.task, touched)
        elif kind in _ALL:
            touched.update({row.id: None for row in self.rows.values() if row.at == core})

    def _touch_family(self, item: TaskID, touched: dict[TaskID, None]) -> None:
        if item not in touched:
            touched[item] = None
            for child in self._children.get(item, ()):
                self._touch_family(child, touched)

    # -------------------------------------------------------------- how

    def _look(self, core: int, item: TaskID, date_ns: int) -> bool:
        """Bring a row in line with the tables of a core; True if the task is over there."""
        tables = self.tables[core]
        task = tables.tasks.get(item)
        row = self.rows.get(item)
        if task is None:
            return row is not None and not row.is_over and self._end(core, row, tables)
        if row is None:
            row = self._enter(core, task, tables, date_ns)
        row.is_over = False
        kind = type(task.state)
        if kind is Delivered:
            row.runs_ns = -1
            return False
        row.at = core
        if kind is Ready or kind is Placing:
            row.runs_ns = -1
            if row.since_ns < 0:
                row.since_ns = date_ns
                self._changes.append((WAITS, row))
        else:
            row.since_ns = -1
            if kind is Assigned:
                self._changes.append((SENT, row))
            else:
                row.runs_ns = -1
                self._await(core, task)
        return False

    def _enter(self, core: int, task: Task, tables: Tables, date_ns: int) -> LedgerRow:
        row = self.rows[task.spec.task] = LedgerRow(task.spec.task, len(self.rows))
        template = tables.templates.get(task.template)
        row.name = template.name if template is not None else ""
        if template is not None:
            row.key = repr((template.demand, template.strategy))
        row.parent = task.spec.parent
        row.owner = core if task.owner == HERE else -1
        row.submitted_ns = date_ns
        self._children.setdefault(row.parent, []).append(row.id)
        self._changes.append((ENTERS, row))
        return row

    def _end(self, core: int, row: LedgerRow, tables: Tables) -> bool:
        if row.owner >= 0 and row.owner != core:
            row.runs_ns = -1  # its owner has the last word
            return True
        row.is_over, row.since_ns, row.runs_ns = True, -1, -1
        first = tables.objects.get(return_object(row.id, 0))
        if first is not None and type(first.state) is Failed:
            row.failed = first.state.text or f"failure {first.state.failure}"
        self._changes.append((ENDS, row))
        return True

    def _await(self, core: int, task: Task) -> None:
        for item in task.spec.args:
            self._takers.setdefault((core, item[:16]), {})[task.spec.task] = None
        template = self.tables[core].templates.get(task.template)
        if template is not None and template.waits:
            self._takers.setdefault((core, template.function), {})[task.spec.task] = None

    def _run_first(self, queue: list[TaskID], date_ns: int) -> None:
        row = self.rows.get(queue[0]) if queue else None
        if row is not None and row.runs_ns < 0 and not row.is_over:
            row.runs_ns = date_ns
            self._changes.append((RUNS, row))


def state_in_words(tables: Tables | None, row: LedgerRow) -> str:
    """What a task is waiting for or doing, in words without ids: equal for equal troubles."""
    task = tables.tasks.get(row.id) if tables is not None else None
    if tables is None or task is None:
        return "it is not known here"
    try:
        return _in_words(tables, task)
    except LookupError:
        return "what its node says of it makes no sense"  # A file may say anything.


def _in_words(tables: Tables, task: Task) -> str:
    match task.state:
        case Ready():
            return _lack(tables, task)
        case Placing():
            if task.state.offers is not None:
                return "no node has what it asks for"
            return "it waits for the head to name a node"
        case Waiting():
            return "it waits for what it takes"
        case Fetching():
            return "what it takes is on its way"
        case Delivered():
            return "it is at another node"
        case Assigned():
            worker = tables.workers[ClientID(task.state.worker)]
            if worker.runs[0].task != task.spec.task:
                return "it is sent to a worker behind another run"
            return "its run stands still in a get" if worker.blocked else "it runs"


def _lack(tables: Tables, task: Task) -> str:
    """Why a ready task is not sent to a worker."""
    shape = tables.shapes[tables.templates[task.template].shape]
    pool = tables.pool
    lacking = [pool.names[index] for index, n in shape.amounts if pool.available[index] < n]
    if lacking:
        return f"{' and '.join(lacking)} is taken"
    if any(tables.workers[client].lane == shape.lane for client in tables.starting):
        return "a worker for it is starting"
    return "an idle worker looks on" if tables.idle.get(shape.lane) else "there is no worker for it"
