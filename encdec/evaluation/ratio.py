"""A metric that is a ratio of sums over sentences, as a sacreBLEU metric.

sacreBLEU's significance tests then serve it as they serve BLEU.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sacrebleu.metrics.base import Metric, Score

if TYPE_CHECKING:
    from encdec.evaluation.metrics import Count


class Ratio(Metric):
    """scale x sum_i numerator_i / sum_i denominator_i over the sentences i.

    Where the denominators sum to 0 the ratio is 0 if the numerators do too, else 1: sacreBLEU's
    rule for the edit rate of empty references.

    Where sacreBLEU's interface says references, this class reads a list of sources (or Nones) and
    then the lists of references.

    Args:
      count: numerator and denominator of one sentence.
      scale: the value of a ratio of 1.
    """

    def __init__(self, count: "Count", scale: float) -> None:
        super().__init__()
        self._count, self._scale = count, scale

    def _cache_references(self, references: Sequence[Sequence[Any]]) -> list[Any]:
        self.num_refs = len(references) - 1
        return [{"source": s, "references": texts} for s, *texts in zip(*references, strict=True)]

    def _preprocess_segment(self, sent: str) -> str:
        return sent

    def _extract_reference_info(self, refs: Sequence[str]) -> dict[str, Any]:
        raise NotImplementedError("_cache_references does it")

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[int]:
        return list(self._count(hypothesis, ref_kwargs["references"], ref_kwargs["source"]))

    def _aggregate_and_compute(self, stats: list[list[int]]) -> Score:
        return self._compute_score_from_stats(np.sum(stats, axis=0))

    def _compute_score_from_stats(self, stats: Any) -> Score:
        numerator, denominator = (float(x) for x in stats)
        ratio = numerator / denominator if denominator else float(numerator > 0)
        return Score("ratio", self._scale * ratio)
