"""An exception raised in a task: what of it reaches `get`."""

from __future__ import annotations

import os
import pickle
import threading
from typing import Any

import pytest

from detray import errors, exceptions
from detray.errors import Failure, TaskError
from detray.serialization.failures import error_from, serialize_error, summarize
from tests.surface.conftest import ref_id


class Plain(Exception):
    pass


class OtherArguments(Exception):
    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(f"{why} ({code})")
        self.code = code
        self.why = why


class Slotted(ValueError):
    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


class Final(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("no heirs")


def raised(error: BaseException) -> BaseException:
    """`error`, raised in a function."""

    def user_function() -> None:
        raise error

    try:
        user_function()
    except BaseException as caught:
        return caught
    raise AssertionError


def through(error: BaseException, name: str = "f") -> Any:
    """What `get` raises for an exception that a task raised."""
    payload, _, _ = serialize_error(raised(error), function_name=name, pid=77, ip="10.0.0.7")
    return error_from(Failure.APPLICATION, "", payload.to_bytes(), ref_id(1))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 3),
        KeyError("k"),
        Plain(),
        OtherArguments(7, why="because"),
        Slotted(4),
        OSError(2, "no such file", "name"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        ExceptionGroup("two", [ValueError(1), KeyError(2)]),
        ImportError("m", name="n", path="p"),
        StopIteration(3),
        AssertionError(),
        TimeoutError("late"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_a_task_error_and_what_the_task_raised(error: Exception) -> None:
    """Both classes catch it, and it has the original's arguments and attributes."""
    found = through(error)
    assert isinstance(found, TaskError)
    assert isinstance(found, type(error))
    assert type(found.cause) is type(error)
    assert repr(found.args) == repr(error.args)
    for name in ("errno", "strerror", "filename", "code", "why", "place", "name", "path", "value"):
        assert getattr(found, name, None) == getattr(error, name, None)


def test_a_group_can_be_split_by_except_star() -> None:
    """The parts are the original exceptions."""
    caught = []
    try:
        raise through(ExceptionGroup("two", [ValueError(1), KeyError(2)]))
    except* ValueError as group:
        caught += group.exceptions
    except* KeyError as group:
        caught += group.exceptions
    assert repr(caught) == "[ValueError(1), KeyError(2)]"


def test_the_text_is_the_remote_traceback_without_frames_of_ours() -> None:
    """Function, process, the user's own lines."""
    text = str(through(Plain("oh")))
    lines = text.splitlines()
    assert lines[0] == "detray::f() (pid=77, ip=10.0.0.7)"
    assert any(f'"{__file__}"' in line and "in user_function" in line for line in lines)
    assert lines[-1].endswith("Plain: oh")
    assert os.sep + "detray" + os.sep + "runtime" not in text


def test_causes_are_in_the_text() -> None:
    """As Python prints them."""
    error = Plain("outer")
    error.__cause__ = raised(KeyError("inner"))
    text = str(through(error))
    assert "KeyError: 'inner'" in text
    assert "direct cause of the following" in text


def test_an_error_that_went_through_two_tasks_keeps_its_class_and_both_stories() -> None:
    """The innermost exception is the cause."""
    found = through(through(OtherArguments(7, why="because"), "inner"), "outer")
    assert isinstance(found, OtherArguments)
    assert type(found.cause) is OtherArguments
    assert found.code == 7
    text = str(found)
    assert text.index("detray::outer()") < text.index("detray::inner()")


def test_an_error_can_be_pickled_again() -> None:
    """By anybody: multiprocessing, a log, a task that returns it."""
    found = pickle.loads(pickle.dumps(through(OSError(2, "no such file"))))
    assert isinstance(found, TaskError) and isinstance(found, OSError)
    assert (found.errno, found.function_name, found.pid, found.ip) == (2, "f", 77, "10.0.0.7")


def test_an_error_without_an_address_has_none_in_its_text() -> None:
    """Simulated nodes have none, nor had nodes of older recordings."""
    payload, _, _ = serialize_error(raised(KeyError(1)), function_name="f", pid=77)
    found = error_from(Failure.APPLICATION, "", payload.to_bytes(), ref_id(1))
    assert isinstance(found, TaskError) and found.ip == ""
    assert str(found).startswith("detray::f() (pid=77)\n")


def test_a_class_without_heirs_comes_as_a_plain_task_error_that_says_so() -> None:
    """The original is its cause all the same."""
    found = through(Final("x"))
    assert type(found) is TaskError
    assert type(found.cause) is Final
    assert "Final" in found.__notes__[0] and "no heirs" in found.__notes__[0]


def test_an_error_that_cannot_be_pickled_comes_as_text_that_names_the_member() -> None:
    """Nothing of the story is lost but the object."""
    found = through(Plain("with", threading.Lock()))
    assert type(found) is TaskError
    assert found.cause is None
    assert "args[1] of Plain is a lock" in found.__notes__[0]
    assert "user_function" in str(found)


def test_a_str_that_raises_does_not_hide_the_error() -> None:
    """What can be said is said."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    found = through(Mute())
    assert isinstance(found, TaskError)
    assert "user_function" in str(found)
    assert summarize(Mute()) == "Mute (its __str__ raised RuntimeError)"


def test_a_summary_is_one_line_of_at_most_200_characters() -> None:
    """What cores and traces get to see."""
    assert summarize(ValueError("a\n  b")) == "ValueError: a b"
    assert len(summarize(ValueError("x" * 1000))) == 200
    assert summarize(through(ValueError("deep"))) == "ValueError: deep"


@pytest.mark.parametrize("failure", [f for f in Failure if f not in (Failure.NONE,)])
def test_every_failure_has_an_exception_that_names_the_object(failure: Failure) -> None:
    """And one of detray's own classes."""
    found = error_from(failure, "", None, ref_id(1))
    assert isinstance(found, errors.DetrayError)
    assert ref_id(1).hex() in str(found)
    assert str(error_from(failure, "told why", None, ref_id(1))) == "told why"


@pytest.mark.parametrize("name", exceptions.__all__)
def test_every_exception_rebuilds_from_its_args(name: str) -> None:
    """Pickle and simulators need it."""
    kind = getattr(exceptions, name)
    error = kind("text")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.args, str(again)) == (error.args, str(error))


def test_rays_tree_holds() -> None:
    """What `except` clauses of programs for Ray rely on."""
    tree = {
        "RayError": "TaskCancelledError RayTaskError WorkerCrashedError LocalRayletDiedError "
        "RayActorError RaySystemError UserCodeException ObjectStoreFullError OutOfDiskError "
        "OutOfMemoryError NodeDiedError ObjectLostError RpcError GetTimeoutError "
        "PlasmaObjectNotAvailable AsyncioActorExit RuntimeEnvSetupError TaskPlacementGroupRemoved "
        "ActorPlacementGroupRemoved PendingCallsLimitExceeded TaskUnschedulableError "
        "ActorUnschedulableError ObjectRefStreamEndOfStreamError CrossLanguageError "
        "OufOfBandObjectRefSerializationException DeadlockError ServiceDiedError",
        "RayActorError": "ActorDiedError ActorUnavailableError",
        "RaySystemError": "RayChannelError RayCgraphCapacityExceeded",
        "RayChannelError": "RayChannelTimeoutError",
        "ObjectLostError": "ObjectFetchTimedOutError ReferenceCountingAssertionError "
        "ObjectFreedError OwnerDiedError ObjectReconstructionFailedError "
        "ObjectReconstructionFailedMaxAttemptsExceededError "
        "ObjectReconstructionFailedLineageEvictedError",
    }
    for parent, children in tree.items():
        for child in children.split():
            assert issubclass(getattr(exceptions, child), getattr(exceptions, parent)), child
    assert issubclass(exceptions.GetTimeoutError, TimeoutError)
    assert issubclass(exceptions.RayChannelTimeoutError, TimeoutError)
    assert issubclass(exceptions.ReferenceCountingAssertionError, AssertionError)
