"""Is one system better than another? Paired bootstrap resampling (Koehn 2004), by sacreBLEU."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from encdec.evaluation.compute import check_lengths, make_metrics, preprocess
from encdec.evaluation.metrics import Need, metric
from encdec.evaluation.options import MetricOptions
from encdec.files import shortened
from encdec.types import InputError

LEVEL = 0.05
"""A difference is called significant if its p-value is below this."""


@dataclass(frozen=True)
class Comparison:
    """A metric of two systems on the same sentences.

    Attributes:
      metric: name of the metric.
      sentences: how many sentences there are.
      value_a, value_b: the metric of each system.
      interval_a, interval_b: half the width of its 95 % interval over the samples.
      p_value: probability of a difference as large as this one if both systems were equally good.
      samples: how many sets of sentences were drawn.
      signature: how sacreBLEU computed it, with the seed.
    """

    metric: str
    sentences: int
    value_a: float
    value_b: float
    interval_a: float
    interval_b: float
    p_value: float
    samples: int
    signature: str

    @property
    def difference(self) -> float:
        """The metric of B minus that of A."""
        return self.value_b - self.value_a

    @property
    def better(self) -> Literal["a", "b"] | None:
        """The system that is significantly better, or None."""
        if self.p_value >= LEVEL:
            return None
        return "b" if metric(self.metric).is_better(self.value_b, self.value_a) else "a"

    def summary(self) -> dict[str, Any]:
        """All of it as one flat JSON object."""
        return {**vars(self), "difference": self.difference, "better": self.better}


_MOST_SAMPLES = 1_000_000


def check_samples(samples: int) -> None:
    """Raises InputError unless there are from 1 to a million samples to draw, by a seed that
    sacreBLEU can read."""
    if not 1 <= samples <= _MOST_SAMPLES:
        raise InputError(
            f"samples = {samples} cannot be used: it must be from 1 to {_MOST_SAMPLES}"
        )
    seed = os.environ.get("SACREBLEU_SEED", "12345")
    if not re.fullmatch("[0-9]{1,18}|none", seed, re.IGNORECASE):
        raise InputError(
            f"SACREBLEU_SEED = {shortened(seed)} cannot be used: give a number from 0, or none"
        )


def compare(
    a: Sequence[str],
    b: Sequence[str],
    references: Sequence[Sequence[str]],
    name: str = "bleu",
    options: MetricOptions | None = None,
    samples: int = 1000,
    sources: Sequence[str] | None = None,
) -> Comparison:
    """Compares the translations of two systems.

    Sets of n of the n sentences are drawn with replacement, the same sets for both systems. The
    seed is sacreBLEU's: 12345, or the environment variable SACREBLEU_SEED. All samples are in
    memory at once: about 80 bytes x samples x sentences for chrF.

    Args:
      a, b: the n translations of each system.
      references: lists of n references.
      name: the metric to compare by.
      options: how texts are compared.
      samples: how many sets are drawn.
      sources: the n source sentences, which some metrics need.

    Raises:
      InputError: samples or the seed cannot be used, or see `compute_metrics`.
    """
    from sacrebleu.significance import PairedTest, Result

    check_samples(samples)
    options = options or MetricOptions()
    given: list[Need] = ["references"] if sources is None else ["references", "sources"]
    computed = make_metrics([name], options, given)[name]
    check_lengths(a, references, sources)
    check_lengths(b, references)
    texts = preprocess(a, references, sources, options)
    systems: list[tuple[str, Sequence[str]]] = [
        ("a", texts.hypotheses),
        ("b", preprocess(b, (), None, options).hypotheses),
    ]
    test = PairedTest(systems, {name: computed}, texts.read_by(computed), "bs", samples)
    signatures, results = test()
    (key,) = signatures
    result_a, result_b = cast(list[Result], results[key])
    # Of two equal values sacreBLEU says p = 1 / (samples + 1), though no difference is to explain.
    equal = result_a.score == result_b.score
    return Comparison(
        metric=name,
        sentences=len(a),
        value_a=result_a.score,
        value_b=result_b.score,
        interval_a=float(result_a.ci or 0),
        interval_b=float(result_b.ci or 0),
        p_value=1.0 if equal else float(result_b.p_value or 0),
        samples=samples,
        signature=str(signatures[key]),
    )
