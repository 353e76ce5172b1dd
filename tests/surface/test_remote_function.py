"""Remote functions: the decorator, the call, and how definitions reach the service."""

from __future__ import annotations

import functools
import pickle
import threading

import cloudpickle
import pytest

import detray
from detray import object_ref
from detray.errors import SerializationError
from detray.object_ref import ObjectRef
from detray.remote_function import RemoteFunction
from detray.serialization.values import deserialize
from tests.surface.conftest import QuietClient, ref_id


@detray.remote
def double(x: int, *, times: int = 1) -> int:
    """Two x."""
    return 2 * x * times


@detray.remote
def is_even(n: int) -> bool:
    return n == 0 or detray.get(is_odd.remote(n - 1))


@detray.remote
def is_odd(n: int) -> bool:
    return n != 0 and detray.get(is_even.remote(n - 1))


def test_the_decorator_takes_a_function_or_options() -> None:
    """In every way that programs write it."""

    def f() -> int:
        return 3

    for remote in (
        detray.remote(f),
        detray.remote(num_cpus=2)(f),
        detray.remote(num_returns=1)(f),
    ):
        assert isinstance(remote, RemoteFunction)
        assert remote._function() == 3


def test_metadata_stays() -> None:
    """Name, text, and the function itself."""
    assert (double.__name__, double.__doc__) == ("double", "Two x.")
    assert double.__wrapped__(4) == double._function(4) == 8


@pytest.mark.parametrize(
    "make, kind, text",
    [
        (lambda: detray.remote(), TypeError, "no arguments and no parentheses"),
        (lambda: detray.remote(3), TypeError, "no arguments and no parentheses"),
        (lambda: detray.remote(len), TypeError, "either a function or a class"),
        (lambda: detray.remote(functools.partial(len)), TypeError, "Wrap other callables"),
        (lambda: detray.remote(double), TypeError, "already"),
        (lambda: detray.remote(dict), NotImplementedError, "actors"),
        (lambda: detray.remote(bad_option=1), ValueError, "bad_option"),
        (lambda: double.options(max_calls=3), ValueError, "max_calls"),
        (lambda: double(3), TypeError, r"'double.remote\(\)'"),
        (lambda: double.bind(3), NotImplementedError, "bind"),
    ],
)
def test_misuse_tells_what_to_do(make: object, kind: type[Exception], text: str) -> None:
    """At once, not in a worker."""
    with pytest.raises(kind, match=text):
        make()  # type: ignore[operator]  # a function


def test_async_functions_are_refused_at_decoration() -> None:
    """As in Ray, with the way out."""

    async def f() -> None:
        pass

    with pytest.raises(ValueError, match=r"asyncio.run\(f\(\)\)"):
        detray.remote(f)


def test_generator_functions_are_refused_at_the_call(client: QuietClient) -> None:
    """So that modules which define some can be imported."""

    @detray.remote
    def f():  # type: ignore[no-untyped-def]  # as users write them
        yield 1

    with pytest.raises(NotImplementedError, match="generator"):
        f.remote()


def test_a_call_that_does_not_fit_raises_where_it_is_made(client: QuietClient) -> None:
    """And submits nothing."""
    with pytest.raises(TypeError, match=r"double\(\) missing 1 required"):
        double.remote()
    with pytest.raises(TypeError, match="unexpected keyword argument 'y'"):
        double.remote(1, y=2)
    assert client.submitted == []


def test_arguments_arrive_as_given_and_references_as_values(client: QuietClient) -> None:
    """Positional and by keyword."""
    ref = ObjectRef(ref_id(9))
    double.remote(ref, times=3)
    assert client.arguments() == (("value of 9",), {"times": 3})


def test_the_number_of_returns_decides_what_a_call_gives(client: QuietClient) -> None:
    """None, a reference, or a list of them."""
    assert double.options(num_returns=0).remote(1) is None
    assert double.options(num_returns=1).remote(1) == ObjectRef(ref_id(200))
    assert double.options(num_returns=2).remote(1) == [
        ObjectRef(ref_id(300)),
        ObjectRef(ref_id(301)),
    ]


def test_a_function_is_exported_once_and_a_template_defined_once(client: QuietClient) -> None:
    """However often it is called, and however often equal options are made anew."""

    @detray.remote
    def f(x: int) -> int:
        return x

    for number in range(3):
        f.remote(number)
        f.options(num_cpus=2).remote(number)
    assert len(client.exports) == 1
    assert [template.demand for template, _ in client.templates] == [
        (("CPU", 10_000),),
        (("CPU", 20_000),),
    ]


def test_options_inherit_what_they_do_not_name() -> None:
    """And leave the function they were asked of alone."""
    base = detray.remote(num_cpus=2, resources={"a": 1}, max_retries=7)(lambda: 0)
    derived = base.options(resources={"b": 1}).options(name="other")
    assert derived._settings.demand == (("CPU", 20_000), ("b", 10_000))
    assert (derived._settings.max_retries, derived._settings.name) == (7, "other")
    assert base._settings.demand == (("CPU", 20_000), ("a", 10_000))


def test_another_session_gets_its_own_export(client: QuietClient) -> None:
    """After shutdown and init, ids of before mean nothing."""
    double.remote(1)
    later = QuietClient()
    object_ref.bind(later)
    double.remote(1)
    assert len(later.exports) == 1


def test_captured_references_belong_to_the_definition(client: QuietClient) -> None:
    """It holds them as long as it can be called."""
    ref = ObjectRef(ref_id(9))
    detray.remote(lambda: ref).remote()
    assert [refs for _, _, refs in client.exports.values()] == [(ref_id(9),)]


def test_functions_that_call_each_other_are_exported_once_each(client: QuietClient) -> None:
    """By id, in whatever order they are met."""
    is_even.remote(3)
    is_odd.remote(3)
    assert sorted(name for _, name, _ in client.exports.values()) == ["is_even", "is_odd"]
    assert client.reserved == 2


def test_a_copy_out_of_a_message_is_called_by_the_same_id(client: QuietClient) -> None:
    """What a task receives or captured is exported nowhere again."""
    double.remote(detray.remote(lambda: double))  # type: ignore[arg-type]  # any value
    definitions = dict(client.exports)
    (inner,), _ = client.arguments()
    inner.remote()
    copy = deserialize(next(data for data, name, _ in definitions.values() if name == "<lambda>"))()  # type: ignore[operator]  # a function
    copy.remote(4)
    with pytest.raises(TypeError, match="missing 1 required"):
        copy.remote()
    with pytest.raises(AttributeError, match="travels as an id"):
        copy._function  # noqa: B018  # the property raises
    assert client.exports == definitions


def test_other_picklers_get_the_function_by_value(client: QuietClient) -> None:
    """So that it can be kept in a file."""
    offset = 5
    remote = detray.remote(num_cpus=2)(lambda x: x + offset)
    copy = pickle.loads(cloudpickle.dumps(remote))
    assert copy._function(1) == 6
    assert copy._settings == remote._settings


def test_a_failed_export_leaves_no_half_exported_functions(client: QuietClient) -> None:
    """The next call begins anew."""
    lock = threading.Lock()
    box = {"what": lock}

    @detray.remote
    def inner() -> object:
        return outer

    @detray.remote
    def outer() -> object:
        return inner, box["what"]

    with pytest.raises(SerializationError, match=r"'what'.*of variable 'box' of outer is a lock"):
        outer.remote()
    box["what"] = 3  # type: ignore[assignment]  # something that pickles
    outer.remote()
    sent = {name: number for number, (_, name, _) in client.exports.items()}
    assert (
        deserialize(client.exports[sent["outer"]][0])()[0]._definition._function_id == sent["inner"]
    )  # type: ignore[operator]  # a function


def test_an_argument_that_cannot_be_pickled_is_named(client: QuietClient) -> None:
    """With the member of it that stands in the way."""
    with pytest.raises(TypeError, match=r"argument 'times' .* of 'double'.*'x'.* is a lock"):
        double.remote(1, times={"x": threading.Lock()})


def test_a_definition_that_is_too_large_is_refused(
    client: QuietClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a very large one warned about."""
    from detray import definition

    monkeypatch.setattr(definition, "WARN_BYTES", 10_000)
    monkeypatch.setattr(definition, "MAX_BYTES", 100_000)
    large, huge = b"x" * 20_000, b"x" * 200_000
    with pytest.warns(UserWarning, match="is very large"):
        detray.remote(lambda: large).remote()
    with pytest.raises(ValueError, match="is too large"):
        detray.remote(lambda: huge).remote()
