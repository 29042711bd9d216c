"""`encdec compare`: is one system significantly better than another?"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec.cli.parsing import check_batch_tokens, parse
from encdec.cli.scored_text import HELD_OUT, MetricChoices, ScoredText
from encdec.config import DataConfig
from encdec.data.sources import Pairs, read_lines
from encdec.evaluation import tables
from encdec.evaluation.metrics import MetricName
from encdec.evaluation.significance import compare
from encdec.files import cache_folder
from encdec.inference import translator as translators
from encdec.inference.translator import Translator
from encdec.parallel.devices import keep_compiled_programs
from encdec.progress import Counter
from encdec.runs.metrics_log import json_line
from encdec.search.options import SearchOptions
from encdec.types import InputError


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
    scoring: Annotated[MetricChoices, OmitArgPrefixes] = field(default_factory=MetricChoices)
    max_batch_tokens: Annotated[int, arg(help="Most source tokens in a batch.")] = 8192
    search: Annotated[SearchOptions, OmitArgPrefixes] = field(default_factory=SearchOptions)


def run(arguments: list[str]) -> None:
    """Compares two runs, or files of translations, by paired bootstrap resampling.

    Raises:
      InputError: bad input, before anything is translated.
    """
    options = parse(_CompareOptions, arguments, "encdec compare", "Is B better than A?")
    keep_compiled_programs(cache_folder())
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
