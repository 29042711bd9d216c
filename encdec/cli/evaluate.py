"""`encdec evaluate`: metrics of a run on its held-out sentences, or on files."""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec.cli.parsing import check_batch_tokens, parse
from encdec.cli.scored_text import HELD_OUT, MetricChoices, ScoredText
from encdec.config import DeviceConfig
from encdec.data.sources import Pairs
from encdec.evaluation import metrics, tables
from encdec.evaluation.by_length import BOUNDS, LengthBucket, by_length, check_bounds, word_counts
from encdec.evaluation.metrics import MetricName, MetricOptions
from encdec.files import cache_folder, writer
from encdec.inference import translator as translators
from encdec.inference.translator import Evaluation, Translator
from encdec.parallel.devices import keep_compiled_programs
from encdec.progress import Counter
from encdec.runs.metrics_log import append_metrics, json_line
from encdec.search.options import SearchOptions


@dataclass(frozen=True)
class _EvaluateOptions:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    text: Annotated[ScoredText, OmitArgPrefixes] = field(default_factory=ScoredText)
    output: Annotated[Path | None, arg(help="Write the translations here, one a line.")] = None
    json: Annotated[bool, arg(help="One JSON object on stdout.")] = False
    metrics: Annotated[
        tuple[MetricName, ...], arg(help="Metrics to compute; TER takes long on long sentences.")
    ] = metrics.NAMES
    by_length: Annotated[bool, arg(help="Metrics by source length too.")] = False
    bounds: Annotated[
        tuple[int, ...], arg(help="Longest source of each class of lengths but the last, in words.")
    ] = BOUNDS
    scoring: Annotated[MetricChoices, OmitArgPrefixes] = field(default_factory=MetricChoices)
    max_batch_tokens: Annotated[int, arg(help="Most source tokens in a batch.")] = 8192
    search: Annotated[SearchOptions, OmitArgPrefixes] = field(default_factory=SearchOptions)
    devices: Annotated[DeviceConfig, OmitArgPrefixes] = field(default_factory=DeviceConfig)


def run(arguments: list[str]) -> None:
    """Metrics a run on its held-out set or on files, and notes the scores in the run.

    Raises:
      InputError: bad input, before anything is translated or written.
    """
    options = parse(_EvaluateOptions, arguments, "encdec evaluate", "Metrics a run.")
    keep_compiled_programs(cache_folder())
    check_batch_tokens(options.max_batch_tokens)
    check_bounds(options.bounds)
    translator = translators.load_on(options.devices, options.run)
    scoring = options.scoring.options(translator.run.config)
    pairs, name = translator.run.held_out, HELD_OUT
    inputs: tuple[Path, ...] = tuple(p for p in options.run.iterdir() if p.is_file())
    if options.text.given:
        pairs, name = options.text.read(translator.run.config.data), options.text.name
        inputs += options.text.paths
    with writer(options.output, inputs) if options.output else nullcontext() as out:
        found = evaluated(
            translator,
            pairs,
            options.search,
            max_batch_tokens=options.max_batch_tokens,
            scoring=scoring,
            names=options.metrics,
        )
        if out:
            out.writelines(f"{text}\n" for text in found.hypotheses)
    row = _row(translator, name, options, found)
    classes = _classes(found, pairs, scoring, options) if options.by_length else []
    if classes:
        row["by_length"] = [one.summary() for one in classes]
    if options.json:
        print(json_line(row))
    else:
        lengths = f"\n\n{tables.lengths_text(classes)}" if classes else ""
        print(report(found, name) + lengths)
    _note(options.run, row)


def evaluated(
    translator: Translator, pairs: Pairs, search: SearchOptions, **how: Any
) -> Evaluation:
    """An evaluation, its progress shown; arguments as in `Translator.evaluate`."""
    with Counter(len(pairs.src), "translated") as count:
        return translator.evaluate(pairs, search, progress=count.add, **how)


def report(found: Evaluation, name: str = HELD_OUT) -> str:
    """An evaluation as text."""
    head = f"{name}: {found.scores.sentences} sentences in {found.seconds:.1f} s"
    return f"{head}\n{tables.scores_text(found.scores, found.loss)}"


def _classes(
    found: Evaluation, pairs: Pairs, scoring: MetricOptions, options: _EvaluateOptions
) -> list[LengthBucket]:
    lengths = word_counts(pairs.src)
    return by_length(found.hypotheses, pairs.tgt, lengths, options.bounds, scoring, options.metrics)


def _row(
    translator: Translator, name: str, options: _EvaluateOptions, found: Evaluation
) -> dict[str, Any]:
    """What `metrics.jsonl` keeps of an evaluation."""
    return {
        "kind": "test",
        "step": translator.step,
        "name": name,
        "beam": options.search.beam,
        "length_penalty": options.search.length_penalty,
        "detokenize": options.scoring.detokenize,
        **found.summary(),
    }


def _note(run: Path, row: dict[str, Any]) -> None:
    """Adds a row to the run; a run that cannot be written to has been scored all the same."""
    try:
        append_metrics(run / "metrics.jsonl", row)
    except OSError as error:
        print(f"encdec: {run} keeps no row of these scores: {error.strerror}", file=sys.stderr)
