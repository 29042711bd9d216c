"""The commands that score: `encdec evaluate` and `encdec compare`."""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec import translator as translators
from encdec.arguments import check_batch_tokens, parse
from encdec.config import DataConfig, DeviceConfig
from encdec.data.sources import Pairs, read_lines
from encdec.output import writer
from encdec.report import metrics, tables
from encdec.report.lengths import BOUNDS, LengthClass, by_length, check_bounds, word_counts
from encdec.report.logs import Counter, append_metrics, json_line
from encdec.report.metrics import MetricName, ScoreOptions
from encdec.report.significance import compare
from encdec.scoring_arguments import HELD_OUT, ScoredText, ScoringChoices
from encdec.search import SearchOptions
from encdec.translator import Evaluation, Translator
from encdec.types import InputError

# --- evaluate ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _EvaluateOptions:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    text: Annotated[ScoredText, OmitArgPrefixes] = field(default_factory=ScoredText)
    output: Annotated[Path | None, arg(help="Write the translations here, one a line.")] = None
    json: Annotated[bool, arg(help="One JSON object on stdout.")] = False
    metrics: Annotated[
        tuple[MetricName, ...], arg(help="Scores to compute; TER takes long on long sentences.")
    ] = metrics.NAMES
    by_length: Annotated[bool, arg(help="Scores by source length too.")] = False
    bounds: Annotated[
        tuple[int, ...], arg(help="Longest source of each class of lengths but the last, in words.")
    ] = BOUNDS
    scoring: Annotated[ScoringChoices, OmitArgPrefixes] = field(default_factory=ScoringChoices)
    max_batch_tokens: Annotated[int, arg(help="Most source tokens in a batch.")] = 8192
    search: Annotated[SearchOptions, OmitArgPrefixes] = field(default_factory=SearchOptions)
    devices: Annotated[DeviceConfig, OmitArgPrefixes] = field(default_factory=DeviceConfig)


def evaluate_command(arguments: list[str]) -> None:
    """Scores a run on its held-out set or on files, and notes the scores in the run.

    Raises:
      InputError: bad input, before anything is translated or written.
    """
    options = parse(_EvaluateOptions, arguments, "encdec evaluate", "Scores a run.")
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
    found: Evaluation, pairs: Pairs, scoring: ScoreOptions, options: _EvaluateOptions
) -> list[LengthClass]:
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


# --- compare -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _CompareOptions:
    a: Annotated[
        Positional[Path],
        arg(metavar="RUN_A", help="Run folder, or a file of translations, one a line."),
    ]
    b: Annotated[Positional[Path], arg(metavar="RUN_B", help="The other.")]
    text: Annotated[ScoredText, OmitArgPrefixes] = field(default_factory=ScoredText)
    metric: Annotated[MetricName, arg(help="Score to compare by.")] = "bleu"
    samples: Annotated[int, arg(help="Sets of sentences that are drawn.")] = 1000
    json: Annotated[bool, arg(help="One JSON object on stdout.")] = False
    scoring: Annotated[ScoringChoices, OmitArgPrefixes] = field(default_factory=ScoringChoices)
    max_batch_tokens: Annotated[int, arg(help="Most source tokens in a batch.")] = 8192
    search: Annotated[SearchOptions, OmitArgPrefixes] = field(default_factory=SearchOptions)


def compare_command(arguments: list[str]) -> None:
    """Compares two runs, or files of translations, by paired bootstrap resampling.

    Raises:
      InputError: bad input, before anything is translated.
    """
    options = parse(_CompareOptions, arguments, "encdec compare", "Is B better than A?")
    check_batch_tokens(options.max_batch_tokens)
    if options.samples < 1:
        raise InputError(f"samples = {options.samples} cannot be used: it must be at least 1")
    systems = [_system(path) for path in (options.a, options.b)]
    runs = [system for system in systems if isinstance(system, Translator)]
    scoring = options.scoring.common_options([one.run.config for one in runs])
    pairs, name = _common_set(options.text, runs)
    for path, system in zip((options.a, options.b), systems, strict=True):
        if not isinstance(system, Translator) and len(system) != len(pairs.tgt):
            raise InputError(
                f"{path} has {len(system)} lines but there are {len(pairs.tgt)} references ({name})"
            )
    first, second = (_translations(system, pairs, options) for system in systems)
    found = compare(first, second, pairs.tgt, options.metric, scoring, options.samples)
    names = {"a": str(options.a), "b": str(options.b)}
    if options.json:
        print(json_line({"name": name, **names, **found.summary()}))
    else:
        print(f"{name}: {tables.comparison_text(found, **names)}")


def _system(path: Path) -> Translator | list[str]:
    return read_lines(path) if path.is_file() else translators.load(path)


def _common_set(text: ScoredText, runs: list[Translator]) -> tuple[Pairs, str]:
    """The sentences that both systems are scored on, and their name."""
    if text.target and not runs and text.paths == text.target:
        references = [line for path in text.target for line in read_lines(path)]
        return Pairs([""] * len(references), references), text.name
    if text.given:
        return text.read(runs[0].run.config.data if runs else DataConfig()), text.name
    if not runs:
        raise InputError("two files of translations need references: give --target")
    held_out = [one.run.held_out for one in runs]
    if held_out[0] != held_out[-1]:
        raise InputError(
            f"{runs[0].run.path} and {runs[-1].run.path} have different held-out sentences: give "
            "--source and --target, or --tsv"
        )
    return held_out[0], HELD_OUT


def _translations(
    system: Translator | list[str], pairs: Pairs, options: _CompareOptions
) -> list[str]:
    if not isinstance(system, Translator):
        return system
    with Counter(len(pairs.src), f"{system.run.path}: translated") as count:
        how: dict[str, Any] = {"max_batch_tokens": options.max_batch_tokens, "progress": count.add}
        return [found.text for found in system.translate(pairs.src, options.search, **how)]
