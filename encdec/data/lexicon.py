"""Which target tokens translate a source token: IBM model 1 (Brown 1993) of parallel text."""

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import numpy as np

_ITERATIONS = 5
_CHUNK = 4096
"""Pairs whose tokens are numbered at a time."""
MOST_CELLS = 1 << 26
"""The most pairs of a source and a target token in all sentences, which bounds memory: 8 bytes are
kept of each."""


class Lexicon(NamedTuple):
    """p(target token | source token), for tokens that come together in a pair of sentences.

    Attributes:
      source, target: int64 [n], the tokens, in the order of source and target. The source token
        after all others stands for none.
      probability: float64 [n]; for a source token they add up to 1.
      counts: int64 [target vocabulary], how often each target token was read.
      sentences: the pairs of sentences that were read.
    """

    source: np.ndarray
    target: np.ndarray
    probability: np.ndarray
    counts: np.ndarray
    sentences: int


class _Cells(NamedTuple):
    """All pairs of a source and a target token in some sentences.

    keys: int64, the source token times the number of target tokens, plus the target token; those of
    a target token's place are side by side. sizes: int32, how many these are for each place.
    """

    keys: np.ndarray
    sizes: np.ndarray


def learn_lexicon(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    src_vocabulary: int,
    tgt_vocabulary: int,
    most_cells: int = MOST_CELLS,
) -> Lexicon:
    """Learns a lexicon by expectation maximization.

    Each target token comes from any token of its source sentence, or from none, with the same
    probability: p(t | s) is the expected number of times that t comes from s, over that of all t.
    A source token that a sentence has several times counts once.

    Args:
      pairs: source and target tokens of each pair, int [n].
      src_vocabulary, tgt_vocabulary: the number of tokens of either side.
      most_cells: reading ends when sentences have so many pairs of tokens.
    """
    chunks: list[_Cells] = []
    sentences = cells = 0
    iterator = iter(pairs)
    while cells < most_cells and (some := [*islice(iterator, _CHUNK)]):
        chunks.append(_cells(some, src_vocabulary, tgt_vocabulary))
        sentences, cells = sentences + len(some), cells + len(chunks[-1].keys)
    keys = [np.unique(chunk.keys) for chunk in chunks]
    known = np.unique(np.concatenate([np.zeros(0, np.int64), *keys]))
    numbered = [(np.searchsorted(known, keys).astype(np.int32), sizes) for keys, sizes in chunks]
    source, target = np.divmod(known, tgt_vocabulary)
    probability = np.ones(len(known))
    for _ in range(_ITERATIONS):
        expected = np.zeros(len(known))
        for numbers, sizes in numbered:
            p = probability[numbers]
            of_place = np.add.reduceat(p, np.cumsum(sizes) - sizes)
            expected += np.bincount(numbers, p / np.repeat(of_place, sizes), len(known))
        probability = expected / np.bincount(source, expected)[source]
    counts = np.zeros(tgt_vocabulary, np.int64)
    for keys_of, _ in chunks:
        from_none = keys_of[keys_of >= src_vocabulary * tgt_vocabulary] % tgt_vocabulary
        counts += np.bincount(from_none, minlength=tgt_vocabulary)
    return Lexicon(source, target, probability, counts, sentences)


def _cells(pairs: list[tuple[np.ndarray, np.ndarray]], none: int, tgt_vocabulary: int) -> _Cells:
    """Those of some sentences, which have a target token; `none` stands for no source token."""
    keys: list[np.ndarray] = [np.zeros(0, np.int64)]
    sizes: list[np.ndarray] = [np.zeros(0, np.int32)]
    for source, target in pairs:
        tokens = np.append(np.unique(source), none).astype(np.int64)
        keys.append((tokens * tgt_vocabulary + np.asarray(target, np.int64)[:, None]).reshape(-1))
        sizes.append(np.full(len(target), len(tokens), np.int32))
    return _Cells(np.concatenate(keys), np.concatenate(sizes))
