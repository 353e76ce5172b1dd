"""A seat: one node of a transcript, and what its clients and its driver were given so far."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.core.local import LocalScheduler
from detray.core.payloads import INCOMING, OUTGOING, template_key, value_key
from detray.core.states import Failed, Inline
from detray.core.tables import Tables
from detray.ids import return_object
from detray.trace.transcript.scene import SceneBooks
from tests.support.world import World


class Seat(SceneBooks):
    """One node of a transcript, with the world that its core lives in."""

    def __init__(self, world: World, name: str = "") -> None:
        super().__init__()
        self.world = world
        self.name = name


class NodeWorld(World):
    """One node of several: it performs its effects, and leaves to others what it sends."""

    def __init__(self, name: str, life: str, **options: Any) -> None:  # Any: those of a World
        super().__init__(**options)
        self.config = replace(self.config, node_name=name, life=life)
        self.local = LocalScheduler(self.config)
        self.sendable: dict[bytes, int] = {}
        """Payload bytes that the messages of the last step could take along."""

    def take(self, now_ns: int, *stimuli: st.Stimulus) -> list[ef.Effect]:
        """One step; payload bytes arrive with their messages and go as ordered."""
        self.now_ns = now_ns
        for m in stimuli:
            for key, size in INCOMING.get(type(m), _nothing)(m):
                self.payloads.setdefault(key, size)
        effects = self._step(*stimuli)
        self._perform(effects)
        self._check_payloads()
        return effects

    def payload_of(self, message: Any) -> tuple[int, ...]:  # Any: the table knows
        """Sizes of the bytes that go out with a message of the last step."""
        keys = OUTGOING.get(type(message), _nothing)(message)
        return tuple(self.sendable[key] for key in keys)

    def _perform(self, effects: list[ef.Effect]) -> None:
        """As the driver does: copies, then what is sent, then what is dropped."""
        messages = [e.message if type(e) is ef.SendToPeer else e for e in effects]
        for message in messages:
            if type(message) is ef.CopyPayload:
                self.payloads[message.target] = self.payloads[message.source]
        self.sendable = dict(self.payloads)
        for message in messages:
            for key in OUTGOING.get(type(message), _nothing)(message):
                assert key in self.payloads, f"{type(message).__name__} needs {key.hex()}"
        super()._perform(effects)

    def _check_payloads(self) -> None:
        """The bytes that the driver keeps are those that the tables know of, and no others."""
        wanted = known_payloads(self.local.tables)
        kept = set(self.payloads)
        assert kept == wanted, f"leaked {_hex(kept - wanted)}, missing {_hex(wanted - kept)}"


def known_payloads(t: Tables) -> set[bytes]:
    """The keys of all payload bytes that a node's tables refer to."""
    keys: set[bytes] = set()
    for row in t.objects.values():
        if isinstance(row.state, Inline | Failed) and row.state.size_bytes:
            keys.add(row.id)
    keys.update(k for k, task in t.tasks.items() if task.spec.size_bytes)
    keys.update(k for k, past in t.pasts.items() if past.spec.size_bytes)
    keys.update(k for k, function in t.functions.items() if function.size_bytes)
    keys.update(template_key(k) for k, row in t.templates.items() if row.size_bytes)
    for result in t.parked.values():
        for index, part in enumerate(result.returns):
            if not part.is_kept and part.size_bytes > 0:
                keys.add(value_key(return_object(result.task, index), result.attempt))
    for message in t.early:
        keys.update(key for key, _ in INCOMING.get(type(message), _nothing)(message))
    return keys


def _nothing(_: object) -> list[Any]:  # Any: keys, with sizes or without
    return []


def _hex(keys: set[bytes]) -> list[str]:
    return sorted(key.hex() for key in keys)
