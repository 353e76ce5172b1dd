"""Runs to make reports of: small ones, one with names that mean harm, one of a hundred thousand."""

from __future__ import annotations

import random
from pathlib import Path

from detray.core.effects import RunTask
from detray.ids import (
    ClientID,
    JobNumber,
    NodeID,
    child_prefix,
    child_task,
    return_object,
    root_task,
)
from detray.trace.gathering.history import History
from detray.trace.gathering.lives import FAILED, FINISHED, Attempt, ObjectLife, TaskLife, WorkerLife
from detray.trace.reading import Trace, open_trace
from detray.trace.reporting.gathering import Gathered
from tests.trace.machine import MS, Machine
from tests.trace.programs import recorded, ten_sleeps

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><script>window.owned=1</script>"


def pipeline(machine: Machine) -> None:
    """Loads that are cleaned, one of which fails, a worker that is killed, tasks that nest."""
    killed: set[bytes] = set()

    def die_once(machine: Machine, run: RunTask) -> bool | str:
        if not killed:
            killed.add(run.task)
            return "killed"
        return True

    def split(machine: Machine, run: RunTask) -> bool:
        for _ in range(3):
            machine.submit(part, parent=run.task)
        return True

    load, clean = machine.define("load"), machine.define("clean", die_once)
    part, gather = machine.define("part"), machine.define("gather", split)
    wrong = machine.define("parse", lambda machine, run: "ValueError: row 7 is empty")
    cleaned = [machine.submit(clean, machine.submit(load)) for _ in range(4)]
    results = [machine.submit(gather, *cleaned), machine.submit(wrong), machine.put(10)]
    machine.work()
    machine.get(*results)
    machine.now_ns += 3 * MS
    machine.drop(results[2])


def spread(machine: Machine) -> None:
    """A failure, after 10 ms, and what would have taken its value."""
    read = machine.define("read", lambda machine, run: "ValueError: no numbers")
    total = machine.submit(machine.define("total"), machine.submit(read))
    machine.now_ns += 10 * MS
    machine.work()
    machine.get(total)


def hostile(path: Path) -> Trace:
    """Markup wherever a stranger can write: names, errors, programs, reasons."""
    machine = Machine(path, entrypoint=f"/home/eve/{HOSTILE} {HOSTILE}")
    killed: list[int] = []

    def die(machine: Machine, run: RunTask) -> bool | str:
        killed.append(1)
        return "killed" if len(killed) == 1 else True

    named = [
        machine.define(name, body)
        for name, body in (
            (HOSTILE, None),
            (f"f{HOSTILE}", lambda machine, run: f"ValueError: {HOSTILE}"),
            ("__proto__", die),
            ("constructor", None),
            ("@@data@@ @@script@@", None),
            ("]]>\u2028\x00 'quoted' \"quoted\" &amp; 😀", None),
        )
    ]
    machine.get(*[machine.submit(template) for template in named])
    machine.work()
    machine.recorder.close(HOSTILE)
    return open_trace(path)


def synthetic(path: Path, tasks: int) -> Gathered:
    """That many tasks on 64 workers of a node, with times that do not repeat, some in trouble."""
    trace = recorded(path, ten_sleeps)
    draw = random.Random(tasks)
    began = 1_700_000_000_000_000_000
    history = History(nodes=[NodeID(0), NodeID(-1)])
    job = JobNumber(1)
    free = [began + draw.randrange(10 * MS) for _ in range(64)]
    for client in range(1, 65):
        worker = WorkerLife(ClientID(client), 0, pid=1000 + client, ready_ns=began)
        history.workers[0, ClientID(client)] = worker
    root, before = root_task(job), []
    parent = root
    for number in range(tasks):
        is_parent = number % 200 == 0
        above = root if is_parent else parent
        task = child_task(child_prefix(above, 0, 0), number)
        if is_parent:
            parent = task
        seat = draw.randrange(64)
        started = free[seat] + draw.randrange(30_000)
        ended = started + draw.randrange(200_000, 9_000_000)
        free[seat] = ended
        is_bad = draw.randrange(5000) == 0
        error = f"ValueError: row {number} is empty" if is_bad else ""
        state = FAILED if is_bad else FINISHED
        run = Attempt(0, ClientID(1 + seat), started - draw.randrange(20_000), started, ended)
        run.state, run.error, run.core, run.node = state, error, 0, NodeID(0)
        args = tuple(draw.sample(before[-50:], 2)) if number % 3 == 0 and len(before) > 50 else ()
        life = TaskLife(
            task, f"step_{number % 12}", above, started - draw.randrange(5 * MS), args=args
        )
        life.attempts, life.state, life.error, life.core = [run], state, error, 0
        life.ready_ns = life.submitted_ns
        history.tasks[task] = life
        if not is_bad:
            item = return_object(task, 0)
            size = draw.randrange(50, 90_000)
            history.objects[item] = ObjectLife(item, task, size, ended, core=0)
            before = [*before[-100:], item]
    assert len(history.tasks) == tasks
    history.first_ns, history.last_ns = {0: began}, {0: max(free)}
    return Gathered(trace, history, began, max(free), {0: (began, max(free))}, {}, "", [])
