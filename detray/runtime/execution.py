"""One run in a worker: load the function, build the arguments, call, store the returns, report.

Rules
-----
- Whatever user code raises becomes a report; the worker survives everything but what ends
  processes: SystemExit, and exceptions beyond `Exception` that are not KeyboardInterrupt (as in
  Ray).
- An interrupt names its attempt and is raised only while that attempt's user code is on the stack
  (PROTOCOL T3). `Interrupts.exposed` says so, and raising takes it back: one raise per run.
- Before the report goes out nothing of the run is referenced any more: arguments, locals,
  traceback. So its drops follow in the same frame as the report.
"""

from __future__ import annotations

import os
import sys
import traceback
from _thread import get_ident
from time import monotonic_ns
from typing import Any, NoReturn

from detray.core.effects import DefineTemplate
from detray.core.run_queue import QueuedRun
from detray.core.stimuli import Return, RunFailed, RunFinished
from detray.core.streams import RunContext
from detray.errors import Failure, ObjectStoreFullError, OutOfDiskError
from detray.ids import FunctionID, TaskID, return_object
from detray.runtime.client import Client
from detray.runtime.interrupts import Interrupts
from detray.runtime.output import Outputs
from detray.serialization.calls import Arguments, Keywords, decode_call
from detray.serialization.failures import serialize_error
from detray.serialization.returns import (
    forget_frames,
    is_listed,
    pickle_return,
    split_returns,
)
from detray.serialization.values import Serialized, deserialize

_UNIT = 10_000
"""Resource amounts are in 1/10,000."""

Report = tuple[Any, ...]  # Any: (message, payload, payload...), as in `Books.out`.


class Execution:
    """Runs attempts, one after the other, on the main thread."""

    def __init__(self, client: Client, interrupts: Interrupts, outputs: Outputs) -> None:
        self._client = client
        self._queue = client.books.queue
        self._interrupts = interrupts
        self._outputs = outputs
        self._functions: dict[FunctionID, Any] = {}
        self._retryable: dict[int, tuple[type[BaseException], ...]] = {}
        self._environment = Environment()
        self._thread = get_ident()
        self._nothing = self._inline(pickle_return(None))
        """How most tasks end that are run for what they do."""

    def run(self, run: QueuedRun) -> None:
        """Run an attempt and send its report."""
        client, message = self._client, run.message
        template = self._queue.templates[message.template][0]
        client.current = RunContext(
            message.task,
            message.attempt,
            message.depth,
            template.name,
            self._thread,
            message.units,
            template.demand,
        )
        self._environment.prepare(template.demand, message.units)
        self._outputs.name = template.name
        report = self._attempt(run, template)
        if self._outputs.written:
            # Before the report: who hears that the run is over may end this process.
            self._outputs.flush()
        client.connection.flush(report)

    def _attempt(self, run: QueuedRun, template: DefineTemplate) -> Report:
        """Everything but sending: the report, all else of the run forgotten."""
        key = (run.message.task, run.message.attempt)
        interrupts = self._interrupts
        started_ns = monotonic_ns()
        phase = Failure.SERIALIZATION
        try:
            function, args, kwargs = self._load(run, template)
            phase = Failure.APPLICATION
            try:
                interrupts.exposed = key
                if self._queue.interrupts:
                    interrupts.raise_if_meant()
                value = function(*args, **kwargs)
            finally:
                interrupts.exposed = None
            if self._client.is_fork:
                self._leave(SystemExit(0))
            del args, kwargs
            phase = Failure.SERIALIZATION
            returns, payloads = self._store(run.message.task, value, template)
        except (SystemExit, GeneratorExit) as error:
            self._leave(error)
        except BaseException as error:
            if self._client.is_fork:
                self._leave(error)
            report = self._failure(run, template, started_ns, phase, error)
            forget_frames(error)
            return report
        finally:
            if self._queue.interrupts:
                self._queue.forget_interrupt(*key)
        ended_ns = monotonic_ns()
        message = RunFinished(self._client.books.client, *key, started_ns, ended_ns, returns)
        return message, *payloads

    # -------------------------------------------------------------- before

    def _load(self, run: QueuedRun, template: DefineTemplate) -> tuple[Any, Arguments, Keywords]:
        """The function and its arguments; the run's carriers are given back."""
        client, message = self._client, run.message
        function = self._functions.get(template.function)
        if function is not None and not message.args and not message.refs:
            return function, *decode_call(run.blob, [])
        carried = list(message.args)
        carried.reverse()
        try:
            if function is None:
                function = self._load_function(template)
            blob: bytes | memoryview = run.blob
            values: list[Any] = []
            for data in run.values:
                place = carried.pop()
                if message.packed and place is message.args[0]:
                    blob = data or client.view(place)
                else:
                    values.append(client.getter.read_place(place, data))
            return function, *decode_call(blob, values)
        finally:
            client.books.references.release(message.refs)
            if message.packed:
                client.books.references.release(message.args[0].refs)
            for place in carried:
                client.books.release(place)

    def _load_function(self, template: DefineTemplate) -> Any:
        definition, data = self._queue.definitions[template.function]
        try:
            function = deserialize(data)
        except Exception as problem:
            raise ImportError(
                f"the function {definition.name!r} of task {template.name!r} cannot be loaded in "
                f"worker process {os.getpid()}: {type(problem).__name__}: {problem}. Workers see "
                "the driver's sys.path and working directory as they were at detray.init()"
            ) from problem
        self._functions[template.function] = function
        self._client.books.references.release(definition.refs)
        return function

    # -------------------------------------------------------------- after

    def _store(
        self, task: TaskID, value: Any, template: DefineTemplate
    ) -> tuple[tuple[Return, ...], list[bytes]]:
        """Pickle the returns, large ones into blocks. On failure no block stays behind."""
        client = self._client
        if template.num_returns == 1:
            if value is None:
                return self._nothing
            only = pickle_return(value)
            if only.size_bytes <= client.inline_bytes_max:
                return self._inline(only)
            parts = [only]
        else:
            whole = split_returns(value, template.name, template.num_returns)
            parts = [pickle_return(part) for part in whole]
        returns: list[Return] = []
        payloads: list[bytes] = []
        try:
            for index, part in enumerate(parts):
                if part.size_bytes > client.inline_bytes_max:
                    mark = client.write_block(return_object(task, index), part)
                    returns.append(Return(part.size_bytes, True, part.refs, mark))
                else:
                    (inline,), (data,) = self._inline(part)
                    returns.append(inline)
                    payloads.append(data)
        except BaseException:
            with client.lock:
                for index, done in enumerate(returns):
                    if done.in_block:
                        client.books.abandon_block(return_object(task, index))
            raise
        return tuple(returns), payloads

    def _inline(self, only: Serialized) -> tuple[tuple[Return], list[bytes]]:
        data, digest = only.to_bytes(), self._client.digest
        mark = digest(data) if digest is not None else b""
        return (Return(only.size_bytes, False, only.refs, mark),), [data]

    def _failure(
        self,
        run: QueuedRun,
        template: DefineTemplate,
        started_ns: int,
        phase: Failure,
        error: BaseException,
    ) -> Report:
        message, client = run.message, self._client.books.client
        if isinstance(error, KeyboardInterrupt):
            text = f"task {template.name!r} was cancelled while it ran"
            ended = monotonic_ns()
            return (
                RunFailed(
                    client, message.task, message.attempt, started_ns, ended, Failure.CANCELLED,
                    False, text, 0,
                ),
            )  # fmt: skip
        if not isinstance(error, Exception):
            self._leave(error)
        kind = phase
        if phase is Failure.SERIALIZATION and isinstance(error, ObjectStoreFullError):
            kind = Failure.STORE_FULL
        elif phase is Failure.SERIALIZATION and isinstance(error, OutOfDiskError):
            kind = Failure.OUT_OF_DISK
        payload, summary, text = self._pickle_error(error, template)
        retryable = phase is Failure.APPLICATION and self._is_retryable(message.template, error)
        failed = RunFailed(
            client,
            message.task,
            message.attempt,
            started_ns,
            monotonic_ns(),
            kind,
            retryable,
            summary,
            payload.size_bytes,
            payload.refs,
            text,
        )
        return failed, payload.to_bytes()

    def _pickle_error(
        self, error: BaseException, template: DefineTemplate
    ) -> tuple[Serialized, str, str]:
        name, pid, ip = template.name, os.getpid(), self._client.ip
        try:
            return serialize_error(error, function_name=name, pid=pid, ip=ip)
        except Exception as problem:  # a user's __reduce__ or __str__, and nothing helped
            substitute = RuntimeError(
                f"{type(error).__name__}, which cannot be described: {type(problem).__name__}"
            )
            return serialize_error(substitute, function_name=name, pid=pid, ip=ip)

    def _is_retryable(self, number: int, error: BaseException) -> bool:
        """The template's verdict: all exceptions, or some classes, of this one or of its cause."""
        template, pickled = self._queue.templates[number]
        if not template.retry_application_errors:
            return False
        if not pickled:
            return True
        classes = self._retryable.get(number)
        if classes is None:
            try:
                classes = tuple(deserialize(pickled))  # type: ignore[arg-type]  # the surface checked
            except Exception:
                traceback.print_exc()
                classes = ()
            self._retryable[number] = classes
        return is_listed(error, classes)

    def _leave(self, error: BaseException) -> NoReturn:
        """User code ended the process, or forked it and returned: a fork is no second worker."""
        status: object = 1
        if isinstance(error, SystemExit):
            status = error.code
            if status is not None and not isinstance(status, int):
                print(status, file=sys.stderr)
                status = 1
        else:
            # Without our own frame, which is the first.
            trace = error.__traceback__
            traceback.print_exception(error.with_traceback(trace.tb_next if trace else None))
        self._outputs.flush()
        os._exit(int(status or 0) & 0xFF)  # type: ignore[call-overload]  # int or None by now


class Environment:
    """The variables that a run's resources decide; set when they change."""

    def __init__(self) -> None:
        self._user_threads = "OMP_NUM_THREADS" in os.environ
        self._demand: tuple[tuple[str, int], ...] | None = None
        self._gpus: tuple[int, ...] | None = None

    def prepare(
        self,
        demand: tuple[tuple[str, int], ...],
        units: tuple[tuple[str, tuple[int, ...]], ...],
    ) -> None:
        """Set OMP_NUM_THREADS (from the demand, in 1/10,000) and CUDA_VISIBLE_DEVICES."""
        if demand != self._demand:
            self._demand = demand
            if not self._user_threads:
                cpus = dict(demand).get("CPU", 0)
                os.environ["OMP_NUM_THREADS"] = str(max(1, cpus // _UNIT))
        gpus = dict(units).get("GPU", ()) if units else ()
        if gpus != self._gpus:
            self._gpus = gpus
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
