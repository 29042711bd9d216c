"""The command line: `encdec COMMAND`.

Bad input ends with one line on stderr and exit code 2, before any work is lost.
"""

import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import jax
from tyro.conf import OmitArgPrefixes, Positional, arg

from encdec import prepare_command, processes
from encdec import translator as translators
from encdec.arguments import check_batch_tokens, parse
from encdec.attend_command import attend_command
from encdec.config import DeviceConfig, nearest
from encdec.data.sources import decode_lines, read_lines
from encdec.doctor import doctor
from encdec.fitting import fit
from encdec.output import writer
from encdec.preparing import cache_folder
from encdec.report import metrics
from encdec.run_commands import export_command, info_command, plot_command
from encdec.scoring_commands import compare_command, evaluate_command, evaluated, report
from encdec.search import SearchOptions
from encdec.serve_command import serve_command
from encdec.train_arguments import parse_train
from encdec.translator import Translation, Translator
from encdec.types import InputError

_USAGE = """usage: encdec COMMAND ...

  train [PRESET]     train a run (the dates corpus and the Transformer if nothing is said)
  translate RUN      lines in, translations out
  evaluate RUN       score a run on its held-out sentences, or on files
  compare RUN RUN    tell whether one run is significantly better than another
  attend RUN TEXT    draw where the model looks
  info RUN           tell what a run is, how far it got and how it scored
  plot RUN...        draw learning curves, or scores by length, of one or several runs
  export RUN         write weights and a greedy search that need this package no more
  serve RUN          serve a page to translate in, on this machine alone
  prepare CORPUS     fetch a corpus of TensorFlow Datasets to train on
  doctor             tell what this machine computes with

`encdec COMMAND --help` lists a command's options."""

_WINDOW = 4096
"""Lines that `translate` reads before it writes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; exits with 2 after one line on stderr about bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "translate": _translate,
        "evaluate": evaluate_command,
        "compare": compare_command,
        "attend": attend_command,
        "prepare": prepare_command.prepare,
        "doctor": doctor,
        "info": info_command,
        "plot": plot_command,
        "export": export_command,
        "serve": serve_command,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return
    try:
        name, *rest = arguments
        if name not in commands:
            raise InputError(f"unknown command {name!r}{nearest(name, commands)} (encdec --help)")
        _keep_compiled_programs()
        commands[name](rest)
    except InputError as error:
        print(f"encdec: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)


def _keep_compiled_programs() -> None:
    """XLA's programs stay on disk, so that a command's second start need not compile again."""
    if not getattr(jax.config, "jax_compilation_cache_dir"):  # noqa: B009  (mypy cannot see it)
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


# --- train ---------------------------------------------------------------------------------------


def _train(arguments: list[str]) -> None:
    config, folder, devices = parse_train(arguments)
    fit(config, folder, devices=devices)
    if processes.writes():
        _finish(translators.load(folder))
    processes.wait("the end")


def _finish(translator: Translator) -> None:
    """Prints the held-out score, a few translations, and where things are."""
    run = translator.run
    found = evaluated(translator, run.held_out, SearchOptions(), names=metrics.QUICK)
    print(report(found))
    for source, reference, hypothesis in itertools.islice(
        zip(*run.held_out, found.hypotheses, strict=True), 5
    ):
        print(f"\n  source     {source}\n  reference  {reference}\n  translated {hypothesis}")
    print(f"\nrun: {run.path}")
    alignment = translator(run.held_out.src[0])
    if alignment.weights is not None and alignment.weights.size:
        from encdec.pictures import attention_picture  # matplotlib takes its time to import
        from encdec.report.plots import save_figure

        picture = run.path / "attention.png"
        save_figure(attention_picture(translator, alignment), picture)
        print(f"where it looked: {picture}")
    print(f"try: echo '{run.held_out.src[0]}' | encdec translate {run.path}")


# --- translate -----------------------------------------------------------------------------------


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


def _translate(arguments: list[str]) -> None:
    options = parse(_TranslateOptions, arguments, "encdec translate", "Lines in, lines out.")
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
