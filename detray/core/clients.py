"""Clients: joining and leaving, what they export, the references and views they return."""

from __future__ import annotations

from detray.core import dispatch, freeing, objects, placing, resources, runs
from detray.core.definitions import want_function
from detray.core.effects import (
    ConfirmPin,
    ExitWorker,
    FailRequest,
    KillWorker,
    StopNode,
    Welcome,
)
from detray.core.gets import leave
from detray.core.head_messages import (
    JobAdmitted,
    JobEnded,
    JobRequested,
    NodeJoined,
)
from detray.core.lending import home_of, keep_borrowed, proxy
from detray.core.payloads import template_key, template_number
from detray.core.states import Inline
from detray.core.step import Step
from detray.core.stimuli import (
    ClientLost,
    DriverConnected,
    FunctionExported,
    ObjectPut,
    ObserverConnected,
    ProcessGone,
    RefClaimed,
    RefPinned,
    RefsDropped,
    TemplateDefined,
    ViewsDropped,
)
from detray.core.strategy import Strategy, is_named
from detray.core.tables import DRIVER, HERE, OBSERVER, Client, Function, Object, Shape, Template
from detray.core.tasks import fail_task
from detray.errors import Failure
from detray.ids import MAX_RETURNS, ClientID, JobNumber, job_of

# ------------------------------------------------------------------ joining


def on_driver_connected(s: Step, m: DriverConnected) -> None:
    """Enter a driver and ask the head for a job number; the first one makes this node join."""
    t = s.t
    t.clients[m.client] = Client(
        m.client, DRIVER, m.pid, entrypoint=m.entrypoint, namespace=m.namespace
    )
    if t.node >= 0:
        request_job(s, t.clients[m.client])
    elif not t.link_seq:
        join(s)


def join(s: Step) -> None:
    """Ask the head to become a member."""
    totals = resources.totals_of(s.t.pool)
    config = s.t.config
    s.to_head(
        NodeJoined(
            s.next_link_seq(), config.node_name, totals, s.t.reporting, config.address,
            config.labels, config.life,
        )
    )  # fmt: skip


def request_job(s: Step, client: Client) -> None:
    """Ask the head for the job number of a driver."""
    s.to_head(
        JobRequested(s.next_link_seq(), s.t.node, client.id, client.entrypoint, client.namespace)
    )


def on_job_admitted(s: Step, m: JobAdmitted) -> None:
    """Welcome the driver and start the workers that it will surely need."""
    t = s.t
    client = t.clients.get(m.client)
    if client is None or not client.connected:
        s.to_head(JobEnded(s.next_link_seq(), t.node, m.job))
        return
    client.job = m.job
    policy = t.config.policy
    s.out.append(_welcome(s, m.client, m.job))
    for _ in range(min(t.config.prestart_workers, policy.worker_starts_max)):
        dispatch.start_worker(s, m.job << 1)


def on_observer_connected(s: Step, m: ObserverConnected) -> None:
    """Somebody looks on; the welcome tells it its number."""
    s.t.clients[m.client] = Client(m.client, OBSERVER, m.pid)
    s.out.append(_welcome(s, m.client, JobNumber(0)))


def _welcome(s: Step, client: ClientID, job: JobNumber) -> Welcome:
    t = s.t
    inline_bytes_max = t.config.policy.inline_bytes_max
    return Welcome(client, job, t.node, t.incarnation, inline_bytes_max, t.config.arena_bytes)


# ------------------------------------------------------------------ leaving


def on_client_lost(s: Step, m: ClientLost) -> None:
    """A driver or observer is gone: end its waits and grants, and with a driver its job."""
    t = s.t
    client = t.clients.get(m.client)
    if client is None or not client.connected:
        s.count("stale")
        return
    client.connected = False
    runs.forget_requests(client)
    for get in list(client.gets.values()):
        leave(s, get)
    if client.kind == OBSERVER:
        del t.clients[m.client]
        return
    for row in list(t.objects.values()):
        objects.end_grants(s, row, m.client)
    if client.job:
        end_job(s, client.job)
        s.to_head(JobEnded(s.next_link_seq(), t.node, client.job))
    drivers = any(c.kind == DRIVER and c.connected for c in t.clients.values())
    if not drivers and t.config.stop_with_last_driver:
        s.out.append(StopNode(f"its last driver is gone: {m.reason}"))


def end_job(s: Step, job: JobNumber) -> None:
    """Everything that belonged to the job ends (PROTOCOL N15)."""
    t = s.t
    t.closed_jobs[job] = None
    for task in list(t.tasks.values()):
        if job_of(task.spec.task) == job and task.spec.task in t.tasks:
            fail_task(s, task, Failure.OWNER_DIED, "its driver is gone")
    _end_job_objects(s, job)
    for worker in list(t.workers.values()):
        if dispatch.job_of_lane(worker.lane) == job:
            worker.leaving = True
            if worker.blocked:
                runs.end_blocked(s, worker)
            worker.runs.clear()
            worker.expected_ns = 0
            if worker.id in t.idle_since:
                del t.idle_since[worker.id]
                t.idle[worker.lane].remove(worker.id)
                s.out.append(ExitWorker(worker.id))
            else:
                s.out.append(KillWorker(worker.id))
    t.reported = [key for key in t.reported if key[0] != job]
    for function in [f for f in t.functions.values() if job_of(f.id) == job]:
        del t.functions[function.id]
        objects.drop_contained(s, function.refs)
        s.drops.append(function.id)
    objects.drop_contained(s, tuple(t.job_pins.pop(job, ())))


def _end_job_objects(s: Step, job: JobNumber) -> None:
    """Nobody of the job is left: lineage, and copies kept for other nodes, end with it."""
    t = s.t
    for name in [name for name in t.pasts if job_of(name) == job]:
        if name in t.pasts:
            freeing.end_past(s, name)
    if t.peers:
        for row in list(t.objects.values()):
            if row.shared is not None and job_of(row.id) == job:
                s.suspects.append(row.id)


def on_process_gone(s: Step, m: ProcessGone) -> None:
    """The kernel says that the process and its forks are gone."""
    client = s.t.clients.get(m.client)
    if client is None:
        s.count("stale")
        return
    runs.release_process(s, m.client)
    del s.t.clients[m.client]
    if client.kind == DRIVER:
        for number in [n for n in s.t.templates if n >> 32 == -m.client * 2 - 1]:
            _forget_template(s, number)


def _forget_template(s: Step, number: int) -> None:
    if s.t.templates.pop(number).size_bytes:
        s.drops.append(template_key(number))


# ------------------------------------------------------------------ exports


def on_function_exported(s: Step, m: FunctionExported) -> None:
    """Keep a definition, and what its closure refers to, until its job ends."""
    if m.function in s.t.functions:
        s.count("stale")
        return
    refs = objects.hold_contained(s, m.refs)
    s.t.functions[m.function] = Function(m.function, m.name, m.size_bytes, refs)


def on_template_defined(s: Step, m: TemplateDefined) -> None:
    """Enter what many submissions share, and the shape they compete under."""
    t = s.t
    number = template_number(m.client, m.template)
    reason = ""
    if number in t.templates:
        reason = "defined twice"
    elif m.function not in t.functions and not want_function(s, m.function, m.home):
        reason = f"no function {m.function.hex()}"
    elif any(amount <= 0 for _, amount in m.demand) or m.num_returns < 0:
        reason = "amounts must be positive"
    elif m.num_returns >= MAX_RETURNS:
        reason = f"{m.num_returns:,} returns; a task has less than {MAX_RETURNS:,}"
    if reason:
        s.out.append(FailRequest(m.client, f"TemplateDefined {m.template}", reason))
        return
    lane = t.clients[m.client].job << 1 | any(name == "GPU" for name, _ in m.demand)
    t.templates[number] = Template(
        number, m.function, m.name, m.num_returns, m.demand,
        shape_of(s, lane, m.demand, m.strategy),
        m.max_retries, m.retry_application_errors, m.max_calls, m.size_bytes, strategy=m.strategy,
        waits=t.functions[m.function].home != HERE,
    )  # fmt: skip


def shape_of(s: Step, lane: int, demand: resources.Demand, strategy: Strategy | None) -> int:
    """The number of the shape that submissions of this lane and demand compete under."""
    t = s.t
    key = f"{lane} {demand}" if strategy is None else f"{lane} {demand} {strategy}"
    if key in t.shape_numbers:
        return t.shape_numbers[key]
    t.shape_numbers[key] = len(t.shapes)
    amounts, feasible = resources.compile_demand(t.pool, demand)
    shape = Shape(len(t.shapes), lane, demand, amounts, feasible)
    if strategy is not None:
        shape.feasible = feasible and placing.suits_here(s, strategy)
        shape.is_bound = is_named(strategy, t.node)
    t.shapes.append(shape)
    return shape.number


# ------------------------------------------------------------------ values and references


def on_object_put(s: Step, m: ObjectPut) -> None:
    """A small value: there at once."""
    if m.object in s.t.objects:
        s.out.append(FailRequest(m.client, f"ObjectPut {m.object.hex()}", "it is already there"))
        return
    row = objects.create(s, m.object, m.client)
    objects.seal(s, row, Inline(m.size_bytes), m.refs)


def on_refs_dropped(s: Step, m: RefsDropped) -> None:
    """The client returns grants."""
    rows = s.t.objects
    client = m.client
    for item, count in zip(m.objects, m.counts, strict=False):
        row = rows.get(item)
        if row is None:
            continue
        if row.holder == client and row.granted == count and client < 0:
            # What nearly every drop of a driver is: the last grant of its only holder.
            row.granted = 0
            if not (row.uses or row.containers or row.others):
                s.suspects.append(item)
        else:
            objects.return_grants(s, row, client, count)


def on_views_dropped(s: Step, m: ViewsDropped) -> None:
    """The client returns view pins."""
    for item, count in zip(m.objects, m.counts, strict=False):
        row = s.t.objects.get(item)
        if row is not None:
            objects.unpin(s, row, m.client, count)


def on_ref_pinned(s: Step, m: RefPinned) -> None:
    """A reference left the system by the user's own pickling: hold it for the job."""
    row: Object | None = s.t.objects.get(m.object)
    if row is not None:
        _pin_for_job(s, row, s.t.clients[m.client].job)
    if m.request:
        owner = home_of(s, row) if row is not None else HERE
        s.out.append(ConfirmPin(m.client, m.request, owner))


def _pin_for_job(s: Step, row: Object, job: JobNumber) -> None:
    """Hold an object until the job ends, unless that has happened (last words of a worker)."""
    if not job or job in s.t.closed_jobs:
        return
    pins = s.t.job_pins.setdefault(job, {})
    if row.id not in pins:
        pins[row.id] = None
        row.containers += 1
        keep_borrowed(s, row)


def on_ref_claimed(s: Step, m: RefClaimed) -> None:
    """A reference came back from outside; the client counted one grant already.

    It is as good as its owner's answer. An object of ours that is not here any more has been freed:
    a get says so.
    """
    row = s.t.objects.get(m.object)
    if row is None and m.owner not in (HERE, s.t.node) and s.t.node >= 0:
        row = proxy(s, m.object, m.owner)
    if row is not None:
        objects.grant(s, row, m.client)
        keep_borrowed(s, row)
