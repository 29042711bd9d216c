"""What a beam search chooses from in each step: continuations of its live hypotheses.

Axes: see `encdec.types`; C = 2 W candidates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from encdec.ops.selection import logsumexp, top_k_of_sums
from encdec.search import phrases
from encdec.search.interface import History, Processor, State, process
from encdec.search.types import log_probs
from encdec.types import Array, SpecialIds


class Required(NamedTuple):
    """Phrases that each hypothesis must contain.

    automata: of each sentence's phrases. edges: of the vocabulary. reserved: static; how many of a
    sentence's last tokens no phrase may have.
    """

    automata: phrases.Automata
    edges: phrases.WordEdges
    reserved: int


class Processed(NamedTuple):
    """What processors need of each live hypothesis, kept only where there are processors.

    tokens: int32 [B, W, T], so far. log_probs: float32 [B, W], under the model. states: one for
    each processor.
    """

    tokens: Array
    log_probs: Array
    states: tuple[State, ...]


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


def choose(
    live: Array,
    logits: Array,
    processed: Processed | None,
    progress: phrases.Progress | None,
    *,
    step: Array,
    max_lengths: Array,
    specials: SpecialIds,
    banned: Sequence[int],
    processors: Sequence[Processor],
    required: Required | None,
) -> tuple[Processed | None, Candidates]:
    """The candidates of a step, and what processors remember after it.

    Args:
      live: float32 [B, W], the sum of each live hypothesis, -inf for none.
      logits: float32 [B, W, V].
      processed: what processors need; None where there are none.
      progress: of each live hypothesis with its phrases; None where there are none.
      step: int32 [], tokens of the live hypotheses.
      max_lengths: int32 [B], as in `beam_parts`; so are the others.
    """
    if processed is None and required is None:
        return None, likeliest(live, logits, banned)
    ranked = model_log_probs = log_probs(logits, banned)
    so_far = None
    if processed is not None:
        history = History(processed.tokens, step)
        states, ranked = process(
            processors, processed.states, model_log_probs, history, specials.end
        )
        so_far, processed = processed.log_probs, processed._replace(states=states)
    if required is None:
        assert so_far is not None
        return processed, likeliest_processed(live, ranked, model_log_probs, so_far)
    assert progress is not None
    return processed, with_phrases(
        live,
        ranked,
        model_log_probs,
        so_far,
        progress=progress,
        required=required,
        room=max_lengths - step - 1 - required.reserved,
        specials=specials,
    )


def likeliest(live: Array, logits: Array, banned: Sequence[int]) -> Candidates:
    """The 2 W best continuations, where no processor acts.

    Args:
      live: float32 [B, W], the sum of each live hypothesis, -inf for none.
      logits: float32 [B, W, V].
      banned: static; ids that no hypothesis holds.
    """
    # In the order in which log-probabilities and totals are added up where processors act.
    offsets = (-logsumexp(logits), live)
    totals, parents, tokens = top_k_of_sums(logits, offsets, _count(logits), banned)
    return Candidates(totals, totals, parents, tokens, None)


def likeliest_processed(
    live: Array, ranked: Array, model_log_probs: Array, so_far: Array
) -> Candidates:
    """The 2 W best continuations after processors.

    Args:
      live: float32 [B, W], the sum of each live hypothesis, -inf for none.
      ranked: float32 [B, W, V], what a token adds to it.
      model_log_probs: float32 [B, W, V], the same under the model.
      so_far: float32 [B, W], the sum under the model.
    """
    totals, parents, tokens = top_k_of_sums(ranked, (live,), _count(ranked))
    width = ranked.shape[-1]
    gains = jnp.take_along_axis(
        model_log_probs.reshape(live.shape[0], -1), parents * width + tokens, 1
    )
    log_probs = jnp.take_along_axis(so_far, parents, 1) + gains
    return Candidates(totals, log_probs, parents, tokens, None)


def _count(scores: Array) -> int:
    """2 W: so few that their end tokens leave W that go on; a small V has no more."""
    _, beams, width = scores.shape
    return min(2 * beams, beams * width)


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
      live, ranked, model_log_probs: as in `likeliest_processed`.
      so_far: float32 [B, W], the sum under the model; None if it is `live`.
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
