"""`encdec translate`: reads lines of text and writes their translations."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec.cli.constraints import ConstraintOptions, LineConstraints, naming_lines
from encdec.cli.languages import LanguageOptions
from encdec.cli.markup_options import MarkupOptions
from encdec.cli.output import DASH, STDIN, writer
from encdec.cli.parsing import check_batch_tokens, parse_for_run
from encdec.cli.shortlist import ShortlistOptions
from encdec.cli.translate_output import OutputOptions, TranslationLines
from encdec.config import InferenceDeviceConfig
from encdec.config.search import EnsembleOptions, SearchOptions
from encdec.data.line_windows import line_windows
from encdec.files import cache_folder
from encdec.types import InputError

if TYPE_CHECKING:
    from encdec.inference.translation import Translation
    from encdec.inference.translator import Translator


@dataclass(frozen=True)
class _TranslateOptions:
    runs: Annotated[
        Positional[tuple[Path, ...]],
        arg(
            metavar="RUN [RUN ...]",
            help="Run folder; several with the same target vocabulary translate as an ensemble.",
        ),
    ]
    input: Annotated[
        Path | None,
        arg(
            help="File of lines to translate (.gz too); by default, or with -, stdin. The lines of "
            "a pipe or a terminal are translated as they arrive."
        ),
    ] = None
    output: Annotated[
        Path | None, arg(help="File to write (.gz too); by default, or with -, stdout.")
    ] = None
    form: Annotated[OutputOptions, OmitArgPrefixes] = field(default_factory=OutputOptions)
    paragraphs: Annotated[
        bool,
        arg(
            help="A line may hold several sentences: they are translated one by one and put "
            "together again, with the white space between them. A sentence that is longer than "
            "the model was trained for is split at a comma or at white space."
        ),
    ] = False
    too_long: Annotated[
        Literal["cut", "keep", "empty", "stop"],
        arg(
            help="What to do with a line that is longer than the model was trained for: cut it to "
            "that length, keep it as it is, write an empty line, or stop. Each such line is "
            "reported on stderr."
        ),
    ] = "cut"
    max_batch_tokens: Annotated[
        int,
        arg(help="The most source tokens in a batch, padding included; on a CPU times the beam."),
    ] = 8192
    constraints: Annotated[ConstraintOptions, OmitArgPrefixes] = field(
        default_factory=ConstraintOptions
    )
    languages: Annotated[LanguageOptions, OmitArgPrefixes] = field(default_factory=LanguageOptions)
    markup: Annotated[MarkupOptions, OmitArgPrefixes] = field(default_factory=MarkupOptions)
    search: Annotated[SearchOptions, OmitArgPrefixes] = field(default_factory=SearchOptions)
    shortlist: Annotated[ShortlistOptions, OmitArgPrefixes] = field(
        default_factory=ShortlistOptions
    )
    ensemble: Annotated[EnsembleOptions, OmitArgPrefixes] = field(default_factory=EnsembleOptions)
    devices: Annotated[InferenceDeviceConfig, OmitArgPrefixes] = field(
        default_factory=InferenceDeviceConfig
    )


def run(arguments: list[str]) -> None:
    """Translates lines with one run or with an ensemble.

    Raises:
      InputError: a run cannot be opened, the input cannot be read, or an option cannot be used.
    """
    options = parse_for_run(
        _TranslateOptions,
        arguments,
        "encdec translate",
        "Translates lines of text.",
        lambda parsed: parsed.runs[0] if parsed.runs else None,
    )
    _check(options)
    if options.input == DASH:
        options = replace(options, input=None)

    from encdec.parallel.devices import keep_compiled_programs
    from encdec.parallel.process_memory import trim_heap

    keep_compiled_programs(cache_folder())
    translator = _load(options)
    constraints = options.constraints.open(
        options.input, options.search, translator.run.tgt_vocabulary
    )
    form = TranslationLines(translator.run, options.form)
    translate = _translate_paragraphs if options.paragraphs else _translate
    inputs = [options.input or STDIN, *options.constraints.paths]
    with writer(options.output, inputs) as out:
        first = 1
        for window in line_windows(options.input):
            translated = translate(translator, window, first, options, constraints)
            for number, (line, several) in enumerate(zip(window, translated, strict=True), first):
                out.writelines(form.lines(number, line, several))
            out.flush()
            first += len(window)
            if len(window) > 1:  # who sends one line waits for it
                trim_heap()
        constraints.finish()
    form.report()


def _check(options: _TranslateOptions) -> None:
    """Raises InputError where options cannot be used together, before a run is opened."""
    check_batch_tokens(options.max_batch_tokens)
    options.form.check()
    options.markup.check()
    if not options.runs:
        raise InputError(
            "RUN is missing: give a run folder, and before options of several values such as "
            "--ban, which take all words after them (encdec translate --help)"
        )
    options.ensemble.weights_of(len(options.runs))
    if options.form.needs_attention and (options.paragraphs or options.markup.is_on):
        raise InputError(
            "--alignment and --attention cannot be used with --paragraphs, --markup or --keep, "
            "which translate something else than the line"
        )
    if not options.paragraphs:
        return
    if options.form.nbest > 1:
        raise InputError(
            "--paragraphs cannot be used with --nbest: several translations of each sentence do "
            "not say which paragraphs they make"
        )
    if options.markup.is_on:
        raise InputError(
            "--paragraphs cannot be used with --markup or --keep: markup may go over several "
            "sentences; give one sentence a line"
        )
    if options.too_long != "cut":
        raise InputError(
            "--too-long cannot be used with --paragraphs, which splits what is too long"
        )
    if options.constraints.prefixes:
        raise InputError("--prefixes cannot be used with --paragraphs: a prefix begins a sentence")


def _load(options: _TranslateOptions) -> "Translator":
    """The run or the ensemble, on its devices, for the languages that are asked for."""
    from encdec.inference.ensemble import load_ensemble
    from encdec.parallel.devices import chosen_precision
    from encdec.parallel.layout import Layout

    layout = Layout.parse(options.devices.layout)
    precision = chosen_precision(options.devices.precision)
    translator = load_ensemble(
        options.runs, layout, precision, options.ensemble, options.devices.weights
    )
    return options.shortlist.of(options.languages.of(translator))


def _translate(
    translator: "Translator",
    lines: list[str],
    first: int,
    options: _TranslateOptions,
    constraints: LineConstraints,
) -> "list[list[Translation]]":
    """Translates a window of lines.

    Args:
      translator: the run or the ensemble.
      lines: the window; lines that are too long are replaced as `too_long` says.
      first: the number of the first line in the input, for messages.
      options: the options of the command.
      constraints: what belongs to each line.

    Returns:
      For each line, at most `nbest` translations, best first.
    """
    lines, restore = options.markup.remove(lines)
    limit = min(member.run.config.data.max_source_length for member in translator.members)
    lines = _without_too_long(translator, lines, first, limit, options.too_long)
    with naming_lines(first):
        found = translator.nbest(
            lines,
            options.form.nbest,
            options.search,
            alignments=options.markup.is_on or options.form.needs_attention,
            example_ids=range(first - 1, first - 1 + len(lines)),
            **constraints.of_lines(lines, first),
            max_source_length=limit if options.too_long == "cut" else None,
            max_batch_tokens=options.max_batch_tokens,
        )
    return restore(translator.run, found)


def _without_too_long(
    translator: "Translator", lines: list[str], first: int, limit: int, too_long: str
) -> list[str]:
    """The lines, empty where `too_long` says so; reports those of more than `limit` tokens.

    Raises:
      InputError: there is such a line, and `too_long` is stop.
    """
    kept = []
    for number, line in enumerate(lines, first):
        length = max(member.source_length(line) for member in translator.members)
        if length > limit:
            message = (
                f"line {number} has {length} tokens, more than the {limit} that the model was "
                "trained for"
            )
            if too_long == "stop":
                raise InputError(f"{message}: shorten it, or give --too-long cut, keep or empty")
            print(f"encdec: {message}: --too-long {too_long}", file=sys.stderr)
            if too_long == "empty":
                line = ""
        kept.append(line)
    return kept


def _translate_paragraphs(
    translator: "Translator",
    lines: list[str],
    first: int,
    options: _TranslateOptions,
    constraints: LineConstraints,
) -> "list[list[Translation]]":
    """Translates a window of lines of several sentences each; arguments as in `_translate`."""
    from encdec.inference.paragraphs import translate_paragraphs

    found = translate_paragraphs(
        translator,
        lines,
        options.search,
        first=first - 1,
        constraints=constraints.of_sentences,
        max_batch_tokens=options.max_batch_tokens,
    )
    for number, paragraph in enumerate(found, first):
        for place, sentence in enumerate(paragraph.sentences, 1):
            if not sentence.text.strip():
                print(
                    f"encdec: line {number}: the translation of sentence {place} is empty",
                    file=sys.stderr,
                )
    return [[paragraph.whole] for paragraph in found]
