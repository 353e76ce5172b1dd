"""Options of remote functions: which there are, what they may be, and their form inside detray.

Every name that Ray 2 knows for remote functions is known here. It has a meaning, or it is accepted
because on one machine nothing follows from it, or it is refused by an error that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from detray.core.strategy import Strategy
from detray.ids import MAX_RETURNS
from detray.strategies import is_strategy, selected, strategy_of

UNIT = 10_000
"""Resource amounts are integers of 1/10,000 of a CPU, a GPU, a byte or one of a custom resource."""

Options = dict[str, Any]
Demand = tuple[tuple[str, int], ...]

_MAX_AMOUNT = 1 << 40
_RESERVED = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory", "object_store_memory": None}


class TaskOptions(NamedTuple):
    """The options of a remote function as the engine wants them; equal ones share a template."""

    name: str
    num_returns: int
    demand: Demand
    max_retries: int
    retry_exceptions: bool | tuple[type[BaseException], ...]
    max_calls: int
    strategy: Strategy | None = None


def check(options: Mapping[str, Any], *, in_options: bool = False) -> Options:
    """The options given, validated one by one.

    Raises ValueError for an unknown name or a value out of range, TypeError for one of a wrong
    type, NotImplementedError for what this version of detray cannot do. `in_options`: they were
    given to `.options()`, where `max_calls` is not allowed.
    """
    for name, value in options.items():
        validate = _CHECKS.get(name)
        if validate is None:
            raise ValueError(
                f"Invalid option keyword {name} for remote functions. "
                f"{meant(name, _CHECKS)}Valid ones are {public(_CHECKS)}."
            )
        validate(name, value)
    if in_options and options.get("max_calls") is not None:
        raise ValueError(
            "Setting 'max_calls' is not supported in '.options()': it counts the calls of a "
            "function in a worker process, whoever makes them. Give it to @detray.remote"
        )
    return dict(options)


def resolve(options: Options, function_name: str) -> TaskOptions:
    """Validated options with the defaults filled in."""
    num_gpus = options.get("num_gpus") or 0
    max_calls = options.get("max_calls")
    max_retries = options.get("max_retries")
    retry = options.get("retry_exceptions") or False
    returns = options.get("num_returns")
    return TaskOptions(
        name=options.get("name") or function_name,
        num_returns=1 if returns is None else returns,
        demand=_demand(options),
        max_retries=_default_retries() if max_retries is None else max_retries,
        retry_exceptions=retry if isinstance(retry, bool) else tuple(retry),
        # A process that has used a GPU may keep some of its memory: by default it serves one call.
        max_calls=(1 if num_gpus else 0) if max_calls is None else max_calls,
        strategy=strategy_of(options.get("scheduling_strategy"), options.get("label_selector")),
    )


def units(name: str, amount: float) -> int:
    """An amount of resource `name` in 1/10,000 units. ValueError if it is finer than that."""
    exact = amount * UNIT
    whole = round(exact)
    if abs(exact - whole) > 1e-6 * max(1.0, abs(exact) * 1e-9):
        raise ValueError(
            f"The amount {amount} of resource {name!r} is finer than 1/10,000, the smallest unit. "
            f"The nearest amount is {whole / UNIT}"
        )
    return whole


def meant(name: str, known: Iterable[str]) -> str:
    """ "Did you mean 'num_cpus'? " if a known name is near, else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(name, public(known), n=1)
    return f"Did you mean {near[0]!r}? " if near else ""


def public(names: Iterable[str]) -> list[str]:
    """The names to tell: those with an underscore are accepted, but not offered."""
    return sorted(name for name in names if not name.startswith("_"))


def check_resources(resources: Any, where: str = "resources") -> None:
    """Refuse what cannot be a dict of custom resources; amounts above 1 must be whole."""
    if not isinstance(resources, Mapping):
        raise TypeError(
            f"The type of keyword '{where}' must be dict (name to amount), "
            f"but received type {type(resources)}"
        )
    for name, amount in resources.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"A key of '{where}' must be a non-empty str, not {name!r}")
        if name in _RESERVED:
            option = _RESERVED[name] or name
            raise ValueError(f"Use the '{option}' keyword instead of '{name}' in '{where}'")
        _number(f"{where}[{name!r}]", amount)
        if amount > 1 and amount != int(amount):
            raise ValueError(
                f"The amount of custom resource {name!r} must be whole above 1, not {amount}"
            )
        units(name, amount)


def _demand(options: Options) -> Demand:
    cpus = options.get("num_cpus")
    amounts = dict(options.get("resources") or {})
    amounts["CPU"] = 1 if cpus is None else cpus
    amounts["GPU"] = options.get("num_gpus") or 0
    amounts["memory"] = int(options.get("memory") or 0)
    kind = options.get("accelerator_type")
    if kind:
        amounts[f"accelerator_type:{kind}"] = 0.001
    return tuple(sorted((name, units(name, amount)) for name, amount in amounts.items() if amount))


def _default_retries() -> int:
    import os

    for name in ("DETRAY_TASK_MAX_RETRIES", "RAY_TASK_MAX_RETRIES"):
        if name in os.environ:
            return int(os.environ[name])
    return 3


# ------------------------------------------------------------------ one check an option


def _typed(name: str, value: object, *kinds: type) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(
            f"The type of keyword '{name}' must be {wanted}, but received type {type(value)}"
        )


def _number(name: str, value: Any) -> None:
    if value is None:
        return
    _typed(name, value, int, float)
    if not 0 <= value <= _MAX_AMOUNT * UNIT:
        raise ValueError(f"The value of keyword '{name}' must be a finite number >= 0, not {value}")
    units(name, value)


def _gpus(name: str, value: Any) -> None:
    _number(name, value)
    if value and value > 1 and value != int(value):
        raise ValueError(
            f"The value of keyword '{name}' must be whole above 1 (a GPU is shared or one's own), "
            f"not {value}"
        )


def _resources(name: str, value: Any) -> None:
    if value is not None:
        check_resources(value, name)


def _string(name: str, value: Any) -> None:
    if value is not None:
        _typed(name, value, str)


def _flag(name: str, value: Any) -> None:
    if value is not None:
        _typed(name, value, bool)


def _retries(name: str, value: Any) -> None:
    if value is None:
        return
    _typed(name, value, int)
    if value < -1:
        raise ValueError(
            f"The keyword '{name}' only accepts 0 or more, or -1 (for ever), not {value}"
        )


def _calls(name: str, value: Any) -> None:
    if value is None:
        return
    _typed(name, value, int)
    if value < 0:
        raise ValueError(f"The keyword '{name}' only accepts 0 (no limit) or more, not {value}")


def _returns(name: str, value: Any) -> None:
    if value is None:
        return
    if value in ("streaming", "dynamic"):
        raise NotImplementedError(
            f"{name}={value!r}: generators come with a later version of detray. "
            "Return a list, or declare the number of returns"
        )
    _typed(name, value, int)
    if not 0 <= value < MAX_RETURNS:
        raise ValueError(
            f"The keyword '{name}' only accepts 0 to {MAX_RETURNS - 1} for a function, not {value}"
        )


def _retry_exceptions(name: str, value: Any) -> None:
    if value is None or isinstance(value, bool):
        return
    if not isinstance(value, list | tuple):
        raise TypeError(
            f"The type of keyword '{name}' must be bool or a list of exception classes, "
            f"but received type {type(value)}"
        )
    for kind in value:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"'{name}' lists {kind!r}, which is no exception class")


def _strategy(name: str, value: Any) -> None:
    if value is None or is_strategy(value) or value in ("DEFAULT", "SPREAD"):
        return
    if isinstance(value, str):
        raise ValueError(f"Invalid {name}={value!r}. Valid ones are ['DEFAULT', 'SPREAD'].")
    if type(value).__name__ == "PlacementGroupSchedulingStrategy":
        _no_groups(name, value)
    raise TypeError(
        f"The type of keyword '{name}' must be str, NodeAffinitySchedulingStrategy or "
        f"NodeLabelSchedulingStrategy of detray.util.scheduling_strategies, "
        f"but received type {type(value)}"
    )


def _selector(name: str, value: Any) -> None:
    if value is None:
        return
    _typed(name, value, dict)
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"'{name}' must map str to str, not {key!r} to {text!r}")
    selected(value)


def _empty(why: str) -> Callable[[str, Any], None]:
    def refuse(name: str, value: Any) -> None:
        if value:
            raise NotImplementedError(f"Option {name}={value!r}: {why}")

    return refuse


def _anything(name: str, value: Any) -> None:
    """Accept: nothing follows from it here."""


_no_groups = _empty("placement groups come with clusters, in a later version of detray")
_no_fallback = _empty(
    "strategies to fall back to come with a later version of detray; NodeLabelSchedulingStrategy("
    "soft=...) prefers nodes without insisting on them"
)

_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "num_cpus": _number,
    "num_gpus": _gpus,
    "memory": _number,
    "resources": _resources,
    "accelerator_type": _string,
    "num_returns": _returns,
    "max_retries": _retries,
    "retry_exceptions": _retry_exceptions,
    "max_calls": _calls,
    "name": _string,
    "scheduling_strategy": _strategy,
    "label_selector": _selector,
    "fallback_strategy": _no_fallback,
    "runtime_env": _empty(
        "runtime environments come with a later version of detray. Set environment variables and "
        "sys.path before detray.init(): workers inherit both"
    ),
    "enable_task_events": _flag,
    "placement_group": lambda name, value: value == "default" or _no_groups(name, value),
    "placement_group_bundle_index": _anything,
    "placement_group_capture_child_tasks": _anything,
    "_generator_backpressure_num_objects": _empty("generators come with a later version of detray"),
    "_metadata": _anything,
    "_labels": _anything,
}
NAMES = frozenset(_CHECKS)
