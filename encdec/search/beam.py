"""Beam search: W live hypotheses of each sentence at a time, finished ones apart (Graves 2012;
Sutskever 2014, section 3.2).

Each step records its tokens and back-pointers, and the paths of the best hypotheses are followed
back once, at the end.

Axes: see `encdec.types`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from encdec.search import phrases
from encdec.search.candidates import Candidates, Processed, Required, choose
from encdec.search.finished import Finished, Stop, may_improve, merge
from encdec.search.interface import History, Processor, init_states
from encdec.search.loop import InitCache, Search, map_hypotheses, no_attention, whole
from encdec.search.paths import Record, follow
from encdec.search.types import NO_PENALTY, LengthPenalty, SearchResult
from encdec.types import Array, Cache, DecodeStep, Memory, SpecialIds


class _State(NamedTuple):
    """The loop's state after `step` tokens.

    live: float32 [B, W], the sum of processed log-probabilities of the hypothesis in each place,
    -inf for none. cache, processed, progress: of the hypothesis in each place. done: bool [B].
    """

    step: Array
    last: Array
    live: Array
    finished: Finished
    done: Array
    record: Record
    cache: Cache
    processed: Processed | None
    progress: phrases.Progress | None


def beam_parts(
    step: DecodeStep,
    memory: Memory,
    init_cache: InitCache,
    max_lengths: Array,
    *,
    beams: int,
    max_len: int,
    specials: SpecialIds,
    banned: Sequence[int] = (),
    penalty: LengthPenalty = NO_PENALTY,
    stop: Stop = "never",
    processors: Sequence[Processor] = (),
    required: Required | None = None,
    with_attention: bool = False,
) -> Search:
    """Finds the W best hypotheses that a beam of W meets on its way.

    At each step the 2 W likeliest continuations of the live hypotheses are the candidates. Those
    among the first W that end have finished, and the W best of all that ever finished, by score,
    are kept. The first W candidates that do not end live on. At the maximum length the first W
    candidates count as finished whether they end or not: they are cut. With W = 1 and stop "first"
    this is greedy search; with W >= V^T it is exhaustive.

    A sentence is done at its maximum length or, once W hypotheses have finished, by `stop`:

    - never: when no live hypothesis can beat the worst of them. A total only falls, and the penalty
      divides it by at most that of the maximum length.
    - heuristic: when no live hypothesis would beat the worst of them if it ended as it is.
    - first: at once.

    Processors act on the log-probabilities before they are added up: likeliest, totals and scores
    are all of processed log-probabilities.

    With `required` the candidates are others, and not ordered by their totals only, see
    `encdec.search.phrases`; the rest is the same. A sentence without phrases has the hypotheses
    that it has without `required`.

    Args:
      step: the model.
      memory: of B sentences.
      init_cache: makes the cache of W hypotheses for each sentence, all with no token yet.
      max_lengths: int32 [B], the most tokens that a sentence may have, the end token included.
      beams: static; W.
      max_len: static; the largest of these limits that there can be.
      specials: static; ids of the target vocabulary.
      banned: static; ids that no hypothesis holds.
      penalty: what totals are divided by for a score.
      stop: static; see above.
      processors: what acts on the log-probabilities before the choice, in this order.
      required: phrases that each hypothesis contains. They fit: of a sentence that has some, its
        limit is at least the `reserved` and what a hypothesis without tokens needs.
      with_attention: static; return the attention of the paths too.
    """

    def start() -> _State:
        attention = None
        if with_attention:
            attention = no_attention(step, memory, init_cache, max_lengths, beams, max_len)
        first_state = _start(max_lengths, beams, max_len, specials, processors, attention)
        if required is None:
            return first_state
        return first_state._replace(progress=phrases.start(required.automata, beams))

    def advance(s: _State) -> _State:
        logits, attended, cache = step(memory, s.cache, s.last)
        processed, best = choose(
            s.live,
            logits.astype(jnp.float32),
            s.processed,
            s.progress,
            step=s.step,
            max_lengths=max_lengths,
            specials=specials,
            banned=banned,
            processors=processors,
            required=required,
        )
        s = s._replace(cache=cache, processed=processed)
        return _advance(s, best, attended, max_lengths, penalty, stop, specials)

    def result(s: _State) -> SearchResult:
        tokens, gains, attention = follow(s.record, s.finished, specials)
        best = s.finished
        return SearchResult(tokens, best.scores, best.log_probs, gains, best.lengths, attention)

    def so_far(s: _State) -> Array:
        # The live hypotheses, as if each had one token more.
        places = jnp.broadcast_to(jnp.arange(beams), s.live.shape)
        lengths = jnp.broadcast_to(s.step + 1, s.live.shape)
        paths = Finished(s.live, s.live, lengths, places, jnp.full_like(places, specials.pad))
        record = s.record._replace(attention=None)
        live, ended = (follow(record, each, specials)[0][:, 0] for each in (paths, s.finished))
        ended = jnp.where(ended == specials.end, specials.pad, ended)
        # One that has ended is shown once its score is above that of the likeliest one so far.
        is_better = s.finished.scores[:, 0] > s.live[:, 0] / penalty(s.step)
        return jnp.where(is_better[:, None], ended, live)

    return Search(init_cache, start, advance, result, so_far, max_len)


beam_search = whole("beam_search", beam_parts)


def _start(
    max_lengths: Array,
    beams: int,
    max_len: int,
    specials: SpecialIds,
    processors: Sequence[Processor],
    attention: Array | None,
) -> _State:
    """One live hypothesis for each sentence: all W begin alike, so only the first one counts.

    A sentence that may have no token is done, and has the empty hypothesis.
    """
    rows = max_lengths.shape[0]
    nothing = jnp.zeros((rows, beams, max_len), jnp.int32)
    none = jnp.full((rows, beams), -jnp.inf)
    integers = jnp.zeros((rows, beams), jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    processed = None
    if processors:
        tokens = jnp.full((rows, beams, max_len), specials.pad, jnp.int32)
        states = init_states(processors, History(tokens, zero))
        processed = Processed(tokens, jnp.zeros((rows, beams)), states)
    done = max_lengths <= 0
    empty = none.at[:, 0].set(jnp.where(done, 0, -jnp.inf))
    return _State(
        step=zero,
        last=jnp.full((rows, beams), specials.start, jnp.int32),
        live=none.at[:, 0].set(0),
        finished=Finished(empty, empty, integers, integers, integers),
        done=done,
        record=Record(nothing, nothing, nothing.astype(jnp.float32), attention),
        cache=None,
        processed=processed,
        progress=None,
    )


def _advance(
    s: _State,
    best: Candidates,
    attended: Array,
    max_lengths: Array,
    penalty: LengthPenalty,
    stop: Stop,
    specials: SpecialIds,
) -> _State:
    """Adds one token to every live hypothesis."""
    beams, processed = s.live.shape[1], s.processed
    length = s.step + 1
    ends = best.tokens == specials.end
    at_limit = (length >= max_lengths)[:, None]
    is_first = jnp.arange(ends.shape[1]) < beams
    finishes = (ends | at_limit) & is_first & ~s.done[:, None]
    finished = merge(s.finished, best, finishes, length, penalty)
    # The first W that do not end, in their order.
    _, order = jax.lax.top_k(jnp.where(ends, -ends.shape[1], -jnp.arange(ends.shape[1])), beams)

    # A sentence that is done no longer changes, so that its paths can be followed from the end.
    def unless_done(new: Array, old: Array | int) -> Array:
        done = s.done.reshape(-1, *[1] * (new.ndim - 1))
        return jnp.where(done, old, new)

    go_on = jnp.where(ends, -jnp.inf, best.totals)
    live = unless_done(jnp.take_along_axis(go_on, order, 1), s.live)
    same_place = jnp.broadcast_to(jnp.arange(beams), live.shape)
    tokens = unless_done(jnp.take_along_axis(best.tokens, order, 1), specials.pad)
    parents = unless_done(jnp.take_along_axis(best.parents, order, 1), same_place)
    # Now caches and processor states move to the new places of their hypotheses.
    cache, processed = _reorder((s.cache, processed), parents)
    sums = live
    if processed is not None:
        sums = jnp.take_along_axis(best.log_probs, order, 1)
        sums = unless_done(sums, processed.log_probs)
        all_tokens = processed.tokens.at[:, :, s.step].set(tokens)
        processed = processed._replace(tokens=all_tokens, log_probs=sums)
    progress = s.progress
    if progress is not None:
        chosen = jax.tree.map(lambda x: jnp.take_along_axis(x, order[..., None], 1), best.progress)
        progress = jax.tree.map(unless_done, chosen, progress)
    improves = may_improve(live, finished, length, max_lengths, penalty, stop)
    return _State(
        step=length,
        last=tokens,
        live=live,
        finished=finished,
        done=s.done | ~improves | at_limit[:, 0],
        record=_recorded(s, tokens, parents, sums, attended),
        cache=cache,
        processed=processed,
        progress=progress,
    )


def _recorded(s: _State, tokens: Array, parents: Array, sums: Array, attended: Array) -> Record:
    """The record with one more token; all [B, W], `attended` [B, W, M, S]."""
    attention = s.record.attention
    if attention is not None:
        attention = attention.at[:, :, s.step].set(attended)
    return Record(
        s.record.tokens.at[:, :, s.step].set(tokens),
        s.record.parents.at[:, :, s.step].set(parents),
        s.record.log_probs.at[:, :, s.step].set(sums),
        attention,
    )


def _reorder(tree: Any, parents: Array) -> Any:
    """Each place takes what belongs to the hypothesis that it continues; leaves [B, W, ...].

    `Kept` stays.
    """
    if parents.shape[1] == 1:
        return tree

    # One index for each place, so that whole hypotheses are copied.
    rows, beams = parents.shape
    places = (parents + jnp.arange(rows)[:, None] * beams).reshape(-1)

    def gather(x: Array) -> Array:
        flat = x.reshape(rows * beams, *x.shape[2:])
        return jnp.take(flat, places, 0, mode="clip").reshape(x.shape)

    return map_hypotheses(gather, tree)
