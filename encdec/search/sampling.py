"""Searches that never look back: the likeliest token, or a random one.

Letters: see `encdec.types`; here W counts samples of a sentence.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from encdec.search.types import SearchResult, length_penalty, log_probs
from encdec.types import BOS, EOS, PAD, Array, Cache, DecodeStep, Memory

Choose = Callable[[Array, Array], Array]
"""(log-probabilities [B, W, V], step int32 []) -> tokens [B, W]."""


class _State(NamedTuple):
    step: Array
    last: Array
    done: Array
    tokens: Array
    log_probs: Array
    attention: Array | None
    cache: Cache


def greedy(
    step: DecodeStep,
    memory: Memory,
    cache: Cache,
    max_lengths: Array,
    *,
    max_len: int,
    alpha: float | Array = 0.0,
    with_attention: bool = False,
) -> SearchResult:
    """The likeliest token at each step.

    Args:
      step: the model.
      memory: of B sentences.
      cache: of one hypothesis each.
      max_lengths: int32 [B], the most tokens that a sentence may have, EOS included.
      max_len: static; the largest limit there can be.
      alpha: exponent of the length penalty that scores are divided by.
      with_attention: static; return the attention too.
    """

    def choose(scores: Array, _: Array) -> Array:
        return scores.argmax(-1)

    return _unroll(step, memory, cache, max_lengths, 1, max_len, alpha, with_attention, choose)


def sample(
    step: DecodeStep,
    memory: Memory,
    cache: Cache,
    max_lengths: Array,
    keys: Array,
    *,
    samples: int,
    max_len: int,
    temperature: float | Array = 1.0,
    top_k: int = 0,
    top_p: float | Array = 1.0,
    alpha: float | Array = 0.0,
    with_attention: bool = False,
) -> SearchResult:
    """Draws tokens from softmax(logits / temperature), cut to the likeliest.

    Args:
      step, memory, max_lengths, max_len, alpha, with_attention: as in `greedy`.
      cache: of `samples` hypotheses each.
      keys: typed PRNG keys [B], one a sentence: its draws do not depend on its batch.
      samples: static; W.
      temperature: above 0; towards 0 it is greedy.
      top_k: static; only the k likeliest tokens, 0 for all (Fan 2018).
      top_p: only the fewest tokens whose mass reaches p (Holtzman 2020); 1 for all.

    Returns:
      Sentences in the order of their scores, which are of the model's own distribution.
    """

    def choose(scores: Array, step: Array) -> Array:
        kept = _nucleus(_top_k(scores / temperature, top_k), top_p)
        return jax.vmap(lambda key, s: jax.random.categorical(jax.random.fold_in(key, step), s))(
            keys, kept
        )

    found = _unroll(
        step, memory, cache, max_lengths, samples, max_len, alpha, with_attention, choose
    )
    order = jnp.argsort(-found.scores, axis=1)
    return jax.tree.map(
        lambda x: jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), 1),
        found,
    )


def _top_k(scores: Array, k: int) -> Array:
    if not 0 < k < scores.shape[-1]:
        return scores
    least = jax.lax.top_k(scores, k)[0][..., -1:]
    return jnp.where(scores >= least, scores, -jnp.inf)


def _nucleus(scores: Array, p: float | Array) -> Array:
    """Keeps a token when the mass of the likelier ones is below p; the likeliest always stays."""
    ordered = -jnp.sort(-scores, axis=-1)
    mass = jnp.cumsum(jax.nn.softmax(ordered), -1) - jax.nn.softmax(ordered)
    keep = (mass < p).at[..., 0].set(True)
    least = jnp.where(keep, ordered, jnp.inf).min(-1, keepdims=True)
    return jnp.where(scores >= least, scores, -jnp.inf)


def _unroll(
    step: DecodeStep,
    memory: Memory,
    cache: Cache,
    max_lengths: Array,
    width: int,
    max_len: int,
    alpha: float | Array,
    with_attention: bool,
    choose: Choose,
) -> SearchResult:
    """Token after token until every sentence has its EOS or its limit."""
    rows = max_lengths.shape[0]
    attention = None
    if with_attention:
        first = jnp.zeros((rows, width), jnp.int32)
        shape = jax.eval_shape(step, memory, cache, first)[1].shape  # [B, W, M, S]
        attention = jnp.zeros((rows, width, max_len, *shape[2:]))
    start = _State(
        step=jnp.zeros((), jnp.int32),
        last=jnp.full((rows, width), BOS, jnp.int32),
        done=jnp.broadcast_to(max_lengths[:, None] <= 0, (rows, width)),
        tokens=jnp.full((rows, width, max_len), PAD, jnp.int32),
        log_probs=jnp.zeros((rows, width)),
        attention=attention,
        cache=cache,
    )

    def body(s: _State) -> _State:
        logits, attended, cache = step(memory, s.cache, s.last)
        scores = log_probs(logits)
        chosen = choose(scores, s.step).astype(jnp.int32)
        gained = jnp.take_along_axis(scores, chosen[..., None], -1)[..., 0]
        chosen = jnp.where(s.done, PAD, chosen)
        attention = s.attention
        if attention is not None:
            attended = jnp.where(s.done[..., None, None], 0, attended)
            attention = attention.at[:, :, s.step].set(attended)
        return _State(
            step=s.step + 1,
            last=chosen,
            done=s.done | (chosen == EOS) | (s.step + 1 >= max_lengths[:, None]),
            tokens=s.tokens.at[:, :, s.step].set(chosen),
            log_probs=s.log_probs + jnp.where(s.done, 0, gained),
            attention=attention,
            cache=cache,
        )

    end = jax.lax.while_loop(lambda s: (s.step < max_len) & ~s.done.all(), body, start)
    lengths = (end.tokens != PAD).sum(-1)
    scores = end.log_probs / length_penalty(lengths, alpha)
    return SearchResult(end.tokens, scores, end.log_probs, lengths, end.attention)
