"""Beam search: W hypotheses of each sentence at a time (Graves 2012; Sutskever 2014, section 3.2).

Live hypotheses and finished ones are kept apart. Each step records its tokens and back-pointers,
and the paths of the best hypotheses are followed back once, at the end.

Axes: see `encdec.types`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from encdec.search.interface import History, Processor, State, init_states, process
from encdec.search.types import SearchResult, length_penalty, log_probs
from encdec.types import Array, Cache, DecodeStep, Memory, SpecialIds


class _Finished(NamedTuple):
    """The W best hypotheses that have finished, best first; an unused place has score -inf.

    scores, log_probs: float32 [B, W]. lengths: int32 [B, W], the end token included. parents:
    int32 [B, W], the place in the beam of the hypothesis that the end token was added to, at step
    length - 1.
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


class _Processed(NamedTuple):
    """What processors need of each live hypothesis, kept only where there are processors.

    tokens: int32 [B, W, T], so far. log_probs: float32 [B, W], under the model. states: one for
    each processor.
    """

    tokens: Array
    log_probs: Array
    states: tuple[State, ...]


class _State(NamedTuple):
    """The loop's state after `step` tokens.

    live, finished_in_beam: float32 [B, W], the sum of processed log-probabilities of the hypothesis
    in each place of the beam: in `live` if it continues, in `finished_in_beam` if it has finished,
    and -inf in the other. cache, processed: of the hypothesis in each place.
    """

    step: Array
    last: Array
    live: Array
    finished_in_beam: Array
    finished: _Finished
    done: Array
    record: _Record
    cache: Cache
    processed: _Processed | None


class _Candidates(NamedTuple):
    """The W best of all continuations and of the finished hypotheses in the beam: each [B, W].

    totals: float32, sum of processed log-probabilities. log_probs: float32, sum under the model.
    continues: bool, whether it is a continuation: only then the others count. parents, tokens:
    int32, the place that it continues, and its new token.
    """

    totals: Array
    log_probs: Array
    continues: Array
    parents: Array
    tokens: Array


def beam_search(
    step: DecodeStep,
    memory: Memory,
    cache: Cache,
    max_lengths: Array,
    *,
    beams: int,
    max_len: int,
    specials: SpecialIds,
    alpha: float | Array = 0.0,
    processors: Sequence[Processor] = (),
    with_attention: bool = False,
) -> SearchResult:
    """Finds the W best hypotheses that a beam of W holds on its way.

    At each step the beam keeps the W likeliest of all continuations and of the hypotheses that have
    finished in it: a finished one keeps its place until W likelier ones push it out. Of all that
    ever finished in the beam, the W best by score are returned. A sentence is done when its beam
    has no live hypothesis, when no live one can still beat the worst of W finished ones, or at its
    maximum length. With W = 1 this is greedy search; with W >= V^T it is exhaustive. Places that
    no finished hypothesis takes go to live ones cut at the maximum length, after all finished ones.

    Processors act on the log-probabilities before they are added up: likeliest, totals and scores
    are all of processed log-probabilities.

    Args:
      step: the model.
      memory: of B sentences.
      cache: of W hypotheses for each sentence, all with no token yet.
      max_lengths: int32 [B], the most tokens that a sentence may have, the end token included.
      beams: static; W.
      max_len: static; the largest of these limits that there can be.
      specials: static; ids of the target vocabulary.
      alpha: exponent of the length penalty, at least 0.
      processors: what acts on the log-probabilities before the choice, in this order.
      with_attention: static; return the attention of the paths too.
    """
    start = _start(
        step, memory, cache, max_lengths, beams, max_len, specials, processors, with_attention
    )

    def body(s: _State) -> _State:
        return _advance(s, step, memory, max_lengths, alpha, specials, processors)

    end: Any = jax.lax.while_loop(lambda s: (s.step < max_len) & ~s.done.all(), body, start)
    return _collect(end, max_lengths, alpha, specials)


def _start(
    step: DecodeStep,
    memory: Memory,
    cache: Cache,
    max_lengths: Array,
    beams: int,
    max_len: int,
    specials: SpecialIds,
    processors: Sequence[Processor],
    with_attention: bool,
) -> _State:
    """One live hypothesis for each sentence: all W begin alike, so only the first one counts."""
    rows = max_lengths.shape[0]
    last = jnp.full((rows, beams), specials.start, jnp.int32)
    nothing = jnp.zeros((max_len, rows, beams), jnp.int32)
    attention = None
    if with_attention:
        shape = jax.eval_shape(step, memory, cache, last)[1].shape
        attention = jnp.zeros((max_len, *shape))
    none = jnp.full((rows, beams), -jnp.inf)
    integers = jnp.zeros((rows, beams), jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    processed = None
    if processors:
        tokens = jnp.full((rows, beams, max_len), specials.pad, jnp.int32)
        states = init_states(processors, History(tokens, zero))
        processed = _Processed(tokens, jnp.zeros((rows, beams)), states)
    return _State(
        step=zero,
        last=last,
        live=none.at[:, 0].set(0),
        finished_in_beam=none,
        finished=_Finished(none, none, integers, integers),
        done=max_lengths <= 0,
        record=_Record(nothing, nothing, attention),
        cache=cache,
        processed=processed,
    )


def _advance(
    s: _State,
    step: DecodeStep,
    memory: Memory,
    max_lengths: Array,
    alpha: float | Array,
    specials: SpecialIds,
    processors: Sequence[Processor],
) -> _State:
    """Adds one token to every live hypothesis."""
    logits, attended, cache = step(memory, s.cache, s.last)
    ranked = model_log_probs = log_probs(logits, specials)
    processed = s.processed
    if processed is not None:
        history = History(processed.tokens, s.step)
        states, ranked = process(
            processors, processed.states, model_log_probs, history, specials.end
        )
        processed = processed._replace(states=states)
    best = _best(s, ranked, model_log_probs)
    ends_now = best.continues & (best.tokens == specials.end)
    stays_live = best.continues & ~ends_now
    finished = _merge(s.finished, best, ends_now & ~s.done[:, None], s.step + 1, alpha)

    # A sentence that is done no longer changes, so that its paths can be followed from the end.
    def unless_done(new: Array, old: Array | int) -> Array:
        return jnp.where(s.done[:, None], old, new)

    live = unless_done(jnp.where(stays_live, best.totals, -jnp.inf), s.live)
    same_place = jnp.broadcast_to(jnp.arange(live.shape[1]), live.shape)
    tokens = unless_done(best.tokens, specials.pad)
    parents = unless_done(best.parents, same_place)
    # Now caches and processor states move to the new places of their hypotheses.
    cache, processed = _reorder((cache, processed), parents)
    if processed is not None:
        sums = unless_done(best.log_probs, processed.log_probs)
        so_far = processed.tokens.at[:, :, s.step].set(tokens)
        processed = processed._replace(tokens=so_far, log_probs=sums)
    attention = s.record.attention
    if attention is not None:
        attention = attention.at[s.step].set(attended)
    record = _Record(
        s.record.tokens.at[s.step].set(tokens), s.record.parents.at[s.step].set(parents), attention
    )
    in_beam = unless_done(jnp.where(stays_live, -jnp.inf, best.totals), s.finished_in_beam)
    return _State(
        step=s.step + 1,
        last=tokens,
        live=live,
        finished_in_beam=in_beam,
        finished=finished,
        done=s.done | ~_can_win(live, finished, max_lengths, alpha) | (s.step + 1 >= max_lengths),
        record=record,
        cache=cache,
        processed=processed,
    )


def _best(s: _State, ranked: Array, model_log_probs: Array) -> _Candidates:
    """The W best candidates for the beam, by the sum of `ranked` [B, W, V]."""
    rows, beams, width = ranked.shape
    totals = s.live[..., None] + ranked  # [B, W, V]
    best, places = jax.lax.top_k(totals.reshape(rows, -1), beams)
    # First the W finished hypotheses that hold a place, then the W best continuations.
    beam, chosen = jax.lax.top_k(jnp.concatenate([s.finished_in_beam, best], 1), beams)
    place = jnp.take_along_axis(places, jnp.maximum(chosen - beams, 0), 1)
    log_probs = beam
    if s.processed is not None:
        model_totals = s.processed.log_probs[..., None] + model_log_probs
        log_probs = jnp.take_along_axis(model_totals.reshape(rows, -1), place, 1)
    return _Candidates(beam, log_probs, chosen >= beams, place // width, place % width)


def _reorder(tree: Any, parents: Array) -> Any:
    """Each place takes what belongs to the hypothesis that it continues; leaves [B, W, ...]."""
    if parents.shape[1] == 1:
        return tree

    def gather(x: Array) -> Array:
        return jnp.take_along_axis(x, parents.reshape(*parents.shape, *[1] * (x.ndim - 2)), 1)

    return jax.tree.map(gather, tree)


def _merge(
    finished: _Finished, best: _Candidates, ends: Array, length: Array, alpha: float | Array
) -> _Finished:
    """The W best of those that finished before and those that end now."""
    totals = jnp.where(ends, best.totals, -jnp.inf)
    new = _Finished(
        totals / length_penalty(length, alpha),
        jnp.where(ends, best.log_probs, -jnp.inf),
        jnp.full_like(best.parents, length),
        best.parents,
    )
    both = _Finished(*(jnp.concatenate(pair, 1) for pair in zip(finished, new, strict=True)))
    _, order = jax.lax.top_k(both.scores, finished.scores.shape[1])
    return _Finished(*(jnp.take_along_axis(x, order, 1) for x in both))


def _can_win(live: Array, finished: _Finished, max_lengths: Array, alpha: float | Array) -> Array:
    """Whether a live hypothesis may still beat the worst of W finished ones: bool [B].

    A total only falls, and the penalty divides it by at most that of the limit.
    """
    return live.max(1) / length_penalty(max_lengths, alpha) > finished.scores[:, -1]


def _collect(
    end: _State, max_lengths: Array, alpha: float | Array, specials: SpecialIds
) -> SearchResult:
    """The best hypotheses: finished ones first, then live ones that are cut at the limit."""
    beams = end.live.shape[1]
    steps = jnp.minimum(max_lengths, end.step)[:, None]  # a cut hypothesis is as long as its limit
    log_probs = end.live if end.processed is None else end.processed.log_probs
    cut = _Finished(
        end.live / length_penalty(steps, alpha),
        log_probs,
        jnp.broadcast_to(steps, end.live.shape),
        jnp.broadcast_to(jnp.arange(beams), end.live.shape),
    )
    both = _Finished(*(jnp.concatenate(pair, 1) for pair in zip(end.finished, cut, strict=True)))
    has_ended = jnp.arange(2 * beams) < beams
    tier = jnp.where(both.scores == -jnp.inf, 2, jnp.where(has_ended, 0, 1))
    order = jnp.lexsort((-both.scores, tier), axis=1)[:, :beams]
    best = _Finished(*(jnp.take_along_axis(x, order, 1) for x in both))
    tokens, attention = _follow(end.record, best, order < beams, specials)
    usable = best.scores > -jnp.inf
    lengths = jnp.where(usable, best.lengths, 0)
    tokens = jnp.where(usable[..., None], tokens, specials.pad)
    log_probs = jnp.where(usable, best.log_probs, -jnp.inf)
    return SearchResult(tokens, best.scores, log_probs, lengths, attention)


def _follow(
    record: _Record, paths: _Finished, with_end: Array, specials: SpecialIds
) -> tuple[Array, Array | None]:
    """Follows back-pointers: tokens [B, W, T] and attention [B, W, T, M, S].

    `place` is where a path is in the beam after step t. The last token of a finished path is the
    end token, which follows the parent itself: the place does not change there.
    """
    steps = record.tokens.shape[0]

    def back(place: Array, x: tuple[Array, _Record]) -> tuple[Array, tuple[Array, Array | None]]:
        t, made = x
        on_path = t < paths.lengths
        is_end = with_end & (t == paths.lengths - 1)
        token = jnp.take_along_axis(made.tokens, place, 1)
        token = jnp.where(on_path, jnp.where(is_end, specials.end, token), specials.pad)
        came_from = jnp.take_along_axis(made.parents, place, 1)
        before = jnp.where(on_path & ~is_end, came_from, place)
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
