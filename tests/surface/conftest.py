"""A client that keeps everything to itself, and one real session for all tests that need it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from detray import object_ref, startup
from detray.core.stimuli import TemplateDefined
from detray.ids import FunctionID, NodeID, ObjectID, TemplateID
from detray.serialization.calls import decode_call
from detray.serialization.values import Serialized, deserialize


class QuietClient:
    """Stands in for the runtime's client: notes what it is told, answers from memory."""

    def __init__(self) -> None:
        self.made: list[ObjectID] = []
        self.gone: list[ObjectID] = []
        self.pinned: list[ObjectID] = []
        self.claimed: list[tuple[ObjectID, int]] = []
        self.session = "here"
        self.exports: dict[FunctionID, tuple[bytes, str, tuple[ObjectID, ...]]] = {}
        self.templates: list[tuple[TemplateDefined, bytes]] = []
        self.submitted: list[tuple[TemplateID, int, Serialized | None, tuple[ObjectID, ...]]] = []
        self.values: dict[ObjectID, bytes] = {}
        self.job, self.node, self.is_worker = 1, 0, False
        self.reserved = 0

    def created(self, item: ObjectID) -> None:
        self.made.append(item)

    def dropped(self, item: ObjectID) -> None:
        self.gone.append(item)

    def pin_forever(self, item: ObjectID) -> NodeID:
        self.pinned.append(item)
        return NodeID(7)

    def claim(self, item: ObjectID, owner: NodeID) -> None:
        self.claimed.append((item, owner))

    def reserve_function(self) -> FunctionID:
        self.reserved += 1
        return FunctionID(b"F" * 12 + self.reserved.to_bytes(4, "big"))

    def export_function(
        self, function: FunctionID, definition: bytes, name: str, refs: tuple[ObjectID, ...]
    ) -> None:
        assert function not in self.exports
        self.exports[function] = (definition, name, refs)

    def define_template(self, wanted: TemplateDefined, exceptions: bytes) -> TemplateID:
        assert wanted.function in self.exports
        self.templates.append((wanted, exceptions))
        return TemplateID(len(self.templates) - 1)

    def submit(
        self,
        template: TemplateID,
        num_returns: int,
        blob: Serialized | None,
        args: tuple[ObjectID, ...] = (),
    ) -> list[ObjectID]:
        self.submitted.append((template, num_returns, blob, args))
        start = len(self.submitted) * 100
        return [ref_id(start + index) for index in range(num_returns)]

    def put(self, value: Serialized) -> ObjectID:
        item = ref_id(1_000_000 + len(self.values))
        self.values[item] = value.to_bytes()
        return item

    def get_one(self, item: ObjectID, timeout: float | None = None) -> Any:
        return deserialize(self.values[item])

    def get_many(self, items: list[ObjectID], timeout: float | None = None) -> list[Any]:
        return [deserialize(self.values[item]) for item in items]

    def wait(
        self, items: list[ObjectID], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> set[ObjectID]:
        return {item for item in items if item in self.values}

    def arguments(self, number: int = -1) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a submitted call; references stand for their values."""
        _, _, blob, args = self.submitted[number]
        return decode_call(blob.to_bytes() if blob else None, [f"value of {a[-1]}" for a in args])


def ref_id(number: int) -> ObjectID:
    """An object id that says nothing but its number."""
    return ObjectID(number.to_bytes(20, "big"))


@pytest.fixture
def client() -> Iterator[QuietClient]:
    """A session that runs nothing."""
    startup.shutdown()
    quiet = QuietClient()
    object_ref.bind(quiet)
    yield quiet
    object_ref.unbind()


@pytest.fixture
def session() -> Iterator[startup.SessionInfo]:
    """A real session on two CPUs; it lives until a test wants none, or the last one is over."""
    if startup.is_initialized() and startup._running is None:
        object_ref.unbind()
    yield startup.init(num_cpus=2, object_store_memory=200 << 20, ignore_reinit_error=True)


@pytest.fixture
def no_session() -> Iterator[None]:
    """A process that has no session, before and after."""
    startup.shutdown()
    yield
    startup.shutdown()


@pytest.fixture(scope="package", autouse=True)
def ended() -> Iterator[None]:
    """Nothing runs on after the last test here."""
    yield
    startup.shutdown()
