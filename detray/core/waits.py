"""Who waits for whom across nodes: what a node tells the head, and how the head finds a deadlock.

Rules (PROTOCOL T12, D 40)
--------------------------
- No node sees the whole graph. One whose runs are blocked without a reason of its own, and where
  nothing has happened for a while, says so; the head then asks everybody what waits there, for
  what, and what is free.
- Counts of messages sent and received must match for each pair of nodes, so nothing is under way
  and the answers together are a state that the cluster was in. A deadlock does not go away: it is
  told only when two collections in a row agree.
- What can still finish is computed to a fixed point, supposing that runs that go on will end. The
  blocked gets that are left can never be answered; the youngest fails, with the circle as its text.
- A task that the head was not asked for yet, since its arguments are not there or it has not waited
  for long, need not run where it is: it is judged by all nodes that could be named for it.
"""

from __future__ import annotations

from detray.core import objects, placing, resources
from detray.core.gets import fail_get
from detray.core.head_messages import (
    GetDoomed,
    StallNoticed,
    WaitingGet,
    WaitingTask,
    WaitsAsked,
    WaitsReported,
)
from detray.core.states import Assigned, Delivered, Placing
from detray.core.step import Step
from detray.core.tables import HERE, Task, Template, Worker
from detray.errors import Failure
from detray.ids import ClientID, NodeID, ObjectID, TaskID, producer_of

ROWS_MAX = 5_000
"""A node with more waiting tasks than this is not searched: it has work enough."""
LINES_MAX = 12
Units = dict[str, int]


# ------------------------------------------------------------------ at a node


def notice_stall(s: Step) -> None:
    """Runs here are blocked, and this node alone cannot say for ever: tell, if it lasts."""
    t = s.t
    if not (t.peers or (t.reporting and t.placing)) or t.node < 0 or len(t.tasks) > ROWS_MAX:
        return
    progress = t.finished + sum(peer.received for peer in t.peers.values())
    if progress != t.stalled_at:
        t.stalled_at = progress
        t.stalled_ns = t.now_ns + t.config.policy.deadlock_check_ns
    elif t.now_ns >= t.stalled_ns:
        t.stalled_ns = t.now_ns + t.config.policy.deadlock_check_ns
        s.to_head(StallNoticed(s.next_link_seq(), t.node))


def on_waits_asked(s: Step, m: WaitsAsked) -> None:
    """Tell what waits here, for what, and what is free."""
    t = s.t
    free = list(t.pool.available)
    finishing: list[TaskID] = []
    gets = []
    for worker in t.workers.values():
        if not worker.runs:
            continue
        if _is_stuck(s, worker):
            gets.append(_waiting_get(s, worker))
            continue
        finishing += [run.task for run in worker.runs]
        for index, amount in t.shapes[worker.shape].amounts if worker.shape >= 0 else ():
            if index > resources.CPU:
                free[index] += amount
    tasks = [row for task in t.tasks.values() if (row := _waiting_task(s, task)) is not None]
    s.to_head(
        WaitsReported(
            s.next_link_seq(),
            t.node,
            m.round,
            tuple((peer.id, peer.sent, peer.received) for peer in t.peers.values()),
            tuple(zip(t.pool.names[2:], free[2:], strict=True)),
            len(gets) < max(len(t.workers), t.config.policy.workers_max),
            tuple(finishing),
            tuple(gets),
            tuple(tasks),
        )
    )


def _is_stuck(s: Step, worker: Worker) -> bool:
    """True for a run that is blocked, not about to go on, and not waiting with a timeout."""
    if not worker.blocked or (worker.id, worker.blocked) in s.t.resuming:
        return False
    return s.t.clients[worker.id].gets[worker.blocked].deadline_ns < 0


def _waiting_get(s: Step, worker: Worker) -> WaitingGet:
    t = s.t
    get = t.clients[worker.id].gets[worker.blocked]
    rows = [t.objects[item] for item in get.objects if item in t.objects]
    missing = tuple(row.id for row in rows if objects.is_absent(row, local=False))
    coming = sum(objects.is_absent(row, local=get.fetch) for row in rows) - len(missing)
    demand = t.shapes[worker.shape].demand
    return WaitingGet(
        worker.id, get.request, get.number, worker.runs[0].task,
        t.templates[worker.runs[0].template].name, _kept(demand), get.remaining - coming,
        get.fail_fast, missing,
    )  # fmt: skip


def _waiting_task(s: Step, task: Task) -> WaitingTask | None:
    t = s.t
    state = task.state
    if type(state) is Delivered:
        return None
    if type(state) is Assigned:
        worker = t.workers[ClientID(state.worker)]
        if worker.runs[0].task == task.spec.task or not _is_stuck(s, worker):
            return None
    rows = [t.objects[ref] for ref in task.spec.args if ref in t.objects]
    missing = tuple(row.id for row in rows if objects.is_absent(row, local=False))
    template = t.templates[task.template]
    is_placing = type(state) is Placing
    if is_placing or not (placing.may_leave(s, task) or _may_return(s, task, template)):
        kept = _kept(template.demand)
        return WaitingTask(task.spec.task, template.name, kept, is_placing, missing)
    return WaitingTask(
        task.spec.task, template.name, _kept(template.demand), False, missing,
        True, template.demand, template.strategy,
    )  # fmt: skip


def _may_return(s: Step, task: Task, template: Template) -> bool:
    """True if another node's task that stands still here may go back yet, to be placed anew."""
    is_refused = task.away is not None and task.away.refusals > 0
    is_bound = s.t.shapes[template.shape].is_bound
    return task.owner != HERE and s.t.halted_ns > 0 and not is_refused and not is_bound


def _kept(demand: resources.Demand) -> resources.Demand:
    """What a blocked run does not give back."""
    return tuple(part for part in demand if part[0] != "CPU")


def on_get_doomed(s: Step, m: GetDoomed) -> None:
    """The head proved that this get can never be answered."""
    client = s.t.clients.get(m.client)
    get = client.gets.get(m.request) if client is not None else None
    if get is None or (m.client, m.request) in s.t.resuming:
        s.count("stale")
        return
    fail_get(s, get, Failure.DEADLOCK, m.text)
    s.count("deadlocks")


# ------------------------------------------------------------------ at the head


def is_consistent(reports: dict[NodeID, WaitsReported]) -> bool:
    """True if no message is under way between the nodes that answered."""
    counts = {}
    for node, report in reports.items():
        for peer, sent, received in report.links:
            counts[node, peer] = (sent, received)
    for node in reports:
        for peer in reports:
            sent = counts.get((node, peer), (0, 0))[0]
            if node != peer and sent != counts.get((peer, node), (0, 0))[1]:
                return False
    return True


class Search:
    """The fixed point: what can finish, given what everybody reported.

    `asked` are the tasks that still wait at the head, or may come to, with the nodes that can ever
    run each. A task that nobody reported is under way, or done, and taken to come.
    """

    def __init__(
        self,
        reports: dict[NodeID, WaitsReported],
        asked: dict[TaskID, list[NodeID]],
    ) -> None:
        self.asked = asked
        self.free: dict[NodeID, Units] = {n: dict(r.free) for n, r in reports.items()}
        self.can_start = {n: r.has_process for n, r in reports.items()}
        self.open = [(n, get) for n, r in reports.items() for get in r.gets]
        self.left: dict[TaskID, tuple[NodeID, WaitingTask]] = {}
        for node, report in reports.items():
            for task in report.tasks:
                self.left[task.task] = (node, task)
        self.blocked = {get.task: None for _, get in self.open}
        for report in reports.values():
            for finishing in report.finishing:
                self.left.pop(finishing, None)

    def run(self) -> list[tuple[NodeID, WaitingGet]]:
        """The gets that can never be answered."""
        while True:
            before = len(self.left), len(self.open)
            for entry in list(self.open):
                node, get = entry
                if self._can_answer(get):
                    self.open.remove(entry)
                    self.blocked.pop(get.task, None)
                    self.can_start[node] = True
                    for name, amount in get.kept:
                        self.free[node][name] = self.free[node].get(name, 0) + amount
            for waiting, (node, task) in list(self.left.items()):
                if self._can_run(node, task):
                    del self.left[waiting]
            if (len(self.left), len(self.open)) == before:
                return self.open

    def _can_come(self, item: ObjectID) -> bool:
        producer = producer_of(item)
        return producer not in self.left and producer not in self.blocked

    def _can_answer(self, get: WaitingGet) -> bool:
        coming = sum(self._can_come(item) for item in get.missing)
        return coming >= get.remaining or (get.fail_fast and coming > 0)

    def _can_run(self, node: NodeID, task: WaitingTask) -> bool:
        if not all(self._can_come(item) for item in task.missing):
            return False
        if not (task.is_placing or task.leaves):
            return self.can_start[node] and _fits(self.free[node], task.kept)
        able = self.asked.get(task.task)
        if not able:
            return True  # its answer is on its way, or it fails; or such a node may still join
        return any(self.can_start[n] and _fits(self.free[n], task.kept) for n in able)


def _fits(free: Units, demand: resources.Demand) -> bool:
    return all(free.get(name, 0) >= amount for name, amount in demand)


def describe(
    stuck: list[tuple[NodeID, WaitingGet]], left: dict[TaskID, tuple[NodeID, WaitingTask]]
) -> str:
    """The circle, for people."""
    lines = []
    for node, get in stuck[:LINES_MAX]:
        line = f"  {get.name} ({get.task.hex()}) on node {node} waits in get"
        if get.kept:
            line += f", holding {resources.format_demand(get.kept)},"
        if get.missing:
            line += f" for {get.missing[0].hex()}"
            task = producer_of(get.missing[0])
            if task is not None and task in left:
                node_of, row = left[task]
                line += f" of {row.name}, which waits on node {node_of}"
        lines.append(line)
    if len(stuck) > LINES_MAX:
        lines.append(f"  and {len(stuck) - LINES_MAX} more")
    return (
        "deadlock: these runs wait for each other and none can go on; the get that began last"
        " fails:\n" + "\n".join(lines)
    )
