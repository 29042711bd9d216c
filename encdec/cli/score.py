"""`encdec score`: computes the log-probability of given translations.

Each line of output is a score (nats), a tab, and the line that was scored: the target sentence, the
line of tab-separated columns, or the line of the n-best list. `sort` then reranks an n-best list,
by the id at the head of the second column and by the score:

    encdec score RUN --source text --nbest list | sort -t "$(printf '\\t')" -k 2,2n -k 1,1gr
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec.cli.languages import LanguageOptions
from encdec.cli.output import STDIN, writer
from encdec.cli.parsing import check_batch_tokens, check_tsv_columns, parse
from encdec.config import InferenceDeviceConfig
from encdec.data.line_windows import MOST_LINES, line_windows
from encdec.files import cache_folder, finite, json_text
from encdec.types import InputError

if TYPE_CHECKING:
    from encdec.inference.translator import Translator


@dataclass(frozen=True)
class _ScoreOptions:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    source: Annotated[
        tuple[Path, ...], arg(help="Source sentences, in one or more files (.gz too).")
    ] = ()
    target: Annotated[
        tuple[Path, ...],
        arg(help="Translations to score, one file for each source file, line by line."),
    ] = ()
    nbest: Annotated[
        tuple[Path, ...],
        arg(
            help="Instead of target: n-best lists of the source sentences in Moses' format, "
            "`id ||| translation ||| ...`, where id 0 is the first source sentence."
        ),
    ] = ()
    tsv: Annotated[
        tuple[Path, ...],
        arg(
            help="Instead of files of sentences: files of tab-separated columns, one pair per "
            "line. If no file is named, such lines are read from stdin."
        ),
    ] = ()
    tsv_columns: Annotated[
        tuple[int, int],
        arg(metavar="INT INT", help="Columns of the source and the target, counted from 1."),
    ] = (1, 2)
    output: Annotated[Path | None, arg(help="File to write (.gz too); by default stdout.")] = None
    tokens: Annotated[
        bool,
        arg(
            help="Add two columns: the tokens of the target with the end token, and the "
            "log-probability of each token, separated by spaces."
        ),
    ] = False
    json: Annotated[
        bool, arg(help="Write one JSON object per pair instead: source, target, score.")
    ] = False
    max_batch_tokens: Annotated[
        int, arg(help="The most source or target tokens in a batch, padding included.")
    ] = 8192
    languages: Annotated[LanguageOptions, OmitArgPrefixes] = field(default_factory=LanguageOptions)
    devices: Annotated[InferenceDeviceConfig, OmitArgPrefixes] = field(
        default_factory=InferenceDeviceConfig
    )


class _Line(NamedTuple):
    """A pair to score.

    Attributes:
      place: the file and the line number, for errors.
      text: the line of the input.
      source, target: the two sentences.
    """

    place: str
    text: str
    source: str
    target: str


def run(arguments: list[str]) -> None:
    """Writes the score of each pair.

    Raises:
      InputError: bad input. The scores of all windows of lines before it are written.
    """
    options = parse(
        _ScoreOptions,
        arguments,
        "encdec score",
        "Writes the log-probability of given translations: a score in nats, a tab, the line.",
    )
    check_batch_tokens(options.max_batch_tokens)
    windows = _windows(options)

    from encdec.inference import translator as translators
    from encdec.parallel.devices import keep_compiled_programs

    keep_compiled_programs(cache_folder())
    translator = options.languages.of(translators.load_on(options.devices, options.run))
    inputs = [*options.source, *options.target, *options.nbest, *options.tsv]
    with writer(options.output, inputs or [STDIN]) as out:
        for window in windows:
            for line in window:
                if line.source.strip() and not line.target.strip():
                    raise InputError(f"{line.place} has an empty target: leave the line out")
            out.writelines(f"{text}\n" for text in _scored(translator, window, options))
            out.flush()


def _windows(options: _ScoreOptions) -> Iterator[list[_Line]]:
    """Iterates over windows of the pairs to score; those on stdin are read as they arrive.

    Raises:
      InputError: the options cannot be combined.
    """
    check_tsv_columns(options.tsv_columns, are_read=not (options.target or options.nbest))
    kinds = [bool(options.target), bool(options.nbest), bool(options.tsv)]
    if sum(kinds) > 1 or bool(options.source) != (kinds[0] or kinds[1]):
        raise InputError(
            "give --source and --target, --source and --nbest, --tsv, or nothing for pairs on stdin"
        )
    if options.nbest:
        return _many(_nbest_lines(options))
    if options.target:
        return _many(_parallel_lines(options))
    if options.tsv:
        return _many(_tsv_lines(options))
    return _arriving_lines(options)


def _many(lines: Iterator[_Line]) -> Iterator[list[_Line]]:
    while window := list(islice(lines, MOST_LINES)):
        yield window


def _parallel_lines(options: _ScoreOptions) -> Iterator[_Line]:
    from encdec.data.sources import ParallelFiles, file_readers

    for reader in file_readers(options.source, options.target):
        assert isinstance(reader, ParallelFiles)
        for number, (source, target) in enumerate(reader, 1):
            yield _Line(f"{reader.target}, line {number}", target, source, target)


def _tsv_lines(options: _ScoreOptions) -> Iterator[_Line]:
    from encdec.data.sources import stream_lines

    for path in options.tsv:
        for number, text in enumerate(stream_lines(path), 1):
            yield _tsv_line(text, f"{path}, line {number}", options)


def _arriving_lines(options: _ScoreOptions) -> Iterator[list[_Line]]:
    numbers = count(1)
    for window in line_windows(None):
        yield [_tsv_line(text, f"stdin, line {next(numbers)}", options) for text in window]


def _tsv_line(text: str, place: str, options: _ScoreOptions) -> _Line:
    from encdec.data.sources import tsv_cells

    return _Line(place, text, *tsv_cells(text, options.tsv_columns, place))


def _nbest_lines(options: _ScoreOptions) -> Iterator[_Line]:
    """Iterates over the lines of n-best lists, each with its source.

    Raises:
      InputError: a line does not have Moses' format, or no source has its id.
    """
    from encdec.data.sources import read_lines, stream_lines

    sources = [line for path in options.source for line in read_lines(path)]
    for path in options.nbest:
        for number, text in enumerate(stream_lines(path), 1):
            place = f"{path}, line {number}"
            cells = [cell.strip() for cell in text.split("|||")]
            if len(cells) < 2 or not re.fullmatch("[0-9]{1,18}", cells[0]):
                raise InputError(
                    f"{place} is not a line of an n-best list: `id ||| translation ||| ...` is, "
                    "with ids from 0"
                )
            if int(cells[0]) >= len(sources):
                raise InputError(
                    f"{place} has id {cells[0]} but there are {len(sources)} source sentences, "
                    f"with ids 0 to {len(sources) - 1}"
                )
            yield _Line(place, text, sources[int(cells[0])], cells[1])


def _scored(translator: "Translator", window: list[_Line], options: _ScoreOptions) -> Iterator[str]:
    """Computes the scores of some pairs and yields the lines to write."""
    from encdec.inference.scoring import score

    pairs = [(line.source, line.target) for line in window]
    scores = score(translator, pairs, max_batch_tokens=options.max_batch_tokens)
    vocabulary = translator.run.tgt_vocabulary
    for line, total, token_scores in zip(
        window, scores.log_probs, scores.token_log_probs, strict=True
    ):
        labels: list[str] = []
        if options.tokens and len(token_scores):
            ids = [*vocabulary.encode(line.target), vocabulary.specials.end]
            labels = vocabulary.tokens(ids)
        if options.json:
            row: dict[str, Any] = {
                "source": line.source,
                "target": line.target,
                "score": finite(float(total)),
            }
            if options.tokens:
                row |= {"tokens": labels, "token_scores": [finite(float(x)) for x in token_scores]}
            yield json_text(row)
        else:
            columns = [f"{total:.4f}", line.text]
            if options.tokens:
                columns += [" ".join(labels), " ".join(f"{x:.4f}" for x in token_scores)]
            yield "\t".join(columns)
