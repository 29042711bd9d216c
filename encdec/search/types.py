"""What a search returns, and what all searches share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from encdec.types import BOS, PAD, Array


class SearchResult(NamedTuple):
    """Sentences found, best first along W.

    Attributes:
      tokens: int32 [B, W, T], EOS where a sentence ended within its limit, then PAD.
      scores: float32 [B, W], log-probability in nats over the length penalty.
      log_probs: float32 [B, W], log-probability in nats.
      lengths: int32 [B, W], tokens with EOS.
      attention: float32 [B, W, T, M, S], attention of each token's step, or None if not asked for.
    """

    tokens: Array
    scores: Array
    log_probs: Array
    lengths: Array
    attention: Array | None


def log_probs(logits: Array) -> Array:
    """Log-probabilities of [..., V] in float32; PAD and BOS, which no sentence holds, have none.

    The mass of the two is left out, not spread over the rest: scores are the model's own.
    """
    scores = jax.nn.log_softmax(logits.astype(jnp.float32))
    ids = jnp.arange(logits.shape[-1])
    return jnp.where((ids == PAD) | (ids == BOS), -jnp.inf, scores)


def length_penalty(lengths: Array, alpha: float | Array) -> Array:
    """((5 + length) / 6)^alpha (Wu 2016, equation 14)."""
    return ((5 + lengths.astype(jnp.float32)) / 6) ** alpha
