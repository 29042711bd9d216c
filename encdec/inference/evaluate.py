"""Evaluation: translates the sources of a test set, computes metrics, scores the references."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from encdec.config.search import SearchOptions
from encdec.data.sources import Pairs
from encdec.data.vocabulary import Vocabulary
from encdec.evaluation.calibration import Calibration, calibration, kept_tokens
from encdec.evaluation.compute import Metrics, compute_metrics, make_metrics, several
from encdec.evaluation.metrics import metric, text_metrics
from encdec.evaluation.options import MetricOptions, metric_options
from encdec.evaluation.tables import metrics_text
from encdec.inference.arguments import check_search, check_translator
from encdec.inference.scoring import score
from encdec.inference.translation import Translation
from encdec.inference.translator import Translator
from encdec.runs.metrics_log import append_metrics
from encdec.types import InputError

ReferencedPair = tuple[str, str | Sequence[str]]
"""A source sentence and its reference, or its several references."""


_UNORDERED = (str, set, dict)
"""One text, and what has no first and second item."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
      metrics: those of the translations against the references.
      loss: negative log-likelihood of the (first) references, nats per token.
      seconds: duration of the translation.
      calibration: of the tokens of the translations.
      hypotheses: the translations.
    """

    metrics: Metrics
    loss: float
    seconds: float
    calibration: Calibration
    hypotheses: list[str]

    @property
    def values(self) -> dict[str, float]:
        """The value of each metric by its name, the loss included."""
        return {**self.metrics.values, "loss": self.loss}

    def summary(self) -> dict[str, Any]:
        """All but the translations as one flat JSON object."""
        return {
            **self.metrics.summary(),
            "loss": self.loss,
            "calibration_error": self.calibration.error,
            "seconds": self.seconds,
        }

    def report(self, name: str) -> str:
        """The metrics and the calibration, below a line with the name of the test set."""
        head = f"{name}: {self.metrics.sentences} sentences in {self.seconds:.1f} s"
        metrics = metrics_text(self.values, self.metrics.signatures)
        return "\n".join([head, metrics, "", self.calibration.report()])


def evaluation_row(
    translator: Translator,
    name: str,
    search: SearchOptions,
    evaluation: Evaluation,
    **more: Any,
) -> dict[str, Any]:
    """The row that a run's `metrics.jsonl` keeps of an evaluation.

    Args:
      translator: the translator that was evaluated.
      name: the name of the test set.
      search: the search options.
      evaluation: the result.
      more: further JSON values for the row.
    """
    return {
        "kind": "test",
        "step": translator.step,
        "name": name,
        "beam": search.beam,
        "length_penalty": search.length_penalty,
        **more,
        **evaluation.summary(),
    }


def log_evaluation(
    translator: Translator, name: str, search: SearchOptions, evaluation: Evaluation, **more: Any
) -> None:
    """Adds `evaluation_row` to the `metrics.jsonl` of the translator's run; arguments as there.

    Raises:
      OSError: the file cannot be written.
    """
    row = evaluation_row(translator, name, search, evaluation, **more)
    append_metrics(translator.run.path / "metrics.jsonl", row)


def evaluate(
    translator: Translator,
    pairs: Pairs | Iterable[ReferencedPair],
    search: SearchOptions | None = None,
    *,
    metrics: Iterable[str] | None = None,
    options: MetricOptions | None = None,
    max_batch_tokens: int = 8192,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Translates the sources and compares the translations with the references.

    Args:
      translator: the translator to evaluate.
      pairs: sources and references; blank ones count too. A pair may have several references, if
        every pair has the same number; the loss is that of the first.
      search: the search options; None for those of the run's settings.
      metrics: names of the metrics to compute in addition to the loss; all if None.
      options: how texts are compared; taken from the run's settings if None.
      max_batch_tokens: the most tokens of a batch, padding included.
      progress: called after each batch with the number of its sentences.

    Raises:
      InputError: there are no pairs, their numbers of references differ, a metric is unknown, or a
        tokenizer is not installed. All of this is checked before anything is translated.
    """
    check_translator(translator)
    check_search(search, "search")
    if isinstance(options, SearchOptions):
        raise InputError("options say how metrics compare texts: pass SearchOptions as search")
    if options is not None and not isinstance(options, MetricOptions):
        raise InputError(f"options is a {type(options).__name__}: give MetricOptions")
    sources, references = split_references(pairs)
    options = options or metric_options(translator.run.config)
    names = text_metrics() if metrics is None else [n for n in several(metrics) if metric(n).make]
    make_metrics(names, options)
    # First, because it is short, and says at once if a pair does not fit into memory.
    loss = score(translator, Pairs(sources, references[0]), max_batch_tokens=max_batch_tokens).loss
    start = time.perf_counter()
    translations = translator.translate(
        sources, search, max_batch_tokens=max_batch_tokens, progress=progress
    )
    seconds = time.perf_counter() - start
    hypotheses = [translation.text for translation in translations]
    computed = compute_metrics(hypotheses, references, options, names, sources)
    confidence = calibration_of(translations, references, translator.run.tgt_vocabulary)
    return Evaluation(computed, loss, seconds, confidence, hypotheses)


def calibration_of(
    translations: Sequence[Translation], references: Sequence[Sequence[str]], target: Vocabulary
) -> Calibration:
    """The calibration of the tokens of n translations.

    Args:
      translations: of the n sources; a blank one has no tokens.
      references: for each of the R references of a source a list of n texts.
      target: the vocabulary of the translations.
    """
    end = target.specials.end
    encoded = [[[*ids, end] for ids in target.encode_all(texts)] for texts in references]
    right = [
        kept_tokens(one.tgt_ids, several)
        for one, several in zip(translations, zip(*encoded, strict=True), strict=True)
    ]
    log_probs = np.concatenate([one.token_log_probs for one in translations])
    return calibration(np.exp(log_probs), np.concatenate(right))


def split_references(
    pairs: Pairs | Iterable[ReferencedPair],
) -> tuple[list[str], list[list[str]]]:
    """Returns the n sources, and for each of the R references of a source a list of n references.

    Raises:
      InputError: there are no pairs, a pair is not a source and its references, or the numbers of
        references differ.
    """
    if isinstance(pairs, Pairs):
        sources, references = list(pairs.src), [list(pairs.tgt)]
    else:
        if not isinstance(pairs, Iterable):
            raise InputError(
                f"the pairs are a {type(pairs).__name__}: give a list of (source, reference)"
            )
        both = [_referenced(number, pair) for number, pair in enumerate(pairs, 1)]
        sources = [source for source, _ in both]
        counts = [len(texts) for _, texts in both]
        for number, count in enumerate(counts, 1):
            if not count or count != counts[0]:
                raise InputError(
                    f"pair {number} has {count} references but pair 1 has {counts[0]}: give every "
                    "source the same number, at least one"
                )
        references = [list(texts) for texts in zip(*(texts for _, texts in both), strict=True)]
    if not sources:
        raise InputError("there are no sentences to evaluate")
    return sources, references


def _referenced(number: int, pair: Any) -> tuple[str, tuple[str, ...]]:
    """A pair's source and its references."""
    if hasattr(pair, "__len__") and not isinstance(pair, _UNORDERED) and len(pair) == 2:
        source, target = pair
        several = isinstance(target, Iterable) and not isinstance(target, _UNORDERED)
        references = tuple(target) if several else (target,)
        if all(isinstance(text, str) for text in (source, *references)):
            return source, references
    raise InputError(
        f"pair {number} is not (source, reference) or (source, [references]), all of them str"
    )
