"""The loop of every search, with a cache that grows while sentences do.

A cache has room for a number of tokens, and each step reads and moves all of it. So a search begins
with a small one: it goes on to the next only where some sentence needs it. Each room is a loop of
its own in the compiled program.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

from encdec.types import Cache

InitCache = Callable[[int], Cache]
"""Tokens that there is room for -> the cache of hypotheses that have none yet."""
State = TypeVar("State", bound=Any)
"""A NamedTuple with `step` int32 [], `done` bool and `cache`."""

_FIRST = 16
"""Tokens in the first room."""


def rooms(init_cache: InitCache, max_len: int) -> list[int]:
    """The rooms of a search, tokens, the last of them `max_len`: each twice the one before.

    A cache whose shape does not depend on the room needs only one.
    """
    first = max(max_len, 1)
    shapes = [jax.eval_shape(lambda n=n: init_cache(n)) for n in (first, first + 1)]
    sizes = []
    if jax.tree.map(lambda x: x.shape, shapes[0]) != jax.tree.map(lambda x: x.shape, shapes[1]):
        room = _FIRST
        while room * 3 // 2 < max_len:
            sizes.append(room)
            room *= 2
    return [*sizes, first]


def unroll(
    advance: Callable[[State], State], start: State, init_cache: InitCache, max_len: int
) -> State:
    """Calls `advance` until all are done or `max_len` steps were made.

    Args:
      advance: one step, from state to state.
      start: the state before the first step, with None for its cache.
      init_cache: makes the cache.
      max_len: static; the most steps.

    Returns:
      The last state, with None for its cache.
    """

    def enter(s: State, sizes: list[int]) -> State:
        room, *further = sizes
        # A new cache is empty, so that the part which there was before can be put into it.
        new = init_cache(room)
        cache = new if s.cache is None else jax.tree.map(_put, new, s.cache)
        s = jax.lax.while_loop(
            lambda s: (s.step < room) & ~s.done.all(), advance, s._replace(cache=cache)
        )
        if not further:
            return s._replace(cache=None)
        return jax.lax.cond(
            s.done.all(), lambda s: s._replace(cache=None), lambda s: enter(s, further), s
        )

    return enter(start, rooms(init_cache, max_len))


def _put(new: jax.Array, old: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(new, old, (0,) * old.ndim)
