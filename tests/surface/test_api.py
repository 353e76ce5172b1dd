"""get, put, wait and cancel: what they take, what they refuse."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import detray
from detray import errors, exceptions, util
from detray.object_ref import ObjectRef
from tests.surface.conftest import QuietClient, ref_id

waiting = ref_id(5)


def missing() -> ObjectRef[Any]:
    return ObjectRef(waiting)


def _plain() -> None:
    """A function to make remote."""


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: detray.method, "'method': actors come with a later version"),
        (lambda: detray.util.ActorPool, "'ActorPool': actors come with a later version"),
        (lambda: detray.nonsense, "no attribute 'nonsense'$"),
        (lambda: detray.util.nonsense, "no attribute 'nonsense'$"),
    ],
)
def test_names_that_come_later_are_known(call: Any, text: str) -> None:
    """Ray's names that have no meaning yet say what they wait for."""
    with pytest.raises(AttributeError, match=text):
        call()


def test_get_takes_a_reference_or_a_list_and_keeps_the_order(client: QuietClient) -> None:
    """Duplicates are fine."""
    a, b = detray.put("a"), detray.put("b")
    assert detray.get(a) == "a"
    assert detray.get([b, a, b]) == ["b", "a", "b"]
    assert detray.get([]) == []


@pytest.mark.parametrize(
    "call, kind, text",
    [
        (lambda ref: detray.get((ref,)), ValueError, "Invalid type of object refs"),
        (lambda ref: detray.get({ref}), ValueError, "Invalid type of object refs"),
        (lambda ref: detray.get(3), ValueError, "Invalid type of object refs"),
        (lambda ref: detray.get((ref,)), ValueError, r"Say list\(...\) of it"),
        (lambda ref: detray.get(detray.remote(_plain)), ValueError, r"call _plain.remote\(...\)"),
        (lambda ref: detray.get([3]), TypeError, "`get` on the value 3"),
        (lambda ref: detray.get([[ref]]), TypeError, "make it one list"),
        (lambda ref: detray.get([_plain]), TypeError, "not an ObjectRef.$"),
        (lambda ref: detray.get(ref, timeout=-1), ValueError, "timeout"),
        (lambda ref: detray.get(ref, timeout="1"), TypeError, "timeout"),
        (lambda ref: detray.put(ref), TypeError, "is a reference already"),
        (lambda ref: detray.put(1, _owner=2), NotImplementedError, "_owner"),
        (lambda ref: detray.wait(ref), TypeError, r"a single ObjectRef. Say \[ref\]"),
        (lambda ref: detray.wait((ref,)), TypeError, "list"),
        (lambda ref: detray.wait([1]), TypeError, "`wait` on the value 1"),
        (lambda ref: detray.wait([ref, ref]), ValueError, "unique"),
        (lambda ref: detray.wait([ref], num_returns=0), ValueError, "Invalid number"),
        (lambda ref: detray.wait([ref], num_returns=2), ValueError, "cannot be greater"),
        (lambda ref: detray.wait([ref], num_returns=1.0), TypeError, "int"),
        (lambda ref: detray.wait([ref], timeout=-1), ValueError, "timeout"),
        (lambda ref: detray.cancel(3), TypeError, "object refs"),
        (lambda ref: detray.kill(ref), NotImplementedError, "cancel"),
        (lambda ref: detray.get_actor("x"), NotImplementedError, "actors"),
    ],
)
def test_misuse_is_refused_with_rays_classes(
    call: Any, kind: type[Exception], text: str, client: QuietClient
) -> None:
    """And a text that says what to do."""
    with pytest.raises(kind, match=text):
        call(detray.put(1))


def test_wait_splits_the_list_in_its_own_order(client: QuietClient) -> None:
    """At most `num_returns` are ready, even if more are available."""
    a, b, c = detray.put(1), detray.put(2), missing()
    assert detray.wait([c, b, a]) == ([b], [c, a])
    assert detray.wait([c, b, a], num_returns=2) == ([b, a], [c])
    assert detray.wait([c], timeout=0) == ([], [c])
    assert detray.wait([]) == ([], [])


def test_put_names_the_member_that_cannot_be_pickled(client: QuietClient) -> None:
    """A TypeError, as in Ray."""
    with pytest.raises(TypeError, match=r"item \['x'\] of the value is a lock"):
        detray.put({"x": threading.Lock()})


def test_put_takes_the_value_as_it_is_now(client: QuietClient) -> None:
    """Later changes are not seen."""
    value = [1]
    ref = detray.put(value)
    value.append(2)
    assert detray.get(ref) == [1]


def test_results_can_be_taken_as_they_come(client: QuietClient) -> None:
    """Values or references."""
    refs = [detray.put(number) for number in range(25)]
    assert sorted(util.as_completed(refs)) == list(range(25))
    assert set(util.as_completed(refs, chunk_size=1, yield_obj_refs=True)) == set(refs)


def test_without_automatic_start_the_first_use_is_refused(
    no_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the class that Ray raises, and the variable's name."""
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "0")
    for use in (lambda: detray.put(1), lambda: detray.get([]), detray.get_runtime_context):
        with pytest.raises(exceptions.RaySystemError, match="RAY_ENABLE_AUTO_CONNECT=0"):
            use()


@pytest.mark.parametrize("use", [detray.nodes, detray.cluster_resources, detray.timeline])
def test_looking_starts_nothing(use: Any, no_session: None) -> None:
    """Who asks about a cluster that is not there is told so."""
    with pytest.raises(errors.NotStartedError, match=r"detray.init\(\)"):
        use()


def test_names_are_there_without_importing_their_modules() -> None:
    """`import detray as ray`, and everything else by attribute."""
    for name in detray.__all__:
        assert getattr(detray, name) is not None, name
    assert detray.ObjectID is detray.ObjectRef
    assert set(detray.__all__) <= set(dir(detray))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        detray.nonsense  # type: ignore[attr-defined]  # noqa: B018  # that is the point
