"""The largest of many numbers, found in two levels.

First the maximum of each block of numbers, which one pass over them gives; then the largest within
the blocks of the largest maxima. Sorting is only done there.
"""

from collections.abc import Sequence

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


def top_k_of_sums(
    x: Array, offsets: Sequence[Array], k: int, never: Sequence[int] = ()
) -> tuple[Array, Array, Array]:
    """The k largest of x[..., r, n] + offset[..., r] + ... over r and n, largest first.

    The sums are computed for those blocks only that are looked into. Of equal sums the first in the
    order of r, then n, come first.

    Args:
      x: float32 [..., R, N]; no NaN.
      offsets: each float32 [..., R], added in this order.
      k: static; at most R N.
      never: static; n whose sums count as -inf.

    Returns:
      float32 [..., k], and int32 [..., k] twice: r and n.
    """
    rows, size = x.shape[-2:]

    def add(numbers: Array, each: Sequence[Array]) -> Array:
        for offset in each:
            numbers = numbers + offset[..., None]
        return numbers

    if rows * size <= 2 * k * _BLOCK:
        sums = without(add(x, offsets), jnp.arange(size), never)
        values, places = jax.lax.top_k(sums.reshape(*sums.shape[:-2], -1), k)
        return values, places // size, places % size
    blocks, maxima, block = _block_maxima(x, never)
    count = maxima.shape[-1]
    sums = add(maxima, offsets).reshape(*x.shape[:-2], -1)
    chosen = jnp.sort(jax.lax.top_k(sums, min(k, sums.shape[-1]))[1], -1)
    row, first = chosen // count, chosen % count * block
    flat = blocks.reshape(*x.shape[:-2], -1, block)
    numbers = jnp.take_along_axis(flat, chosen[..., None], -2, mode="clip")  # [..., k, block]
    numbers = add(numbers, [jnp.take_along_axis(offset, row, -1) for offset in offsets])
    numbers = without(numbers, first[..., None] + jnp.arange(block), never)
    values, places = jax.lax.top_k(numbers.reshape(*x.shape[:-2], -1), k)
    which, inside = places // block, places % block
    row, first = (jnp.take_along_axis(y, which, -1) for y in (row, first))
    return values, row, first + inside


def logsumexp(x: Array) -> Array:
    """log sum exp of the last axis: float32 [..., N] -> [...]; no +inf.

    The maximum comes from those of the blocks that `top_k_of_sums` finds for the same numbers.
    """
    # Without the barrier XLA makes one maximum of two, which is another pass over the numbers.
    maxima = jax.lax.optimization_barrier(_blocks(x)[0].max(-1))
    largest = jnp.maximum(maxima.max(-1), jnp.finfo(x.dtype).min)
    return largest + jnp.log(jnp.exp(x - largest[..., None]).sum(-1))


def argmax(x: Array, never: Sequence[int] = ()) -> Array:
    """The index of the largest number of the last axis, the first of equal ones: int32 [...].

    The blocks are those of `logsumexp` of the same numbers. Numbers at `never` count as -inf.
    """
    if x.shape[-1] <= 2 * _BLOCK:
        return without(x, jnp.arange(x.shape[-1]), never).argmax(-1)
    blocks, maxima, block = _block_maxima(x, never)
    chosen = maxima.argmax(-1)
    numbers = jnp.take_along_axis(blocks, chosen[..., None, None], -2, mode="clip")[..., 0, :]
    first = chosen * block
    columns = first[..., None] + jnp.arange(block)
    return first + without(numbers, columns, never).argmax(-1)


def without(numbers: Array, columns: Array, never: Sequence[int]) -> Array:
    """The numbers of these columns, -inf where a column is one of `never`.

    Args:
      numbers: float [..., n].
      columns: int, broadcastable to them.
      never: static; the columns without a number.
    """
    for column in never:
        numbers = jnp.where(columns == column, -jnp.inf, numbers)
    return numbers


def _block_maxima(x: Array, never: Sequence[int]) -> tuple[Array, Array, int]:
    """The blocks of x, the maximum of each, and their length; numbers at `never` do not count."""
    blocks, block = _blocks(x)
    maxima = blocks.max(-1)
    for b in sorted({column // block for column in never}):
        numbers = without(blocks[..., b, :], b * block + jnp.arange(block), never)
        maxima = maxima.at[..., b].set(numbers.max(-1))
    return blocks, maxima, block


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
