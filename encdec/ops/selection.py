"""The largest of many numbers, found in two levels.

First the maximum of each block of numbers, which one pass over them gives; then the largest within
the blocks of the largest maxima. Sorting is only done there.
"""

import jax
import jax.numpy as jnp

from encdec.types import Array

_BLOCK = 128
"""About how many numbers a block has."""


def top_k(x: Array, k: int) -> tuple[Array, Array]:
    """As `jax.lax.top_k`: the k largest of the last axis, largest first, and their indices.

    Of equal numbers the first come first. XLA on a CPU is ten times slower, because it sorts all,
    where a caller takes a slice of what this returns: so do not.

    Args:
      x: float [..., N]; no NaN.
      k: static; at most N.

    Returns:
      float [..., k] and int32 [..., k].
    """
    if x.shape[-1] <= 2 * k * _BLOCK:
        return jax.lax.top_k(x, k)
    blocks, block = _blocks(x)
    # The k largest lie in the k blocks of the largest maxima; in order, so that the first of equal
    # numbers stays the first.
    chosen = jnp.sort(jax.lax.top_k(blocks.max(-1), k)[1], -1)
    numbers = jnp.take_along_axis(blocks, chosen[..., None], -2, mode="clip")  # [..., k, block]
    values, places = jax.lax.top_k(numbers.reshape(*x.shape[:-1], -1), k)
    indices = jnp.take_along_axis(chosen, places // block, -1) * block + places % block
    return values, indices


def argmax(x: Array) -> Array:
    """The index of the largest number of the last axis, the first of equal ones: int32 [...]."""
    if x.shape[-1] <= 2 * _BLOCK:
        return x.argmax(-1)
    blocks, block = _blocks(x)
    chosen = blocks.max(-1).argmax(-1)
    numbers = jnp.take_along_axis(blocks, chosen[..., None, None], -2, mode="clip")[..., 0, :]
    return chosen * block + numbers.argmax(-1)


def _blocks(x: Array) -> tuple[Array, int]:
    """x [..., N] as [..., n, block], -inf at the end, and the block's length.

    Nothing is added, and so nothing copied, where N has a divisor near to what a block should have.
    """
    size = x.shape[-1]
    near = range(_BLOCK // 2, _BLOCK * 2 + 1)
    fits = [block for block in near if size % block == 0]
    block = min(fits or [_BLOCK], key=lambda block: abs(block - _BLOCK))
    missing = [(0, 0)] * (x.ndim - 1) + [(0, -size % block)]
    if missing[-1][1]:
        x = jnp.pad(x, missing, constant_values=-jnp.inf)
    return x.reshape(*x.shape[:-1], -1, block), block
