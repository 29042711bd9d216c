"""The largest of many numbers, found in two levels.

First the maximum of each block of numbers, which one pass over them gives; then the largest within
the blocks of the largest maxima. Sorting is only done there.
"""

import jax
import jax.numpy as jnp

from encdec.types import Array

_BLOCK = 128


def top_k(x: Array, k: int) -> tuple[Array, Array]:
    """As `jax.lax.top_k`: the k largest of the last axis, largest first, and their indices.

    Of equal numbers the first come first.

    Args:
      x: float [..., N]; no NaN.
      k: static; at most N.

    Returns:
      float [..., k] and int32 [..., k].
    """
    size = x.shape[-1]
    if size <= 2 * k * _BLOCK:
        return jax.lax.top_k(x, k)
    # The k largest lie in the k blocks of the largest maxima; in order, so that the first of equal
    # numbers stays the first.
    blocks = jnp.sort(jax.lax.top_k(_maxima(x), k)[1], -1)
    places = _places(blocks)
    values, chosen = jax.lax.top_k(_take(x, places), k)
    return values, jnp.take_along_axis(places, chosen, -1)


def _maxima(x: Array) -> Array:
    """The maximum of each block: [..., N] -> [..., ceil(N / 128)]; the last may be smaller."""
    whole = x.shape[-1] // _BLOCK * _BLOCK
    maxima = x[..., :whole].reshape(*x.shape[:-1], -1, _BLOCK).max(-1)
    if whole == x.shape[-1]:
        return maxima
    return jnp.concatenate([maxima, x[..., whole:].max(-1, keepdims=True)], -1)


def _places(blocks: Array) -> Array:
    """The indices of all numbers of some blocks: int32 [..., n] -> [..., 128 n]."""
    places = blocks[..., None] * _BLOCK + jnp.arange(_BLOCK, dtype=blocks.dtype)
    return places.reshape(*blocks.shape[:-1], -1)


def _take(x: Array, places: Array) -> Array:
    """The numbers at some places; -inf beyond the end."""
    return jnp.take_along_axis(x, places, -1, mode="fill", fill_value=-jnp.inf)
