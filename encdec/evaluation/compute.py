"""The values of metrics for a set of translations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from encdec.evaluation.metrics import METRICS, Need, metric, text_metrics
from encdec.evaluation.options import MetricOptions
from encdec.types import InputError

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacrebleuMetric


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


def several(names: Iterable[str]) -> Iterable[str]:
    """The names of metrics; raises InputError if they are one string, or no names."""
    if not isinstance(names, Iterable):
        raise InputError(f"metrics is a {type(names).__name__}: give a list of names")
    if isinstance(names, str):
        raise InputError(f"metrics = {names!r} is one string: give a list of names, [{names!r}]")
    return names


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
    for name in several(names):
        row = metric(name)
        if row.make is None:
            raise InputError(
                f"metric {name!r} is not computed from texts: `encdec evaluate` gives it unasked; "
                f"choose from {', '.join(text_metrics(given))}"
            )
        missing = [need for need in row.needs if need not in given]
        if missing:
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
