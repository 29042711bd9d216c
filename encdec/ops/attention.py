"""Metrics of queries against keys, their softmax under a mask, and the weighted sum.

Letters: see `encdec.types`. A query axis Q stands for W hypotheses or T target positions.
"""

import jax
import jax.numpy as jnp

from encdec.types import Array


def additive_scores(queries: Array, keys: Array, v: Array) -> Array:
    """score(q, k) = v . tanh(q + k), both already projected (Bahdanau 2015, appendix A.1.2).

    Args:
      queries: [B, Q, A]. keys: [B, S, A]. v: [A].

    Returns:
      [B, Q, S].
    """
    return jnp.tanh(queries[:, :, None, :] + keys[:, None, :, :]) @ v


def dot_scores(queries: Array, keys: Array) -> Array:
    """score(q, k) = q . k (Luong 2015, equation 8, dot).

    With keys W k it is the bilinear form q W k (general).

    Args:
      queries: [B, Q, A]. keys: [B, S, A].

    Returns:
      [B, Q, S].
    """
    return jnp.einsum("bqa,bsa->bqs", queries, keys)


def masked_softmax(scores: Array, mask: Array) -> Array:
    """Softmax over the last axis among the positions kept; all zero where none is.

    Args:
      scores: float [..., S].
      mask: bool, broadcastable to scores; True = keep.

    Returns:
      weights, like scores: each row sums to 1, or to 0 where the mask keeps nothing.
    """
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    exponents = jnp.where(
        mask, jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True))), 0
    )
    total = exponents.sum(-1, keepdims=True)
    return exponents / jnp.where(total == 0, 1, total)


def scaled_dot_weights(queries: Array, keys: Array, mask: Array) -> Array:
    """softmax(Q K^T / sqrt(K)) (Vaswani 2017, equation 1), in float32.

    Args:
      queries: [B, T, H, K]. keys: [B, S, H, K].
      mask: bool, broadcastable to [B, H, T, S].

    Returns:
      weights [B, H, T, S].
    """
    scores = jnp.einsum("bthk,bshk->bhts", queries, keys, preferred_element_type=jnp.float32)
    return masked_softmax(scores * queries.shape[-1] ** -0.5, mask)
