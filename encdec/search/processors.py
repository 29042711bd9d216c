"""The rules of the search that users choose by an option; `encdec.search.interface` is their hook.

To add one, write its class here, its field in `SearchOptions`, and its line in `from_options`.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from encdec.config.search import SearchOptions
from encdec.search.automata import ANY
from encdec.search.interface import History, Processor, State
from encdec.search.phrases import Automata, WordEdges, next_states
from encdec.search.truncation import EpsilonCutoff, Temperature, TopK, TopP
from encdec.types import Array, SpecialIds

_ANY = -1
"""In a table of tokens: no token, so that anything fits; no id is negative."""


def from_options(
    options: SearchOptions,
    specials: SpecialIds,
    banned: Sequence[Sequence[int]] = (),
    custom: Sequence[Processor] = (),
) -> tuple[Processor, ...]:
    """The processors of the search options; an option at its default adds none.

    Processors that forbid tokens come first, then those of the caller, then those that change the
    entire distribution: top-k and top-p choose from the tokens that are left.
    `encdec.search.methods` adds what belongs to sentences: banned texts at the beginning, and what
    is forced at the end, which overrides all others.

    Args:
      options: how to search.
      specials: of the target vocabulary.
      banned: the ids of each of `options.ban_ids`.
      custom: processors of the caller.
    """
    chosen: list[Processor] = []
    if options.min_length > 1:
        chosen.append(MinLength(np.int32(options.min_length), np.int32(specials.end)))
    if options.ban_unknown:
        banned = [*banned, [specials.unknown]]
    if banned:
        chosen.append(BannedPhrases(_right_aligned(banned)[None]))
    if options.no_repeat_ngram:
        chosen.append(NoRepeatNgram(np.int32(options.no_repeat_ngram)))
    if options.repetition_penalty != 1:
        chosen.append(RepetitionPenalty(np.float32(options.repetition_penalty)))
    chosen += custom
    if options.temperature != 1:
        chosen.append(Temperature(np.float32(options.temperature)))
    if options.top_k:
        chosen.append(TopK(options.top_k))
    if options.top_p < 1:
        chosen.append(TopP(np.float32(options.top_p), np.float32(1 - options.top_p)))
    if options.epsilon_cutoff:
        chosen.append(EpsilonCutoff(np.float32(options.epsilon_cutoff)))
    return tuple(chosen)


class MinLength(Processor):
    """No hypothesis ends before it has `length` tokens, the end token included (int32 [])."""

    length: Array | np.int32
    end: Array | np.int32

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        is_end = jnp.arange(log_probs.shape[-1]) == self.end
        too_early = history.length + 1 < self.length
        return state, jnp.where(is_end & too_early, -jnp.inf, log_probs)


class BannedPhrases(Processor):
    """No hypothesis contains one of N phrases.

    The last token of a phrase is forbidden where the tokens before it are those of the phrase.

    Attributes:
      phrases: int32 [B, N, P], or [1, N, P] for all sentences: each phrase in the last columns and
        -1 before it. A row that ends with a negative number is none.
    """

    phrases: Array | np.ndarray

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        before, last = self.phrases[:, None, :, :-1], self.phrases[:, None, :, -1]
        recent = history.latest(before.shape[3])[:, :, None]  # [B, W, 1, P - 1]
        matches = ((before == _ANY) | (before == recent)).all(-1)  # [B, W, N]
        return state, _forbid(log_probs, jnp.broadcast_to(last, matches.shape), matches)


class BannedTexts(Processor):
    """No hypothesis contains a text that its sentence must not contain, in whatever tokens.

    A token that would complete such a text is forbidden, even if it were to be a part of a longer
    word. The state is int32 [B, W, N], those of the automata.

    Attributes:
      automata: of N texts for each sentence.
      edges: of the vocabulary.
    """

    automata: Automata
    edges: WordEdges

    def init(self, history: History) -> State:
        rows, beams = history.tokens.shape[:2]
        return jnp.zeros((rows, beams, self.automata.left.shape[1]), jnp.int32)

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        before, tokens, after, left = self.automata[:4]
        read = next_states(self.automata, self.edges, state, history.last)
        state = jnp.where(history.length == 0, state, read)
        completes = jnp.take_along_axis(left, jnp.maximum(after, 0), 2) == 0  # [B, N, K]
        leaves = (before[:, None] == state[..., None]) | (before == ANY)[:, None]
        forbidden = leaves & completes[:, None]  # [B, W, N, K]
        tokens = jnp.broadcast_to(tokens[:, None], forbidden.shape)
        flat = (*log_probs.shape[:2], -1)
        return state, _forbid(log_probs, tokens.reshape(flat), forbidden.reshape(flat))


class NoRepeatNgram(Processor):
    """No sequence of `size` tokens comes twice in a hypothesis (Paulus 2018, section 2.5).

    The state is int32 [B, W, T]: how many of the tokens just before place i are also the
    hypothesis' latest tokens. Where they are size - 1 or more, the token at place i would complete
    a sequence for the second time.

    Attributes:
      size: int32 [], at least 1.
    """

    size: Array | np.int32

    def init(self, history: History) -> State:
        return jnp.zeros_like(history.tokens)

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        # same_t[i] = same_{t-1}[i-1] + 1 if y[i-1] = y[t-1], else 0.
        token_before = _shift_right(history.tokens, _ANY)
        is_last = token_before == history.last[..., None]
        same = jnp.where(is_last, _shift_right(state, 0) + 1, 0)
        repeats = (same >= self.size - 1) & history.is_token
        return same, _forbid(log_probs, history.tokens, repeats)


class RepetitionPenalty(Processor):
    """log p -> penalty * log p for every token that the hypothesis already has.

    Keskar 2019, section 4.1, on log-probabilities instead of logits, so that a penalty above 1
    always makes a token less likely. The result is not normalised again.

    Attributes:
      penalty: float32 [], above 0.
    """

    penalty: Array | np.float32

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        never = jnp.zeros(log_probs.shape, bool)
        is_token = jnp.broadcast_to(history.is_token, history.tokens.shape)
        seen = never.at[(*_places(never), history.tokens)].max(is_token)
        return state, jnp.where(seen, self.penalty * log_probs, log_probs)


class ForcedPrefix(Processor):
    """Each hypothesis begins with its sentence's prefix; then the search is free.

    A forced token is certain: its processed log-probability is 0.

    Attributes:
      prefix: int32 [B, P], tokens, then -1 where a sentence is free.
    """

    prefix: Array

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        forced = jnp.take(self.prefix, history.length, 1, mode="fill", fill_value=_ANY)
        forced = forced[:, None, None]
        certain = jnp.where(jnp.arange(log_probs.shape[-1]) == forced, 0.0, -jnp.inf)
        return state, jnp.where(forced == _ANY, log_probs, certain)


class ForcedEnd(Processor):
    """A hypothesis that reaches its limit has the end token as its last, with log-probability 0.

    Attributes:
      max_lengths: int32 [B], the most tokens of each sentence.
      end: int32 [], id of the end token.
    """

    max_lengths: Array
    end: Array | np.int32

    def __call__(self, state: State, log_probs: Array, history: History) -> tuple[State, Array]:
        certain = jnp.where(jnp.arange(log_probs.shape[-1]) == self.end, 0.0, -jnp.inf)
        is_last = (history.length + 1 >= self.max_lengths)[:, None, None]
        return state, jnp.where(is_last, certain, log_probs)


def _forbid(log_probs: Array, tokens: Array, where: Array) -> Array:
    """-inf for tokens int32 [B, W, N] where bool [B, W, N] says so; negative tokens are none."""
    values = jnp.where(where, -jnp.inf, jnp.inf)
    tokens = jnp.where(tokens < 0, log_probs.shape[-1], tokens)  # out of range, so dropped
    return log_probs.at[(*_places(log_probs), tokens)].min(values, mode="drop")


def _places(x: Array) -> tuple[Array, Array]:
    """Indices of all hypotheses [B, W, ...], to index x with a third: [B, 1, 1] and [1, W, 1]."""
    rows, beams = x.shape[:2]
    return jnp.arange(rows)[:, None, None], jnp.arange(beams)[None, :, None]


def _shift_right(x: Array, first: int) -> Array:
    """x [..., T] moved by one place, `first` at the beginning."""
    return jnp.pad(x[..., :-1], [(0, 0)] * (x.ndim - 1) + [(1, 0)], constant_values=first)


def _right_aligned(phrases: Sequence[Sequence[int]]) -> np.ndarray:
    """int32 [N, P], -1 before each phrase; N and P are powers of two, so that few shapes occur."""
    longest = max(map(len, phrases))
    rows, columns = (1 << (n - 1).bit_length() for n in (len(phrases), longest))
    table = np.full((rows, columns), _ANY, np.int32)
    for row, phrase in zip(table, phrases, strict=False):
        row[columns - len(phrase) :] = phrase
    return table
