"""Exceptions of two classes at once: a `TaskError` that is also what the task raised.

Both `except TaskError` and `except ValueError` catch such an exception; it has the `args` and the
attributes of the original, and the remote traceback as its text.
"""

from __future__ import annotations

from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from detray.errors import TaskError

_CLASSES_MAX = 1000


def as_instance_of_cause(error: TaskError) -> TaskError:
    """`error` as an instance of its cause's class too; itself, with a note, if that cannot be."""
    cause = error.cause
    if cause is None or isinstance(error, type(cause)):
        return error
    kind = type(cause)
    try:
        dual = _dual_class(kind)
        # The builtin part of an exception is filled in by __new__ (groups) or __init__ (OSError),
        # which the user's own __init__ may hide: called on the builtin class, with what it stored.
        instance: TaskError = dual.__new__(dual, *cause.args)
        _builtin_base(kind).__init__(instance, *cause.args)
        instance.__dict__.update(cause.__dict__)
        _copy_slots(cause, instance)
        instance.args = cause.args
    except Exception as problem:
        error.add_note(
            f"(detray: raised as a plain TaskError, not as a {kind.__qualname__}: a class that "
            f"inherits from both cannot be made: {type(problem).__name__}: {problem})"
        )
        return error
    instance.function_name = error.function_name
    instance.traceback_str = error.traceback_str
    instance.cause = cause
    instance.pid = error.pid
    instance.ip = error.ip
    for note in getattr(error, "__notes__", ()):
        instance.add_note(note)
    return instance


def rebuild(
    kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]
) -> BaseException:
    """An exception of `kind` with these `args`, without calling its own `__init__`."""
    error = kind.__new__(kind, *args)
    _builtin_base(kind).__init__(error, *args)
    error.__dict__.update(attributes)
    return error


_dual_classes: dict[type[BaseException], type[TaskError]] = {}


def _dual_class(kind: type[BaseException]) -> type[TaskError]:
    dual = _dual_classes.get(kind)
    if dual is None:
        name = f"TaskError({kind.__name__})"
        namespace = {
            "__module__": "detray.errors",
            "__qualname__": name,
            "__reduce__": _reduce_dual,
            "__str__": TaskError.__str__,
            "__repr__": _repr_dual,
            "__init__": _init_nothing,
            "__doc__": f"A TaskError that is also a {kind.__qualname__}.",
        }
        dual = type(name, (TaskError, kind), namespace)
        _dual_classes[kind] = dual
        if len(_dual_classes) > _CLASSES_MAX:  # What cloudpickle rebuilds is a new class each time.
            _dual_classes.clear()
    return dual


def _init_nothing(self: TaskError, *args: object) -> None:
    """Leave everything to `as_instance_of_cause`."""


def _repr_dual(self: TaskError) -> str:
    return f"{type(self).__name__}({self.function_name!r}: {self.cause!r})"


def _reduce_dual(self: TaskError) -> tuple[Any, ...]:
    facts = (self.function_name, self.traceback_str, self.cause, self.pid, self.ip)
    return _rebuild_dual, facts


def _rebuild_dual(
    function_name: str, text: str, cause: BaseException, pid: int, ip: str = ""
) -> TaskError:
    return as_instance_of_cause(TaskError(function_name, text, cause, pid, ip))


def _builtin_base(kind: type[BaseException]) -> Any:  # Any: __init__ of an unknown exception
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _copy_slots(source: BaseException, target: BaseException) -> None:
    """Copy what neither `__dict__` nor `args` holds: `errno`, ImportError's `name`, `__slots__`."""
    for base in type(source).__mro__:
        for name, member in vars(base).items():
            if name == "args" or name.startswith("__"):  # `__class__` is a descriptor as well.
                continue
            if not isinstance(member, MemberDescriptorType | GetSetDescriptorType):
                continue
            try:
                setattr(target, name, getattr(source, name))
            except (AttributeError, TypeError):
                continue  # Never set there, or read-only and filled in by __new__.
