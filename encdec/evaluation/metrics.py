"""The table of metrics.

To add a metric, add a row to `METRICS`: the commands, the validation during training, the
significance tests and the plots read that table. A metric is either one of sacreBLEU's classes or
a ratio of two numbers that are counted in each sentence (`ratio`).

The command line reads the table for its help, so this module imports sacreBLEU, rapidfuzz and
NumPy only when a metric is made.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from encdec.config import nearest
from encdec.evaluation.options import MetricOptions
from encdec.types import InputError

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacrebleuMetric


Need = Literal["references", "sources", "model"]
"""What a metric is computed from besides the translations. A model is needed for the loss only,
which `encdec.inference.evaluate` computes."""


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
      title: the name that is printed.
      make: makes the sacreBLEU metric that computes it; None for the loss.
      unit: the unit of the values; empty if sacreBLEU's signature is printed instead.
      higher_is_better: whether a better translation has a higher value.
      decimals: the number of decimals that are printed.
      needs: the inputs of the metric in addition to the translations.
      is_slow: whether validation computes it only if it is the `best_metric`.
    """

    title: str
    make: Callable[[MetricOptions], "SacrebleuMetric"] | None
    unit: str = ""
    higher_is_better: bool = True
    decimals: int = 2
    needs: tuple[Need, ...] = ("references",)
    is_slow: bool = False

    def format(self, value: float) -> str:
        """A value as it is printed."""
        return f"{value:.{self.decimals}f}"

    def is_better(self, value: float, other: float) -> bool:
        """Whether a value is better than another."""
        return value > other if self.higher_is_better else value < other

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1: the better of two values has the higher product."""
        return 1 if self.higher_is_better else -1


def _bleu(options: MetricOptions) -> "SacrebleuMetric":
    """Corpus BLEU (Papineni 2002), 0 to 100."""
    from sacrebleu.metrics import BLEU

    name = options.tokenizer
    try:
        # Without force, sacreBLEU warns of references that look tokenized; dates look so.
        return BLEU(lowercase=options.lowercase, tokenize=name, force=True)
    except Exception as error:  # each tokenizer fails in its own way: no package, no network
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"bleu_tokenizer = {name!r} cannot be used here ({reason}): install what it needs, or "
            "choose another one, such as char"
        ) from error


def _chrf(options: MetricOptions) -> "SacrebleuMetric":
    """chrF2 (Popović 2015), 0 to 100."""
    from sacrebleu.metrics import CHRF

    return CHRF(lowercase=options.lowercase)


def _ter(options: MetricOptions) -> "SacrebleuMetric":
    """Translation edit rate (Snover 2006): edits per 100 words of the references."""
    from sacrebleu.metrics import TER

    return TER(case_sensitive=not options.lowercase)


Count = Callable[[str, Sequence[str], str | None], tuple[int, int]]
"""(translation, its references, its source or None) -> (numerator, denominator) of a sentence."""


def ratio(count: Count, scale: float) -> Callable[[MetricOptions], "SacrebleuMetric"]:
    """A maker of the metric scale x sum of numerators / sum of denominators over the sentences."""

    def make(_: MetricOptions) -> "SacrebleuMetric":
        from encdec.evaluation.ratio import Ratio

        return Ratio(count, scale)

    return make


def _matches(hypothesis: str, references: Sequence[str], _: str | None) -> tuple[int, int]:
    """Whether a translation equals one of its references, up to white space."""
    return int(any(hypothesis.split() == one.split() for one in references)), 1


def _mismatches(hypothesis: str, references: Sequence[str], _: str | None) -> tuple[int, int]:
    """Whether a translation equals none of its references."""
    return 1 - _matches(hypothesis, references, None)[0], 1


def _edits(hypothesis: str, references: Sequence[str], _: str | None) -> tuple[int, int]:
    """Edits (Levenshtein 1966) to the nearest reference, and the tokens of that reference."""
    from rapidfuzz.distance import Levenshtein

    tokens = hypothesis.split()
    counts = [(Levenshtein.distance(tokens, one.split()), len(one.split())) for one in references]
    return min(counts, key=lambda pair: pair[0])


METRICS: dict[str, Metric] = {
    "bleu": Metric("BLEU", _bleu),
    "chrf": Metric("chrF", _chrf),
    # 0.1 s for a sentence of 60 words.
    "ter": Metric("TER", _ter, higher_is_better=False, is_slow=True),
    "exact_match": Metric("exact match", ratio(_matches, 1), "of 1", decimals=4),
    # The word error rate of grapheme-to-phoneme conversion, where a line is a word.
    "sequence_error_rate": Metric(
        "sequence error rate", ratio(_mismatches, 100), "of 100", higher_is_better=False
    ),
    # The phone error rate there, and the word error rate of speech recognition.
    "token_error_rate": Metric(
        "token error rate", ratio(_edits, 100), "per 100 tokens", higher_is_better=False
    ),
    "loss": Metric(
        "loss",
        None,
        "nats per token",
        higher_is_better=False,
        decimals=4,
        needs=("references", "sources", "model"),
    ),
}
"""Every metric by its name, in the order in which they are printed. Tokens are separated by white
space, except in the loss, where they are those of the target vocabulary."""


_RESTATING = ("sequence_error_rate", "token_error_rate")


def printed_metrics(values: Mapping[str, float]) -> tuple[str, ...]:
    """Names of the metrics to print, in the order of the table.

    Error rates that only say what the exact match says are left out: of sequences always, of tokens
    where each reference is one token.
    """
    errors = 100 * (1 - values["exact_match"]) if "exact_match" in values else math.nan
    return tuple(
        name
        for name in METRICS
        if name in values and not (name in _RESTATING and math.isclose(values[name], errors))
    )


def text_metrics(needs: Iterable[Need] = ("references", "sources")) -> tuple[str, ...]:
    """Names of the metrics that can be computed from translations and what else is there."""
    return tuple(name for name, one in METRICS.items() if {*one.needs} <= {*needs})


def metric(name: str) -> Metric:
    """A row of the table.

    Raises:
      InputError: there is no such metric.
    """
    if not isinstance(name, str):
        raise InputError(f"metrics has {name!r}, which is not a name")
    if name not in METRICS:
        raise InputError(
            f"metric {name!r} is unknown{nearest(name, METRICS)} (one of {', '.join(METRICS)})"
        )
    return METRICS[name]
