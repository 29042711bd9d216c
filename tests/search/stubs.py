"""A model without parameters: logits are a table row picked by the prefix.

Its memory is a number a sentence, its cache a hash of the tokens so far; so a search that mixes up
sentences, places or parents reads the wrong row.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from encdec.types import DecodeStep, SpecialIds

SPECIALS = SpecialIds(pad=4, start=2, end=0, unknown=5)
"""Not the usual ones: a search that knows ids by heart fails."""
PAD, BOS, EOS, UNK = SPECIALS
BANNED = (PAD, BOS)
ROWS, S, M = 211, 3, 2
_TIMES = 31


class Table(NamedTuple):
    """logits: float32 [ROWS, V]; attention: float32 [ROWS, M, S]."""

    logits: np.ndarray
    attention: np.ndarray

    @property
    def step(self) -> DecodeStep:
        """The table as a model."""

        def step(memory, cache, tokens):
            row = (cache * _TIMES + tokens + memory[:, None]) % ROWS
            return jnp.asarray(self.logits)[row], jnp.asarray(self.attention)[row], row

        return step

    def row(self, sentence: int, prefix: list[int]) -> int:
        """The row that the next token of a prefix (without BOS) is drawn from."""
        row = 0
        for token in [BOS, *prefix]:
            row = (row * _TIMES + token + sentence) % ROWS
        return row

    def log_probs(self, sentence: int, prefix: list[int]) -> np.ndarray:
        """Of the next token, float64 [V]; -inf for PAD and BOS."""
        logits = self.logits[self.row(sentence, prefix)].astype(np.float64)
        found = logits - np.log(np.exp(logits).sum())
        found[[PAD, BOS]] = -np.inf
        return found

    def total(self, sentence: int, tokens: list[int]) -> float:
        """Log-probability of a sentence."""
        return float(self.by_token(sentence, tokens, len(tokens)).sum())

    def by_token(self, sentence: int, tokens: list[int], length: int) -> np.ndarray:
        """Log-probability of each token given those before it, then zeros: float64 [length]."""
        gains = [self.log_probs(sentence, tokens[:t])[token] for t, token in enumerate(tokens)]
        return np.pad(gains, (0, length - len(tokens)))


def table(vocabulary: int, seed: int = 0, *, spread: float = 2.0, eos: float = 0.0) -> Table:
    """A random table. The larger `eos`, the sooner sentences end."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (ROWS, vocabulary)).astype(np.float32)
    logits[:, EOS] += eos
    return Table(logits, rng.random((ROWS, M, S)).astype(np.float32))


@jax.tree_util.register_static
@dataclass(frozen=True)
class Empty:
    """Makes the cache of hypotheses without a token, whatever room it has; passes through jit."""

    rows: int
    beams: int

    def __call__(self, room: int) -> jax.Array:
        return jnp.zeros((self.rows, self.beams), jnp.int32)


def start(sentences: list[int], beams: int) -> tuple[jax.Array, Empty]:
    """The memory of some sentences, and what makes their cache."""
    return jnp.asarray(sentences), Empty(len(sentences), beams)
