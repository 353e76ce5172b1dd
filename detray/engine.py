"""Engines: what the surface stands on. Real processes are one, the simulator is another.

An engine is a function that takes the settings of `init` and returns an `EngineSession`. Other
engines than real processes are found by the entry-point group `detray.engines`: detray itself
imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from detray.ids import FunctionID, JobNumber, NodeID, ObjectID, TemplateID
from detray.serialization.values import Serialized
from detray.settings import PROCESSES, Settings

if TYPE_CHECKING:
    from detray.core.client import Books
    from detray.core.stimuli import TemplateDefined
    from detray.core.streams import RunContext

GROUP = "detray.engines"
_OURS = {PROCESSES: "detray.process_engine:start", "sim": "detray_sim.engine:start"}
"""Engines of this distribution, which are found even if its metadata is older than its code."""


class EngineClient(Protocol):
    """One process's end of an engine: what `remote`, `get`, `put`, `wait` and references call.

    Read-only members are fixed for a process, `current` and `is_worker` say what runs there.
    """

    @property
    def job(self) -> JobNumber:
        """The job of this process."""

    @property
    def node(self) -> NodeID:
        """The node that it is on."""

    @property
    def books(self) -> Books:
        """Its references, values and messages."""

    @property
    def current(self) -> RunContext:
        """What runs here."""

    @property
    def is_worker(self) -> bool:
        """True in a task, False in a driver program."""

    def created(self, item: ObjectID, /) -> object:
        """Count one more Python reference."""

    def dropped(self, item: ObjectID, /) -> object:
        """One is gone; called from `__del__`."""

    @property
    def session(self) -> str:
        """What tells this session from all others, in pickled references."""

    def claim(self, item: ObjectID, owner: NodeID, /) -> object:
        """Count a reference that the user's own pickling brought; `owner` is its node."""

    def pin_forever(self, item: ObjectID, /) -> NodeID:
        """Hold `item` until the job ends; the node that owns it."""

    def reserve_function(self) -> FunctionID:
        """A name for a function that will be exported."""

    def export_function(
        self, function: FunctionID, definition: bytes, name: str, refs: tuple[ObjectID, ...]
    ) -> None:
        """Export a pickled function under its reserved name."""

    def define_template(self, wanted: TemplateDefined, exceptions: bytes) -> TemplateID:
        """Fix what many submissions share: `wanted`, but for the client and the number.

        `exceptions` are the pickled classes of `retry_exceptions` (b"": none, or all).
        """

    def submit(
        self,
        template: TemplateID,
        num_returns: int,
        blob: Serialized | None,
        args: tuple[ObjectID, ...] = (),
    ) -> list[ObjectID]:
        """Submit a call; the ids of its returns, each to be made a reference at once."""

    def put(self, value: Serialized) -> ObjectID:
        """Store a value; its id, to be made a reference at once."""

    # Any: the values are the user's.
    def get_one(self, item: ObjectID, timeout: float | None = None) -> Any:
        """The value of one object."""

    def get_many(self, items: Sequence[ObjectID], timeout: float | None = None) -> list[Any]:
        """The values of objects, in order."""

    def wait(
        self, items: Sequence[ObjectID], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> set[ObjectID]:
        """Which of the distinct `items` are available, once `num_returns` are or time is up."""

    def cancel(self, item: ObjectID, force: bool, recursive: bool) -> None:
        """Cancel the producer of `item`."""

    def add_done_callback(self, item: ObjectID, callback: Callable[..., object]) -> None:
        """Call `callback(value)` or `callback(None, error)` when `item` is there."""

    def sleep(self, seconds: float) -> None:
        """Let time pass: the engine's own."""

    def reports(self) -> list[dict[str, Any]]:
        """A summary of each living node (`detray.core.status.summary`). Any: plain data."""


class EngineSession(Protocol):
    """What an engine started for `init` and `shutdown` has to end."""

    @property
    def client(self) -> EngineClient:
        """The driver program's own end."""

    @property
    def facts(self) -> dict[str, Any]:
        """What `init` returns. (Any: various facts.)"""

    def trace(self) -> bytes:
        """The recording of the session so far, as the bytes of a trace file."""

    def end(self) -> None:
        """End everything. References cannot be used any more."""


Engine = Callable[[Settings], EngineSession]


def find_engine(name: str) -> Engine:
    """The engine of that name.

    Raises ValueError if there is none, ImportError if a part of it is not installed.
    """
    where = _OURS.get(name) or _registered(name)
    module, _, attribute = where.partition(":")
    try:
        found: Engine = getattr(import_module(module), attribute)
    except ImportError as problem:
        raise ImportError(
            f"the engine {name!r} cannot be loaded: {problem}. The simulator comes with "
            "`python -m pip install 'detray[sim]'`",
            name=problem.name,
        ) from problem
    return found


def _registered(name: str) -> str:
    """Where the metadata of an installed distribution says that an engine is."""
    from importlib.metadata import entry_points

    found = {entry.name: entry.value for entry in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(sorted({*found, *_OURS}))
        raise ValueError(f"no engine is called {name!r}; there are {known}")
    return found[name]
