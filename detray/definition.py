"""Functions as the sessions of this process know them: their export, once a session.

The id of a function is reserved before the function is pickled, so that functions which call
themselves or each other can name each other; what the pickler meets on the way is exported in turn.
Nobody uses an id before the definitions behind it, all of them, have been sent.
"""

from __future__ import annotations

import threading
from types import FunctionType
from typing import Any

from detray.errors import DetrayError, SerializationError
from detray.ids import NO_CLIENT, FunctionID, NodeID, TemplateID
from detray.options import TaskOptions
from detray.signature import Signature

WARN_BYTES = 10 << 20
MAX_BYTES = 100 << 20

_lock = threading.RLock()
"""One export at a time: pickling a function may export others (hence reentrant)."""
_under_way: list[Definition] = []
"""Definitions with a reserved id whose export, or that of one they need, has not ended."""


class Definition:
    """A function and, in the session of this process, its id and its templates."""

    __slots__ = (
        "_client", "_function_id", "_templates", "function", "home", "name", "ready", "signature",
    )  # fmt: skip

    def __init__(self, function: FunctionType | None, name: str, signature: Signature) -> None:
        self.function = function
        """None in a copy that came inside of a message: such a one has only an id."""
        self.name = name
        self.signature = signature
        self.home = NodeID(-1)
        """Where the function was exported, if that is another node: ours asks there for it."""
        self.ready = False
        """True once the session's service has been sent all that the id stands for."""
        self._client: Any = None  # Any: the client's class lives in the runtime
        self._function_id = FunctionID(b"")
        self._templates: dict[TaskOptions, TemplateID] = {}

    def name_in(self, client: Any) -> FunctionID:
        """The function's id in this client's session; exports the function first if need be.

        Raises SerializationError if it cannot be pickled, ValueError if it is too large.
        """
        if not (self.ready and self._client is client):
            with _lock:
                if self not in _under_way and not (self.ready and self._client is client):
                    _export(client, self)
        return self._function_id

    def template(self, client: Any, settings: TaskOptions) -> TemplateID:
        """The session's template for this function with these options."""
        function_id = self.name_in(client)
        found = self._templates.get(settings)
        if found is None:
            with _lock:
                found = self._templates.get(settings)
                if found is None:
                    found = _define(client, function_id, settings, self.home)
                    self._templates[settings] = found
        return found

    def adopt(self, client: Any, function_id: FunctionID) -> None:
        """Take `function_id` as the function's id in this client's session."""
        self._client = client
        self._function_id = function_id
        self._templates = {}
        self.ready = False


def arrived(
    client: Any, function_id: FunctionID, name: str, signature: Signature, home: NodeID
) -> Definition:
    """The definition behind an id that came in a message; one for all its copies."""
    definition = _arrived.get(function_id)
    if definition is None or definition._client is not client:
        definition = _arrived[function_id] = Definition(None, name, signature)
        definition.adopt(client, function_id)
        definition.home = home
        definition.ready = True
    return definition


_arrived: dict[FunctionID, Definition] = {}


def _define(
    client: Any, function_id: FunctionID, settings: TaskOptions, home: NodeID
) -> TemplateID:
    from detray.core.stimuli import TemplateDefined

    classes = settings.retry_exceptions
    wanted = TemplateDefined(
        NO_CLIENT,
        TemplateID(0),
        function_id,
        settings.name,
        settings.num_returns,
        settings.demand,
        settings.max_retries,
        bool(classes),
        settings.max_calls,
        strategy=settings.strategy,
        home=home,
    )
    exceptions = _pickled_classes(classes) if isinstance(classes, tuple) else b""
    found: TemplateID = client.define_template(wanted, exceptions)
    return found


def _export(client: Any, definition: Definition) -> None:
    """Send `definition` under a fresh id. Called with the lock held."""
    outermost = not _under_way
    definition.adopt(client, client.reserve_function())
    _under_way.append(definition)
    try:
        pickled = _pickled(definition)
        client.export_function(
            definition._function_id, pickled.to_bytes(), definition.name, pickled.refs
        )
        if outermost:
            for done in _under_way:
                done.ready = True
    finally:
        # After a failure everything that was met on the way gets another id the next time: it may
        # name a definition that was never sent.
        if outermost:
            _under_way.clear()


def _pickled(definition: Definition) -> Any:  # Any: `Serialized`, which loads lazily
    from detray.serialization.pickling import dump_rich
    from detray.serialization.search_paths import wrapped
    from detray.serialization.values import SerializedParts

    try:
        whole = SerializedParts(*dump_rich(wrapped(definition.function)))
    except DetrayError:
        raise
    except Exception as problem:
        from detray.serializability import offending_member

        what = offending_member(definition.function, definition.name) or str(problem)
        raise SerializationError(
            f"Could not serialize the function {definition.name!r}: {what}. Make such things "
            "inside of the function, or pass what they can be made from"
        ) from problem
    if whole.size_bytes > MAX_BYTES:
        raise ValueError(_size_text(definition.name, whole.size_bytes, "is too large"))
    if whole.size_bytes > WARN_BYTES:
        import warnings

        text = _size_text(definition.name, whole.size_bytes, "is very large")
        warnings.warn(text, stacklevel=6)
    return whole


def _size_text(name: str, size_bytes: int, verdict: str) -> str:
    return (
        f"The remote function {name} {verdict} ({size_bytes / (1 << 20):.0f} MiB, limit "
        f"{MAX_BYTES >> 20} MiB). It probably captures a large array or other value: "
        "put it once with detray.put() and pass the reference"
    )


def _pickled_classes(classes: tuple[type[BaseException], ...]) -> bytes:
    from detray.serialization.values import serialize

    try:
        return serialize(classes).to_bytes()
    except Exception as problem:
        raise TypeError(
            f"retry_exceptions lists a class that cannot be pickled: {problem}"
        ) from None
