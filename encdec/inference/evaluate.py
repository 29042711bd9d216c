"""Evaluation: translate the sources of a test set, compute metrics, score the references."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from encdec.data.sources import Pairs
from encdec.evaluation.compute import Metrics, compute_metrics, make_metrics
from encdec.evaluation.metrics import metric, text_metrics
from encdec.evaluation.options import MetricOptions, metric_options
from encdec.evaluation.tables import metrics_text
from encdec.inference.scoring import score
from encdec.inference.translator import Translator
from encdec.search.options import SearchOptions
from encdec.types import InputError

ReferencedPair = tuple[str, str | Sequence[str]]
"""A source sentence and its reference, or its several references."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation measured.

    Attributes:
      metrics: of the translations against the references.
      loss: negative log-likelihood of the (first) references, nats per token.
      seconds: time that translating took.
      hypotheses: the translations.
    """

    metrics: Metrics
    loss: float
    seconds: float
    hypotheses: list[str]

    @property
    def values(self) -> dict[str, float]:
        """The value of each metric by its name, the loss included."""
        return {**self.metrics.values, "loss": self.loss}

    def summary(self) -> dict[str, Any]:
        """All but the translations as one flat JSON object."""
        return {**self.metrics.summary(), "loss": self.loss, "seconds": self.seconds}

    def report(self, name: str) -> str:
        """The metrics as lines of text, headed by the name of the test set."""
        head = f"{name}: {self.metrics.sentences} sentences in {self.seconds:.1f} s"
        return f"{head}\n{metrics_text(self.values, self.metrics.signatures)}"


def evaluation_row(
    translator: Translator,
    name: str,
    search: SearchOptions,
    evaluation: Evaluation,
    **more: Any,
) -> dict[str, Any]:
    """The row that a run's `metrics.jsonl` keeps of an evaluation.

    Args:
      translator: what was evaluated.
      name: of the test set.
      search: how it was translated.
      evaluation: what was measured.
      more: JSON values that the row holds too.
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
      translator: what is evaluated.
      pairs: sources and references; blank ones count too. A pair may have several references, and
        then every pair has as many; the loss is that of the first.
      search: how to translate.
      metrics: names of the metrics to compute besides the loss; all if left out.
      options: how texts are compared; as the run's settings say if left out.
      max_batch_tokens: most tokens in a batch.
      progress: called with the number of sentences translated, batch after batch.

    Raises:
      InputError: there are no pairs, their numbers of references differ, a metric is unknown, or a
        tokenizer is not installed; all before anything is translated.
    """
    sources, references = split_references(pairs)
    options = options or metric_options(translator.run.config)
    names = text_metrics() if metrics is None else [n for n in metrics if metric(n).make]
    make_metrics(names, options)
    start = time.perf_counter()
    translations = translator.translate(
        sources, search, max_batch_tokens=max_batch_tokens, progress=progress
    )
    seconds = time.perf_counter() - start
    hypotheses = [translation.text for translation in translations]
    computed = compute_metrics(hypotheses, references, options, names, sources)
    loss = score(translator, Pairs(sources, references[0]), max_batch_tokens=max_batch_tokens).loss
    return Evaluation(computed, loss, seconds, hypotheses)


def split_references(
    pairs: Pairs | Iterable[ReferencedPair],
) -> tuple[list[str], list[list[str]]]:
    """The n sources, and one list of n references for each reference that a source has.

    Raises:
      InputError: there are no pairs, or their numbers of references differ.
    """
    if isinstance(pairs, Pairs):
        sources, references = list(pairs.src), [list(pairs.tgt)]
    else:
        both = [(s, (t,) if isinstance(t, str) else tuple(t)) for s, t in pairs]
        sources = [source for source, _ in both]
        counts = [len(texts) for _, texts in both]
        for number, count in enumerate(counts, 1):
            if not count or count != counts[0]:
                raise InputError(
                    f"pair {number} has {count} references but pair 1 has {counts[0]}: give each "
                    "source as many, and at least one"
                )
        references = [list(texts) for texts in zip(*(texts for _, texts in both), strict=True)]
    if not sources:
        raise InputError("there are no sentences to evaluate")
    return sources, references
