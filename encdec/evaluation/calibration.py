"""Calibration: whether a fraction p of the tokens that a model gives the probability p is right.

The tokens are those of the model's own translations (inference calibration, Wang 2020), since these
are what a person has in hand. A token is right if the shortest edit of the translation to its
reference (Levenshtein 1966) keeps it. A good translation may use other words than its reference, so
this underestimates how many tokens are right, the more so the freer the task.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 10
"""Ranges of probability, all of one width."""


@dataclass(frozen=True)
class ConfidenceBin:
    """The tokens whose probability is in a range.

    Attributes:
      low, high: the range.
      tokens: their number.
      confidence: the mean of their probabilities.
      accuracy: the fraction that is right.
    """

    low: float
    high: float
    tokens: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The ranges that have tokens, from low to high."""

    bins: tuple[ConfidenceBin, ...]

    @property
    def error(self) -> float:
        """Expected calibration error (Guo 2017, equation 3), 0 to 1; 0 where there are no tokens.

        ECE = sum over bins m of |B_m| / n * |accuracy(B_m) - confidence(B_m)|.
        """
        gaps = [one.tokens * abs(one.accuracy - one.confidence) for one in self.bins]
        return sum(gaps) / max(sum(one.tokens for one in self.bins), 1)

    def summary(self) -> list[dict[str, Any]]:
        """The bins as JSON objects."""
        return [vars(one) for one in self.bins]

    def report(self) -> str:
        """The bins as a table, above it the error."""
        head = f"  calibration error of tokens (ECE)  {self.error:.4f}"
        rows = [
            f"  {one.low:.1f} to {one.high:.1f}  {one.tokens:>9,}  {one.confidence:>15.3f}"
            f"  {one.accuracy:>16.3f}"
            for one in self.bins
        ]
        titles = "  probability  tokens       their mean  in the reference"
        return "\n".join([head, titles, *rows])


def calibration(probabilities: np.ndarray, is_right: np.ndarray) -> Calibration:
    """Sorts tokens into bins.

    Args:
      probabilities: float [n].
      is_right: bool [n].
    """
    places = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    bins = []
    for place in np.unique(places):
        inside = places == place
        confidence = probabilities[inside].mean(dtype=float)
        right = is_right[inside].mean(dtype=float)
        bins.append(
            ConfidenceBin(
                place / BINS, (place + 1) / BINS, int(inside.sum()), float(confidence), float(right)
            )
        )
    return Calibration(tuple(bins))


def kept_tokens(tokens: Sequence[int], references: Iterable[Sequence[int]]) -> np.ndarray:
    """Which tokens the shortest edit to the nearest reference keeps: bool [T]."""
    from rapidfuzz.distance import Levenshtein

    edits = (Levenshtein.opcodes(tokens, reference) for reference in references)
    kept = np.zeros(len(tokens), bool)
    nearest = min(edits, key=lambda one: sum(max(_sizes(op)) for op in one if op.tag != "equal"))
    for op in nearest:
        if op.tag == "equal":
            kept[op.src_start : op.src_end] = True
    return kept


def _sizes(op: Any) -> tuple[int, int]:
    """The tokens that an edit takes, and those that it puts in their place."""
    return op.src_end - op.src_start, op.dest_end - op.dest_start
