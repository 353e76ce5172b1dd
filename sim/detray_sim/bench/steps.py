"""How fast a core steps by itself: `python -m detray_sim.bench.steps`.

One local scheduler and one head on a fixed conversation of submissions, runs and drops, without an
engine around them: what a stimulus costs bare, with the digest of every step, and with all
invariants checked every hundredth step as well.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.config import GlobalConfig, LocalConfig
from detray.core.global_scheduler import GlobalScheduler
from detray.core.invariants import check
from detray.core.local import LocalScheduler
from detray.ids import (
    NO_TASK,
    ClientID,
    FunctionID,
    TaskID,
    TemplateID,
    child_prefix,
    child_task,
    function_id,
    return_object,
    root_task,
)
from detray_sim.digest import RunDigest

TASKS = 20_000
DRIVER = ClientID(-1)
GOAL = 80_000
Observer = Callable[[LocalScheduler, int, Sequence[st.Stimulus], Sequence[ef.Effect]], None]


class StepRow(msgspec.Struct, frozen=True, kw_only=True):
    """One way of looking on; `goal` steps a CPU-second (0: none)."""

    what: str
    steps: int
    stimuli: int
    steps_per_cpu_s: int
    goal: int


class Conversation:
    """A driver that keeps a few tasks under way, and workers that answer at once."""

    def __init__(self, observe: Observer | None) -> None:
        config = LocalConfig(node_name="n", totals=(("CPU", 20_000),), arena_bytes=1 << 20)
        self.core = LocalScheduler(config)
        self.head = GlobalScheduler(GlobalConfig())
        self.observe = observe
        self.now_ns = 0
        self.steps = self.stimuli = 0

    def step(self, *stimuli: st.LocalStimulus) -> list[ef.Effect]:
        """One step, and those that the head's answers make."""
        self.now_ns += 1_000
        effects = self.core.handle(*stimuli, now_ns=self.now_ns)
        self.steps += 1
        self.stimuli += len(stimuli)
        if self.observe is not None:
            self.observe(self.core, self.now_ns, stimuli, effects)
        rest = []
        for effect in effects:
            if type(effect) is ef.SendToHead:
                for answer in self.head.handle(effect.message, now_ns=self.now_ns):
                    assert type(answer) is ef.SendToNode
                    rest += self.step(answer.message)
            else:
                rest.append(effect)
        return rest

    def run(self, tasks: int) -> None:
        """Submit, run and drop so many tasks, one message a step."""
        welcome = next(
            effect
            for effect in self.step(st.DriverConnected(DRIVER, 1, "", "bench"))
            if type(effect) is ef.Welcome
        )
        root = root_task(welcome.job)
        prefix = child_prefix(root, 0, 0)
        function: FunctionID = function_id(prefix, 0)
        self.step(st.FunctionExported(DRIVER, function, "f", 10))
        demand = (("CPU", 10_000),)
        self.step(st.TemplateDefined(DRIVER, TemplateID(0), function, "f", 1, demand, 3, False, 0))
        for number in range(tasks):
            self._task(root, child_task(prefix, number), number)

    def _task(self, root: TaskID, task: TaskID, number: int) -> None:
        item = return_object(task, 0)
        pending = self.step(st.TaskSubmitted(DRIVER, task, TemplateID(0), root, 1, 10))
        pending += self.step(
            st.GetRequested(DRIVER, number + 1, (item,), 1, True, True, -1, NO_TASK)
        )
        while pending:
            effect = pending.pop()
            if type(effect) is ef.StartWorker:
                pending += self.step(st.WorkerReady(effect.client, 1))
            elif type(effect) is ef.RunTask:
                part = (st.Return(5),)
                pending += self.step(
                    st.RunFinished(effect.client, effect.task, effect.attempt, 0, 5_000, part)
                )
            elif type(effect) is ef.GetAnswered:
                pending += self.step(st.RefsDropped(DRIVER, (item,), (1,)))


def main(argv: list[str]) -> int:
    """Print a row for each way of looking on."""
    parser = argparse.ArgumentParser(prog="python -m detray_sim.bench.steps", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args(argv)
    digest = RunDigest()
    seen = 0

    def digests(
        core: LocalScheduler,
        now_ns: int,
        stimuli: Sequence[st.Stimulus],
        effects: Sequence[ef.Effect],
    ) -> None:
        digest.add(0, now_ns, stimuli, effects)

    def everything(
        core: LocalScheduler,
        now_ns: int,
        stimuli: Sequence[st.Stimulus],
        effects: Sequence[ef.Effect],
    ) -> None:
        nonlocal seen
        digest.add(0, now_ns, stimuli, effects)
        seen += 1
        if not seen % 100:
            check(core.tables)

    rows = [
        measure("bare", None, 0),
        measure("with digest", digests, 0),
        measure("with digest and invariants", everything, GOAL),
    ]
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
        return 0
    for row in rows:
        print(f"{row.what:28} {row.steps_per_cpu_s:9,} steps a CPU-second   goal {row.goal or '-'}")
    return 0


def measure(what: str, observe: Observer | None, goal: int) -> StepRow:
    """The best of three: noise only ever adds."""
    best_s = float("inf")
    gc.disable()
    for _ in range(3):
        talk = Conversation(observe)
        start_s = time.process_time()
        talk.run(TASKS)
        best_s = min(best_s, time.process_time() - start_s)
    gc.enable()
    return StepRow(
        what=what,
        steps=talk.steps,
        stimuli=talk.stimuli,
        steps_per_cpu_s=round(talk.steps / best_s),
        goal=goal,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
