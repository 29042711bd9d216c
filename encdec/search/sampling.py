"""Searches that never look back: they take the likeliest token at each step, or draw one.

Axes: see `encdec.types`; W counts the draws of a sentence.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from encdec.ops.selection import argmax, without
from encdec.search.interface import History, Processor, State, init_states, process
from encdec.search.loop import InitCache, Search, no_attention, whole
from encdec.search.types import NO_PENALTY, LengthPenalty, SearchResult, log_probs
from encdec.types import Array, Cache, DecodeStep, Memory, SpecialIds

Choose = Callable[[Array, Array], Array]
"""(logits, or log-probabilities after processors, [B, W, V]; step int32 []) -> tokens [B, W]."""


class _State(NamedTuple):
    """The loop's state after `step` tokens.

    `log_probs` and `scores` [B, W] are the sums of log-probabilities under the model and after
    processors; without processors the two are the same and `scores` is None. `token_log_probs`
    [B, W, T] are those under the model.
    """

    step: Array
    last: Array
    done: Array
    tokens: Array
    log_probs: Array
    token_log_probs: Array
    scores: Array | None
    attention: Array | None
    lengths: Array
    processor_states: tuple[State, ...]
    cache: Cache


def greedy_parts(
    step: DecodeStep,
    memory: Memory,
    init_cache: InitCache,
    max_lengths: Array,
    *,
    max_len: int,
    specials: SpecialIds,
    banned: Sequence[int] = (),
    penalty: LengthPenalty = NO_PENALTY,
    processors: Sequence[Processor] = (),
    with_attention: bool = False,
) -> Search:
    """Takes the likeliest token at each step.

    Args:
      step: the model.
      memory: of B sentences.
      init_cache: makes the cache of one hypothesis for each sentence, with no token yet.
      max_lengths: int32 [B], the most tokens that a sentence may have, the end token included.
      max_len: static; the largest of these limits that there can be.
      specials: static; ids of the target vocabulary.
      banned: static; ids that no hypothesis holds.
      penalty: what scores are divided by.
      processors: what acts on the log-probabilities before the choice, in this order.
      with_attention: static; return the attention too.
    """

    def choose(ranked: Array, _: Array) -> Array:
        return argmax(ranked, banned)

    return _parts(
        choose,
        step,
        memory,
        init_cache,
        max_lengths,
        width=1,
        max_len=max_len,
        specials=specials,
        banned=banned,
        penalty=penalty,
        processors=processors,
        with_attention=with_attention,
    )


def sample_parts(
    step: DecodeStep,
    memory: Memory,
    init_cache: InitCache,
    max_lengths: Array,
    keys: Array,
    *,
    samples: int,
    max_len: int,
    specials: SpecialIds,
    banned: Sequence[int] = (),
    penalty: LengthPenalty = NO_PENALTY,
    processors: Sequence[Processor] = (),
    with_attention: bool = False,
    shortlist: Array | None = None,
    vocabulary: int = 0,
) -> Search:
    """Draws each token from the model's distribution, after processors.

    Processors need not normalise: a token is drawn in proportion to the exponential
    of its processed log-probability. They decide only what is drawn: scores are those of the model,
    or NaN if a processor returned NaN.
    The draws come in the order in which they are made, and the first ones are the same however
    many there are.

    Args:
      step, memory, max_lengths, max_len, specials, banned, penalty: as in `greedy`.
      processors, with_attention: as in `greedy`.
      init_cache: makes the cache of `samples` hypotheses for each sentence.
      keys: typed PRNG keys [B], one for each sentence: its draws do not depend on its batch.
      samples: static; W.
      shortlist: int32 [B, K], the ids that the K tokens stand for, which then decide with the keys
        what is drawn; None where the tokens are ids.
      vocabulary: static; the number of all ids, where there is a shortlist.
    """

    def choose(ranked: Array, step: Array) -> Array:
        def draw(key: Array, number: Array, log_probs: Array, ids: Array | None) -> Array:
            key = jax.random.fold_in(key, number)
            if ids is None:
                return jax.random.categorical(key, log_probs)
            # What `categorical` does, with the random number that each token has among all.
            noise = jax.random.gumbel(key, (vocabulary,))
            return jnp.argmax(log_probs + noise[ids])

        at_step = jax.vmap(lambda key: jax.random.fold_in(key, step))(keys)
        each = jax.vmap(jax.vmap(draw, (None, 0, 0, None)), (0, None, 0, 0))
        allowed = without(ranked, jnp.arange(ranked.shape[-1]), banned)
        return each(at_step, jnp.arange(samples), allowed, shortlist)

    parts = _parts(
        choose,
        step,
        memory,
        init_cache,
        max_lengths,
        width=samples,
        max_len=max_len,
        specials=specials,
        banned=banned,
        penalty=penalty,
        processors=processors,
        with_attention=with_attention,
    )

    def result(s: _State) -> SearchResult:
        drawn = parts.result(s)
        scores = drawn.log_probs / penalty(drawn.lengths)
        # `drawn.scores` has what was drawn from: NaN there means that nothing was drawn by chance.
        return drawn._replace(scores=jnp.where(jnp.isnan(drawn.scores), jnp.nan, scores))

    return parts._replace(result=result)


greedy, sample = whole("greedy", greedy_parts), whole("sample", sample_parts)


def _parts(
    choose: Choose,
    step: DecodeStep,
    memory: Memory,
    init_cache: InitCache,
    max_lengths: Array,
    *,
    width: int,
    max_len: int,
    specials: SpecialIds,
    banned: Sequence[int],
    penalty: LengthPenalty,
    processors: Sequence[Processor],
    with_attention: bool,
) -> Search:
    """Adds token after token until every sentence has its end token or is at its limit."""

    def start() -> _State:
        attention = None
        if with_attention:
            attention = no_attention(step, memory, init_cache, max_lengths, width, max_len)
        return _start(max_lengths, width, max_len, specials, processors, attention)

    def advance(s: _State) -> _State:
        logits, attended, cache = step(memory, s.cache, s.last)
        ranked, model_log_probs = logits.astype(jnp.float32), log_probs(logits, banned)
        if processors:
            history = History(s.tokens, s.step)
            states, ranked = process(
                processors, s.processor_states, model_log_probs, history, specials.end
            )
            s = s._replace(processor_states=states)
        chosen = choose(ranked, s.step).astype(jnp.int32)
        s = s._replace(cache=cache)
        return _advance(s, chosen, ranked, model_log_probs, attended, max_lengths, specials)

    def result(s: _State) -> SearchResult:
        totals = s.log_probs if s.scores is None else s.scores
        scores = totals / penalty(s.lengths)
        return SearchResult(
            s.tokens, scores, s.log_probs, s.token_log_probs, s.lengths, s.attention
        )

    def so_far(s: _State) -> Array:
        # The first draw, which may have ended while another goes on.
        first = s.tokens[:, 0]
        return jnp.where(first == specials.end, specials.pad, first)

    return Search(init_cache, start, advance, result, so_far, max_len)


def _start(
    max_lengths: Array,
    width: int,
    max_len: int,
    specials: SpecialIds,
    processors: Sequence[Processor],
    attention: Array | None,
) -> _State:
    """No token yet; a sentence that may have none is done."""
    rows = max_lengths.shape[0]
    nothing = jnp.full((rows, width, max_len), specials.pad, jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    return _State(
        step=zero,
        last=jnp.full((rows, width), specials.start, jnp.int32),
        done=jnp.broadcast_to(max_lengths[:, None] <= 0, (rows, width)),
        tokens=nothing,
        log_probs=jnp.zeros((rows, width)),
        token_log_probs=jnp.zeros((rows, width, max_len)),
        scores=jnp.zeros((rows, width)) if processors else None,
        attention=attention,
        lengths=jnp.zeros((rows, width), jnp.int32),
        processor_states=init_states(processors, History(nothing, zero)),
        cache=None,
    )


def _advance(
    s: _State,
    chosen: Array,
    ranked: Array,
    model_log_probs: Array,
    attended: Array,
    max_lengths: Array,
    specials: SpecialIds,
) -> _State:
    """Adds the token `chosen`, int32 [B, W], where a hypothesis goes on."""

    def gained(by_token: Array) -> Array:
        gain = jnp.take_along_axis(by_token, chosen[..., None], -1)[..., 0]
        return jnp.where(s.done, 0, gain)

    gain = gained(model_log_probs)
    token = jnp.where(s.done, specials.pad, chosen)
    attention = s.attention
    if attention is not None:
        attended = jnp.where(s.done[..., None, None], 0, attended)
        attention = attention.at[:, :, s.step].set(attended)
    length = s.step + 1
    return s._replace(
        step=length,
        last=token,
        done=s.done | (token == specials.end) | (length >= max_lengths[:, None]),
        tokens=s.tokens.at[:, :, s.step].set(token),
        log_probs=s.log_probs + gain,
        token_log_probs=s.token_log_probs.at[:, :, s.step].set(gain),
        scores=None if s.scores is None else s.scores + gained(ranked),
        attention=attention,
        lengths=jnp.where(s.done, s.lengths, length),
    )
