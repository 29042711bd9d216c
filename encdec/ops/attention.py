"""Attention scores, the softmax under a mask that turns them into attention, and what it reads.

Axes: see `encdec.types`. The query axis Q holds W hypotheses or T target positions. `precision` is
that of the products.
"""

import jax
import jax.numpy as jnp

from encdec.ops.products import einsum, matmul
from encdec.types import Array, Precision


def additive_scores(
    queries: Array, keys: Array, v: Array, precision: Precision = "float32"
) -> Array:
    """score(q, k) = v . tanh(q + k), for queries and keys that are already projected.

    Bahdanau 2015, appendix A.1.2.

    Args:
      queries: float [B, Q, A].
      keys: float [B, S, A].
      v: float [A].

    Returns:
      Scores, float32 [B, Q, S].
    """

    hidden = jnp.tanh(queries[:, :, None, :] + keys[:, None, :, :])  # [B, Q, S, A]
    return einsum("bqsa,a->bqs", hidden, v, precision)


def dot_scores(queries: Array, keys: Array, precision: Precision = "float32") -> Array:
    """score(q, k) = q . k (Luong 2015, equation 8, "dot").

    If the keys are W k, this is the score q W k ("general").

    Args:
      queries: float [B, Q, A].
      keys: float [B, S, A].

    Returns:
      Scores, float32 [B, Q, S].
    """
    return einsum("bqa,bsa->bqs", queries, keys, precision)


def masked_softmax(scores: Array, mask: Array) -> Array:
    """Softmax over the last axis, restricted to the positions that the mask keeps.

    Args:
      scores: float [..., S].
      mask: bool, broadcastable to the scores; True = keep.

    Returns:
      Attention, shaped like the scores. Each row sums to 1, or to 0 if its mask keeps nothing.
    """
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    # The softmax does not depend on the maximum, so no gradient needs to flow through it.
    largest = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    exponents = jnp.where(mask, jnp.exp(scores - largest), 0)
    total = exponents.sum(-1, keepdims=True)
    return exponents / jnp.where(total == 0, 1, total)


def dot_product_attention_weights(
    queries: Array,
    keys: Array,
    mask: Array,
    *,
    bias: Array | None = None,
    is_scaled: bool = True,
    precision: Precision = "float32",
) -> Array:
    """softmax(Q K^T / sqrt(K) + bias) for each head, in float32 (Vaswani 2017, equation 1).

    Args:
      queries: float [B, T, H, K].
      keys: float [B, S, H, K].
      mask: bool, broadcastable to [B, H, T, S]; True = keep.
      bias: float32, broadcastable to [B, H, T, S], such as one for relative positions; None for 0.
      is_scaled: whether to divide by sqrt(K), which T5 does not (Raffel 2020).

    Returns:
      Attention, float32 [B, H, T, S].
    """
    scores = einsum("bthk,bshk->bhts", queries, keys, precision)
    if is_scaled:
        scores = scores * queries.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    return masked_softmax(scores, mask)


def dot_product_attention(
    queries: Array,
    keys: Array,
    values: Array,
    mask: Array,
    *,
    is_scaled: bool = True,
    precision: Precision = "float32",
) -> Array:
    """softmax(Q K^T / sqrt(K)) V of each head.

    Args:
      queries, keys, mask, is_scaled: as in `dot_product_attention_weights`.
      values: float [B, S, H, K].

    Returns:
      float32 [B, T, H, K]; 0 where the mask keeps no key.
    """
    attention = dot_product_attention_weights(
        queries, keys, mask, is_scaled=is_scaled, precision=precision
    )
    return einsum("bhts,bshk->bthk", attention, values, precision)


def attend(
    queries: Array,
    keys: Array,
    values: Array,
    mask: Array,
    *,
    bias: Array | None = None,
    is_scaled: bool = True,
    precision: Precision = "float32",
) -> tuple[Array, Array]:
    """softmax(Q K^T / sqrt(K) + bias) V of each head, with keys that lie as a product reads them.

    Args:
      queries: float [..., Q, K].
      keys: float [..., K, S].
      values: float [..., S, K].
      mask: bool, broadcastable to [..., Q, S]; True = keep.
      bias, is_scaled: as in `dot_product_attention_weights`; bias broadcastable to [..., Q, S].

    Returns:
      float32 [..., Q, K], and the attention float32 [..., Q, S].
    """
    scores = matmul(queries, keys, precision)
    if is_scaled:
        scores = scores * queries.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    attention = masked_softmax(scores, mask)
    return matmul(attention, values, precision), attention
