"""Phrases that each hypothesis must contain, by dynamic beam allocation (Post and Vilar 2018; Hu
2019, section 3.1).

A hypothesis needs some number of tokens before it contains all phrases of its sentence. Hypotheses
that need as many as each other are one bank, and banks get places in the beam in turn, so that a
hypothesis which has paid for an unlikely phrase does not compete with one that has not.

Axes: see `encdec.types`; X hypotheses or candidates, C phrases of a sentence, K arcs and Q states
of an automaton, A alternative texts of a phrase.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from encdec.data.surfaces import Surfaces
from encdec.ops.selection import top_k
from encdec.search.automata import ANY, NOTHING, Automaton
from encdec.types import Array

_TOKEN_WORTH = 3.0
"""Nats: how much less likely a hypothesis may be for each further token of a phrase that it has."""


class Automata(NamedTuple):
    """Automata of B sentences, see `encdec.search.automata.Automaton`; -2 is padding.

    before, token, after: int32 [B, C, K]. left: int32 [B, C, Q]. following: int32 [B, C, Q, A].
    guarded: bool [B, C].
    """

    before: Array
    token: Array
    after: Array
    left: Array
    following: Array
    guarded: Array


class WordEdges(NamedTuple):
    """Of each token, see `encdec.data.surfaces.Surfaces`: bool [V] each; [B, K] with shortlists."""

    continues: Array
    ends_inside: Array


def word_edges(surfaces: Surfaces) -> WordEdges:
    """Those of a vocabulary, as NumPy arrays."""
    edges: tuple[Any, ...] = (surfaces.continues, surfaces.ends_inside)
    return WordEdges(*edges)


class Progress(NamedTuple):
    """What hypotheses have read of the phrases: states int32 [B, X, C], met bool [B, X, C]."""

    states: Array
    met: Array


class PhraseTable:
    """The automata of n sentences, as arrays of one shape for all batches.

    Args:
      rows: the automata of each sentence.
    """

    def __init__(self, rows: Sequence[Sequence[Automaton]]) -> None:
        self.rows = rows
        each = {id(one): one for row in rows for one in row}.values()

        def most(numbers: Iterable[int], least: int) -> int:
            """Rounded up to a power of two, so that few programs are compiled."""
            return max(least, 1 << (max(numbers, default=1) - 1).bit_length())

        self._count = most(map(len, rows), 1)
        self._arcs = most((len(one.arcs) for one in each), 32)
        self._states = most((len(one.left) for one in each), 16)
        self._alternatives = max((len(one.following[0]) for one in each), default=1)

    def batch(self, indices: Iterable[int], size: int) -> Automata | None:
        """NumPy arrays of some sentences and then padding, `size` rows; None if there is nothing.

        Args:
          indices: at most `size` sentences.
          size: B.
        """
        rows = [self.rows[i] for i in indices]
        if not any(rows):
            return None
        shape = (size, self._count)
        arcs = np.full((3, *shape, self._arcs), NOTHING, np.int32)
        left = np.zeros((*shape, self._states), np.int32)
        following = np.full((*shape, self._states, self._alternatives), NOTHING, np.int32)
        guarded = np.zeros(shape, bool)
        for b, row in enumerate(rows):
            for c, one in enumerate(row):
                states, alternatives = len(one.left), len(one.following[0])
                arcs[:, b, c, : len(one.arcs)] = np.array(one.arcs, np.int32).reshape(-1, 3).T
                left[b, c, :states] = one.left
                following[b, c, :states, :alternatives] = one.following
                guarded[b, c] = one.guarded
        packed: tuple[Any, ...] = (*arcs, left, following, guarded)
        return Automata(*packed)


def start(phrases: Automata, beams: int) -> Progress:
    """Of W hypotheses without a token; what is only padding is met."""
    rows, count, _ = phrases.left.shape
    shape = (rows, beams, count)
    is_padding = phrases.left[:, None, :, 0] == 0
    return Progress(jnp.zeros(shape, jnp.int32), jnp.broadcast_to(is_padding, shape))


def next_states(phrases: Automata, edges: WordEdges, states: Array, tokens: Array) -> Array:
    """The states after tokens int32 [B, X]: int32 [B, X, C]."""
    reads = phrases.token[:, None] == tokens[..., None, None]  # [B, X, C, K]
    before, after = phrases.before[:, None], phrases.after[:, None]
    own = jnp.where(reads & (before == states[..., None]), after, 0).max(-1)
    common = jnp.where(reads & (before == ANY), after, 0).max(-1)
    otherwise = _of_tokens(edges.ends_inside, tokens)[..., None].astype(jnp.int32)
    # An arc always leads to a state above 1.
    return jnp.where(own > 0, own, jnp.where(common > 0, common, otherwise))


def advance(phrases: Automata, edges: WordEdges, old: Progress, tokens: Array) -> Progress:
    """The progress of X candidates after one more token: int32 [B, X]."""
    states = next_states(phrases, edges, old.states, tokens)
    guarded = phrases.guarded[:, None]
    was_whole = _at(phrases.left, old.states) == 0
    confirmed = was_whole & ~_of_tokens(edges.continues, tokens)[..., None]
    is_whole = _at(phrases.left, states) == 0
    return Progress(states, old.met | jnp.where(guarded, confirmed, is_whole))


def missing(phrases: Automata, progress: Progress) -> Array:
    """Which phrases a hypothesis would lack if it ended now: bool [B, X, C]."""
    return ~progress.met & (_at(phrases.left, progress.states) > 0)


def needed(phrases: Automata, edges: WordEdges, progress: Progress) -> Array:
    """How many tokens add all phrases that a hypothesis lacks: int32 [B, X].

    Either the phrase that is completed first goes on from where it is, and the others are added in
    full; or all are added in full. A phrase that is whole, but may be a part of a longer word, is
    added again if the next token does not end the word.
    """
    left = _at(phrases.left, progress.states)
    lacks = missing(phrases, progress)
    whole = ~progress.met & ~lacks
    full = phrases.left[:, None, :, :2].max(-1)  # [B, 1, C]
    lost = jnp.where(whole, full, 0).sum(-1, keepdims=True)
    following = _at(phrases.following[..., 0], progress.states)
    ends_word = ~_of_tokens(edges.continues, following)
    all_in_full = jnp.where(lacks, full, 0).sum(-1, keepdims=True)
    by_first = all_in_full - full + left + jnp.where(ends_word, 0, lost)
    by_first = jnp.minimum(by_first, all_in_full)
    fewest = jnp.where(lacks, by_first, jnp.iinfo(jnp.int32).max).min(-1)
    return jnp.where(lacks.any(-1), fewest, 0)


class Offered(NamedTuple):
    """The continuations of X = W hypotheses that are considered, E for each, and their progress.

    gains: float32 [B, W, E], processed log-probability. tokens: int32 [B, W, E]. progress: of
    [B, W * E] hypotheses. needed: int32 [B, W, E]. strays: bool [B, W, E], whether a hypothesis
    would end here if it did not lack a phrase, and the token does not add to one.
    """

    gains: Array
    tokens: Array
    progress: Progress
    needed: Array
    strays: Array


def offer(
    phrases: Automata,
    edges: WordEdges,
    progress: Progress,
    ranked: Array,
    model_log_probs: Array,
    room: Array,
    end: int,
) -> Offered:
    """The likeliest W + 1 tokens of each hypothesis, and the next ones of the phrases it lacks.

    A hypothesis that lacks a phrase does not end. One that would need more than the `room` that is
    left is not considered. Where that and rules leave a hypothesis no token, the next tokens of its
    phrases, or else its end, have the model's own log-probability against all rules.

    Args:
      phrases, edges, progress: of the W hypotheses.
      ranked: float32 [B, W, V], processed log-probabilities.
      model_log_probs: float32 [B, W, V], the model's own.
      room: int32 [B], how many tokens a hypothesis may have after the next one, and needs for
        nothing else.
      end: id of the end token.
    """
    rows, beams, width = ranked.shape
    lacks = missing(phrases, progress)
    may_not_end = lacks.any(-1)
    would_end = may_not_end & (ranked[..., end] >= ranked.max(-1))
    is_end = jnp.arange(width) == end
    ranked = jnp.where(is_end & may_not_end[..., None], -jnp.inf, ranked)
    gains, tokens = top_k(ranked, min(beams + 1, width))
    # The next tokens of phrases, each token once.
    following = jnp.where(lacks[..., None], _at(phrases.following, progress.states), NOTHING)
    # Where to go on would make a whole phrase a part of a longer word: begin with a new word.
    has_whole = (~progress.met & ~lacks).any(-1, keepdims=True)
    anew = jnp.where(lacks & has_whole, phrases.following[:, None, :, 1, 0], NOTHING)
    following = jnp.concatenate([following.reshape(rows, beams, -1), anew], -1)  # [B, W, C A + C]
    gain = jnp.take_along_axis(ranked, jnp.maximum(following, 0), -1)
    is_likely = (tokens[:, :, None] == following[..., None]) & (gains[:, :, None] > -jnp.inf)
    is_earlier = jnp.tril(following[..., None] == following[..., None, :], -1)
    again = is_likely.any(-1) | is_earlier.any(-1)
    gain = jnp.where(again | (following < 0), -jnp.inf, gain)
    # At last the end, for a hypothesis that rules leave nothing else.
    ends = jnp.where(may_not_end, NOTHING, end)[..., None]
    additional = jnp.concatenate([following, ends], -1)
    gains = jnp.concatenate([gains, gain, jnp.full_like(gain[..., :1], -jnp.inf)], -1)
    tokens = jnp.concatenate([tokens, jnp.maximum(additional, 0)], -1)  # [B, W, E]
    each = gains.shape[-1]
    before = jax.tree.map(lambda x: jnp.repeat(x, each, 1), progress)
    after = advance(phrases, edges, before, tokens.reshape(rows, -1))
    needs = needed(phrases, edges, after).reshape(gains.shape)
    needs_now = needed(phrases, edges, progress)
    fits = needs <= jnp.maximum(room, 0)[:, None, None]
    gains = jnp.where(fits, gains, -jnp.inf)
    own = jnp.take_along_axis(model_log_probs, jnp.maximum(additional, 0), -1)
    is_twin = jnp.pad(is_earlier.any(-1), [(0, 0), (0, 0), (0, 1)])
    own = jnp.where((additional < 0) | is_twin, -jnp.inf, own)
    own = jnp.pad(own, [(0, 0), (0, 0), (each - own.shape[-1], 0)], constant_values=-jnp.inf)
    has_none = (gains == -jnp.inf).all(-1, keepdims=True)
    gains = jnp.where(has_none & fits, own, gains)
    strays = would_end[..., None] & (needs >= needs_now[..., None])
    return Offered(gains, tokens, after, needs, strays)


def in_turn(totals: Array, needs: Array, strays: Array, count: int) -> Array:
    """The `count` first candidates, int32 [B, count], where banks take turns.

    First come the best candidates of all banks, then the second best of all banks, and so on. Of
    those that come at once, one that has N more tokens of phrases comes first unless its total is
    N times `_TOKEN_WORTH` lower. Candidates that stray come last.

    Args:
      totals: float32 [B, X], -inf for a candidate that is none.
      needs: int32 [B, X], the bank of each candidate.
      strays: bool [B, X], see `Offered`.
      count: static.
    """
    shape = totals.shape
    places = jnp.broadcast_to(jnp.arange(shape[1]), shape)
    none = jnp.isneginf(totals)
    last = jnp.iinfo(jnp.int32).max
    banks = jnp.where(none, last, jnp.where(strays, last - 1, needs))
    ordered, costs, order = jax.lax.sort((banks, -totals, places), num_keys=2)
    is_first = jnp.concatenate([none[:, :1] | True, ordered[:, 1:] != ordered[:, :-1]], 1)
    rank = places - jax.lax.cummax(jnp.where(is_first, places, 0), 1)
    rank = jnp.where(ordered >= last - 1, shape[1] + ordered - last, rank)
    costs += _TOKEN_WORTH * jnp.take_along_axis(needs, order, 1).astype(costs.dtype)
    _, _, order = jax.lax.sort((rank, costs, order), num_keys=2)
    return order[:, :count]


def _of_tokens(edge: Array, tokens: Array) -> Array:
    """One of the edges of tokens [B, ...]: bool [B, ...]."""
    if edge.ndim == 1:
        return edge[tokens]
    flat = jnp.take_along_axis(edge, tokens.reshape(tokens.shape[0], -1), 1)
    return flat.reshape(tokens.shape)


def _at(x: Array, states: Array) -> Array:
    """x [B, C, Q, ...] at states [B, X, C]: [B, X, C, ...]."""
    rows, count = x.shape[:2]
    b, c = jnp.arange(rows)[:, None, None], jnp.arange(count)
    return x[b, c, states]
