"""Byte pairs merged with some merges left out (Provilkov 2020)."""

from collections.abc import Iterator, Mapping
from operator import add

import numpy as np

_CHUNK = 256  # numbers drawn at once: one by one they would cost more than the merges


def merge(
    word: str, ranks: Mapping[str, int], dropout: float, chances: Iterator[float]
) -> list[str]:
    """A word's pieces: again and again the pair of the lowest rank becomes one, the left one first.

    Before each merge any pair is passed over with some chance, for that one merge; when all are,
    the word stays as it is (BPE-dropout: Provilkov 2020, algorithm 1).

    Args:
      word: any text, cut into characters at first.
      ranks: for each piece of two characters or more, its place in the order of merges.
      dropout: the chance, 0 to 1; 0 leaves the byte pairs of Sennrich 2016.
      chances: numbers in [0, 1), one for each pair that could be merged, at each merge.
    """
    parts = list(word)
    while True:
        joined = map(add, parts, parts[1:])
        known = ((ranks[pair], i) for i, pair in enumerate(joined) if pair in ranks)
        kept = [found for found in known if next(chances) >= dropout]
        if not kept:
            return parts
        _, i = min(kept)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def uniform(rng: np.random.Generator) -> Iterator[float]:
    """Numbers in [0, 1) without end."""
    while True:
        yield from rng.random(_CHUNK).tolist()
