"""The computation graph of a trace, as a networkx multigraph that users can work on.

Nodes are named by the ids in hexadecimal (`ObjectRef.hex()`), tasks and objects alike; attributes
are strings, integers and booleans only, so every exporter of networkx takes them. Times are dates,
nanoseconds since 1970, so that those of several nodes can be compared as well as their clocks
agree; -1 where not known. Sizes are bytes, -1 where there is no value. `node` is the node where a
task was sent last, `owner` the one where it was submitted, `nodes` are all where it was sent, by
commas.

The graph itself has `entrypoint`, `detray_version` and `machines`: "node: CPU=40000; ...".

======  ===========================================================================================
node    attributes
======  ===========================================================================================
task    kind="task", label, name, state, attempts, worker, node, nodes, owner, job, is_root,
        demand, submitted_ns, ready_ns, sent_ns, started_ns, ended_ns, blocked_ns, waits, earlier,
        error
object  kind="object", label, state ("ready", "pending", "failed"), is_put, size_bytes, created_ns,
        awaited_by
======  ===========================================================================================

`demand` is what a task asks for, in 1/10,000: "CPU=10000,GPU=5000". `ready_ns` is when its owner
knew that all arguments were made. `started_ns` of a root is when its program connected.

`waits` are the times at which the task (or the program) stood still in `get` or `wait`:
"started ended object; ...", the object being the one that ended the wait ("-" if none did);
`blocked_ns` is how long they took within the last attempt. `earlier` are the attempts before the
last: "state sent started ended worker node; ...". `awaited_by` of an object are the gets that
needed it: "task/number, ...", the number being the place in the task's `waits`. (Gets are not
edges: edges lead forward in time only.)

=========  ===============  ======================================================================
edge kind  from, to         meaning (edge key = kind, attribute size_bytes on data edges)
=========  ===============  ======================================================================
launched   task, task       the first submitted the second
produces   task, object     returned or put it
consumes   object, task     a top-level argument: the task waits for it
nested     object, task     a reference within the arguments: the task does not wait
contains   object, object   the first holds a reference to the second
=========  ===============  ======================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING

from detray.ids import (
    OBJECT_ID_BYTES,
    TASK_ID_BYTES,
    JobNumber,
    ObjectID,
    TaskID,
    is_put,
    job_of,
    return_object,
    root_task,
    task_of,
)
from detray.trace.format import TraceError
from detray.trace.gathering.history import history_of
from detray.trace.gathering.lives import CANCELLED, FAILED, FINISHED, SENT, UNKNOWN_CORE, TaskLife
from detray.trace.graphs.stops import waits_of
from detray.trace.graphs.tables import (
    CONSUMES,
    CONTAINS,
    LAUNCHED,
    NESTED,
    OBJECT,
    PRODUCES,
    TASK,
    GivenNode,
    GraphTables,
    ObjectNode,
    TaskNode,
    Where,
    amounts,
    waits_text,
)
from detray.trace.names import program_name, short
from detray.trace.play import Makers, schedulers

if TYPE_CHECKING:
    import networkx

    from detray.trace.gathering.history import History
    from detray.trace.gathering.lives import Program
    from detray.trace.reading import Trace


RETURNS_MAX = 5_000_000
"""More values than that are no graph that anybody looks at."""
JOBS_MAX = 1 << 32


def build(trace: Trace, makers: Makers = schedulers) -> networkx.MultiDiGraph:
    """The graph of everything in `trace`. Raises TraceError, ImportError without networkx."""
    return tables_of(trace, makers).graph()


def tables_of(trace: Trace, makers: Makers = schedulers) -> GraphTables:
    """The same graph in tables. Raises TraceError."""
    header = trace.header
    history = history_of(trace, makers)
    history.use_dates(header)
    names = {n: core.name for n, core in header.local_cores()}
    if header.cluster:  # the name that the node has in the trace of all, too
        names |= {n: f"node {history.node_of(n)}" for n in names if history.node_of(n) >= 0}
    if history.names:
        names = {n: history.names[n] for n in names}
    tables = tables_of_history(history, header.entrypoint, names)
    totals = {names[n]: core.config.totals for n, core in header.local_cores()}
    tables.about["detray_version"] = header.detray_version
    tables.about["machines"] = "; ".join(f"{n}: {amounts(total)}" for n, total in totals.items())
    return tables


def _check(history: History) -> None:
    """Refuse what is no graph: ids that are none, and returns without end."""
    held = (item.refs for item in history.objects.values())
    tasks = history.tasks.values()
    objects = chain(history.objects, *held, *((*life.args, *life.refs) for life in tasks))
    parents = (life.parent for life in tasks if life.parent)
    for kind, size, items in (
        ("task", TASK_ID_BYTES, chain(history.tasks, parents)),
        ("object", OBJECT_ID_BYTES, objects),
    ):
        for item in items:
            if len(item) != size:
                raise TraceError(
                    f"a message tells of {short(item)} ({len(item)} bytes) as {kind}: that is no "
                    "id, so there is no graph. `detray replay` shows in which step it is wrong"
                )
    for program in history.programs.values():
        if not 0 <= program.job < JOBS_MAX:
            raise TraceError(f"a message tells of a job {program.job:,}: there is no such number")
    returns = sum(max(0, life.num_returns) for life in tasks)
    if returns > RETURNS_MAX:
        raise TraceError(f"the tasks are said to return {returns:,} values: too many to draw")


def tables_of_history(history: History, entrypoint: str, names: Mapping[int, str]) -> GraphTables:
    """The graph of a dated history; programs that it does not know are labelled by `entrypoint`.

    `names` are those of the nodes, by the number of their core. Raises TraceError if messages say
    what makes no graph.
    """
    _check(history)
    tables = GraphTables({"entrypoint": entrypoint}, Where(names))
    tables.waits = waits_of(history)
    programs = {program.job: program for program in history.programs.values()}
    jobs = sorted({job_of(task) for task in history.tasks} | set(programs) - {0})
    for job in jobs:
        _add_root(tables, job, programs.get(job), entrypoint)
    for life in history.tasks.values():
        _add_task(tables, history, life)
    for item in history.objects.values():
        if item.is_put:
            node = ObjectNode(item.id, "ready", item.size_bytes, item.created_ns)
            place = tables.put(item.id, node)
            if item.producer:
                tables.edges[tables.place(item.producer), place, PRODUCES] = item.size_bytes
    _add_uses(tables, history)
    return tables


def _add_root(tables: GraphTables, job: int, program: Program | None, entrypoint: str) -> None:
    root = root_task(JobNumber(job))
    path = (program.entrypoint if program else "") or entrypoint
    attributes = {
        "kind": TASK,
        "label": f"root\n{program_name(path)}",
        "name": path,
        "state": SENT,
        "is_root": True,
        "job": job,
        "node": tables.where.name(program.core if program else UNKNOWN_CORE),
        "attempts": 1,
        "started_ns": program.started_ns if program else -1,
        "waits": waits_text(tables.waits.get(root, ())),
    }
    tables.put(root, GivenNode(attributes))


def _add_task(tables: GraphTables, history: History, life: TaskLife) -> None:
    edges = tables.edges
    place = tables.put(life.id, TaskNode(life, tables.waits.get(life.id, ())))
    if life.parent:
        parent = tables.places.get(life.parent)
        edges[_unknown(tables, life.parent) if parent is None else parent, place, LAUNCHED] = -1
    for index in range(life.num_returns):
        item = return_object(life.id, index)
        known = history.objects.get(item)
        if known is not None:
            size_bytes = known.size_bytes
            node = ObjectNode(item, "ready", size_bytes, known.created_ns)
        else:
            size_bytes, is_lost = -1, life.state in (FAILED, CANCELLED)
            node = ObjectNode(item, "failed" if is_lost else "pending", -1, -1)
        edges[place, tables.put(item, node), PRODUCES] = size_bytes


def _unknown(tables: GraphTables, item: bytes) -> int:
    """Add a task or object from before the beginning of the trace."""
    kind = TASK if len(item) == TASK_ID_BYTES else OBJECT
    attributes = {"kind": kind, "label": "(before the trace)", "state": "unknown"}
    return tables.put(item, GivenNode(attributes))


def _add_uses(tables: GraphTables, history: History) -> None:
    edges, nodes = tables.edges, tables.nodes
    for life in history.tasks.values():
        user = tables.places[life.id]
        for kind, items in ((CONSUMES, life.args), (NESTED, life.refs)):
            for item in items:
                place = _needed(tables, history, item)
                edges[place, user, kind] = nodes[place].size_bytes
    for holder in history.objects.values():
        for item in holder.refs:
            place = _needed(tables, history, item)
            edges[tables.place(holder.id), place, CONTAINS] = -1


def _needed(tables: GraphTables, history: History, item: ObjectID) -> int:
    """An object's place; it may only be known by being used: packed arguments, earlier values."""
    place = tables.places.get(item)
    if place is not None:
        return place
    known = history.objects.get(item)
    if known is None:
        place = _unknown(tables, item)
    else:
        place = tables.put(item, ObjectNode(item, "ready", known.size_bytes, known.created_ns))
    producer = None if is_put(item) else tables.places.get(TaskID(task_of(item)))
    if producer is not None:
        tables.edges[producer, place, PRODUCES] = -1
    return place


def state_of(graph: networkx.MultiDiGraph, node: str) -> str:
    """The state of a node for colouring: finished tasks and ready objects are the plain ones."""
    state = str(graph.nodes[node].get("state", "unknown"))
    return "plain" if state in (FINISHED, "ready") else state
