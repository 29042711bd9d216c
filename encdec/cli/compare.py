"""`encdec compare`: tests whether one system is significantly better than another."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec.cli.evaluation_text import EvaluationText, TestSet
from encdec.cli.metric_choices import NAMES, MetricChoices
from encdec.cli.parsing import check_batch_tokens, parse_for_run
from encdec.config import DataConfig
from encdec.config.search import SearchOptions
from encdec.evaluation import tables
from encdec.evaluation.compute import make_metrics
from encdec.evaluation.significance import check_samples, compare
from encdec.files import cache_folder
from encdec.types import InputError

if TYPE_CHECKING:
    from encdec.inference.translator import Translator


@dataclass(frozen=True)
class _CompareOptions:
    a: Annotated[
        Positional[Path],
        arg(metavar="RUN_A", help="Run folder, or a file of translations, one per line."),
    ]
    b: Annotated[
        Positional[Path], arg(metavar="RUN_B", help="The other system: a run folder or a file.")
    ]
    text: Annotated[EvaluationText, OmitArgPrefixes] = field(default_factory=EvaluationText)
    metric: Annotated[str, arg(metavar="{" + NAMES + "}", help="Metric to compare by.")] = "bleu"
    samples: Annotated[int, arg(help="Number of samples of the sentences that are drawn.")] = 1000
    json: Annotated[bool, arg(help="Print one JSON object.")] = False
    choices: Annotated[MetricChoices, OmitArgPrefixes] = field(default_factory=MetricChoices)
    max_batch_tokens: Annotated[
        int,
        arg(help="The most source tokens in a batch, padding included; on a CPU times the beam."),
    ] = 8192
    search: Annotated[SearchOptions, OmitArgPrefixes] = field(default_factory=SearchOptions)


def run(arguments: list[str]) -> None:
    """Compares two runs, or files of translations, by paired bootstrap resampling.

    Raises:
      InputError: bad input, before anything is translated.
    """
    options = parse_for_run(
        _CompareOptions,
        arguments,
        "encdec compare",
        "Tests whether a system is significantly better than another on the same sentences.",
        lambda parsed: next((path for path in (parsed.a, parsed.b) if path.is_dir()), None),
    )
    check_batch_tokens(options.max_batch_tokens)
    check_samples(options.samples)
    make_metrics([options.metric], options.choices.options(None))

    from encdec.inference.translator import Translator
    from encdec.parallel.devices import keep_compiled_programs
    from encdec.runs.metrics_log import json_line

    keep_compiled_programs(cache_folder())
    systems = [_system(path) for path in (options.a, options.b)]
    runs = [system for system in systems if isinstance(system, Translator)]
    metric_options = options.choices.common_options(system.run.config for system in runs)
    name, sources, references = _test_set(options.text, runs)
    make_metrics(
        [options.metric],
        metric_options,
        ("references",) if sources is None else ("references", "sources"),
    )
    for path, system in zip((options.a, options.b), systems, strict=True):
        if not isinstance(system, Translator) and len(system) != len(references[0]):
            raise InputError(
                f"{path} has {len(system)} lines but there are {len(references[0])} references "
                f"({name})"
            )
    a, b = (_translations(system, sources, options) for system in systems)
    comparison = compare(a, b, references, options.metric, metric_options, options.samples, sources)
    names = {"a": str(options.a), "b": str(options.b)}
    if options.json:
        print(json_line({"name": name, **names, **comparison.summary()}))
    else:
        print(f"{name}: {tables.comparison_text(comparison, **names)}")


def _system(path: Path) -> "Translator | list[str]":
    """Returns the translations in a file, or a translator for a run folder."""
    from encdec.data.sources import read_lines
    from encdec.inference import translator as translators

    if path.exists() and not path.is_dir():  # a file, or a pipe
        return read_lines(path)
    return translators.load(path)


def _test_set(text: EvaluationText, runs: "list[Translator]") -> TestSet:
    """Returns the test set on which both systems are compared."""
    if text.target and not (runs or text.source or text.tsv or text.corpus):
        return text.read_references()
    if text.is_given:
        return text.read(runs[0].run.config.data if runs else DataConfig())
    if not runs:
        raise InputError("two files of translations need references: give --target")
    if runs[0].run.held_out != runs[-1].run.held_out:
        raise InputError(
            f"{runs[0].run.path} and {runs[-1].run.path} have different held-out sentences: give "
            "--source and --target, or --tsv"
        )
    return text.held_out(runs[0].run)


def _translations(
    system: "Translator | list[str]", sources: list[str] | None, options: _CompareOptions
) -> list[str]:
    """Returns the system's translations of the sources, or those that its file holds."""
    if isinstance(system, list):
        return system
    from encdec.progress import Counter

    assert sources is not None, "only files of translations are compared without sources"
    with Counter(len(sources), f"{system.run.path}: translated") as counter:
        translations = system.translate(
            sources,
            options.search,
            max_batch_tokens=options.max_batch_tokens,
            progress=counter.add,
        )
    return [translation.text for translation in translations]
