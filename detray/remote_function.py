"""Remote functions: `@detray.remote`, `.options()`, `.remote()`.

Theory of operation
-------------------
A `RemoteFunction` is a `Definition` (`detray/definition.py`) with options. It remembers the
*template* (function and options) that the session knows it by: a call then costs a check of its
arguments, their pickling and one submission. A function is exported at its first call, with what
its globals and closure hold then. Inside of messages it travels as its id, to other picklers by
value.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar, overload

from detray import object_ref, options
from detray.definition import Definition, arrived
from detray.errors import DetrayError, SerializationError
from detray.ids import FunctionID, NodeID, TemplateID
from detray.object_ref import ObjectRef
from detray.options import Options
from detray.serialization.calls import encode_call
from detray.serialization.values import reducers
from detray.signature import Signature

P = ParamSpec("P")
R = TypeVar("R")

_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200


class RemoteFunction(Generic[P, R]):
    """A function whose calls are tasks: `f.remote(...)` returns a reference to the result."""

    __wrapped__: Callable[P, R]
    __name__: str
    __qualname__: str

    def __init__(self, definition: Definition, given: Options) -> None:
        """Wrap `definition`; `given` are validated options (`detray.remote` does both)."""
        self._definition = definition
        self._options = given
        self._settings = options.resolve(given, definition.name)
        self._client: Any = None  # Any: the client's class lives in the runtime
        self._template = TemplateID(0)
        # Spelled out for `remote`, which runs for every call.
        self._returns = self._settings.num_returns
        self._least, self._most = definition.signature.least, definition.signature.most
        function = definition.function
        if function is not None:
            for name in ("__module__", "__name__", "__qualname__", "__doc__"):
                setattr(self, name, getattr(function, name))
            self.__wrapped__ = function
        else:
            self.__name__ = self.__qualname__ = definition.name

    # The second form: any argument may be a reference to a value of its type.
    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]: ...
    @overload
    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef[R]: ...
    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef[R]:
        """Submit a call and return the reference to its result; does not wait.

        Arguments that are references are replaced by their values before the call runs. With
        `num_returns=n` the result is a list of n references, with 0 it is None.

        Raises TypeError if the arguments do not fit the function or cannot be pickled.
        """
        client = object_ref._session
        if client is not self._client or client is None:
            client = self._prepare()
        if kwargs or not self._least <= len(args) <= self._most:
            self._definition.signature.check(args, kwargs)
        try:
            blob, items = encode_call(args, kwargs)
        except Exception as problem:
            self._refuse_arguments(args, kwargs, problem)
        returns = self._returns
        found = client.submit(self._template, returns, blob, items)
        if returns == 1:
            return ObjectRef(found[0])
        return [ObjectRef(item) for item in found] if returns else None  # type: ignore[return-value]  # documented above

    def options(self, **given: Any) -> RemoteFunction[P, R]:
        """The same function with other options; those not named keep their values.

        Raises as `detray.remote` does, and ValueError for `max_calls`.
        """
        checked = options.check(given, in_options=True)
        return RemoteFunction(self._definition, {**self._options, **checked})

    def bind(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Lazy task graphs are not in this version."""
        raise NotImplementedError(
            "bind() and lazy task graphs come with a later version of detray. Call .remote(): "
            "tasks that take each other's references form a graph, which detray.graph() shows"
        )

    def _remote(
        self, args: Any = None, kwargs: Any = None, **given: Any
    ) -> ObjectRef[R]:  # Any: as in Ray
        """Call with positional arguments, keyword arguments and options as values (as in Ray)."""
        return self.options(**given).remote(*(args or ()), **(kwargs or {}))

    @property
    def _function(self) -> Callable[P, R]:
        """The plain function, to call it here and now."""
        function = self._definition.function
        if function is None:
            raise AttributeError(
                f"the plain function of {self.__name__!r} is not in this process: inside of "
                "messages a remote function travels as an id. Pass the plain function, too"
            )
        return function

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        name = self.__name__
        raise TypeError(
            f"Remote function {name!r} cannot be called directly. Instead of '{name}()' "
            f"try '{name}.remote()', or '{name}._function()' to run it here"
        )

    def __repr__(self) -> str:
        return f"<detray.remote function {self.__qualname__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # For other picklers than ours, which calls `travel`.
        return remote_function, (self._function, self._options)

    def travel(self) -> tuple[Any, ...]:
        """How this function goes into a message: as the id that the session knows it by."""
        definition = self._definition
        client = object_ref.bound()
        if client is None:
            return self.__reduce__()
        function_id = definition.name_in(client)
        home = definition.home if definition.home >= 0 else client.node
        return arrive, (function_id, definition.name, definition.signature, self._options, home)

    def _prepare(self) -> Any:  # Any: the client's class lives in the runtime
        """Make sure that there is a session and that it knows this function; returns the client."""
        from detray.startup import require

        function = self._definition.function
        if function is not None and function.__code__.co_flags & _GENERATOR:
            raise NotImplementedError(
                f"{self.__name__!r} is a generator function: generator tasks come with a later "
                "version of detray. Return a list, or several values with num_returns"
            )
        client = require()
        self._template = self._definition.template(client, self._settings)
        self._client = client
        return client

    def _refuse_arguments(self, args: Any, kwargs: Any, problem: Exception) -> NoReturn:
        from detray.serializability import offending_member

        if isinstance(problem, DetrayError):
            raise problem
        places = [(f"argument {index}", value) for index, value in enumerate(args)]
        places += [(f"argument {name!r}", value) for name, value in kwargs.items()]
        for place, value in places:
            what = offending_member(value, place)
            if what:
                raise SerializationError(
                    f"Could not serialize {place} of the call of {self.__name__!r}: {what}. "
                    "detray.util.inspect_serializability(value) shows all that stands in the way"
                ) from problem
        raise SerializationError(
            f"Could not serialize the arguments of the call of {self.__name__!r}: {problem}"
        ) from problem


def remote_function(function: Any, given: Options) -> RemoteFunction[Any, Any]:
    """A plain function as a remote one. Raises TypeError, ValueError, NotImplementedError."""
    if isinstance(function, type):
        raise NotImplementedError(
            f"@detray.remote on the class {function.__qualname__!r}: actors come with a later "
            "version of detray. Until then make it functions that take and return the state"
        )
    if isinstance(function, RemoteFunction):
        raise TypeError(f"{function.__name__!r} is a remote function already")
    if not isinstance(function, FunctionType):
        raise TypeError(
            "The @detray.remote decorator must be applied to either a function or a class, "
            f"not to {function!r}. Wrap other callables in a function"
        )
    if function.__code__.co_flags & (_COROUTINE | _ASYNC_GENERATOR):
        raise ValueError(
            f"'async def' should not be used for remote tasks ({function.__qualname__!r}). You can "
            "wrap the async function with `asyncio.run(f())` in an ordinary one"
        )
    definition = Definition(function, function.__name__, Signature.of(function))
    return RemoteFunction(definition, given)


def arrive(
    function_id: FunctionID, name: str, signature: Signature, given: Options, home: NodeID
) -> RemoteFunction[Any, Any]:
    """A remote function out of a message."""
    definition = arrived(object_ref.bound(), function_id, name, signature, home)
    return RemoteFunction(definition, given)


reducers[RemoteFunction] = RemoteFunction.travel


@overload
def remote(function: Callable[P, R], /) -> RemoteFunction[P, R]:
    """Bare: the function becomes remote."""


@overload
def remote(**given: Any) -> Callable[[Callable[P, R]], RemoteFunction[P, R]]:
    """With options: a decorator."""


def remote(*args: Any, **given: Any) -> Any:
    """Make a function remote: `@detray.remote`, or with options, `@detray.remote(num_cpus=2)`.

    Options: num_cpus, num_gpus, resources, memory, num_returns, max_retries, retry_exceptions,
    max_calls, name, scheduling_strategy (docs/options.md lists all). Raises ValueError or TypeError
    for options that cannot be, NotImplementedError for what this version of detray does not do.
    """
    if len(args) == 1 and not given and callable(args[0]):
        return remote_function(args[0], {})
    if args or not given:
        raise TypeError(
            "The @detray.remote decorator must be applied either with no arguments and no "
            "parentheses, for example '@detray.remote', or it must be applied using some of the "
            f"options {options.public(options.NAMES)}, like "
            "'@detray.remote(num_returns=2, max_retries=5)'."
        )
    checked = options.check(given)

    def decorate(function: Callable[P, R]) -> RemoteFunction[P, R]:
        return remote_function(function, checked)

    return decorate
