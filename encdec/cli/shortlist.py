"""`encdec shortlist`: makes the table of a vocabulary shortlist for a run; and the options that use
one."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from encdec.cli.output import check_output, writer
from encdec.cli.parsing import check_tsv_columns, parse
from encdec.config.checks import check_ranges
from encdec.types import InputError

if TYPE_CHECKING:
    import numpy as np

    from encdec.data.sources import PairReader
    from encdec.inference.translator import Translator
    from encdec.runs.run import Run

_BEST = 20
_WINDOW = 1024
"""Pairs that are encoded at a time."""


@dataclass(frozen=True)
class ShortlistOptions:
    """A vocabulary shortlist."""

    shortlist: Path | None = None
    """File of a lexical table, such as `encdec shortlist` makes or Marian's lex.s2t: a target
    token, a source token and a probability in each line. A translation has only tokens that the
    table proposes for the tokens of its source; this is faster on a CPU. Log-probabilities are
    normalised over these tokens."""
    shortlist_best: int = _BEST
    """With --shortlist: the most target tokens that a source token proposes, the likeliest ones."""

    def __post_init__(self) -> None:
        check_ranges(self, positive="shortlist_best")

    def of(self, translator: "Translator") -> "Translator":
        """The translator with the shortlist.

        Raises:
          InputError: the table cannot be used.
        """
        if self.shortlist is None:
            if self.shortlist_best != _BEST:
                raise InputError("--shortlist-best is given without --shortlist: name the table")
            return translator
        return translator.with_shortlist(self.shortlist, self.shortlist_best)


@dataclass(frozen=True)
class _Options:
    run: Annotated[Positional[Path], arg(metavar="RUN", help="Run folder.")]
    out: Annotated[Path, arg(help="File to write; compressed if its name ends in .gz.")]
    source: Annotated[
        tuple[Path, ...],
        arg(help="Source sentences, in one or more files; by default the run's training text."),
    ] = ()
    target: Annotated[
        tuple[Path, ...], arg(help="Their translations, one file for each source file.")
    ] = ()
    tsv: Annotated[
        tuple[Path, ...],
        arg(help="Instead of source and target: files of tab-separated columns, one pair a line."),
    ] = ()
    tsv_columns: Annotated[
        tuple[int, int], arg(help="Columns of the source and of the target, counted from 1.")
    ] = (1, 2)
    best: Annotated[
        int, arg(help="The most target tokens for a source token; --shortlist-best takes fewer.")
    ] = 50

    def __post_init__(self) -> None:
        check_ranges(self, positive="best")


def run(arguments: list[str]) -> None:
    """Writes the table.

    Raises:
      InputError: the run or the text cannot be read, or the file cannot be written.
    """
    options = parse(
        _Options,
        arguments,
        "encdec shortlist",
        "Makes the table of a vocabulary shortlist: which target tokens translate a source token, "
        "learnt from parallel text (IBM model 1). `translate --shortlist` takes it.",
    )
    check_tsv_columns(options.tsv_columns, are_read=bool(options.tsv))
    inputs = [*options.source, *options.target, *options.tsv]
    check_output(options.out, inputs, "--out")
    from encdec.data.lexicon import learn_lexicon
    from encdec.data.shortlist import table_lines
    from encdec.runs import run as runs

    opened = runs.load(options.run)
    src, tgt = opened.src_vocabulary, opened.tgt_vocabulary
    with writer(options.out, inputs) as out:
        lexicon = learn_lexicon(_pairs(opened, _readers(opened, options)), src.size, tgt.size)
        if not lexicon.sentences:
            raise InputError("there are no pairs of sentences to learn from")
        lines = 0
        for line in table_lines(lexicon, src, tgt, options.best):
            out.write(line)
            lines += 1
        if not lines:
            raise InputError(
                f"the {lexicon.sentences} pairs have no token on both sides that the vocabularies "
                "know, so that the table would be empty: give text of the run's languages"
            )
    print(f"{options.out}: {lines} lines, learnt from {lexicon.sentences} pairs", file=sys.stderr)


def _readers(opened: "Run", options: _Options) -> "tuple[PairReader, ...]":
    from encdec.data.corpus import training_readers
    from encdec.data.sources import file_readers

    if options.source or options.target or options.tsv:
        return file_readers(options.source, options.target, options.tsv, options.tsv_columns)
    if not opened.config.data.has_corpus:
        raise InputError(
            f"{options.run} was not trained on text in files: give --source and --target, or --tsv"
        )
    return training_readers(opened.config.data)


def _pairs(
    opened: "Run", readers: "tuple[PairReader, ...]"
) -> "Iterator[tuple[np.ndarray, np.ndarray]]":
    """The tokens of all pairs that have text on both sides."""
    import numpy as np

    src, tgt = opened.src_vocabulary, opened.tgt_vocabulary
    pairs = (pair for pair in chain.from_iterable(readers) if all(map(str.strip, pair)))
    while window := [*islice(pairs, _WINDOW)]:
        sources, targets = zip(*window, strict=True)
        both = zip(src.encode_all(sources), tgt.encode_all(targets), strict=True)
        yield from ((np.array(a, int), np.array(b, int)) for a, b in both)
