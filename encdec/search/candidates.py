"""What a beam search chooses from in each step: continuations of its live hypotheses.

Axes: see `encdec.types`; C = 2 W candidates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from encdec.ops.selection import top_k
from encdec.search import phrases
from encdec.types import Array, SpecialIds


class Required(NamedTuple):
    """Phrases that each hypothesis must contain.

    automata: of each sentence's phrases. edges: of the vocabulary. reserved: static; how many of a
    sentence's last tokens no phrase may have.
    """

    automata: phrases.Automata
    edges: phrases.WordEdges
    reserved: int


class Candidates(NamedTuple):
    """Continuations of live hypotheses, in the order in which they are taken: each [B, C].

    totals: float32, sum of processed log-probabilities. log_probs: float32, sum under the model.
    parents, tokens: int32, the place that it continues, and its new token. progress: with that.
    """

    totals: Array
    log_probs: Array
    parents: Array
    tokens: Array
    progress: phrases.Progress | None


def likeliest(
    live: Array, ranked: Array, model_log_probs: Array, so_far: Array | None
) -> Candidates:
    """The 2 W best continuations.

    Args:
      live: float32 [B, W], the sum of each live hypothesis, -inf for none.
      ranked: float32 [B, W, V], what a token adds to it.
      model_log_probs: float32 [B, W, V], the same under the model.
      so_far: float32 [B, W], the sum under the model; None if it is `live`.
    """
    rows, beams, width = ranked.shape
    totals = (live[..., None] + ranked).reshape(rows, -1)
    # Few enough that their end tokens leave W that go on; a small V has no more.
    best, places = top_k(totals, min(2 * beams, beams * width))
    log_probs = best
    if so_far is not None:
        model_totals = so_far[..., None] + model_log_probs
        log_probs = jnp.take_along_axis(model_totals.reshape(rows, -1), places, 1)
    return Candidates(best, log_probs, places // width, places % width, None)


def with_phrases(
    live: Array,
    ranked: Array,
    model_log_probs: Array,
    so_far: Array | None,
    *,
    progress: phrases.Progress,
    required: Required,
    room: Array,
    specials: SpecialIds,
) -> Candidates:
    """The 2 W first continuations, where hypotheses that need as many tokens take turns.

    Args:
      live, ranked, model_log_probs, so_far: as in `likeliest`.
      progress: of each live hypothesis.
      required: the phrases.
      room: int32 [B], the tokens that are left for phrases after this step.
      specials: ids of the target vocabulary.
    """
    automata, edges, _ = required
    offered = phrases.offer(automata, edges, progress, ranked, model_log_probs, room, specials.end)
    rows, beams, each = offered.gains.shape
    totals = (live[..., None] + offered.gains).reshape(rows, -1)
    banks, strays = (x.reshape(rows, -1) for x in (offered.needed, offered.strays))
    order = phrases.in_turn(totals, banks, strays, 2 * beams)

    def take(x: Array) -> Array:
        return jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), 1)

    best, tokens, parents = take(totals), take(offered.tokens.reshape(rows, -1)), order // each
    log_probs = best
    if so_far is not None:
        gains = jnp.take_along_axis(model_log_probs, offered.tokens, -1)
        log_probs = take((so_far[..., None] + gains).reshape(rows, -1))
    return Candidates(best, log_probs, parents, tokens, jax.tree.map(take, offered.progress))
