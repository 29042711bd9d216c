"""How much memory a function of arrays needs, estimated without compiling it."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from encdec.types import InputError

_FUSED = {"broadcast_in_dim", "iota"}
"""What a compiler never keeps, because whatever reads it can make it."""

_SHORTEST, _LONG = 64, 1024
"""Tokens. Below, not every length is worth a trace, which takes as long as that of a search; above,
attention may fill a device."""


def scaled_bytes(bytes_of: Callable[[int], int], length: int) -> int:
    """At least `bytes_of(length)`; below 1,024 tokens a part of what a longer sentence needs, if a
    model can have one so long."""
    longer = max(_SHORTEST, 1 << (length - 1).bit_length())
    if length < _LONG:
        with suppress(InputError):
            return -(-bytes_of(longer) * length // longer)
    return bytes_of(length)


def peak_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """About the most bytes that the arrays of a function take up at a time.

    Its operations are followed in their order; an array is there from the operation that makes it
    to the last one that reads it. What a compiler fuses or orders otherwise makes the estimate too
    large or too small, mostly by less than a factor of two. Arguments and constants do not count.

    Args:
      function: traced, not called.
      arguments: its arguments, arrays or their shapes and dtypes.
    """
    return _peak(jax.make_jaxpr(function)(*arguments).jaxpr)


def _peak(jaxpr: Jaxpr) -> int:
    last = {v: i for i, e in enumerate(jaxpr.eqns) for v in e.invars if not isinstance(v, Literal)}
    last |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if not isinstance(v, Literal)}
    alive: dict[Any, int] = {}
    peak = 0
    for i, equation in enumerate(jaxpr.eqns):
        fused = equation.primitive.name in _FUSED
        made = {v: 0 if fused else _bytes(v) for v in equation.outvars}
        read = {v for v in equation.invars if not isinstance(v, Literal)}
        ending = {v: alive[v] for v in read if v in alive and last[v] == i}
        # The result may take the place of an operand of its size that nothing reads later.
        reused = sum(made.values()) if sum(made.values()) in ending.values() else 0
        inside = max(map(_peak, _parts(equation.params)), default=0)
        peak = max(peak, sum(alive.values()) + max(sum(made.values()) - reused, inside))
        alive = {v: n for v, n in (alive | made).items() if last.get(v, -1) > i}
    return peak


def _parts(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """The functions that an operation calls: the body of a loop, say."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, Jaxpr):
                yield one


def _bytes(variable: Any) -> int:
    shape, dtype = getattr(variable.aval, "shape", ()), getattr(variable.aval, "dtype", None)
    return 0 if dtype is None else math.prod(shape) * dtype.itemsize
