"""What every search returns, and the two formulas that all of them share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from encdec.types import Array, SpecialIds


class SearchResult(NamedTuple):
    """The hypotheses of each sentence, best first along W.

    Attributes:
      tokens: int32 [B, W, T], the end token last where a hypothesis ended within its limit, then
        padding.
      scores: float32 [B, W], nats: what the search ranks hypotheses by. In greedy and beam search
        it is the sum of the processed log-probabilities over the length penalty. In sampling it is
        `log_probs` over the length penalty, because processors decide there only what is drawn.
        Without processors the two are the same. An unused place has -inf.
      log_probs: float32 [B, W], nats: the log-probability that the model itself gives to the
        tokens, whatever processors did.
      lengths: int32 [B, W], number of tokens, the end token included.
      attention: float32 [B, W, T, M, S], the attention at each token's step, or None where the
        caller did not ask for it.
    """

    tokens: Array
    scores: Array
    log_probs: Array
    lengths: Array
    attention: Array | None


def log_probs(logits: Array, specials: SpecialIds) -> Array:
    """log softmax in float32: [..., V] -> [..., V], and -inf for tokens that no hypothesis holds.

    These are the padding and the start token. Their probability is not redistributed, so that
    the other log-probabilities are those of the model. A vocabulary may start a sentence with its
    end token, which can then be chosen.
    """
    scores = jax.nn.log_softmax(logits.astype(jnp.float32))
    ids = jnp.arange(logits.shape[-1])
    for never in {specials.pad, specials.start} - {specials.end}:
        scores = jnp.where(ids == never, -jnp.inf, scores)
    return scores


def length_penalty(lengths: Array, alpha: float | Array) -> Array:
    """((5 + length) / 6)^alpha (Wu 2016, equation 14)."""
    return ((5 + lengths.astype(jnp.float32)) / 6) ** alpha
