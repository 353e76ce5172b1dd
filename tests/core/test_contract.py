"""The contract of the cores: nothing that can be said is without a handler, a key or an answer."""

from __future__ import annotations

import re
from typing import get_args

import msgspec
import pytest

from detray.core import effects as ef
from detray.core import global_scheduler, local
from detray.core import peer_messages as pm
from detray.core import stimuli as st
from detray.core.outbox import CLIENT_MESSAGES, ORDERS
from detray.core.payloads import INCOMING, OUTGOING
from detray.trace.transcript.speech import SAYINGS

STIMULI = {kind.__name__: kind for kind in get_args(st.Stimulus)}
EFFECTS = {kind.__name__: kind for kind in get_args(ef.Effect)}
FAILURES = {
    "WorkerStartFailed", "WorkerLost", "SegmentFailed", "ObjectMoveFailed", "RunFailed",
    "BlockAbandoned", "RunsRetracted", "ObjectArrivalFailed", "ObjectSent", "PeerSilent",
}  # fmt: skip
"""Stimuli that say that an effect came to nothing (`RunsRetracted`, `ObjectSent`: perhaps)."""


def fields(kind: type) -> set[str]:
    """The names of a message's fields."""
    return {field.name for field in msgspec.structs.fields(kind)}


def answers(kind: type) -> list[str]:
    """The stimuli that an effect's docstring names as answers."""
    found = re.search(r"[Aa]nswered by ([^.]*)\.", kind.__doc__ or "")
    return re.findall(r"\b[A-Z]\w+", found[1]) if found else []


def test_every_stimulus_has_a_handler_and_every_handler_a_stimulus() -> None:
    assert set(local._HANDLERS) == set(get_args(st.LocalStimulus))
    assert set(global_scheduler._HANDLERS) == set(get_args(st.GlobalStimulus))


def test_every_handler_is_named_after_its_stimulus() -> None:
    for table in (local._HANDLERS, global_scheduler._HANDLERS):
        for kind, handler in table.items():
            snake = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
            assert handler.__name__.lstrip("_") == f"on_{snake}"


def test_an_effect_is_a_message_or_an_order() -> None:
    assert set(EFFECTS.values()) == CLIENT_MESSAGES | ORDERS
    assert not CLIENT_MESSAGES & ORDERS
    assert all("client" in fields(kind) for kind in CLIENT_MESSAGES)


@pytest.mark.parametrize("kinds", [STIMULI, EFFECTS], ids=["stimuli", "effects"])
def test_tags_tell_messages_apart(kinds: dict[str, type]) -> None:
    """Below 100 on a client's wire, above within a node, above 200 between cores; none twice."""
    tags = {name: kind.__struct_config__.tag for name, kind in kinds.items()}  # type: ignore[attr-defined]  # Structs have it
    assert len(set(tags.values())) == len(tags)
    wire = {kind.__name__ for kind in (*get_args(st.ClientStimulus), *get_args(ef.ClientMessage))}
    assert all((tag < 100) == (name in wire) for name, tag in tags.items())


@pytest.mark.parametrize("kind", [*STIMULI.values(), *EFFECTS.values()], ids=lambda k: k.__name__)
def test_what_travels_is_frozen_and_says_what_it_is(kind: type) -> None:
    assert kind.__struct_config__.frozen and kind.__struct_config__.array_like  # type: ignore[attr-defined]  # as above
    assert kind.__doc__ and "__struct_fields__" in dir(kind)


def test_every_message_that_brings_bytes_has_keys_for_them() -> None:
    """A block's size is asked for, not sent."""
    said = (*get_args(st.ClientStimulus), *get_args(pm.PeerMessage))
    brings = {kind for kind in said if "size_bytes" in fields(kind)}
    assert set(INCOMING) == brings - {st.BlockRequested, pm.ValueFound} | {
        st.RunFinished,
        pm.RunDone,
    }


def test_every_message_that_takes_bytes_along_names_their_keys() -> None:
    takes = {kind for kind in CLIENT_MESSAGES if fields(kind) & {"size_bytes", "places", "args"}}
    assert set(OUTGOING) == takes | set(INCOMING) & set(get_args(pm.PeerMessage))


@pytest.mark.parametrize("kind", [*ORDERS], ids=lambda kind: kind.__name__)
def test_an_order_can_be_answered_or_cannot_fail(kind: type) -> None:
    """N22: an effect that fails has a way back."""
    named = answers(kind)
    assert all(name in STIMULI for name in named)
    if named:
        assert FAILURES & set(named), "no stimulus says that it failed"
    else:
        assert "Cannot fail" in (kind.__doc__ or "")


@pytest.mark.parametrize("kind", [*CLIENT_MESSAGES], ids=lambda kind: kind.__name__)
def test_the_answers_to_a_message_exist(kind: type) -> None:
    assert all(name in STIMULI for name in answers(kind))


def test_stimuli_and_effects_name_each_other() -> None:
    """What a stimulus says it answers says so as well."""
    for name, kind in STIMULI.items():
        found = re.search(r"Answers `(\w+)`", kind.__doc__ or "")
        if found:
            assert name in answers(EFFECTS[found[1]]), f"{found[1]} does not name {name}"


def test_transcripts_can_say_every_effect() -> None:
    assert set(SAYINGS) == set(EFFECTS.values())
