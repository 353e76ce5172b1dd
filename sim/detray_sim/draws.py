"""Chance that is the same everywhere: the k-th draw for a purpose is a hash of its name.

There is no state: who draws first, or how often, changes nobody else's luck. Equal arguments give
equal values on every Python, processor and C library: the laws below are computed with additions,
multiplications, divisions and square roots only, which IEEE 754 rounds alike everywhere (`math.log`
and `math.exp` may differ in their last bit).
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from math import frexp, ldexp, sqrt

LAWS = ("constant", "uniform", "exponential", "lognormal")
"""How values spread around their mean, see `Draws.spread`."""


def draw(seed: int, stream: str, purpose: str, k: int) -> int:
    """The k-th 64-bit integer of `stream` for `purpose` under `seed`; k counts from 0."""
    name = _key(seed, stream, purpose)
    digest = blake2b(k.to_bytes(8, "little"), digest_size=8, key=name).digest()
    return int.from_bytes(digest, "little")


class Draws:
    """The draws of one stream under one seed: `Draws(seed, "grid").uniform("duration", k)`."""

    __slots__ = ("_seed", "_stream")

    def __init__(self, seed: int, stream: str) -> None:
        self._seed = seed
        self._stream = stream

    def integer(self, purpose: str, k: int, bound: int) -> int:
        """An integer in [0, bound); its bias is below bound / 2**64."""
        return draw(self._seed, self._stream, purpose, k) * bound >> 64

    def uniform(self, purpose: str, k: int, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        part = (draw(self._seed, self._stream, purpose, k) >> 11) * 2.0**-53
        return low + (high - low) * part

    def exponential(self, purpose: str, k: int, mean: float = 1.0) -> float:
        """An exponentially distributed number."""
        return -mean * ln(self._open(purpose, k))

    def normal(self, purpose: str, k: int, mean: float = 0.0, deviation: float = 1.0) -> float:
        """A normally distributed number, by inversion."""
        return mean + deviation * normal_quantile(self._open(purpose, k))

    def lognormal(self, purpose: str, k: int, mean: float = 1.0, cv: float = 1.0) -> float:
        """A log-normally distributed number of this mean; `cv`: standard deviation over mean."""
        variance = ln(1.0 + cv * cv)
        return mean * exp(sqrt(variance) * self.normal(purpose, k) - variance / 2.0)

    def spread(self, purpose: str, k: int, law: str, cv: float) -> float:
        """A factor of mean 1 and coefficient of variation `cv` under one of `LAWS`.

        "exponential" has the cv 1 by nature. "uniform" reaches 0 at the cv 1/sqrt(3), its largest.
        """
        if law == "constant":
            return 1.0
        if law == "uniform":
            half = cv * sqrt(3.0)
            return self.uniform(purpose, k, 1.0 - half, 1.0 + half)
        if law == "exponential":
            return self.exponential(purpose, k)
        if law == "lognormal":
            return self.lognormal(purpose, k, 1.0, cv)
        raise ValueError(f"no law is called {law!r}; there are {', '.join(LAWS)}")

    def sample(self, purpose: str, k: int, bound: int, count: int) -> list[int]:
        """`count` distinct integers of [0, bound), ascending. k numbers the sample."""
        chosen: dict[int, None] = {}
        # Floyd's algorithm: one draw for each, whatever was chosen before.
        for place, top in enumerate(range(bound - count, bound)):
            pick = self.integer(f"{purpose}/{k}", place, top + 1)
            chosen[top if pick in chosen else pick] = None
        return sorted(chosen)

    def _open(self, purpose: str, k: int) -> float:
        """A number in (0, 1): where logarithms are finite."""
        return ((draw(self._seed, self._stream, purpose, k) >> 12) + 0.5) * 2.0**-52


@lru_cache(maxsize=1024)
def _key(seed: int, stream: str, purpose: str) -> bytes:
    name = f"{seed}\0{len(stream)}\0{stream}\0{purpose}".encode()
    return blake2b(name, digest_size=32).digest()


_ODD = tuple(1.0 / odd for odd in range(23, 0, -2))
_LN2 = 0.6931471805599453
_LN2_HIGH = 0.6931471803691238
_LN2_LOW = 1.9082149292705877e-10
_SQRT_HALF = 0.7071067811865476


def ln(x: float) -> float:
    """The natural logarithm of x > 0, within a few units of the last place."""
    mantissa, exponent = frexp(x)
    if mantissa < _SQRT_HALF:
        mantissa, exponent = mantissa * 2.0, exponent - 1
    t = (mantissa - 1.0) / (mantissa + 1.0)
    return exponent * _LN2 + 2.0 * t * _poly(t * t, _ODD)


def exp(x: float) -> float:
    """e to the power of x, within a few units of the last place; |x| below 700."""
    whole = int(x / _LN2 + (0.5 if x >= 0 else -0.5))
    # In two steps, so that the first product is exact.
    rest, total = x - whole * _LN2_HIGH - whole * _LN2_LOW, 1.0
    for n in range(18, 0, -1):
        total = 1.0 + total * rest / n
    return ldexp(total, whole)


def normal_quantile(p: float) -> float:
    """Where the standard normal distribution function reaches p, in (0, 1).

    **Source**: Wichura, algorithm AS 241 (1988), PPND16; relative error about 1e-16.
    """
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return q * _poly(r, _A) / _poly(r, _B)
    r = sqrt(-ln(p if q <= 0.0 else 1.0 - p))
    if r <= 5.0:
        x = _poly(r - 1.6, _C) / _poly(r - 1.6, _D)
    else:
        x = _poly(r - 5.0, _E) / _poly(r - 5.0, _F)
    return -x if q < 0.0 else x


def _poly(x: float, coefficients: tuple[float, ...]) -> float:
    total = 0.0
    for coefficient in coefficients:
        total = total * x + coefficient
    return total


_A = (
    2509.0809287301227,
    33430.57558358813,
    67265.7709270087,
    45921.95393154987,
    13731.69376550946,
    1971.5909503065513,
    133.14166789178438,
    3.3871328727963665,
)
_B = (
    5226.495278852854,
    28729.085735721943,
    39307.89580009271,
    21213.794301586597,
    5394.196021424751,
    687.1870074920579,
    42.31333070160091,
    1.0,
)
_C = (
    0.0007745450142783414,
    0.022723844989269184,
    0.2417807251774506,
    1.2704582524523684,
    3.6478483247632045,
    5.769497221460691,
    4.630337846156546,
    1.4234371107496835,
)
_D = (
    1.0507500716444169e-09,
    0.0005475938084995345,
    0.015198666563616457,
    0.14810397642748008,
    0.6897673349851,
    1.6763848301838038,
    2.053191626637759,
    1.0,
)
_E = (
    2.0103343992922881e-07,
    2.7115555687434876e-05,
    0.0012426609473880784,
    0.026532189526576124,
    0.29656057182850487,
    1.7848265399172913,
    5.463784911164114,
    6.657904643501103,
)
_F = (
    2.0442631033899397e-15,
    1.421511758316446e-07,
    1.8463183175100548e-05,
    0.0007868691311456133,
    0.014875361290850615,
    0.1369298809227358,
    0.599832206555888,
    1.0,
)
