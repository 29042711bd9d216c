"""What every search returns, and the formulas that all of them share."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp

from encdec.ops.selection import logsumexp, without
from encdec.types import Array


class SearchResult(NamedTuple):
    """The hypotheses of each sentence along W: best first, or draws in the order they are made in.

    Attributes:
      tokens: int32 [B, W, T], the end token last where a hypothesis ended within its limit; after
        its length, padding.
      scores: float32 [B, W], nats: what the search ranks hypotheses by. In greedy and beam search
        it is the sum of the processed log-probabilities over the length penalty. In sampling it is
        `log_probs` over the length penalty, because processors decide there only what is drawn.
        Without processors the two are the same. An unused place has -inf.
      log_probs: float32 [B, W], nats: the log-probability that the model itself gives to the
        tokens, whatever processors did.
      token_log_probs: float32 [B, W, T], nats: that of each token given those before it; their sum
        is `log_probs`. 0 after the length.
      lengths: int32 [B, W], number of tokens, the end token included.
      attention: float32 [B, W, T, M, S], the attention at each token's step, or None where the
        caller did not ask for it.
    """

    tokens: Array
    scores: Array
    log_probs: Array
    token_log_probs: Array
    lengths: Array
    attention: Array | None


def log_probs(logits: Array, banned: Sequence[int] = ()) -> Array:
    """log softmax in float32: [..., V] -> [..., V], and -inf for tokens that no hypothesis holds.

    Their probability is not redistributed, so that the other log-probabilities are those of the
    model.
    """
    logits = logits.astype(jnp.float32)
    # Unlike those of log_softmax, this difference is computed where it is read, and not kept.
    scores = logits - logsumexp(logits)[..., None]
    return without(scores, jnp.arange(logits.shape[-1]), banned)


class LengthPenalty(NamedTuple):
    """What the log-probability of a hypothesis is divided by, as a function of its length.

    Attributes:
      alpha: the exponent, at least 0; at 0 every length has the penalty 1.
      kind: wu for ((5 + length) / 6)^alpha (Wu 2016, equation 14); mean for length^alpha.
    """

    alpha: float | Array = 0.0
    kind: Literal["wu", "mean"] = "wu"

    def __call__(self, lengths: Array) -> Array:
        """float32 of the shape of `lengths`; 1 for the length 0."""
        lengths = lengths.astype(jnp.float32)
        base = (5 + lengths) / 6 if self.kind == "wu" else jnp.maximum(lengths, 1)
        return base**self.alpha


NO_PENALTY = LengthPenalty()
