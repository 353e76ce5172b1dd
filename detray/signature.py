"""Whether arguments fit a function, checked at the call in a fraction of a microsecond."""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any, NamedTuple

_VARARGS, _VARKEYWORDS = 0x04, 0x08


class Signature(NamedTuple):
    """The parameters of a function, as far as a call must know them.

    A call without keywords fits if its number of arguments lies between `least` and `most`.
    """

    name: str
    least: int
    most: int
    positional: tuple[str, ...]
    positional_only: int
    with_default: int
    keyword_only: tuple[str, ...]
    required_keywords: frozenset[str]
    any_keywords: bool

    @classmethod
    def of(cls, function: FunctionType) -> Signature:
        """The signature of what is really called (wrappers are not looked through)."""
        code: CodeType = function.__code__
        names = code.co_varnames
        positional = names[: code.co_argcount]
        keyword_only = names[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        with_default = len(function.__defaults__ or ())
        required = frozenset(keyword_only) - frozenset(function.__kwdefaults__ or {})
        unbounded = code.co_flags & _VARARGS
        return cls(
            name=function.__name__,
            # Without keywords no call fits a function that requires some.
            least=len(positional) - with_default if not required else 1 << 62,
            most=1 << 61 if unbounded else len(positional),
            positional=positional,
            positional_only=code.co_posonlyargcount,
            with_default=with_default,
            keyword_only=keyword_only,
            required_keywords=required,
            any_keywords=bool(code.co_flags & _VARKEYWORDS),
        )

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise the TypeError that the function itself would raise for this call, if any."""
        given = len(args)
        if given > self.most:
            raise TypeError(
                f"{self.name}() takes {self._counts()} but {given} {_were(given)} given"
            )
        keywords = self.positional[self.positional_only :]
        for name in kwargs:
            if name in keywords:
                if self.positional.index(name) < given:
                    raise TypeError(f"{self.name}() got multiple values for argument {name!r}")
            elif name not in self.keyword_only and not self.any_keywords:
                raise TypeError(f"{self.name}() got an unexpected keyword argument {name!r}")
        needed = self.positional[given : len(self.positional) - self.with_default]
        missing = [
            name
            for index, name in enumerate(needed, given)
            if name not in kwargs or index < self.positional_only
        ]
        if missing:
            raise TypeError(f"{self.name}() missing {_listed(missing, 'positional')}")
        absent = [
            name for name in self.keyword_only if name in self.required_keywords - set(kwargs)
        ]
        if absent:
            raise TypeError(f"{self.name}() missing {_listed(absent, 'keyword-only')}")

    def _counts(self) -> str:
        most = len(self.positional)
        least = most - self.with_default
        plural = "" if most == 1 else "s"
        span = f"{most}" if least == most else f"from {least} to {most}"
        return f"{span} positional argument{plural}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _listed(names: list[str], kind: str) -> str:
    plural = "" if len(names) == 1 else "s"
    listed = " and ".join(repr(name) for name in names)
    return f"{len(names)} required {kind} argument{plural}: {listed}"
