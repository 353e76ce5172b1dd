"""The naive executor: the bodies of a program, one after the other, values in a dictionary.

No scheduler, no store, no time, no failures but those that the program makes itself. What it finds
under a path is what every run must find there, unless a fault explains otherwise (`oracles.py`).
"""

from __future__ import annotations

from typing import Any

from detray.errors import Failure
from detray.ids import NO_TASK, ObjectID, TaskID
from detray_sim.behaviour import (
    BodyFailed,
    GetValues,
    Got,
    Operation,
    PutValue,
    ReadFailed,
    Result,
    Run,
    Steps,
    Submit,
    WaitFor,
)
from detray_sim.scripts import Company, Diary, Outcome, Program
from detray_sim.values import Blob


def outcomes(program: Program) -> dict[str, Outcome]:
    """By path, what is found there when nothing goes wrong; only what somebody reads."""
    executor = _Executor()
    diary = Diary()
    company = Company(program, diary)
    root = Run(NO_TASK, 0, 1, 0, None, (), (), (), lambda: 0)
    executor.perform(company.driver(root), until_done=diary)
    return {path: outcome for path, _, outcome, _ in diary.reads}


class _Executor:
    """A dictionary of values, and a counter for names."""

    def __init__(self) -> None:
        self._values: dict[ObjectID, Got] = {}

    def perform(self, steps: Steps, until_done: Diary | None = None) -> list[Result]:
        """Run a body to its end; its results. Raises what the body raises."""
        answer: Any = None  # Any: what the operation gives
        error: Exception | None = None
        while until_done is None or not until_done.is_done:
            try:
                operation = steps.throw(error) if error is not None else steps.send(answer)
            except StopIteration as end:
                return list(end.value)
            answer, error = None, None
            try:
                answer = self._answer(operation)
            except ReadFailed as failed:
                error = failed
        return []

    def _answer(self, operation: Operation) -> Any:  # Any: as above
        match operation:
            case Submit():
                return self._submit(operation)
            case PutValue():
                item = self._name()
                self._values[item] = Got(item, operation.value, operation.refs)
                return item
            case GetValues():
                found = [self._values[item] for item in operation.objects]
                for got in found if operation.raises else ():
                    if got.failure:
                        raise ReadFailed(got)
                return found
            case WaitFor():
                return set(operation.objects)
            case _:
                return None

    def _submit(self, order: Submit) -> list[ObjectID]:
        remote = order.remote
        items = [self._name() for _ in range(remote.num_returns)]
        args = tuple([self._values[item] for item in order.args])
        failed = next((got for got in args if got.failure), None)
        if failed is not None:
            for item in items:
                self._values[item] = Got(item, failed.value, (), failed.failure, failed.text)
            return items
        attempt = 0
        task = TaskID(b"task%12d" % len(self._values))
        while True:
            run = Run(task, attempt, 1, 0, order.token, args, order.refs, remote.refs, lambda: 0)
            try:
                results = self._body(order, run)
            except BodyFailed as error:
                if error.retryable and remote.retry_exceptions and attempt != remote.max_retries:
                    attempt += 1
                    continue
                value = Blob(error.size_bytes, error.token)
                for item in items:
                    self._values[item] = Got(
                        item, value, error.refs, int(Failure.APPLICATION), error.summary
                    )
                return items
            for item, result in zip(items, results, strict=True):
                self._values[item] = Got(item, Blob(result.size_bytes, result.token), result.refs)
            return items

    def _body(self, order: Submit, run: Run) -> list[Result]:
        made = order.remote.body(run)
        assert not isinstance(made, (list, tuple)) and hasattr(made, "send")
        return self.perform(made)  # type: ignore[arg-type]  # bodies of scripts are generators

    def _name(self) -> ObjectID:
        item = ObjectID(b"value%15d" % len(self._values))
        self._values[item] = Got(item, b"")
        return item
