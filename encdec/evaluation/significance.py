"""Is one system better than another? Paired bootstrap resampling (Koehn 2004), by sacreBLEU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from sacrebleu.significance import PairedTest, Result

from encdec.config import LOWER_IS_BETTER
from encdec.evaluation.metrics import MetricName, MetricOptions, check_lengths, metric, prepared
from encdec.types import InputError

LEVEL = 0.05
"""A difference is called significant where p is below this."""


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same sentences.

    Attributes:
      metric: what is compared.
      sentences: how many.
      score_a, score_b: in the metric's units (`Metrics`).
      interval_a, interval_b: half the width of the 95 % interval of each over the samples.
      p_value: how likely resampling alone makes a difference as large as this.
      samples: how many sets of sentences were drawn.
      signature: how sacreBLEU computed the scores; the seed is in it.
    """

    metric: MetricName
    sentences: int
    score_a: float
    score_b: float
    interval_a: float
    interval_b: float
    p_value: float
    samples: int
    signature: str

    @property
    def difference(self) -> float:
        """Score of B less that of A."""
        return self.score_b - self.score_a

    @property
    def better(self) -> Literal["a", "b"] | None:
        """The system that is significantly better, or None."""
        if self.p_value >= LEVEL:
            return None
        return "b" if (self.difference > 0) != (self.metric in LOWER_IS_BETTER) else "a"

    def summary(self) -> dict[str, Any]:
        """One flat JSON object."""
        return {**vars(self), "difference": self.difference, "better": self.better}


def compare(
    a: Sequence[str],
    b: Sequence[str],
    references: Sequence[str],
    name: MetricName = "bleu",
    options: MetricOptions | None = None,
    samples: int = 1000,
) -> Comparison:
    """Compares the translations of two systems.

    Sets of as many sentences are drawn with replacement, the same for both systems. The seed is
    sacreBLEU's: 12345, or what the environment variable SACREBLEU_SEED says. All samples are in
    memory at once: about 80 bytes x samples x sentences, for chrF.

    Args:
      a, b: translations by either system.
      references: as many.
      name: the score to compare by.
      options: how text is compared.
      samples: how many sets are drawn.

    Raises:
      InputError: see `score`; or samples is below 1.
    """
    if samples < 1:
        raise InputError(f"samples = {samples} cannot be used: it must be at least 1")
    check_lengths(a, references)
    check_lengths(b, references)
    options = options or MetricOptions()
    ours, other, theirs = (prepared(side, options) for side in (a, b, references))
    test = PairedTest(
        [("a", ours), ("b", other)], {name: metric(name, options)}, [theirs], "bs", samples
    )
    signatures, found = test()
    (key,) = signatures
    first, second = cast(list[Result], found[key])
    # Where the scores are equal nothing is to be explained; sacreBLEU would say p = 1 / (n + 1)
    # of a system and itself.
    same = first.score == second.score
    return Comparison(
        metric=name,
        sentences=len(references),
        score_a=first.score,
        score_b=second.score,
        interval_a=float(first.ci or 0),
        interval_b=float(second.ci or 0),
        p_value=1.0 if same else float(second.p_value or 0),
        samples=samples,
        signature=str(signatures[key]),
    )
