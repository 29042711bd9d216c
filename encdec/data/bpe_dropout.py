"""Byte-pair encoding of a word in which merges are dropped at random (Provilkov 2020)."""

from collections.abc import Iterator, Mapping
from operator import add

import numpy as np

_BLOCK = 256
"""Random numbers that are generated at once: one at a time they would cost more than merging."""


def segment(
    word: str, ranks: Mapping[str, int], dropout: float, uniforms: Iterator[float]
) -> list[str]:
    """Splits a word into subwords by BPE-dropout (Provilkov 2020, algorithm 1).

    The word starts as single characters. In each step, each pair of neighbours that a merge could
    join is dropped with probability `dropout`, for that step only; of the others, the pair whose
    merge has the lowest rank is joined, the leftmost if there are several. The word is done when no
    pair is left, be it because all were dropped.

    Args:
      word: any text.
      ranks: the rank of each merge, by the subword that it makes.
      dropout: probability, 0 to 1; 0 is deterministic byte-pair encoding (Sennrich 2016).
      uniforms: random numbers in [0, 1); one is taken for each pair in each step.
    """
    subwords = list(word)
    while True:
        joined = map(add, subwords, subwords[1:])
        merges = ((ranks[pair], i) for i, pair in enumerate(joined) if pair in ranks)
        kept = [merge for merge in merges if next(uniforms) >= dropout]
        if not kept:
            return subwords
        _, i = min(kept)
        subwords[i : i + 2] = [subwords[i] + subwords[i + 1]]


def uniform(rng: np.random.Generator) -> Iterator[float]:
    """Yields random numbers in [0, 1) without end."""
    while True:
        yield from rng.random(_BLOCK).tolist()
