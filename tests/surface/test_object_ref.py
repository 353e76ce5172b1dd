"""References: what they are, whom they report to, and how they are pickled."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings

import pytest

import detray
from detray import errors, exceptions, object_ref
from detray.object_ref import ObjectRef
from tests.surface.conftest import QuietClient, ref_id


def test_references_to_one_object_are_equal_and_hash_alike(client: QuietClient) -> None:
    """They can be kept in sets and dicts."""
    assert {ObjectRef(ref_id(1)), ObjectRef(ref_id(1)), ObjectRef(ref_id(2))} == {
        ObjectRef(ref_id(2)),
        ObjectRef(ref_id(1)),
    }
    assert ObjectRef(ref_id(1)) != ref_id(1)


def test_a_reference_tells_its_id(client: QuietClient) -> None:
    """As hex digits, bytes, and by its parts."""
    ref = ObjectRef(ref_id(255))
    assert repr(ref) == "ObjectRef(00000000000000000000000000000000000000ff)"
    assert (ref.hex(), ref.binary(), ref.size()) == (ref_id(255).hex(), ref_id(255), 20)
    assert (ref.job_id(), ref.task_id()) == (0, bytes(16))
    assert ObjectRef.nil().is_nil() and not ref.is_nil()


def test_each_reference_reports_its_beginning_and_its_end(client: QuietClient) -> None:
    """The client counts them."""
    ref = ObjectRef(ref_id(1))
    again = ObjectRef(ref_id(1))
    del ref, again
    gc.collect()
    assert client.made == client.gone == [ref_id(1), ref_id(1)]


def test_a_copy_is_the_reference_itself(client: QuietClient) -> None:
    """copy and deepcopy neither count nor pin."""
    ref = ObjectRef(ref_id(1))
    assert copy.copy(ref) is ref
    assert copy.deepcopy([ref])[0] is ref
    assert client.pinned == []


def test_a_reference_of_an_earlier_session_cannot_be_used(client: QuietClient) -> None:
    """Nor does its end count in the session of now."""
    ref = ObjectRef(ref_id(1))
    later = QuietClient()
    object_ref.bind(later)
    with pytest.raises(errors.StaleRefError, match="earlier session"):
        object_ref.session_of(ref)
    del ref
    assert later.gone == []
    object_ref.unbind()


def test_without_a_session_the_error_says_so(client: QuietClient) -> None:
    """And keeps the class that programs for Ray expect."""
    ref = ObjectRef(ref_id(1))
    object_ref.unbind()
    with pytest.raises(exceptions.RaySystemError, match="not running"):
        object_ref.session_of(ref)


@pytest.mark.parametrize("use", [lambda r: list(r), lambda r: (lambda a, b: 0)(*r), lambda r: r[0]])
def test_unpacking_a_reference_tells_what_to_do(use: object, client: QuietClient) -> None:
    """The most common mistake gets the most helpful error."""
    with pytest.raises(TypeError, match="num_returns"):
        use(ObjectRef(ref_id(1)))  # type: ignore[operator]  # a function


def test_pickling_by_hand_warns_once_and_pins(client: QuietClient) -> None:
    """Nobody knows who holds the bytes, so the object stays until the job ends."""
    ref = ObjectRef(ref_id(1))
    with pytest.warns(UserWarning, match="outside of detray's own messages"):
        data = pickle.dumps(ref)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.dumps(ref)
    assert client.pinned == [ref_id(1), ref_id(1)]
    assert pickle.loads(data) == ref
    assert client.claimed == [(ref_id(1), 7)]


def test_pickled_in_another_session_it_cannot_be_used(client: QuietClient) -> None:
    """Its id may name something else here: it is not claimed, and every use says why."""
    with pytest.warns(UserWarning, match="outside of detray's own messages"):
        data = pickle.dumps(ObjectRef(ref_id(1)))
    client.session = "elsewhere"
    foreign = pickle.loads(data)
    for use in (detray.get, lambda ref: detray.wait([ref]), pickle.dumps):
        with pytest.raises(errors.StaleRefError, match=r"session 'here'.*belongs to 'elsewhere'"):
            use(foreign)
    object_ref.unbind()
    with pytest.raises(errors.StaleRefError, match="no part of"):
        detray.get(foreign)
    del foreign
    gc.collect()
    assert client.claimed == [] and ref_id(1) in client.gone
    assert client.made.count(ref_id(1)) == client.gone.count(ref_id(1))


def test_the_pickles_of_an_older_detray_are_refused(client: QuietClient) -> None:
    """They say neither whose the object is nor which session it was in."""
    with pytest.raises(errors.StaleRefError, match=r"older detray.*Pickle it again"):
        object_ref.claim_ref(ref_id(1))
    assert client.claimed == [] and client.made == []


def test_pickling_by_hand_can_be_forbidden(
    client: QuietClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the environment variable that Ray has for it."""
    monkeypatch.setenv("RAY_allow_out_of_band_object_ref_serialization", "0")
    with pytest.raises(exceptions.OufOfBandObjectRefSerializationException):
        pickle.dumps(ObjectRef(ref_id(1)))


@pytest.mark.filterwarnings("ignore:.*outside of detray's own messages")
def test_workers_and_the_driver_can_claim_what_the_other_pickled(session: object) -> None:
    """Also when nobody else has the object any more: it is pinned for the job."""

    @detray.remote
    def pack(held: list[ObjectRef[str]]) -> bytes:
        return pickle.dumps([held[0], detray.put("of the worker")])

    @detray.remote
    def unpack(data: bytes) -> list[str]:
        return detray.get(pickle.loads(data))

    data = detray.get(pack.remote([detray.put("of the driver")]))
    expected = ["of the driver", "of the worker"]
    assert detray.get([unpack.remote(data) for _ in range(4)]) == [expected] * 4
    assert detray.get(pickle.loads(data)) == expected


@pytest.mark.filterwarnings("ignore:.*outside of detray's own messages")
def test_a_later_session_refuses_what_an_earlier_one_pickled(no_session: None) -> None:
    """The same program makes the same ids again, for other values."""
    with detray.init(num_cpus=1):
        data = pickle.dumps(detray.put("first"))
    with detray.init(num_cpus=1):
        second = detray.put("second")
        foreign = pickle.loads(data)
        assert foreign == second
        with pytest.raises(errors.StaleRefError, match="no part of"):
            detray.get(foreign)
        assert detray.get(pickle.loads(pickle.dumps(second))) == "second"
