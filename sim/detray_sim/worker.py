"""Simulated worker processes: a run queue, tokens, one run at a time.

The token pipe is the real one in small (`detray/runtime/tokens.py`): who takes a token, the worker
to begin the run at the front or the service to take the last ones back, has that run, and a token
says how many retractions came before it. So a worker that holds a token of a generation whose
marker it has not seen waits for the marker, as a real one does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from detray.core.arrivals import retract
from detray.core.effects import (
    ClientMessage,
    DefineTemplate,
    GrantBlock,
    InterruptRun,
    RefuseBlock,
)
from detray.core.run_queue import QueuedRun
from detray.core.stimuli import Return, RunFailed, RunFinished, WorkerReady
from detray.core.tickets import Ticket
from detray.errors import Failure
from detray.ids import NO_TASK, ClientID, JobNumber, ObjectID, TaskID, return_object
from detray_sim import behaviour as do
from detray_sim.process import Play, SimProcess, failure_of
from detray_sim.values import Blob, Cell, Value

if TYPE_CHECKING:
    from detray_sim.node import SimNode

_GENERATIONS = 256


class SimWorker(SimProcess):
    """A worker process and the service's ends of its pipes."""

    def __init__(self, host: SimNode, client: ClientID, job: JobNumber) -> None:
        super().__init__(host, client)
        self.job = job
        self.is_ready = False
        self.was_told_to_exit = False
        self.tokens: deque[int] = deque()
        """In the pipe: a generation for each run that was sent and neither begun nor taken back."""
        self.generation = 0
        self.begun = 0
        self._claimed = -1
        """Generation of a token that it holds without having begun the run yet; -1: none."""
        self._current: QueuedRun | None = None
        self._started_ns = 0
        self._held_blocks: list[ObjectID] = []
        """Returns of the current run that lie in blocks already."""

    # -------------------------------------------------------------- what the service does to it

    def grant(self, runs: int) -> None:
        """The service sends so many runs: a token for each."""
        generation = self.generation
        for _ in range(runs):
            self.tokens.append(generation)

    def take_back(self, count: int) -> int:
        """The service takes up to `count` runs back; how many it got."""
        tokens = self.tokens
        taken = min(count, len(tokens))
        for _ in range(taken):
            tokens.popleft()
        if taken:
            self.generation = (self.generation + 1) % _GENERATIONS
            self.clock.after(self.costs.ipc_ns, self.hear_marker, taken)
        return taken

    # -------------------------------------------------------------- what it hears

    def get_ready(self) -> None:
        """The process is up."""
        if not self.is_alive:
            return
        if self.is_frozen:
            self._deferred.append((self.get_ready, ()))
            return
        self.is_ready = True
        self.books.send(WorkerReady(self.client, 1000 + self.client))
        self.flush()

    def receive(self, messages: Sequence[ClientMessage], values: Sequence[Value]) -> None:
        """As of any client; then it looks whether there is a run to begin, or to interrupt."""
        super().receive(messages, values)
        if self.is_frozen or not self.is_alive:
            return
        for message in messages:
            if type(message) is InterruptRun:
                play = self.play
                if play and (play.task, play.attempt) == (message.task, message.attempt):
                    self.interrupt(play)
        if self.play is None:
            self.next_run()

    def hear_marker(self, count: int) -> None:
        """The last `count` runs in the queue are the service's again."""
        if not self.is_alive:
            return
        if self.is_frozen:
            self._deferred.append((self.hear_marker, (count,)))
            return
        retract(self.books, count)
        if self.play is None:
            self.next_run()
        if self.books.has_something:
            self.flush_later()

    # -------------------------------------------------------------- runs

    def next_run(self) -> None:
        """Begin the run at the front, if there is a token for it; leave if told to."""
        queue = self.books.queue
        if queue.leaving:
            self.flush()
            self.host.kill(self, "exited with status 0", delay_ns=0)
            return
        if self._claimed < 0:
            if not queue.runs or not self.tokens:
                return
            self._claimed = self.tokens.popleft()
        if not queue.runs or not queue.is_current(self._claimed):
            return
        self._claimed = -1
        run = queue.runs.popleft()
        self.begun += 1
        message = run.message
        self._current = run
        play = self.play = Play(message.task, message.attempt, message.depth)
        self.host.began(self, message)
        self._debt_ns += self.costs.run_ns  # paid with what the body waits for first
        self._begin(play, run)

    def _begin(self, play: Play, run: QueuedRun) -> None:
        """Load function and arguments, and call."""
        message = run.message
        queue = self.books.queue
        self._started_ns = self.host.shown_ns()
        if queue.interrupts and queue.forget_interrupt(message.task, message.attempt):
            self.books.release_run(run)
            self._failed(play, _cancelled())
            return
        template = queue.templates[message.template][0]
        _, definition = queue.definitions[template.function]
        remote: do.Remote = definition.token  # type: ignore[attr-defined]  # a Blob, see `_export`
        arguments = self._load(play, run, remote)
        try:
            outcome = remote.body(arguments)
        except do.BodyFailed as failed:
            self._failed(play, failed)
            return
        self.start(play, outcome)

    def _load(self, play: Play, run: QueuedRun, remote: do.Remote) -> do.Run:
        """Read the arguments; the body takes over what carried them."""
        message = run.message
        token = run.blob.token if run.blob else None  # type: ignore[attr-defined]  # a Blob
        args: list[do.Got] = []
        for place, value in zip(message.args, run.values, strict=True):
            got = self.read_place(play, place, value, keeps=True)
            if message.packed and place is message.args[0]:
                token = got.value.token  # type: ignore[union-attr]  # a Blob, see `_submit_packed`
            else:
                args.append(got)
        if args:
            self.host.saw(args)
        uses = play.uses
        for ref in message.refs:
            uses[ref] = uses.get(ref, 0) + 1
        return do.Run(
            message.task,
            message.attempt,
            message.depth,
            self.host.machine,
            token,
            tuple(args),
            message.refs,
            remote.refs,
            self._time_ns,
        )

    def _time_ns(self) -> int:
        return self.clock.now_ns

    def blocks(self) -> TaskID:
        """The run that stands still while the process waits."""
        return self.play.task if self.play is not None else NO_TASK

    def _template(self) -> DefineTemplate:
        run = self._current
        assert run is not None
        return self.books.queue.templates[run.message.template][0]

    # -------------------------------------------------------------- reports

    def _returned(self, play: Play, results: Sequence[do.Result]) -> None:
        """Store the results, then report. Too late for an interrupt."""
        play.is_exposed = False
        self._held_blocks = []
        if len(results) == 1:
            only = results[0]
            if only.size_bytes <= self.inline_bytes_max and self._template().num_returns == 1:
                value = _value_of(only, play.task, 0)
                part = (Return(only.size_bytes, False, only.refs, self.mark(value)),)
                self._report_finished(play, part, [value])
                return
        if len(results) != self._template().num_returns:
            text = f"ValueError: returned {len(results)} values"
            self._failed(play, do.BodyFailed(text, retryable=False), Failure.SERIALIZATION)
            return
        self._store_next(play, tuple(results), 0)

    def _store_next(self, play: Play, results: tuple[do.Result, ...], index: int) -> None:
        """Put the large results from number `index` on into blocks, one after the other."""
        while index < len(results) and results[index].size_bytes <= self.inline_bytes_max:
            index += 1
        if index == len(results):
            self._report_stored(play, results)
            return
        item = return_object(play.task, index)
        value = _value_of(results[index], play.task, index)

        def granted(play: Play, ticket: Ticket) -> None:
            answer = ticket.answer
            if type(answer) is RefuseBlock:
                self._refused(play, answer)
                return
            assert type(answer) is GrantBlock
            cell, ns = self.write(answer, value)
            play.serial += 1
            self.clock.after(ns, written, play, play.serial, cell)

        def written(play: Play, serial: int, cell: Cell) -> None:
            if self.is_over(play, serial, written, cell):
                return
            self.host.memory.write(cell, value)
            self.look_away(cell)
            self._held_blocks.append(item)
            self._store_next(play, results, index + 1)

        self.wait_for(play, self.books.request_block(item, len(value)), granted)

    def _refused(self, play: Play, answer: RefuseBlock) -> None:
        for item in self._held_blocks:
            self.books.abandon_block(item)
        failed = do.BodyFailed(f"ObjectStoreFullError: {answer.text}"[:200], retryable=False)
        self._failed(play, failed, Failure(answer.failure))

    def _report_stored(self, play: Play, results: tuple[do.Result, ...]) -> None:
        returns: list[Return] = []
        payloads: list[Value] = []
        for index, part in enumerate(results):
            in_block = part.size_bytes > self.inline_bytes_max
            value = _value_of(part, play.task, index)
            returns.append(Return(part.size_bytes, in_block, part.refs, self.mark(value)))
            if not in_block:
                payloads.append(value)
        self._report_finished(play, tuple(returns), payloads)

    def _report_finished(
        self, play: Play, returns: tuple[Return, ...], payloads: list[Value]
    ) -> None:
        message = RunFinished(
            self.client,
            play.task,
            play.attempt,
            self._started_ns,
            self.host.shown_ns(),
            returns,
        )
        self._report(play, (message, *payloads))

    def _failed(self, play: Play, failed: do.BodyFailed, kind: Failure = Failure.NONE) -> None:
        play.is_exposed = False
        kind = kind or failure_of(failed)
        cancelled = kind is Failure.CANCELLED
        size = 0 if cancelled else failed.size_bytes
        retryable = failed.retryable and self._template().retry_application_errors
        message = RunFailed(
            self.client,
            play.task,
            play.attempt,
            self._started_ns,
            self.host.shown_ns(),
            kind,
            retryable and kind is Failure.APPLICATION,
            failed.summary[:200],
            size,
            () if cancelled else failed.refs,
            failed.traceback,
        )
        self._report(play, (message, Blob(size, failed.token)) if size else (message,))

    def _report(self, play: Play, report: tuple[object, ...]) -> None:
        """Say how the run ended, with all that it dropped, then look for the next."""
        self.books.out.append(report if len(report) > 1 else report[0])  # type: ignore[arg-type]
        queue = self.books.queue
        if queue.interrupts:
            queue.forget_interrupt(play.task, play.attempt)
        self._current = None
        self.let_go(play)
        debt_ns, self._debt_ns = self._debt_ns, 0
        if debt_ns:
            play.serial += 1
            self.clock.after(debt_ns, self._send_report, play, play.serial)
            return
        self.play = None
        self.flush()
        self.next_run()

    def _send_report(self, play: Play, serial: int) -> None:
        if not self.is_over(play, serial, self._send_report):
            self.play = None
            self.flush()
            self.next_run()


def _value_of(result: do.Result, task: TaskID, index: int) -> Value:
    if result.value is not None:
        return result.value
    token = result.token if result.token is not None else (task, index)
    return Blob(result.size_bytes, token)


def _cancelled() -> do.BodyFailed:
    failed = do.BodyFailed("cancelled before it began")
    failed.__cause__ = do.Interrupted()
    return failed
