"""Metrics by source length, which show whether a system holds up on long sentences."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from encdec.evaluation.compute import Metrics, check_lengths, compute_metrics, several
from encdec.evaluation.options import MetricOptions
from encdec.types import InputError

BOUNDS = (10, 20, 30, 40, 50, 60)
"""The longest length of each bucket but the last, which has no bound."""


@dataclass(frozen=True)
class LengthBucket:
    """Metrics of the sentences whose source lengths lie in one range.

    Attributes:
      shortest, longest: the range, both ends included; longest is None in the last bucket.
      mean_length: mean length of the sources.
      metrics: of the sentences.
    """

    shortest: int
    longest: int | None
    mean_length: float
    metrics: Metrics

    @property
    def label(self) -> str:
        """`11 to 20`; `11` where the range is one length; `61 and more`."""
        if self.longest is None:
            return f"{self.shortest} and more"
        one = self.shortest == self.longest
        return f"{self.shortest}" if one else f"{self.shortest} to {self.longest}"

    def summary(self) -> dict[str, Any]:
        """All of it as one flat JSON object."""
        ends = {"from": self.shortest, "to": self.longest}
        return {**ends, "mean_length": self.mean_length, **self.metrics.summary()}

    @classmethod
    def from_summary(cls, row: dict[str, Any]) -> Self:
        """The inverse of `summary`."""
        return cls(row["from"], row["to"], row["mean_length"], Metrics.from_summary(row))


def check_bounds(bounds: Sequence[int]) -> None:
    """Raises InputError unless there are bounds, above 0 and rising."""
    if not bounds or list(bounds) != sorted({bound for bound in bounds if bound > 0}):
        raise InputError(
            f"bounds = {' '.join(map(str, bounds)) or 'none'} cannot be used: give lengths above 0 "
            f"in rising order, such as {' '.join(map(str, BOUNDS))}"
        )


def metrics_by_length(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    source_lengths: Sequence[int],
    bounds: Sequence[int] = BOUNDS,
    options: MetricOptions | None = None,
    names: Iterable[str] | None = ("bleu",),
    sources: Sequence[str] | None = None,
) -> list[LengthBucket]:
    """Metrics of each range of source lengths; ranges without sentences are left out.

    Args:
      hypotheses, references, options, names, sources: as in `compute_metrics`.
      source_lengths: lengths of the n sources, in the unit of the bounds (words, say).
      bounds: the longest length of each bucket but the last.

    Raises:
      InputError: the bounds do not rise, the lists differ in length, or see `compute_metrics`.
    """
    check_bounds(bounds)
    check_lengths(hypotheses, references, sources)
    names = None if names is None else tuple(several(names))
    if len(source_lengths) != len(hypotheses):
        raise InputError(f"{len(hypotheses)} translations but {len(source_lengths)} source lengths")
    rows_of: list[list[int]] = [[] for _ in range(len(bounds) + 1)]
    for row, length in enumerate(source_lengths):
        rows_of[bisect_left(bounds, length)].append(row)  # the first bound not below the length
    buckets = []
    for previous, longest, rows in zip((-1, *bounds), (*bounds, None), rows_of, strict=True):
        if rows:
            metrics = compute_metrics(
                [hypotheses[i] for i in rows],
                [[side[i] for i in rows] for side in references],
                options,
                names,
                None if sources is None else [sources[i] for i in rows],
            )
            mean = sum(source_lengths[i] for i in rows) / len(rows)
            buckets.append(LengthBucket(previous + 1, longest, mean, metrics))
    return buckets


def word_counts(texts: Iterable[str]) -> list[int]:
    """How many words, separated by white space, each text has."""
    return [len(text.split()) for text in texts]
