"""Attention over long sequences that keeps no array of all queries times all keys for gradients.

JAX ships a kernel for TPUs that does so (Dao 2022). Axes: see `encdec.types`.
"""

from functools import partial

import jax
import jax.numpy as jnp

from encdec.ops import masks
from encdec.ops.attention import dot_product_attention
from encdec.types import Array, Precision

SHORTEST = 512
"""Tokens of a sequence from which the kernel is used: below, the array costs little."""

_TILE = 128
"""The kernel's blocks are multiples of so many tokens."""


def fits(queries: Array, keys: Array, precision: Precision) -> bool:
    """Whether `attend` is for arrays of these shapes, [B, T, H, K] and [B, S, H, K].

    The kernel multiplies in bfloat16.
    """
    width = queries.shape[-1]
    is_long = min(queries.shape[1], keys.shape[1]) >= SHORTEST
    return precision == "bfloat16" and is_long and (width < _TILE or width % _TILE == 0)


def attend(
    queries: Array, keys: Array, values: Array, mask: Array | None, *, is_scaled: bool = True
) -> Array:
    """softmax(Q K^T / sqrt(K)) V of each head: by the kernel on a TPU, by products elsewhere.

    What is multiplied is rounded to bfloat16. The kernel also rounds its result and its gradients,
    once, after they were added up in float32.

    Args:
      queries: float [B, T, H, K].
      keys, values: float [B, S, H, K].
      mask: bool [B, 1, 1, S], of the keys; None where a query sees the keys up to its own place.
      is_scaled: whether to divide by sqrt(K).

    Returns:
      float32 [B, T, H, K]; 0 where the mask keeps no key.
    """
    result: Array = jax.lax.platform_dependent(
        *(queries, keys, values, mask),
        tpu=partial(_on_tpu, is_scaled=is_scaled),
        default=partial(_plain, is_scaled=is_scaled),
    )
    return result


def _plain(
    queries: Array, keys: Array, values: Array, mask: Array | None, *, is_scaled: bool
) -> Array:
    if mask is None:
        mask = masks.causal(queries.shape[1])[None, None]
    return dot_product_attention(
        queries, keys, values, mask, is_scaled=is_scaled, precision="bfloat16"
    )


def _on_tpu(
    queries: Array, keys: Array, values: Array, mask: Array | None, *, is_scaled: bool
) -> Array:
    # Imported only where a sequence is long, because it takes long itself.
    from jax.experimental.pallas.ops.tpu import flash_attention as kernel

    batch, length, _, width = queries.shape
    q, k, v = (_padded(x.astype(jnp.bfloat16)).swapaxes(1, 2) for x in (queries, keys, values))
    segments = None  # a causal query sees none of the keys that padding has added
    if mask is not None:
        # A query reads keys that have its own number.
        kept = _padded(jnp.broadcast_to(mask[:, 0, 0], (batch, keys.shape[1])))
        segments = kernel.SegmentIds(jnp.ones((batch, q.shape[2]), jnp.int32), kept.astype("int32"))
    result = kernel.flash_attention(
        *(q, k, v),
        segment_ids=segments,
        causal=mask is None,
        sm_scale=width**-0.5 if is_scaled else 1.0,
        block_sizes=kernel.BlockSizes(**_blocks(q.shape[2], k.shape[2])),
    )
    result = result[:, :, :length].swapaxes(1, 2).astype(jnp.float32)
    # Where no key is kept, the kernel returns the mean of all values.
    return result if mask is None else jnp.where(mask.any(-1)[..., None], result, 0)


def _padded(x: Array) -> Array:
    """x [B, T, ...] with zeros after its end, up to a whole number of tiles."""
    widths = [(0, 0)] * x.ndim
    widths[1] = (0, -x.shape[1] % _TILE)
    return jnp.pad(x, widths)


def _blocks(queries: int, keys: int) -> dict[str, int]:
    """The largest blocks of up to 512 tokens that divide the numbers of queries and keys."""
    q, k = (next(size for size in (512, 384, 256, _TILE) if n % size == 0) for n in (queries, keys))
    of_queries = ("block_q", "block_q_major_dkv", "block_q_dkv", "block_q_dq")
    of_keys = (
        *("block_k_major", "block_k", "block_k_major_dkv", "block_k_dkv"),
        *("block_k_major_dq", "block_k_dq"),
    )
    return {"block_b": 1} | dict.fromkeys(of_queries, q) | dict.fromkeys(of_keys, k)
