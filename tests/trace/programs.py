"""Small programs for a `Machine`, those of the mission among them."""

from __future__ import annotations

from pathlib import Path

from detray.core.effects import RunTask
from detray.trace.reading import Trace, open_trace
from tests.trace.machine import MS, Machine


def ten_sleeps(machine: Machine) -> None:
    """Ten tasks that do not depend on each other."""
    sleep = machine.define("sleep")
    machine.get(*[machine.submit(sleep) for _ in range(10)])
    machine.work()


def dots(machine: Machine) -> None:
    """Two zeros and their product."""
    zeros, dot = machine.define("zeros"), machine.define("dot")
    a, b = machine.submit(zeros), machine.submit(zeros)
    machine.get(machine.submit(dot, a, b))
    machine.work()


def experiments(machine: Machine) -> None:
    """Five tasks that launch ten each."""
    launched = set()
    inner = machine.define("sub_experiment")

    def launch(machine: Machine, run: RunTask) -> bool:
        if run.task not in launched:
            launched.add(run.task)
            for _ in range(10):
                machine.submit(inner, parent=run.task)
        return True

    outer = machine.define("run_experiment", launch)
    machine.get(*[machine.submit(outer) for _ in range(5)])
    machine.work()


def troubles(machine: Machine) -> None:
    """Puts, nested references, a failure, a killed worker that is retried, drops."""
    tries: dict[bytes, int] = {}

    def die_once(machine: Machine, run: RunTask) -> bool | str:
        tries[run.task] = tries.get(run.task, 0) + 1
        return "killed" if tries[run.task] == 1 else True

    small = machine.put(10)
    box = machine.put(20, refs=(small,))
    fine = machine.define("fine")
    wrong = machine.define("wrong", lambda machine, run: "ValueError: no")
    shaky = machine.define("shaky", die_once)
    refs = [machine.submit(fine, box), machine.submit(wrong), machine.submit(shaky, refs=(small,))]
    refs.append(machine.submit(fine, refs[1]))
    machine.work()
    for ref in refs:
        machine.get(ref)
    machine.drop(small, box, *refs)
    machine.now_ns += 10 * MS


def many(machine: Machine, rounds: int = 40, width: int = 20) -> None:
    """Rounds of tasks whose results are dropped: much happens, little stays."""
    work = machine.define("work")
    for _ in range(rounds):
        refs = [machine.submit(work) for _ in range(width)]
        machine.get(*refs)
        machine.work()
        machine.drop(*refs)


def recorded(path: Path, *programs: object) -> Trace:
    """The trace of a machine that ran these programs."""
    machine = Machine(path)
    for program in programs:
        program(machine)  # type: ignore[operator]
    machine.recorder.close("done")
    return open_trace(path)
