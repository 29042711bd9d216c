"""`encdec evaluate`: computes metrics of a run on its held-out sentences, or on other text."""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec.cli.evaluation_text import EvaluationText
from encdec.cli.languages import LanguageOptions
from encdec.cli.metric_choices import NAMES, MetricChoices
from encdec.cli.output import writer
from encdec.cli.parsing import check_batch_tokens, parse_for_run
from encdec.cli.shortlist import ShortlistOptions
from encdec.config import InferenceDeviceConfig
from encdec.config.search import SearchOptions
from encdec.evaluation import tables
from encdec.evaluation.by_length import BOUNDS, check_bounds, metrics_by_length, word_counts
from encdec.evaluation.compute import make_metrics
from encdec.evaluation.metrics import text_metrics
from encdec.files import cache_folder, one_line
from encdec.types import InputError

if TYPE_CHECKING:
    from encdec.data.sources import Pairs
    from encdec.inference.evaluate import Evaluation, ReferencedPair
    from encdec.inference.translator import Translator
    from encdec.runs.run import Run


@dataclass(frozen=True)
class _EvaluateOptions:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    text: Annotated[EvaluationText, OmitArgPrefixes] = field(default_factory=EvaluationText)
    output: Annotated[Path | None, arg(help="File for the translations (.gz too).")] = None
    json: Annotated[bool, arg(help="Print one JSON object.")] = False
    metrics: Annotated[
        tuple[str, ...],
        arg(
            metavar="{" + NAMES + "} ...",
            help="Metrics to compute in addition to the loss; TER is slow on long sentences.",
        ),
    ] = text_metrics()
    by_length: Annotated[bool, arg(help="Print the metrics by source length too.")] = False
    bounds: Annotated[
        tuple[int, ...] | None,
        arg(
            help="With --by-length: the longest source, in words, of each range of lengths except "
            f"the last; by default {' '.join(map(str, BOUNDS))}."
        ),
    ] = None
    choices: Annotated[MetricChoices, OmitArgPrefixes] = field(default_factory=MetricChoices)
    max_batch_tokens: Annotated[
        int,
        arg(help="The most source tokens in a batch, padding included; on a CPU times the beam."),
    ] = 8192
    languages: Annotated[LanguageOptions, OmitArgPrefixes] = field(default_factory=LanguageOptions)
    search: Annotated[SearchOptions, OmitArgPrefixes] = field(default_factory=SearchOptions)
    shortlist: Annotated[ShortlistOptions, OmitArgPrefixes] = field(
        default_factory=ShortlistOptions
    )
    devices: Annotated[InferenceDeviceConfig, OmitArgPrefixes] = field(
        default_factory=InferenceDeviceConfig
    )


def run(arguments: list[str]) -> None:
    """Evaluates a run, prints the metrics, and adds them to the run's `metrics.jsonl`.

    Raises:
      InputError: bad input, before anything is translated or written.
    """
    options = parse_for_run(
        _EvaluateOptions, arguments, "encdec evaluate", "Computes metrics of a run's translations."
    )
    check_batch_tokens(options.max_batch_tokens)
    if options.bounds is not None:
        if not options.by_length:
            raise InputError("--bounds needs --by-length")
        check_bounds(options.bounds)
    make_metrics(options.metrics, options.choices.options(None))

    from encdec.inference import translator as translators
    from encdec.inference.evaluate import evaluation_row
    from encdec.parallel.devices import keep_compiled_programs
    from encdec.runs.metrics_log import json_line

    keep_compiled_programs(cache_folder())
    translator = options.languages.of(translators.load_on(options.devices, options.run))
    translator = options.shortlist.of(translator)
    metric_options = options.choices.options(translator.run.config)
    name, sources, references = _test_set(options, translator.run)
    _note_long(translator, sources)
    with writer(options.output, options.text.paths) if options.output else nullcontext() as out:
        evaluation = evaluate_with_progress(
            translator,
            list(zip(sources, zip(*references, strict=True), strict=True)),
            options.search,
            max_batch_tokens=options.max_batch_tokens,
            options=metric_options,
            metrics=options.metrics,
        )
        if out:
            out.writelines(f"{one_line(text)}\n" for text in evaluation.hypotheses)
    detokenize = options.choices.detokenize
    row = evaluation_row(translator, name, options.search, evaluation, detokenize=detokenize)
    if options.shortlist.shortlist:
        row["shortlist"] = str(options.shortlist.shortlist)
    if options.devices.weights != "float32":
        row["weights"] = options.devices.weights
    row["calibration"] = evaluation.calibration.summary()
    report = evaluation.report(name)
    if options.by_length:
        buckets = metrics_by_length(
            evaluation.hypotheses,
            references,
            word_counts(sources),
            options.bounds or BOUNDS,
            metric_options,
            options.metrics,
            sources,
        )
        row["by_length"] = [bucket.summary() for bucket in buckets]
        report += f"\n\n{tables.lengths_text(buckets)}"
    print(json_line(row) if options.json else report)
    _log(options.run, row)


def _test_set(options: _EvaluateOptions, run: "Run") -> tuple[str, list[str], list[list[str]]]:
    """The name, the sources and each set of references of the text that is asked for."""
    text = options.text
    if not text.is_given and not run.held_out.src:
        raise InputError(
            f"{options.run} has no sentences that were held out: name a test set by --source and "
            "--target, --tsv, or --corpus"
        )
    name, sources, references = text.read(run.config.data) if text.is_given else text.held_out(run)
    assert sources is not None
    return name, sources, references


def _note_long(translator: "Translator", sources: list[str]) -> None:
    """Says on stderr how many sources are longer than those that the model was trained for."""
    limit = translator.run.config.data.max_source_length
    lengths = [translator.source_length(source) for source in sources]
    if count := sum(length > limit for length in lengths):
        longest = max(lengths)
        print(
            f"encdec: {count} of {len(sources)} sources have more than the {limit} tokens that the "
            f"model was trained for (sentence {lengths.index(longest) + 1}: {longest}): they are "
            "translated whole",
            file=sys.stderr,
        )


def evaluate_with_progress(
    translator: "Translator",
    pairs: "Pairs | list[ReferencedPair]",
    search: SearchOptions,
    **how: Any,
) -> "Evaluation":
    """`encdec.inference.evaluate.evaluate` with a progress bar."""
    from encdec.inference.evaluate import evaluate, split_references
    from encdec.progress import Counter

    with Counter(len(split_references(pairs)[0]), "translated") as counter:
        return evaluate(translator, pairs, search, progress=counter.add, **how)


def _log(run: Path, row: dict[str, Any]) -> None:
    """Appends a row to the run's metrics; on failure prints a line on stderr."""
    from encdec.runs.metrics_log import append_metrics

    try:
        append_metrics(run / "metrics.jsonl", row)
    except OSError as error:
        print(f"encdec: {run} did not record these metrics: {error.strerror}", file=sys.stderr)
