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

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
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
from detray.trace.graphs.stops import Standstill, stretches, waits_of
from detray.trace.names import short
from detray.trace.play import Makers, schedulers
from detray.trace.quantities import size_text

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
    header = trace.header
    history = history_of(trace, makers)
    history.use_dates(header)
    names = {n: core.name for n, core in header.local_cores()}
    if header.cluster:  # the name that the node has in the trace of all, too
        names |= {n: f"node {history.node_of(n)}" for n in names if history.node_of(n) >= 0}
    if history.names:
        names = {n: history.names[n] for n in names}
    graph = graph_of(history, header.entrypoint, names)
    totals = {names[n]: core.config.totals for n, core in header.local_cores()}
    graph.graph["detray_version"] = header.detray_version
    graph.graph["machines"] = "; ".join(f"{n}: {_amounts(total)}" for n, total in totals.items())
    return graph


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


def graph_of(history: History, entrypoint: str, names: Mapping[int, str]) -> networkx.MultiDiGraph:
    """The graph of a dated history; programs that it does not know are labelled by `entrypoint`.

    `names` are those of the nodes, by the number of their core. Raises TraceError if messages say
    what makes no graph.
    """
    import networkx

    _check(history)
    graph = networkx.MultiDiGraph(entrypoint=entrypoint)
    waits = waits_of(history)
    programs = {program.job: program for program in history.programs.values()}
    jobs = sorted({job_of(task) for task in history.tasks} | set(programs) - {0})
    for job in jobs:
        _add_root(graph, job, programs.get(job), entrypoint, names, waits)
    for life in history.tasks.values():
        _add_task(graph, life, names, waits.get(life.id, ()))
        for index in range(life.num_returns):
            _add_return(graph, history, life, return_object(life.id, index))
    for item in history.objects.values():
        if item.is_put:
            _add_object(graph, item.id, "ready", item.size_bytes, item.created_ns)
            if item.producer:
                _add_data(graph, item.producer.hex(), item.id.hex(), "produces", item.size_bytes)
    _add_uses(graph, history)
    _add_waits(graph, waits)
    return graph


def _add_waits(graph: networkx.MultiDiGraph, waits: Mapping[TaskID, Sequence[Standstill]]) -> None:
    """Tell objects who waited for them."""
    for task, stops in waits.items():
        for number, stop in enumerate(stops):
            for item in stop.needs:
                data = graph.nodes.get(item.hex())
                if data is not None:
                    before = f"{data['awaited_by']}, " if data.get("awaited_by") else ""
                    data["awaited_by"] = f"{before}{task.hex()}/{number}"


def _name(names: Mapping[int, str], core: int, node: int = -1) -> str:
    """Of a core, or else of a node that the trace does not hold; "" if nothing is known."""
    if core in names:
        return names[core]
    if len(names) == 1 and node < 0:
        return next(iter(names.values()))
    return f"node {node}" if node >= 0 else ""


@lru_cache(maxsize=1000)
def _amounts(demand: tuple[tuple[str, int], ...]) -> str:
    return ",".join(f"{name}={amount}" for name, amount in demand)


def _add_root(
    graph: networkx.MultiDiGraph,
    job: int,
    program: Program | None,
    entrypoint: str,
    names: Mapping[int, str],
    waits: Mapping[TaskID, Sequence[Standstill]],
) -> None:
    root = root_task(JobNumber(job))
    path = (program.entrypoint if program else "") or entrypoint
    graph.add_node(
        root.hex(),
        kind="task",
        label=f"root\n{program_name(path)}",
        name=path,
        state=SENT,
        is_root=True,
        job=job,
        node=_name(names, program.core if program else UNKNOWN_CORE),
        attempts=1,
        started_ns=program.started_ns if program else -1,
        waits=_waits_text(waits.get(root, ())),
    )


def _add_task(
    graph: networkx.MultiDiGraph,
    life: TaskLife,
    names: Mapping[int, str],
    waits: Sequence[Standstill],
) -> None:
    last = life.last
    owner = _name(names, life.core)
    started_ns, ended_ns = (last.started_ns, last.ended_ns) if last else (-1, -1)
    graph.add_node(
        life.id.hex(),
        kind="task",
        label=life.name,
        name=life.name,
        state=life.state,
        is_root=False,
        job=job_of(life.id),
        node=_name(names, last.core, last.node) if last else owner,
        nodes=_nodes_text(life, names),
        owner=owner,
        attempts=len(life.attempts),
        worker=last.worker if last else 0,
        demand=_amounts(life.demand),
        submitted_ns=life.submitted_ns,
        ready_ns=life.ready_ns,
        sent_ns=last.sent_ns if last else -1,
        started_ns=started_ns,
        ended_ns=ended_ns,
        blocked_ns=_blocked_ns(waits, started_ns, ended_ns) if waits else 0,
        waits=_waits_text(waits) if waits else "",
        earlier=_earlier_text(life, names) if len(life.attempts) > 1 else "",
        error=life.error,
    )
    if life.parent:
        graph.add_edge(life.parent.hex(), life.id.hex(), key="launched", kind="launched")
        if graph.nodes[life.parent.hex()].get("kind") is None:
            _add_unknown(graph, life.parent)


def _nodes_text(life: TaskLife, names: Mapping[int, str]) -> str:
    return ", ".join(dict.fromkeys([_name(names, run.core, run.node) for run in life.attempts]))


def _blocked_ns(waits: Sequence[Standstill], started_ns: int, ended_ns: int) -> int:
    return sum(end - begin for begin, end in stretches(waits, started_ns, ended_ns))


def _earlier_text(life: TaskLife, names: Mapping[int, str]) -> str:
    return "; ".join(
        f"{run.state} {run.sent_ns} {run.started_ns} {run.ended_ns} {run.worker} "
        f"{_name(names, run.core, run.node)}"
        for run in life.attempts[:-1]
    )


def _waits_text(waits: Sequence[Standstill]) -> str:
    return "; ".join(
        f"{stop.started_ns} {stop.ended_ns} {stop.object.hex() or '-'}" for stop in waits
    )


def _add_unknown(graph: networkx.MultiDiGraph, item: bytes) -> None:
    """A task or object from before the beginning of the trace."""
    kind = "task" if len(item) == TASK_ID_BYTES else "object"
    graph.add_node(item.hex(), kind=kind, label="(before the trace)", state="unknown")


def _add_return(
    graph: networkx.MultiDiGraph, history: History, life: TaskLife, item: ObjectID
) -> None:
    known = history.objects.get(item)
    if known is not None:
        _add_object(graph, item, "ready", known.size_bytes, known.created_ns)
    else:
        is_lost = life.state in (FAILED, CANCELLED)
        _add_object(graph, item, "failed" if is_lost else "pending", -1, -1)
    _add_data(graph, life.id.hex(), item.hex(), "produces", known.size_bytes if known else -1)


def _add_object(
    graph: networkx.MultiDiGraph, item: ObjectID, state: str, size_bytes: int, created_ns: int
) -> None:
    graph.add_node(
        item.hex(),
        kind="object",
        label=size_text(size_bytes) if size_bytes >= 0 else state,
        state=state,
        is_put=is_put(item),
        size_bytes=size_bytes,
        created_ns=created_ns,
        awaited_by="",
    )


def _add_data(
    graph: networkx.MultiDiGraph, source: str, target: str, kind: str, size_bytes: int
) -> None:
    graph.add_edge(source, target, key=kind, kind=kind, size_bytes=size_bytes)


def _add_uses(graph: networkx.MultiDiGraph, history: History) -> None:
    for life in history.tasks.values():
        for kind, items in (("consumes", life.args), ("nested", life.refs)):
            for item in items:
                _need(graph, history, item)
                size = graph.nodes[item.hex()].get("size_bytes", -1)
                _add_data(graph, item.hex(), life.id.hex(), kind, size)
    for holder in history.objects.values():
        for item in holder.refs:
            _need(graph, history, item)
            _add_data(graph, holder.id.hex(), item.hex(), "contains", -1)


def _need(graph: networkx.MultiDiGraph, history: History, item: ObjectID) -> None:
    """Add an object that is only known by being used: packed arguments, values from before."""
    if item.hex() in graph:
        return
    known = history.objects.get(item)
    if known is None:
        _add_unknown(graph, item)
    else:
        _add_object(graph, item, "ready", known.size_bytes, known.created_ns)
    producer = TaskID(task_of(item))
    if not is_put(item) and producer.hex() in graph:
        _add_data(graph, producer.hex(), item.hex(), "produces", -1)


def program_name(entrypoint: str) -> str:
    """The name of a program's file, of what its process was started with (words and spaces)."""
    found = re.match(r".*?\.py(?= |$)|\S+", entrypoint)
    return (os.path.basename(found.group()) if found else "") or "program"


def state_of(graph: networkx.MultiDiGraph, node: str) -> str:
    """The state of a node for colouring: finished tasks and ready objects are the plain ones."""
    state = str(graph.nodes[node].get("state", "unknown"))
    return "plain" if state in (FINISHED, "ready") else state
