"""Pairs of known tokens with natural lengths."""

import numpy as np

from encdec.data.tokens import Examples, tokens_of
from encdec.types import SpecialIds


def natural_lengths(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lengths like those of captions and their translations: int64 [n] twice.

    Long-tailed source lengths of mean 13, target lengths that follow them.
    """
    rng = np.random.default_rng(seed)
    source = np.clip(rng.gamma(8, 13 / 8, n).round().astype(int), 1, 50)
    target = np.clip(np.round(source * 1.1 + rng.normal(0, 1.5, n)).astype(int), 1, 60)
    return source, target


def natural(n: int, seed: int = 0) -> Examples:
    """n pairs of natural lengths; all tokens of pair i are 10 + i."""
    sides = natural_lengths(n, seed)
    sentences = ([[10 + i] * m for i, m in enumerate(side)] for side in sides)
    return Examples(*(tokens_of(side, SpecialIds()) for side in sentences))
