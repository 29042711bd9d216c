"""Metrics by source length: whether a system holds up on long sentences."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from encdec.evaluation.metrics import MetricOptions, Metrics, check_lengths, score
from encdec.types import InputError

BOUNDS = (10, 20, 30, 40, 50, 60)
"""Longest lengths of the classes but the last, which has no end."""


@dataclass(frozen=True)
class LengthBucket:
    """Metrics of the sentences whose sources have about one length.

    Attributes:
      shortest, longest: lengths in the class, both included; longest is None in the last.
      mean_length: of its sources.
      scores: of its sentences.
    """

    shortest: int
    longest: int | None
    mean_length: float
    scores: Metrics

    @property
    def label(self) -> str:
        """`11 to 20`, `11` where that is all, or `61 and more`."""
        if self.longest is None:
            return f"{self.shortest} and more"
        one = self.shortest == self.longest
        return f"{self.shortest}" if one else f"{self.shortest} to {self.longest}"

    def summary(self) -> dict[str, Any]:
        """One flat JSON object."""
        ends = {"from": self.shortest, "to": self.longest}
        return {**ends, "mean_length": self.mean_length, **self.scores.summary()}

    @classmethod
    def from_summary(cls, row: dict[str, Any]) -> Self:
        """The inverse of `summary`."""
        row = dict(row)
        ends = row.pop("from"), row.pop("to"), row.pop("mean_length")
        return cls(*ends, Metrics(**row))


def check_bounds(bounds: Sequence[int]) -> None:
    """Raises InputError unless there are bounds, above 0 and rising."""
    if not bounds or list(bounds) != sorted({bound for bound in bounds if bound > 0}):
        raise InputError(
            f"bounds = {' '.join(map(str, bounds)) or 'none'} cannot be used: lengths above 0 in "
            f"rising order can, such as {' '.join(map(str, BOUNDS))}"
        )


def by_length(
    hypotheses: Sequence[str],
    references: Sequence[str],
    source_lengths: Sequence[int],
    bounds: Sequence[int] = BOUNDS,
    options: MetricOptions | None = None,
    names: Iterable[str] = ("bleu",),
) -> list[LengthBucket]:
    """Metrics of each class of source lengths; classes without sentences are left out.

    Args:
      hypotheses, references: as many of each.
      source_lengths: of their sources, in words or whatever else the bounds count.
      bounds: the longest length of each class but the last.
      options, names: as in `score`.

    Raises:
      InputError: bounds do not rise, or see `score`.
    """
    check_bounds(bounds)
    check_lengths(hypotheses, references)
    lengths, names = np.asarray(source_lengths), tuple(names)
    if len(lengths) != len(references):
        raise InputError(f"{len(lengths)} source lengths but {len(references)} references")
    classes = np.searchsorted(bounds, lengths)  # the first bound not below the length
    found = []
    for c, (first, last) in enumerate(zip((-1, *bounds), (*bounds, None), strict=True)):
        rows = np.flatnonzero(classes == c).tolist()
        if rows:
            ours, theirs = ([side[i] for i in rows] for side in (hypotheses, references))
            scores = score(ours, theirs, options, names)
            found.append(LengthBucket(first + 1, last, float(lengths[rows].mean()), scores))
    return found


def word_counts(texts: Iterable[str]) -> list[int]:
    """How many words each text has, words being what white space separates."""
    return [len(text.split()) for text in texts]
