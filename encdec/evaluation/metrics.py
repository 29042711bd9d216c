"""Metrics of translations against one reference each: sacreBLEU's, exact match, edits.

All are sacreBLEU metrics, so that its significance tests serve each of them.
"""

import re
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric, Score

from encdec.config import BleuTokenizer, RunConfig, nearest
from encdec.data.text import lower
from encdec.types import InputError

MetricName = Literal[
    "bleu", "chrf", "ter", "exact_match", "sequence_error_rate", "token_error_rate"
]
NAMES: tuple[MetricName, ...] = typing.get_args(MetricName)
QUICK: tuple[MetricName, ...] = tuple(name for name in NAMES if name != "ter")
"""Without TER, which takes 0.1 s for a sentence of 60 words."""


@dataclass(frozen=True)
class MetricOptions:
    """How text is compared."""

    bleu_tokenizer: BleuTokenizer = "13a"
    """How sacreBLEU splits text for BLEU; none where it is tokenised already."""
    lowercase: bool = False
    """Both sides are lower-cased, for every score."""
    language: str = "en"
    """Whose rules lower-casing follows."""
    detokenize: str | None = None
    """Both sides are Moses-tokenised text of this language and are joined first, for every
    score."""

    def __post_init__(self) -> None:
        tokenizers = typing.get_args(BleuTokenizer)
        if self.bleu_tokenizer not in tokenizers:
            raise InputError(
                f"bleu_tokenizer = {self.bleu_tokenizer!r} cannot be used: it must be one of "
                + ", ".join(tokenizers)
            )
        if self.detokenize is not None and not re.fullmatch("[a-z]{2,3}", self.detokenize):
            raise InputError(
                f"detokenize = {self.detokenize!r} cannot be used: it must be the code of a "
                "language, such as en"
            )


def metric_options(config: RunConfig) -> MetricOptions:
    """How a run's translations are compared if nothing else is said."""
    data = config.data
    return MetricOptions(config.training.bleu_tokenizer, data.lowercase, data.target_language)


@dataclass(frozen=True)
class Metrics:
    """Metrics of a set of sentences; None where a score was not asked for.

    Attributes:
      sentences: how many.
      bleu: corpus BLEU (Papineni 2002), 0 to 100.
      chrf: chrF2 (Popović 2015), 0 to 100.
      ter: translation edit rate (Snover 2006), edits for 100 words of the references.
      exact_match: share of translations that are their reference but for white space, 0 to 1.
      sequence_error_rate: 100 x share of translations that are not: the word error rate of
        grapheme-to-phoneme conversion, where a line is a word.
      token_error_rate: edits for 100 symbols of the references, symbols being what white space
        separates: the phone error rate there, the word error rate of speech recognition.
      bleu_signature, chrf_signature, ter_signature: how sacreBLEU computed them (Post 2018).
    """

    sentences: int
    bleu: float | None = None
    chrf: float | None = None
    ter: float | None = None
    exact_match: float | None = None
    sequence_error_rate: float | None = None
    token_error_rate: float | None = None
    bleu_signature: str | None = None
    chrf_signature: str | None = None
    ter_signature: str | None = None

    def summary(self) -> dict[str, Any]:
        """The scores asked for, as one flat JSON object."""
        return {name: value for name, value in vars(self).items() if value is not None}


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    options: MetricOptions | None = None,
    names: Iterable[str] = NAMES,
) -> Metrics:
    """Metrics translations against one reference each.

    Args:
      hypotheses, references: as many of each; any of them may be empty.
      options: how they are compared.
      names: the scores to compute, of `NAMES`.

    Raises:
      InputError: there are no sentences, or not as many of one as of the other, or a score is
        unknown.
    """
    check_lengths(hypotheses, references)
    options = options or MetricOptions()
    ours, theirs = (prepared(side, options) for side in (hypotheses, references))
    found: dict[str, Any] = {}
    for name in names:
        computed = metric(name, options)
        found[name] = float(computed.corpus_score(ours, [theirs]).score)
        if not isinstance(computed, _Rate):
            found[f"{name}_signature"] = str(computed.get_signature())
    return Metrics(len(references), **found)


def check_lengths(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    """Raises InputError if there are no sentences, or not as many of one as of the other."""
    if len(hypotheses) != len(references):
        raise InputError(
            f"{len(hypotheses)} translations cannot be scored against {len(references)} references"
        )
    if not references:
        raise InputError("there are no sentences to score")


def prepared(texts: Sequence[str], options: MetricOptions) -> list[str]:
    """Texts as the metrics take them: joined and lower-cased if they are to be."""
    if options.detokenize is not None:
        join = _detokenizer(options.detokenize).detokenize
        texts = [join(text.split(), unescape=True) for text in texts]
    return [lower(text, options.language) if options.lowercase else text for text in texts]


@lru_cache
def _detokenizer(language: str) -> Any:
    from sacremoses import MosesDetokenizer  # half a second, seldom needed

    return MosesDetokenizer(lang=language)


def metric(name: str, options: MetricOptions) -> Metric:
    """A sacreBLEU metric, made anew.

    Raises:
      InputError: the name is unknown.
    """
    low = options.lowercase
    makers: dict[str, Callable[[], Metric]] = {
        # sacreBLEU would warn of references that look tokenised; a date looks so.
        "bleu": lambda: BLEU(lowercase=low, tokenize=options.bleu_tokenizer, force=True),
        "chrf": lambda: CHRF(lowercase=low),
        "ter": lambda: TER(case_sensitive=not low),
        "exact_match": lambda: _Rate(name, 1, _same),
        "sequence_error_rate": lambda: _Rate(name, 100, _different),
        "token_error_rate": lambda: _Rate(name, 100, _edits),
    }
    if name not in makers:
        raise InputError(
            f"metric {name!r} is unknown{nearest(name, makers)} (one of {', '.join(makers)})"
        )
    return makers[name]()


def _same(hypothesis: str, reference: str) -> tuple[int, int]:
    return int(hypothesis.split() == reference.split()), 1


def _different(hypothesis: str, reference: str) -> tuple[int, int]:
    return int(hypothesis.split() != reference.split()), 1


def _edits(hypothesis: str, reference: str) -> tuple[int, int]:
    symbols = reference.split()
    return Levenshtein.distance(hypothesis.split(), symbols), len(symbols)


class _Rate(Metric):
    """scale x the sum of counts over the sum of totals, each a number of one sentence.

    Where the totals sum to 0, the scale if anything was counted, else 0, as sacreBLEU's TER.
    """

    def __init__(
        self, name: str, scale: float, count: Callable[[str, str], tuple[int, int]]
    ) -> None:
        super().__init__()
        self._name, self._scale, self._count = name, scale, count

    def _preprocess_segment(self, sent: str) -> str:
        return sent

    def _extract_reference_info(self, refs: Sequence[str]) -> dict[str, Any]:
        return {"reference": refs[0]}

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[int]:
        return list(self._count(hypothesis, ref_kwargs["reference"]))

    def _aggregate_and_compute(self, stats: list[list[int]]) -> Score:
        return self._compute_score_from_stats(np.sum(stats, axis=0))

    def _compute_score_from_stats(self, stats: Any) -> Score:
        counted, total = (float(x) for x in stats)
        share = counted / total if total else float(counted > 0)
        return Score(self._name, self._scale * share)
