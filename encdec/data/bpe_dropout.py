"""Byte-pair encoding of a word in which merges are dropped at random (Provilkov 2020)."""

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush

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

    What happens to the pairs after the one that is joined does not matter, so a step looks at the
    pairs in the order of their merges until it keeps one. A word of n characters takes O(n log n)
    time, times 1 / (1 - dropout).

    Args:
      word: any text.
      ranks: the rank of each merge, by the subword that it makes.
      dropout: probability, 0 to 1; 0 is deterministic byte-pair encoding (Sennrich 2016).
      uniforms: random numbers in [0, 1); one is taken for each pair that a step looks at.
    """
    subwords, end = list(word), len(word)  # a subword is where its first character was
    after = [*range(1, end + 1)]  # where the next subword is, `end` behind the last
    before = [*range(-1, end - 1)]

    def rank(i: int) -> int | None:
        """The rank of the pair that begins at i; None if it is none or no merge joins it."""
        j = after[i]
        return ranks.get(subwords[i] + subwords[j]) if j < end else None

    pairs = [(r, i) for i in range(end) if (r := rank(i)) is not None]
    heapify(pairs)
    dropped: list[tuple[int, int]] = []
    while pairs:
        r, i = heappop(pairs)
        if not subwords[i] or rank(i) != r:  # one of its subwords has been joined since
            continue
        if next(uniforms) < dropout:
            dropped.append((r, i))
            continue
        j = after[i]
        subwords[i], subwords[j] = subwords[i] + subwords[j], ""
        after[i] = k = after[j]
        if k < end:
            before[k] = i
        for left in (before[i], i):
            if left >= 0 and (r := rank(left)) is not None:
                heappush(pairs, (r, left))
        # The next step draws again for those.
        for pair in dropped:
            heappush(pairs, pair)
        dropped.clear()
    return [subword for subword in subwords if subword]


def uniform(rng: np.random.Generator) -> Iterator[float]:
    """Yields random numbers in [0, 1) without end."""
    while True:
        yield from rng.random(_BLOCK).tolist()
