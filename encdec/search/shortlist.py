"""A search in which each sentence has a shortlist of the tokens that its translation may have.

Inside such a search a token is a number: its place in the shortlist of its sentence. Special tokens
are first in every shortlist, so that their numbers are the same for all sentences. What says
something about tokens is renumbered before the search, and what it finds is given back as ids.

Log-probabilities are normalised over the shortlist, as in other engines. A shortlist is that of a
sentence, not of its batch, so that no translation depends on what is translated together with it.

Axes: see `encdec.types`; K tokens of a shortlist, which is int32 [B, K], -1 after its tokens.
"""

from dataclasses import field

import jax.numpy as jnp

from encdec.search.interface import History, Processor, State
from encdec.search.loop import Search
from encdec.search.loop import State as SearchState
from encdec.search.phrases import Automata, WordEdges
from encdec.search.processors import BannedPhrases, MinLength, NoRepeatNgram, RepetitionPenalty
from encdec.search.truncation import EpsilonCutoff, Temperature, TopK, TopP
from encdec.search.types import SearchResult
from encdec.types import Array, Cache, DecodeStep, Memory, SpecialIds

_ABSENT = -3
"""The number of a token that is not in the shortlist; it is none of the marks -1 and -2."""
_ANY_NUMBERS = (NoRepeatNgram, RepetitionPenalty, Temperature, TopK, TopP, EpsilonCutoff)
"""Rules that know no token by its id."""


def special_numbers(specials: SpecialIds) -> SpecialIds:
    """The numbers of the special tokens, which are first in a shortlist, by their ids."""
    ids = sorted({*specials})
    return SpecialIds(*map(ids.index, specials))


def numbers(shortlist: Array, ids: Array) -> Array:
    """The numbers of ids, int32 [B, ...], or [1, ...] for all sentences: int32 [B, ...].

    A negative id is a mark, which stays; an id that is not in the shortlist has the number -3.
    """
    rows, shape = shortlist.shape[0], ids.shape[1:]
    flat = jnp.broadcast_to(ids, (rows, *shape)).reshape(rows, -1)
    is_it = flat[..., None] == shortlist[:, None]  # [B, n, K]
    place = jnp.where(is_it.any(-1), is_it.argmax(-1), _ABSENT)
    return jnp.where(flat < 0, flat, place).astype(jnp.int32).reshape(rows, *shape)


def ids_of(shortlist: Array, numbers: Array) -> Array:
    """The ids of numbers, int32 [B, ...]; -1 for a number without a token."""
    flat = numbers.reshape(numbers.shape[0], -1)
    return jnp.take_along_axis(shortlist, flat, 1).reshape(numbers.shape)


def renumbered_step(step: DecodeStep, shortlist: Array) -> DecodeStep:
    """A step that is given numbers, of one that is given ids; both return logits [B, W, K]."""

    def renumbered(memory: Memory, cache: Cache, tokens: Array) -> tuple[Array, Array, Cache]:
        return step(memory, cache, ids_of(shortlist, tokens))

    return renumbered


def renumbered_automata(automata: Automata | None, shortlist: Array) -> Automata | None:
    """Automata that read numbers. Arcs of tokens that are not in the shortlist are never taken."""
    if automata is None:
        return None
    return automata._replace(
        token=numbers(shortlist, automata.token), following=numbers(shortlist, automata.following)
    )


def edges_of(edges: WordEdges | None, shortlist: Array) -> WordEdges | None:
    """The edges of the words in each shortlist: bool [B, K] each, of bool [V]."""
    return None if edges is None else WordEdges(*(x[shortlist] for x in map(jnp.asarray, edges)))


def renumbered_rule(rule: Processor, shortlist: Array, end: int, vocabulary: int) -> Processor:
    """A rule for a search among numbers.

    Args:
      rule: one of `encdec.search.processors.from_options`, or a caller's own.
      shortlist: of each sentence.
      end: number of the end token.
      vocabulary: V.
    """
    if isinstance(rule, MinLength):
        return MinLength(rule.length, jnp.int32(end))
    if isinstance(rule, BannedPhrases):
        return BannedPhrases(numbers(shortlist, jnp.asarray(rule.phrases)))
    return rule if isinstance(rule, _ANY_NUMBERS) else OfIds(rule, shortlist, vocabulary)


class OfIds(Processor):
    """A caller's rule, which gets ids and the log-probabilities of all V tokens, -inf for those
    that are not in the shortlist.

    Attributes:
      rule: the rule.
      shortlist: of each sentence.
      vocabulary: V.
    """

    rule: Processor
    shortlist: Array
    vocabulary: int = field(metadata={"static": True})

    def init(self, history: History) -> State:
        return self.rule.init(self._with_ids(history))

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        rows, beams = log_probs.shape[:2]
        is_token = self.shortlist >= 0
        # What is out of range is dropped.
        ids = jnp.where(is_token, self.shortlist, self.vocabulary)[:, None]  # [B, 1, K]
        b, w = jnp.arange(rows)[:, None, None], jnp.arange(beams)[None, :, None]
        everywhere = jnp.full((rows, beams, self.vocabulary), -jnp.inf)
        everywhere = everywhere.at[b, w, ids].set(log_probs, mode="drop")
        state, everywhere = self.rule(state, everywhere, self._with_ids(history))
        chosen = jnp.take_along_axis(everywhere, jnp.maximum(self.shortlist, 0)[:, None], 2)
        return state, jnp.where(is_token[:, None], chosen, -jnp.inf)

    def _with_ids(self, history: History) -> History:
        return history._replace(tokens=ids_of(self.shortlist, history.tokens))


def found_ids(search: Search, shortlist: Array, pad: int) -> Search:
    """The search with ids in what it finds; `pad` is the id of padding."""

    def ids(tokens: Array) -> Array:
        # A place without a hypothesis may have any number.
        return jnp.where((found := ids_of(shortlist, tokens)) < 0, pad, found)

    def result(s: SearchState) -> SearchResult:
        found = search.result(s)
        return found._replace(tokens=ids(found.tokens))

    return search._replace(result=result, so_far=lambda s: ids(search.so_far(s)))
