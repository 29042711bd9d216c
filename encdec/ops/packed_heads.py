"""Attention of narrow heads that lie beside each other, as a TPU's vectors hold them.

A TPU computes with vectors of 128 numbers. Heads of 64 would fill half of each, and bringing every
head into an array of its own, which plain products do, takes as long as they do. Here g = 128 / K
heads stay together as the projection wrote them:

    Z = q [T, g K] [k_1 0 ...; 0 k_2 ...; ...]^T

where each row block has the keys of one head and zeros for the others, so that Z [T, g S] has the
scores of all g heads; the values are arranged alike. Axes: see `encdec.types`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from encdec.ops import masks
from encdec.ops.attention import dot_product_attention
from encdec.ops.products import einsum, input_dtype
from encdec.types import Array, Precision

_LANES = 128
"""Numbers of a vector."""


def fits(queries: Array) -> bool:
    """Whether `attend` is for heads of this shape, [B, T, H, K]."""
    heads, width = queries.shape[-2:]
    return width < _LANES and _LANES % width == 0 and heads % (_LANES // width) == 0


def attend(
    queries: Array,
    keys: Array,
    values: Array,
    mask: Array | None,
    *,
    is_scaled: bool = True,
    precision: Precision = "float32",
) -> Array:
    """softmax(Q K^T / sqrt(K)) V of each head: packed on a TPU, head by head elsewhere.

    Args:
      queries: float [B, T, H, K].
      keys, values: float [B, S, H, K].
      mask: bool [B, 1, 1, S], of the keys; None where a query sees the keys up to its own place.
      is_scaled: whether to divide by sqrt(K).
      precision: of the products.

    Returns:
      float32 [B, T, H, K]; 0 where the mask keeps no key.
    """
    if mask is None:
        mask = masks.causal(queries.shape[1])[None, None]
    plain = partial(dot_product_attention, is_scaled=is_scaled, precision=precision)
    result: Array = jax.lax.platform_dependent(
        *(queries, keys, values, mask), tpu=partial(packed, is_scaled, precision), default=plain
    )
    return result


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def packed(
    is_scaled: bool, precision: Precision, queries: Array, keys: Array, values: Array, mask: Array
) -> Array:
    """As `attend` with a mask, broadcastable to [B, 1, T, S], on any device."""
    return _forward(is_scaled, precision, queries, keys, values, mask)[0]


class _Kept(NamedTuple):
    """What the gradient needs, as products read it: [B, T, P, 128]; attention [B, P, T, g S]."""

    queries: Array
    keys: Array
    values: Array
    attention: Array


def _forward(
    is_scaled: bool, precision: Precision, queries: Array, keys: Array, values: Array, mask: Array
) -> tuple[Array, tuple[_Kept, Array]]:
    width, source = queries.shape[-1], keys.shape[1]
    q, k, v = (_side_by_side(x).astype(input_dtype(precision)) for x in (queries, keys, values))
    scores = einsum("btpk,bspk->bpts", q, _blocks(k, width), precision)
    if is_scaled:
        scores = scores * width**-0.5
    attention = _softmax(scores, jnp.tile(mask, _LANES // width), source)
    attention = attention.astype(input_dtype(precision))
    read = einsum("bpts,bspk->btpk", attention, _blocks(v, width), precision)
    return read.reshape(queries.shape), (_Kept(q, k, v, attention), mask)


def _backward(
    is_scaled: bool, precision: Precision, kept: tuple[_Kept, Array], gradient: Array
) -> tuple[Array, Array, Array, None]:
    (q, k, v, attention), _ = kept
    width, source = gradient.shape[-1], k.shape[1]
    of_read = _side_by_side(gradient)
    of_values = einsum("bpts,btpk->bspk", attention, of_read, precision)
    of_attention = einsum("btpk,bspk->bpts", of_read, _blocks(v, width), precision)
    weighted = attention.astype(jnp.float32) * of_attention
    of_scores = weighted - attention.astype(jnp.float32) * _of_block(jnp.sum, weighted, source, 0)
    if is_scaled:
        of_scores = of_scores * width**-0.5
    of_queries = einsum("bpts,bspk->btpk", of_scores, _blocks(k, width), precision)
    of_keys = einsum("bpts,btpk->bspk", of_scores, q, precision)

    def heads(x: Array) -> Array:
        return x.reshape(*x.shape[:2], -1, width)

    of_keys, of_values = (heads(_diagonal(x, width)) for x in (of_keys, of_values))
    return heads(of_queries), of_keys, of_values, None


packed.defvjp(_forward, _backward)


def _side_by_side(x: Array) -> Array:
    """[B, T, H, K] -> [B, T, P, 128]."""
    return x.reshape(*x.shape[:2], -1, _LANES)


def _blocks(x: Array, width: int) -> Array:
    """[B, S, P, 128] -> [B, g S, P, 128]: the numbers of one head after those of another."""
    of_lane = jnp.arange(_LANES) // width
    return jnp.concatenate([jnp.where(of_lane == i, x, 0) for i in range(_LANES // width)], 1)


def _diagonal(x: Array, width: int) -> Array:
    """[B, g S, P, 128] -> [B, S, P, 128]: of each block the numbers of its head."""
    of_lane = jnp.arange(_LANES) // width
    first, *others = jnp.split(x, _LANES // width, 1)
    for i, block in enumerate(others, 1):
        first = jnp.where(of_lane == i, block, first)
    return first


def _softmax(scores: Array, mask: Array, source: int) -> Array:
    """Softmax over each block of `source` numbers of the last axis, under a mask."""
    lowest = float(jnp.finfo(scores.dtype).min)
    scores = jnp.where(mask, scores, lowest)
    exponents = jnp.where(mask, jnp.exp(scores - _of_block(jnp.max, scores, source, lowest)), 0)
    total = _of_block(jnp.sum, exponents, source, 0)
    return exponents / jnp.where(total == 0, 1, total)


def _of_block(reduce: Callable[..., Array], x: Array, source: int, neutral: float) -> Array:
    """What a reduction finds in each block of the last axis, in the place of all of its numbers."""
    block = jnp.arange(x.shape[-1]) // source
    result = jnp.zeros_like(x)
    for i in range(x.shape[-1] // source):
        found = reduce(jnp.where(block == i, x, neutral), axis=-1, keepdims=True)
        result = jnp.where(block == i, found, result)
    return result
