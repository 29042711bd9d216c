"""The hypotheses of a beam search that have finished: which are kept, and when it stops.

Axes: see `encdec.types`; C candidates.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from encdec.search.candidates import Candidates
from encdec.search.types import LengthPenalty
from encdec.types import Array

Stop = Literal["never", "heuristic", "first"]
"""When a sentence is done before its limit, see `may_improve`."""


class Finished(NamedTuple):
    """The W best hypotheses that have finished, best first; an unused place has score -inf.

    scores, log_probs: float32 [B, W]. lengths: int32 [B, W]. parents, tokens: int32 [B, W], the
    place in the beam of the hypothesis that the last token was added to, at step length - 1, and
    that token: the end token, or any where the hypothesis was cut at its limit.
    """

    scores: Array
    log_probs: Array
    lengths: Array
    parents: Array
    tokens: Array


def merge(
    finished: Finished, best: Candidates, finishes: Array, length: Array, penalty: LengthPenalty
) -> Finished:
    """The W best of those that finished before and of the candidates that finish now."""
    beams = finished.scores.shape[1]
    totals = jnp.where(finishes, best.totals, -jnp.inf)
    new = Finished(
        totals / penalty(length),
        jnp.where(jnp.isneginf(totals), -jnp.inf, best.log_probs),
        jnp.where(jnp.isneginf(totals), 0, length),
        best.parents,
        best.tokens,
    )
    both = Finished(*(jnp.concatenate(pair, 1) for pair in zip(finished, new, strict=True)))
    _, order = jax.lax.top_k(both.scores, beams)
    return Finished(*(jnp.take_along_axis(x, order, 1) for x in both))


def may_improve(
    live: Array,
    finished: Finished,
    length: Array,
    max_lengths: Array,
    penalty: LengthPenalty,
    stop: Stop,
) -> Array:
    """Whether the search of a sentence goes on before its limit: bool [B]."""
    worst = finished.scores[:, -1]  # -inf until W have finished
    if stop == "first":
        return jnp.isneginf(worst) & (live.max(1) > -jnp.inf)
    ends_at = max_lengths if stop == "never" else length
    return live.max(1) / penalty(ends_at) > worst
