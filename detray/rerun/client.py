"""The client of a task that runs again: what `remote`, `get`, `put` and references call in it."""

from __future__ import annotations

import time
from _thread import get_ident
from collections.abc import Callable, Sequence
from typing import Any

from detray.core.client import Books
from detray.core.stimuli import TemplateDefined
from detray.core.streams import RunContext
from detray.errors import GetTimeoutError
from detray.ids import FunctionID, JobNumber, NodeID, ObjectID, TemplateID, job_of
from detray.rerun.engine import Engine, Turn, Value, load
from detray.rerun.recorded import Answer, CallTemplate
from detray.serialization.values import Serialized


class RerunClient:
    """Implements `EngineClient` for whatever task the engine runs at the moment."""

    is_worker = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._templates: list[CallTemplate] = []
        cores = engine.recorded.trace.header.local_cores()
        self._inline_bytes_max = cores[0][1].config.policy.inline_bytes_max if cores else 0
        process = engine.recorded.payloads.header.processes[0]
        self.session = process.session
        self._has_virtual_time = process.virtual_time

    @property
    def job(self) -> JobNumber:
        """The job of the task."""
        return job_of(self._frame.call.task)

    @property
    def node(self) -> NodeID:
        """The node that it ran on."""
        return self._frame.seat.node

    @property
    def books(self) -> Books:
        """Nothing but the number of the worker that it ran on."""
        return Books(self._frame.seat.worker)

    @property
    def current(self) -> RunContext:
        """What runs here."""
        return self._frame.context

    @property
    def _frame(self) -> Turn:
        return self._engine.frame

    # -------------------------------------------------------------- references

    def created(self, item: ObjectID) -> None:
        """One more Python reference."""
        self._engine.live[item] += 1

    def dropped(self, item: ObjectID) -> None:
        """One is gone."""
        self._engine.live[item] -= 1

    def claim(self, item: ObjectID, owner: NodeID) -> None:
        """A reference of the user's own pickling: what the recording knows, has a value."""

    def pin_forever(self, item: ObjectID) -> NodeID:
        """The node that it ran on: whether another owned the object was not recorded."""
        return self.node

    # -------------------------------------------------------------- functions and tasks

    def reserve_function(self) -> FunctionID:
        """A name for a function that will be exported."""
        context = self._frame.context
        stream = context.streams.get(get_ident()) or context.open_stream(get_ident())
        return stream.next_export()

    def export_function(
        self, function: FunctionID, definition: bytes, name: str, refs: tuple[ObjectID, ...]
    ) -> None:
        """Keep a pickled function under its reserved name."""
        self._engine.exported[function] = (name, definition)

    def define_template(self, wanted: TemplateDefined, exceptions: bytes) -> TemplateID:
        """Fix what many submissions share."""
        template = CallTemplate(wanted.function, wanted.name, wanted.num_returns, wanted.demand)
        self._templates.append(template)
        return TemplateID(len(self._templates) - 1)

    def submit(
        self,
        template: TemplateID,
        num_returns: int,
        blob: Serialized | None,
        args: tuple[ObjectID, ...] = (),
    ) -> list[ObjectID]:
        """Submit a call; the ids of its returns."""
        which = self._templates[template]
        if blob is None:
            return self._engine.submit(which, b"", args, (), packed=False)
        if blob.size_bytes > self._inline_bytes_max:
            item = self._engine.put(blob)
            return self._engine.submit(which, b"", (item, *args), (), packed=True)
        return self._engine.submit(which, blob.to_bytes(), args, blob.refs, packed=False)

    def put(self, value: Serialized) -> ObjectID:
        """Store a value; its id."""
        return self._engine.put(value)

    def cancel(self, item: ObjectID, force: bool, recursive: bool) -> None:
        """Cancel the producer of `item`; one that ran then has run."""
        self._engine.cancel(item)

    # -------------------------------------------------------------- values

    # Any: the values are the user's.
    def get_one(self, item: ObjectID, timeout: float | None = None) -> Any:
        """The value of one object; see `get_many`."""
        return self.get_many((item,), timeout)[0]

    def get_many(self, items: Sequence[ObjectID], timeout: float | None = None) -> list[Any]:
        """The values of `items`, in order.

        Raises what the get raised: the error of one that failed, or GetTimeoutError.
        """
        engine, scope = self._engine, self._frame.scope
        if timeout is not None:
            answer = self._answer(items, fetch=True)
            if answer is not None:
                self._frame.answers.popleft()
            if answer is not None and answer.timed_out:
                raise GetTimeoutError(
                    f"{len(answer.objects) - len(answer.ready)} of {len(items)} objects were not "
                    f"available within {timeout} s, as when this was recorded"
                )
        at_hand = {item: engine.at_hand(item, scope) for item in items}
        for item, value in at_hand.items():
            if value is not None and value.failure is not None:
                load(value, item)  # It raises: before anything is made for the others.
        values: dict[ObjectID, Value] = {}
        for item in items:
            values[item] = value = engine.value(item, scope)
            if value.failure is not None:
                load(value, item)
        self._frame.known.update(items)
        return [load(values[item], item) for item in items]

    def wait(
        self, items: Sequence[ObjectID], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> set[ObjectID]:
        """Those that were available then; if that is not known, the first that can be."""
        engine, frame = self._engine, self._frame
        answer = self._answer(items, fetch=False)
        rest = set(items) - set(answer.objects) if answer is not None else set()
        # Only a wait whose process did not know enough by itself asked, and for the rest.
        if answer is not None and answer.needed == num_returns - len(rest) and rest <= frame.known:
            frame.answers.popleft()
            frame.known |= answer.ready
            return answer.ready | rest
        ready = {item for item in items if item in frame.known}
        for item in items:
            if len(ready) < num_returns and engine.at_hand(item, frame.scope) is not None:
                ready.add(item)
        for item in items:
            if len(ready) < num_returns and item not in ready:
                engine.value(item, frame.scope)
                ready.add(item)
        frame.known |= ready
        return ready

    def _answer(self, items: Sequence[ObjectID], *, fetch: bool) -> Answer | None:
        """What the task was told next, if it may have asked for this."""
        answers = self._frame.answers
        if answers and answers[0].fetch == fetch and set(answers[0].objects) <= set(items):
            return answers[0]
        return None

    def add_done_callback(self, item: ObjectID, callback: Callable[..., object]) -> None:
        """Call `callback(value)` or `callback(None, error)`, at once."""
        try:
            value = self.get_one(item)
        except Exception as error:
            callback(None, error)
        else:
            callback(value)

    # -------------------------------------------------------------- the rest

    def sleep(self, seconds: float) -> None:
        """Do nothing for so long; no time passes if it was virtual when this was recorded."""
        if not self._has_virtual_time:
            time.sleep(seconds)

    def reports(self) -> list[dict[str, Any]]:
        """What each node of the trace has; nothing of it is in use. (Any: plain data.)"""
        return [
            {
                "node": core.node,
                "name": core.name,
                "alive": True,
                "total": dict(core.config.totals),
                "available": dict(core.config.totals),
                "store": {"size_bytes": core.config.arena_bytes, "used_bytes": 0},
                "labels": dict(core.config.labels),
            }
            for _, core in self._engine.recorded.trace.header.local_cores()
        ]
