"""A search in parts, and the loop that makes one program of them.

A cache has room for a number of tokens, and each step reads and moves all of it. So a search begins
with a small one: it goes on to the next only where some sentence needs it.
`encdec.inference.segments` runs the same parts as programs of their own, so that sentences which
are done leave the batch.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp

from encdec.search.checks import check_limits, check_step
from encdec.search.types import SearchResult
from encdec.types import Array, Cache, DecodeStep, Kept, Memory

InitCache = Callable[[int], Cache]
"""Tokens that there is room for -> the cache of hypotheses that have none yet."""
State = Any
"""What a search knows after some steps: a NamedTuple with `step` int32 [], `done` bool [B, ...] and
`cache`. All arrays but `step` have the leading axis B."""

Parameters = ParamSpec("Parameters")

_FIRST = 16
"""Tokens in the first room."""


class Search(NamedTuple):
    """The parts of a search.

    Attributes:
      init_cache: makes the cache.
      start: the state before the first step, with None for its cache.
      advance: one step, from state to state.
      result: what the search has found, from the last state.
      so_far: the tokens of the best hypothesis, finished or not, in sampling of the first draw,
        without an end token, from any state: int32 [B, T], padding after them; what it holds for
        sentences that are done has no meaning.
      max_len: the most steps.
    """

    init_cache: InitCache
    start: Callable[[], State]
    advance: Callable[[State], State]
    result: Callable[[State], SearchResult]
    so_far: Callable[[State], Array]
    max_len: int


def whole(name: str, parts: Callable[Parameters, Search]) -> Callable[Parameters, SearchResult]:
    """The search `name`, whose parts `parts` returns, from its first step to its last.

    It checks the model that a caller gives: one of the package is not searched by this function.
    """
    signature = inspect.signature(parts)

    @wraps(parts)
    def search(*args: Parameters.args, **kwargs: Parameters.kwargs) -> SearchResult:
        given = signature.bind(*args, **kwargs).arguments
        given |= given.get("options", {})
        check_limits(given["max_lengths"])
        rows, width = given["max_lengths"].size, given.get("beams", given.get("samples", 1))
        step, memory, init_cache = (given[part] for part in ("step", "memory", "init_cache"))
        check_step(step, memory, init_cache, rows, width, given.get("max_len", 1))
        return unroll(parts(*args, **kwargs))

    search.__name__ = search.__qualname__ = name
    shown = signature.replace(return_annotation=SearchResult)
    search.__signature__ = shown  # type: ignore[attr-defined]
    return search


def unroll(search: Search) -> SearchResult:
    """Advances until all sentences are done, with a loop for each room."""

    def enter(s: State, sizes: list[int]) -> State:
        room, *further = sizes
        s = s._replace(cache=move(s.cache, search.init_cache(room)))
        s = jax.lax.while_loop(lambda s: (s.step < room) & ~s.done.all(), search.advance, s)
        if not further:
            return s._replace(cache=None)
        return jax.lax.cond(
            s.done.all(), lambda s: s._replace(cache=None), lambda s: enter(s, further), s
        )

    first = max(search.max_len, 1)
    shapes = [jax.eval_shape(lambda n=n: search.init_cache(n)) for n in (first, first + 1)]
    one, two = (jax.tree.map(lambda x: x.shape, each) for each in shapes)
    # A cache whose shape does not depend on its room needs only one.
    return search.result(enter(search.start(), [first] if one == two else rooms(first)))


def no_attention(
    step: DecodeStep,
    memory: Memory,
    init_cache: InitCache,
    max_lengths: Array,
    width: int,
    max_len: int,
) -> Array:
    """Zeros where the attention of each step is put.

    Args:
      step, memory, init_cache, max_lengths: as in the searches.
      width: static; W, the hypotheses of a sentence.
      max_len: static; T.

    Returns:
      float32 [B, W, T, M, S].
    """
    tokens = jnp.zeros((max_lengths.shape[0], width), jnp.int32)
    shape = jax.eval_shape(step, memory, init_cache(max(max_len, 1)), tokens)[1].shape
    return jnp.zeros((*shape[:2], max_len, *shape[2:]))


def rooms(max_len: int) -> list[int]:
    """The rooms of a search, tokens, the last of them `max_len`: each twice the one before."""
    sizes, room = [], _FIRST
    while room * 3 // 2 < max_len:
        sizes.append(room)
        room *= 2
    return [*sizes, max(max_len, 1)]


def move(old: Cache | None, new: Cache) -> Cache:
    """The new cache, which is empty and has more room, with what was in the old one."""
    if old is None:
        return new
    return jax.tree.map(_put, new, old)


def map_hypotheses(function: Callable[..., Array], cache: Cache, *others: Cache) -> Cache:
    """The function of what each hypothesis has, arrays [B, W, ...] of one cache or of several that
    are alike; of what is `Kept` the first cache's stays as it is.
    """

    def apply(x: Array | Kept, *more: Array) -> Array | Kept:
        return x if isinstance(x, Kept) else function(x, *more)

    return jax.tree.map(apply, cache, *others, is_leaf=lambda x: isinstance(x, Kept))


def is_live(done: Array) -> Array:
    """Which sentences of a state are not done: bool [B]."""
    return ~done.reshape(done.shape[0], -1).all(1)


def _put(new: Array, old: Array) -> Array:
    return jax.lax.dynamic_update_slice(new, old, (0,) * old.ndim)
