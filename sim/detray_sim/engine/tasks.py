"""Tasks: user functions as bodies of the simulator.

The body of a task is a generator that has its code run on the thread of its simulated worker. Its
own computing takes `task_ns` of virtual time, which pass when it is over: by then its side effects
are done, and a fault that strikes meanwhile costs the result, as it may in reality.
"""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

from detray.core.effects import DefineTemplate, RunTask
from detray.core.streams import RunContext
from detray.ids import FunctionID, TaskID
from detray.serialization.calls import decode_call
from detray.serialization.failures import serialize_error
from detray.serialization.returns import forget_frames, is_listed, pickle_return, split_returns
from detray.serialization.values import deserialize
from detray_sim import behaviour as do
from detray_sim.engine.baton import Carrier, Killed
from detray_sim.engine.client import SimClient, value_of
from detray_sim.engine.seats import WorkerSeat
from detray_sim.process import SimProcess
from detray_sim.worker import SimWorker

if TYPE_CHECKING:
    from detray_sim.node import SimNode


PID_BASE = 1_000
"""Simulated workers have their numbers plus this for a process id."""


class Outcome:
    """How the code of a task ended: `results`, or `failed`, or `left` with an exit status."""

    def __init__(self) -> None:
        self.results: list[do.Result] = []
        self.failed: do.BodyFailed | None = None
        self.left = ""


class Tasks:
    """Plays tasks: finds the worker of each, gives it a thread, runs the code there."""

    def __init__(self, client: SimClient) -> None:
        self._client = client
        self._begun: dict[tuple[int, TaskID, int], tuple[SimWorker, RunTask]] = {}
        self._carriers: dict[SimWorker, Carrier] = {}
        self._functions: dict[tuple[SimProcess, FunctionID], Any] = {}  # Any: the user's
        self._playing: dict[WorkerSeat, do.Steps] = {}

    def began(self, node: SimNode, worker: SimWorker, message: RunTask) -> None:
        """A worker begins a run: the cluster's listener."""
        self._begun[node.machine, message.task, message.attempt] = (worker, message)

    def make_body(
        self, function: FunctionID, name: str, num_returns: int, classes: bytes
    ) -> do.Body:
        """The body that plays a function."""

        def body(run: do.Run) -> do.Steps:
            steps = self._play(run, function, num_returns, classes)
            return steps

        return body

    def sweep(self) -> None:
        """End the code of processes that died."""
        for seat in [s for s in self._playing if s.process.play is not s.play]:
            self._playing.pop(seat).close()
        dead = [worker for worker in self._carriers if not worker.is_alive]
        for worker in dead:
            self._carriers.pop(worker).kill()
            for key in [key for key in self._functions if key[0] is worker]:
                del self._functions[key]

    def end(self) -> None:
        """End all code and all threads."""
        for seat in list(self._playing):
            self._playing.pop(seat).close()
        for carrier in self._carriers.values():
            carrier.kill()
        self._carriers.clear()
        self._functions.clear()

    @property
    def unfinished(self) -> list[str]:
        """The names of tasks whose code has begun and is not over."""
        return [seat.context.name for seat in self._playing]

    # -------------------------------------------------------------- one run

    def _play(
        self, run: do.Run, function: FunctionID, num_returns: int, classes: bytes
    ) -> do.Steps:
        client = self._client
        self.sweep()
        seat = self._take_seat(run)
        delay_ns = client.delay_ns(seat)
        if delay_ns:
            yield do.Sleep(delay_ns)
            self.sweep()
        outcome = Outcome()
        task = (seat, run, function, num_returns, classes, outcome)
        steps = self._playing[seat] = seat.steps(lambda: self._execute(*task))
        try:
            yield from steps
        finally:
            self._playing.pop(seat, None)
        task_ns = client.options.task_ns
        if task_ns:
            client.is_busy_for(task_ns)
            yield do.Compute(task_ns)
        if outcome.left:
            yield do.EndProcess(outcome.left)
        if outcome.failed is not None:
            raise outcome.failed
        return outcome.results

    def _take_seat(self, run: do.Run) -> WorkerSeat:
        worker, message = self._begun.pop((run.node, run.task, run.attempt))
        template: DefineTemplate = worker.books.queue.templates[message.template][0]
        carrier = self._carriers.get(worker)
        if carrier is None:
            name = f"detray-sim {worker.host.name} worker {worker.client}"
            carrier = self._carriers[worker] = Carrier(name)
        context = RunContext(
            run.task, run.attempt, run.depth, template.name, 0, message.units, template.demand
        )
        play = worker.play
        assert play is not None
        return WorkerSeat(self._client, worker, play, context, carrier)

    # -------------------------------------------------------------- on the worker's thread

    def _execute(
        self,
        seat: WorkerSeat,
        run: do.Run,
        function: FunctionID,
        num_returns: int,
        classes: bytes,
        outcome: Outcome,
    ) -> None:
        """Load, call, take apart what came of it. Catches everything but Killed."""
        is_application = False
        try:
            code = self._load(seat, function)
            args, kwargs = decode_call(run.token, [value_of(got) for got in run.args])
            is_application = True
            value = code(*args, **kwargs)
            is_application = False
            del args, kwargs
            outcome.results = _results(seat, value, num_returns)
        except Killed:
            raise
        except SystemExit as error:
            outcome.left = _exit_text(error)
        except KeyboardInterrupt:
            outcome.failed = _cancelled(seat.context.name)
        except Exception as error:
            retryable = is_application and _is_retryable(error, classes)
            outcome.failed = _failure(seat, error, retryable)
            forget_frames(error)
        except BaseException:
            traceback.print_exc()
            outcome.left = "exited with status 1"

    def _load(self, seat: WorkerSeat, function: FunctionID) -> Any:
        """The function, unpickled once by each worker. (Any: the user's.)"""
        key = (seat.process, function)
        found = self._functions.get(key)
        if found is None:
            exported = self._client.functions[function]
            found = self._functions[key] = deserialize(exported.definition)
        return found


# Any: what the user's function returned.
def _results(seat: WorkerSeat, value: Any, num_returns: int) -> list[do.Result]:
    """The returned value in pieces, whose references stay until the report is out."""
    name = seat.context.name
    parts = [value] if num_returns == 1 else split_returns(value, name, num_returns)
    results = []
    for part in parts:
        whole = pickle_return(part)
        seat.hold(whole.refs)
        results.append(do.Result(0, refs=whole.refs, value=whole.to_bytes()))
    return results


def _failure(seat: WorkerSeat, error: Exception, retryable: bool) -> do.BodyFailed:
    """What the worker reports for an exception."""
    name, pid = seat.context.name, PID_BASE + seat.process.client
    try:
        payload, summary, text = serialize_error(error, function_name=name, pid=pid)
    except Exception as problem:  # a user's __reduce__ or __str__, and nothing helped
        substitute = RuntimeError(
            f"{type(error).__name__}, which cannot be described: {type(problem).__name__}"
        )
        payload, summary, text = serialize_error(substitute, function_name=name, pid=pid)
    seat.hold(payload.refs)
    return do.BodyFailed(
        summary,
        retryable=retryable,
        token=payload.to_bytes(),
        size_bytes=payload.size_bytes,
        refs=payload.refs,
        traceback=text,
    )


def _is_retryable(error: Exception, pickled: bytes) -> bool:
    """The verdict on `retry_exceptions`: all, or some classes."""
    if not pickled:
        return True
    try:
        classes: Any = deserialize(pickled)  # the surface checked what it holds
    except Exception:
        traceback.print_exc()
        return False
    return is_listed(error, tuple(classes))


def _cancelled(name: str) -> do.BodyFailed:
    failed = do.BodyFailed(f"task {name!r} was cancelled while it ran")
    failed.__cause__ = do.Interrupted()
    return failed


def _exit_text(error: SystemExit) -> str:
    """How the death of a process that user code ended is told."""
    status = error.code
    if status is not None and not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    return f"exited with status {(status or 0) & 0xFF}"
