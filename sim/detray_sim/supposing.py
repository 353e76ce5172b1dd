"""What of a stuck cluster could still finish, supposing that a node came for infeasible demands.

A demand that no present node meets waits for one that joins, and nobody can say when that will be.
What hangs on such a demand waits for the same node: the run that waits for it in a get, whoever
waits for a GPU which that run holds, and whoever waits for them. This is no deadlock, since that
node would end all of it, and no cluster may break it: the join would come to a program that has
failed already. So it is legitimate to be stuck if, and only if,

- nothing could go on without such a node (else a wake-up is missing), and
- with the infeasible demands met, and nothing else, all of it could (else some of it is a deadlock
  beside them, which must be told).

Both are fixed points over the tables of all living nodes. They are found here anew and not with the
searches of the cores (`deadlock.py`, `waits.py`), which this is to judge.
"""

from __future__ import annotations

from collections.abc import Mapping

from detray.core.resources import CPU
from detray.core.states import Assigned, Delivered, Gone, Pending, Placing, Waiting
from detray.core.strategy import AFFINITY, Strategy, is_labelled, node_named
from detray.core.tables import HERE, Get, Tables, Task, Worker
from detray.ids import NodeID, ObjectID, TaskID, is_put, task_of


class Supposed:
    """The fixed point; `tables` of the nodes that live, `joins`: infeasible demands are met.

    `left` are the tasks that cannot finish, `blocked` the runs whose get cannot be answered, each
    with its node; `went_on` counts what could. With `told`, a get that has just failed, it is as if
    that went on to wait, and all runs that wait for nothing end.
    """

    def __init__(
        self,
        tables: Mapping[NodeID, Tables],
        *,
        joins: bool,
        told: tuple[NodeID, Worker, Get] | None = None,
    ) -> None:
        self.tables = tables
        self.joins = joins
        self.free = {node: list(t.pool.available) for node, t in tables.items()}
        self.left: dict[TaskID, tuple[NodeID, Task]] = {}
        self.blocked: list[tuple[NodeID, Worker, Get]] = []
        self.went_on = 0
        for node, t in tables.items():
            for task in t.tasks.values():
                if type(task.state) is not Delivered or task.spec.task not in self.left:
                    self.left[task.spec.task] = (node, task)
            for worker in t.workers.values():
                if worker.blocked and worker.runs:
                    get = t.clients[worker.id].gets[worker.blocked]
                    self.blocked.append((node, worker, get))
        if told is not None:
            for node, t in tables.items():
                for worker in t.workers.values():
                    if worker.runs and not worker.blocked and worker is not told[1]:
                        self._finish(node, worker)
            self.blocked.append(told)
        self._settle()

    @property
    def is_all(self) -> bool:
        """True if everything could finish."""
        return not self.left and not self.blocked

    def _settle(self) -> None:
        while True:
            before = self.went_on
            for entry in list(self.blocked):
                node, worker, get = entry
                if self._can_answer(node, get):
                    self.blocked.remove(entry)
                    self.went_on += 1
                    self._finish(node, worker)
            for name, (node, task) in list(self.left.items()):
                if self._can_run(node, task):
                    del self.left[name]
                    self.went_on += 1
            if self.went_on == before:
                return

    def _finish(self, node: NodeID, worker: Worker) -> None:
        """Its runs end, and what it kept while it was blocked is free."""
        t = self.tables[node]
        for run in worker.runs:
            self.left.pop(run.task, None)
        for index, amount in t.shapes[worker.shape].amounts:
            if index > CPU:
                self.free[node][index] += amount

    def _can_answer(self, node: NodeID, get: Get) -> bool:
        coming = sum(self._can_come(node, item) for item in get.objects)
        return get.deadline_ns >= 0 or coming >= get.needed

    def _can_come(self, node: NodeID, item: ObjectID) -> bool:
        """True if there is a value, or its producer can finish."""
        row = self.tables[node].objects.get(item)
        if row is not None and type(row.state) not in (Pending, Gone):
            return True
        return is_put(item) or task_of(item) not in self.left

    def _can_run(self, node: NodeID, task: Task) -> bool:
        if not all(self._can_come(node, item) for item in task.spec.args):
            return False
        match task.state:
            case Delivered() | Assigned():
                return False  # the row at its executor says more, or its run does
            case Placing() | Waiting() if task.owner == HERE and self._may_leave(node, task):
                able = self._able(node, task)
            case _:
                able = [node]
        if not any(self._has_room(other, node, task, ever=True) for other in able):
            return self.joins
        return any(self._has_room(other, node, task) for other in able)

    def _may_leave(self, node: NodeID, task: Task) -> bool:
        """False for what this node could run and hands to nobody."""
        t = self.tables[node]
        shape = t.shapes[t.templates[task.template].shape]
        is_kept = shape.feasible and t.config.policy.hand_over == "never"
        return type(task.state) is Placing or not is_kept

    def _able(self, owner: NodeID, task: Task) -> list[NodeID]:
        """The nodes that the head may name for it, by the strategy alone."""
        t = self.tables[owner]
        strategy = t.templates[task.template].strategy
        if strategy is None:
            return list(self.tables)
        able = [node for node in self.tables if _is_labelled(self.tables[node], strategy)]
        named = node_named(strategy.node)
        if strategy.kind != AFFINITY or strategy.spills or named not in able:
            return able
        return [named] if self._has_room(named, owner, task, ever=True) else able

    def _has_room(self, node: NodeID, owner: NodeID, task: Task, *, ever: bool = False) -> bool:
        """True if what runs that wait do not give back leaves enough; `ever`: if all did."""
        t = self.tables[node]
        held = sum(entry[0] == node for entry in self.blocked)
        if not ever and held >= max(len(t.workers), t.config.policy.workers_max):
            return False
        names, total, free = t.pool.names, t.pool.total, self.free[node]
        for name, amount in self.tables[owner].templates[task.template].demand:
            if name not in names:
                return False
            index = names.index(name)
            if (total if ever or index <= CPU else free)[index] < amount:
                return False
        return True


def _is_labelled(t: Tables, strategy: Strategy) -> bool:
    return is_labelled(strategy.hard, t.node, t.config.labels)
