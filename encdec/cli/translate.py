"""`encdec translate`: lines in, translations out."""

import itertools
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec.cli.parsing import check_batch_tokens, parse
from encdec.config import DeviceConfig
from encdec.data.sources import decode_lines, read_lines
from encdec.files import cache_folder, writer
from encdec.inference import translator as translators
from encdec.inference.translator import Translation, Translator
from encdec.parallel.devices import keep_compiled_programs
from encdec.search.options import SearchOptions
from encdec.types import InputError

_WINDOW = 4096
"""Lines that `translate` reads before it writes."""


@dataclass(frozen=True)
class _TranslateOptions:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    input: Annotated[Path | None, arg(help="Lines to translate (.gz too); stdin if left out.")] = (
        None
    )
    output: Annotated[Path | None, arg(help="Where translations go; stdout if left out.")] = None
    nbest: Annotated[int, arg(help="Translations of each line, best first, one a line.")] = 1
    scores: Annotated[bool, arg(help="Before each translation its score (nats) and a tab.")] = False
    too_long: Annotated[
        Literal["cut", "keep", "empty", "stop"],
        arg(
            help="A line longer than what the model was trained for is named on stderr and: cut to "
            "that length, kept whole, translated to an empty line, or the end of the command."
        ),
    ] = "cut"
    max_batch_tokens: Annotated[int, arg(help="Most source tokens in a batch.")] = 8192
    search: Annotated[SearchOptions, OmitArgPrefixes] = field(default_factory=SearchOptions)
    devices: Annotated[DeviceConfig, OmitArgPrefixes] = field(default_factory=DeviceConfig)


def run(arguments: list[str]) -> None:
    options = parse(_TranslateOptions, arguments, "encdec translate", "Lines in, lines out.")
    keep_compiled_programs(cache_folder())
    check_batch_tokens(options.max_batch_tokens)
    translator = translators.load_on(options.devices, options.run)
    inputs = [options.input] if options.input else []
    with _reader(options.input) as lines, writer(options.output, inputs) as out:
        first = 1
        while window := list(itertools.islice(lines, _WINDOW)):
            for found in _translated(translator, window, first, options):
                out.writelines(_lines(found, options))
            out.flush()
            first += len(window)


def _lines(found: list[Translation], options: _TranslateOptions) -> Iterator[str]:
    """`nbest` lines for each line in, empty ones where there are no more translations."""
    for i in range(options.nbest):
        score, text = (found[i].score, found[i].text) if i < len(found) else (-math.inf, "")
        yield f"{score:.4f}\t{text}\n" if options.scores else f"{text}\n"


def _translated(
    translator: Translator, lines: list[str], first: int, options: _TranslateOptions
) -> list[list[Translation]]:
    """Translations of some lines, `nbest` of each (fewer where the search found fewer)."""
    most = translator.run.config.data.max_source_length
    for i, line in enumerate(lines):
        length = translator.source_length(line)
        if length > most:
            message = (
                f"line {first + i} has {length} tokens, more than the {most} that the model was "
                "trained for"
            )
            if options.too_long == "stop":
                raise InputError(f"{message}: shorten it, or say --too-long cut, keep or empty")
            print(f"encdec: {message}: --too-long {options.too_long}", file=sys.stderr)
            if options.too_long == "empty":
                lines[i] = ""
    return translator.nbest(
        lines,
        options.nbest,
        options.search,
        max_source_length=most if options.too_long == "cut" else None,
        max_batch_tokens=options.max_batch_tokens,
    )


@contextmanager
def _reader(path: Path | None) -> Iterator[Iterator[str]]:
    if path is None:
        yield decode_lines(sys.stdin.buffer, "stdin")
    else:
        yield iter(read_lines(path))
