"""Beam search: W hypotheses side by side (Graves 2012; Sutskever 2014, section 3.2).

Hypotheses that finished and hypotheses that go on are kept apart. Tokens and back-pointers are
recorded step by step, and the winners' paths are followed back once, at the end.

Letters: see `encdec.types`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from encdec.search.types import SearchResult, length_penalty, log_probs
from encdec.types import BOS, EOS, PAD, Array, Cache, DecodeStep, Memory


class _Finished(NamedTuple):
    """The W best hypotheses that finished, best first; unused places score -inf.

    scores, log_probs: [B, W]. lengths: [B, W], EOS included. parents: [B, W], the place among
    the live ones that EOS was added to, at step length - 1.
    """

    scores: Array
    log_probs: Array
    lengths: Array
    parents: Array


class _Record(NamedTuple):
    """What each step did. tokens, parents: int32 [T, B, W]. attention: [T, B, W, M, S] or None."""

    tokens: Array
    parents: Array
    attention: Array | None


class _State(NamedTuple):
    """live, finished_in_beam: float32 [B, W], the log-probability of the hypothesis in each place
    of the beam, in `live` if it continues and in `finished_in_beam` if it has finished; -inf in the
    other.
    """

    step: Array
    last: Array
    live: Array
    finished_in_beam: Array
    finished: _Finished
    done: Array
    record: _Record
    cache: Cache


def beam_search(
    step: DecodeStep,
    memory: Memory,
    cache: Cache,
    max_lengths: Array,
    *,
    beams: int,
    max_len: int,
    alpha: float | Array = 0.0,
    with_attention: bool = False,
) -> SearchResult:
    """The W best sentences that a beam of W finds.

    At each step the beam holds the W likeliest of all continuations and of the hypotheses that
    finished in it before: a finished one keeps its place until W likelier ones push it out. Of all
    that ever finished in the beam, the W best by score are returned. A sentence is done when its
    beam holds no live hypothesis, when no live one can still reach the worst of W finished ones, or
    at its maximum length. With W = 1 this is greedy search; with W >= V^T it is exhaustive. Places
    that no finished hypothesis takes go to live ones cut at the maximum length, after all finished
    ones.

    Args:
      step: the model.
      memory: of B sentences.
      cache: of W hypotheses each, all alike.
      max_lengths: int32 [B], the most tokens that a sentence may have, EOS included.
      beams: static; W.
      max_len: static; the largest limit there can be.
      alpha: exponent of the length penalty, at least 0.
      with_attention: static; return the attention of the paths too.
    """
    start = _start(step, memory, cache, max_lengths, beams, max_len, with_attention)

    def body(s: _State) -> _State:
        return _advance(s, step, memory, max_lengths, beams, alpha)

    end = jax.lax.while_loop(lambda s: (s.step < max_len) & ~s.done.all(), body, start)
    return _collect(end, max_lengths, alpha)


def _start(
    step: DecodeStep,
    memory: Memory,
    cache: Cache,
    max_lengths: Array,
    beams: int,
    max_len: int,
    with_attention: bool,
) -> _State:
    """One live hypothesis a sentence: all W begin alike, so the others count for nothing."""
    rows = max_lengths.shape[0]
    last = jnp.full((rows, beams), BOS, jnp.int32)
    nothing = jnp.zeros((max_len, rows, beams), jnp.int32)
    attention = None
    if with_attention:
        shape = jax.eval_shape(step, memory, cache, last)[1].shape
        attention = jnp.zeros((max_len, *shape))
    none = jnp.full((rows, beams), -jnp.inf)
    integers = jnp.zeros((rows, beams), jnp.int32)
    return _State(
        step=jnp.zeros((), jnp.int32),
        last=last,
        live=none.at[:, 0].set(0),
        finished_in_beam=none,
        finished=_Finished(none, none, integers, integers),
        done=max_lengths <= 0,
        record=_Record(nothing, nothing, attention),
        cache=cache,
    )


def _advance(
    s: _State,
    step: DecodeStep,
    memory: Memory,
    max_lengths: Array,
    beams: int,
    alpha: float | Array,
) -> _State:
    """One more token for every live hypothesis."""
    logits, attended, cache = step(memory, s.cache, s.last)
    width = logits.shape[-1]
    totals = s.live[..., None] + log_probs(logits)  # [B, W, V]
    best, places = jax.lax.top_k(totals.reshape(*s.done.shape, -1), beams)
    beam, chosen = jax.lax.top_k(jnp.concatenate([s.finished_in_beam, best], 1), beams)
    continues = chosen >= beams  # the others finished before
    place = jnp.take_along_axis(places, jnp.maximum(chosen - beams, 0), 1)
    tokens, parents = place % width, place // width
    ends_now = continues & (tokens == EOS)
    goes_on = continues & ~ends_now
    finished = _merge(s.finished, beam, parents, ends_now & ~s.done[:, None], s.step + 1, alpha)
    live = jnp.where(goes_on, beam, -jnp.inf)

    # A sentence that is done stands still, so that its paths can be followed from the end.
    def unless_done(new: Array, old: Array | int) -> Array:
        return jnp.where(s.done[:, None], old, new)

    live = unless_done(live, s.live)
    own = jnp.broadcast_to(jnp.arange(beams), parents.shape)
    tokens, parents = unless_done(tokens, PAD), unless_done(parents, own)
    attention = s.record.attention
    if attention is not None:
        attention = attention.at[s.step].set(attended)
    record = _Record(
        s.record.tokens.at[s.step].set(tokens), s.record.parents.at[s.step].set(parents), attention
    )
    return _State(
        step=s.step + 1,
        last=tokens,
        live=live,
        finished_in_beam=unless_done(jnp.where(goes_on, -jnp.inf, beam), s.finished_in_beam),
        finished=finished,
        done=s.done | ~_can_win(live, finished, max_lengths, alpha) | (s.step + 1 >= max_lengths),
        record=record,
        cache=_reorder(cache, parents),
    )


def _reorder(cache: Cache, parents: Array) -> Cache:
    """Each place takes the cache of the hypothesis that it continues."""
    if parents.shape[1] == 1:
        return cache

    def gather(x: Array) -> Array:
        return jnp.take_along_axis(x, parents.reshape(*parents.shape, *[1] * (x.ndim - 2)), 1)

    return jax.tree.map(gather, cache)


def _merge(
    finished: _Finished,
    totals: Array,
    parents: Array,
    ends: Array,
    length: Array,
    alpha: float | Array,
) -> _Finished:
    """The W best of those that finished before and those that end now."""
    totals = jnp.where(ends, totals, -jnp.inf)
    new = _Finished(
        totals / length_penalty(length, alpha),
        totals,
        jnp.full_like(parents, length),
        parents,
    )
    both = _Finished(*(jnp.concatenate(pair, 1) for pair in zip(finished, new, strict=True)))
    _, order = jax.lax.top_k(both.scores, finished.scores.shape[1])
    return _Finished(*(jnp.take_along_axis(x, order, 1) for x in both))


def _can_win(live: Array, finished: _Finished, max_lengths: Array, alpha: float | Array) -> Array:
    """Whether there is a live hypothesis that may yet reach the worst of W finished ones: bool [B].

    A log-probability only falls, and the penalty divides it by at most that of the limit.
    """
    return live.max(1) / length_penalty(max_lengths, alpha) > finished.scores[:, -1]


def _collect(end: _State, max_lengths: Array, alpha: float | Array) -> SearchResult:
    """Ended hypotheses first, then live ones; each path from its last step to its first."""
    beams = end.live.shape[1]
    steps = jnp.minimum(max_lengths, end.step)[:, None]  # a cut hypothesis is as long as its limit
    cut = _Finished(
        end.live / length_penalty(steps, alpha),
        end.live,
        jnp.broadcast_to(steps, end.live.shape),
        jnp.broadcast_to(jnp.arange(beams), end.live.shape),
    )
    both = _Finished(*(jnp.concatenate(pair, 1) for pair in zip(end.finished, cut, strict=True)))
    has_ended = jnp.arange(2 * beams) < beams
    tier = jnp.where(both.scores == -jnp.inf, 2, jnp.where(has_ended, 0, 1))
    order = jnp.lexsort((-both.scores, tier), axis=1)[:, :beams]
    best = _Finished(*(jnp.take_along_axis(x, order, 1) for x in both))
    tokens, attention = _follow(end.record, best, order < beams)
    usable = best.scores > -jnp.inf
    lengths = jnp.where(usable, best.lengths, 0)
    tokens = jnp.where(usable[..., None], tokens, PAD)
    return SearchResult(tokens, best.scores, best.log_probs, lengths, attention)


def _follow(record: _Record, paths: _Finished, with_eos: Array) -> tuple[Array, Array | None]:
    """Follows back-pointers: tokens [B, W, T] and attention [B, W, T, M, S].

    `place` is where a path stands among the live hypotheses after step t; an finished path's last
    token is the EOS that follows the parent itself.
    """
    steps = record.tokens.shape[0]

    def back(place: Array, x: tuple[Array, _Record]) -> tuple[Array, tuple[Array, Array | None]]:
        t, made = x
        on_path = t < paths.lengths
        is_eos = with_eos & (t == paths.lengths - 1)
        token = jnp.take_along_axis(made.tokens, place, 1)
        token = jnp.where(on_path, jnp.where(is_eos, EOS, token), PAD)
        came_from = jnp.take_along_axis(made.parents, place, 1)
        before = jnp.where(on_path & ~is_eos, came_from, place)
        attention = made.attention
        if attention is not None:
            attention = jnp.take_along_axis(attention, before[..., None, None], 1)
            attention = jnp.where(on_path[..., None, None], attention, 0)
        return before, (token, attention)

    _, (tokens, attention) = jax.lax.scan(
        back, paths.parents, (jnp.arange(steps), record), reverse=True
    )
    if attention is not None:
        attention = jnp.moveaxis(attention, 0, 2)
    return jnp.moveaxis(tokens, 0, 2), attention
