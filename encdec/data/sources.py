"""Readers of parallel text: two files with one sentence per line, or tab-separated files.

A corpus can be larger than memory, so its pairs are read as a stream, as often as needed.
"""

import codecs
import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from encdec.files import shortened
from encdec.types import InputError

_GZIP = b"\x1f\x8b"
"""The beginning of a gzip file."""

Pair = tuple[str, str]
"""A source text and its translation."""


class Pairs(NamedTuple):
    """Pairs in memory: tgt[i] is the translation of src[i]."""

    src: list[str]
    tgt: list[str]


class PairStream(Protocol):
    """Pairs of known number that can be read many times, each time in the same order."""

    def __iter__(self) -> Iterator[Pair]:
        """Yields the source and the target of each pair."""

    def __len__(self) -> int:
        """Returns the number of pairs."""


@dataclass(frozen=True)
class InMemoryPairs:
    """A stream of pairs that are in memory."""

    pairs: Pairs

    def __iter__(self) -> Iterator[Pair]:
        return zip(*self.pairs, strict=True)

    def __len__(self) -> int:
        return len(self.pairs.src)


class PairReader(Protocol):
    """A reader of one part of a corpus: a file, two parallel files, or a split of a data set.

    The number of pairs is not known before they are read.
    """

    @property
    def name(self) -> str:
        """The name of the file or of the split, for messages."""

    @property
    def unit(self) -> str:
        """What messages call the place of a pair: "line" or "row"."""

    def __iter__(self) -> Iterator[Pair]:
        """Yields all pairs in order; raises InputError where one cannot be read."""


@dataclass(frozen=True)
class ParallelFiles:
    """Two text files: line i of `target` is the translation of line i of `source`."""

    source: str | Path
    target: str | Path
    unit: str = "line"

    @property
    def name(self) -> str:
        return str(self.source)

    @property
    def files(self) -> tuple[str | Path, ...]:
        """The files that are read."""
        return (self.source, self.target)

    def __iter__(self) -> Iterator[Pair]:
        both = itertools.zip_longest(stream_lines(self.source), stream_lines(self.target))
        for number, (source, target) in enumerate(both):
            if source is None or target is None:
                counts = [number, number + 1 + sum(1 for _ in both)]
                in_source, in_target = counts if source is None else counts[::-1]
                raise InputError(
                    f"{self.source} has {in_source} lines but {self.target} has {in_target}: "
                    "line i of one must translate line i of the other"
                )
            yield source, target


@dataclass(frozen=True)
class TsvFile:
    """A text file with a pair in each line, in two of its tab-separated columns.

    A blank line is a pair of two empty texts, as a line that is blank in two parallel files is.

    Attributes:
      path: the file.
      columns: the columns of the source and of the target, counted from 1.
      unit: see `PairReader`.
    """

    path: str | Path
    columns: tuple[int, int] = (1, 2)
    unit: str = "line"

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def files(self) -> tuple[str | Path, ...]:
        """The file that is read."""
        return (self.path,)

    def __iter__(self) -> Iterator[Pair]:
        for number, line in enumerate(stream_lines(self.path), 1):
            source, target = tsv_cells(line, self.columns, f"{self.path}, line {number}")
            yield source, target


def tsv_cells(line: str, columns: Sequence[int], place: str) -> list[str]:
    """What a line has in some of its tab-separated columns; a blank line has blank texts.

    Args:
      line: without its end.
      columns: counted from 1, such as those of the source and of the target.
      place: the file and the number of the line, for the error.

    Raises:
      InputError: the line has too few columns.
    """
    cells = line.split("\t") if line.strip() else [""] * max(columns)
    if len(cells) < max(columns):
        count = f"{len(cells)} column{'' if len(cells) == 1 else 's'}"
        raise InputError(
            f"{place} has {count} between tabs, but tsv_columns = {tuple(columns)} asks for column "
            f"{max(columns)}"
        )
    return [cells[column - 1] for column in columns]


def read_tsv(paths: Iterable[str | Path], columns: Sequence[int]) -> list[list[str]]:
    """Reads TSV files, one after another, each of them once, since it may be a pipe.

    Returns:
      For each column the texts of all lines.

    Raises:
      InputError: a file cannot be read, or a line has too few columns.
    """
    rows = [
        tsv_cells(line, columns, f"{path}, line {number}")
        for path in paths
        for number, line in enumerate(stream_lines(path), 1)
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def file_readers(
    source: Sequence[str | Path] = (),
    target: Sequence[str | Path] = (),
    tsv: Sequence[str | Path] = (),
    columns: tuple[int, int] = (1, 2),
) -> tuple[PairReader, ...]:
    """Readers of parallel files or of TSV files; no file is opened yet.

    Args:
      source, target: as many source files as target files.
      tsv: TSV files, instead of these.
      columns: the columns of TSV files that hold source and target, counted from 1.

    Raises:
      InputError: both kinds of files are given, or none, or not as many targets as sources.
    """
    if bool(tsv) == bool(source or target) or len(source) != len(target):
        raise InputError("give as many source files as target files, or only tsv files")
    if tsv:
        return tuple(TsvFile(path, columns) for path in tsv)
    return tuple(map(ParallelFiles, source, target))


@dataclass(frozen=True)
class GivenPairs:
    """Pairs that a caller passes, each of them checked when it is read."""

    pairs: Any
    name: str = "the corpus"
    unit: str = "pair"

    def __iter__(self) -> Iterator[Pair]:
        pairs = self.pairs
        if not isinstance(pairs, Iterable):
            raise InputError(
                f"{self.name} is a {type(pairs).__name__}: give a list of (source, target) of two "
                "str"
            )
        if isinstance(pairs, Pairs):
            if len(pairs.src) != len(pairs.tgt):
                raise InputError(
                    f"{self.name} has {len(pairs.src)} sources but {len(pairs.tgt)} targets"
                )
            pairs = zip(*pairs, strict=True)
        for index, pair in enumerate(pairs):
            if not is_pair(pair):
                raise InputError(
                    f"{self.name}: pair {index} (counted from 0) is {shortened(pair)}, not a "
                    "(source, target) of two str"
                )
            source, target = pair
            if not _is_utf8(source + target):
                raise InputError(
                    f"{self.name}: pair {index} (counted from 0) is {shortened(pair)}, which has "
                    "half of a surrogate pair and cannot be written as UTF-8: decode it again"
                )
            yield source, target


def _is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8; surrogates alone cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_pair(pair: Any) -> bool:
    """Whether a value is a source and a target text."""
    is_two = isinstance(pair, tuple | list) and len(pair) == 2
    return is_two and all(isinstance(text, str) for text in pair)


def read_all(pairs: Iterable[Pair]) -> Pairs:
    """Reads all pairs of a reader or a stream into memory."""
    src, tgt = [], []
    for source, target in pairs:
        src.append(source)
        tgt.append(target)
    return Pairs(src, tgt)


def read_pairs(
    source: Sequence[str | Path] = (),
    target: Sequence[str | Path] = (),
    tsv: Sequence[str | Path] = (),
    columns: tuple[int, int] = (1, 2),
) -> Pairs:
    """Reads all pairs of files, blank ones too, into memory; arguments as in `file_readers`.

    Raises:
      InputError: a file cannot be read, two parallel files differ in their number of lines, or a
        TSV line has too few columns.
    """
    return read_all(itertools.chain.from_iterable(file_readers(source, target, tsv, columns)))


def decode_lines(stream: Iterable[bytes], name: str, first: int = 1) -> Iterator[str]:
    """Decodes lines of UTF-8 bytes, one at a time.

    Only `\\n` ends a line: U+2028 and other separators of Unicode stay inside it. A `\\r` before
    `\\n` and a byte order mark before the first line are removed.

    Args:
      stream: lines with or without their ends, as an open binary file yields them.
      name: the name of the file, for errors.
      first: the number of the first line.

    Raises:
      InputError: a line is not UTF-8, or the file is compressed.
    """
    for number, line in enumerate(stream, first):
        if number == 1:
            if line.startswith(_GZIP):
                raise InputError(f"{name} is a gzip file: unpack it, or name it .gz")
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            yield line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}, line {number}: not UTF-8 (byte {error.start + 1}); convert the file first"
            ) from error


def read_lines(path: str | Path) -> list[str]:
    """Reads all lines of a file into memory; see `stream_lines`."""
    return list(stream_lines(path))


def stream_lines(path: str | Path) -> Iterator[str]:
    """Yields the lines of a UTF-8 text file; a file whose name ends in `.gz` is unpacked.

    Raises:
      InputError: the file is missing, empty, not readable, not UTF-8, or a truncated gzip file.
    """
    empty = True
    try:
        with _open(Path(path)) as stream:
            for line in decode_lines(stream, str(path)):
                empty = False
                yield line
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        if str(error).startswith("Not a gzipped file"):
            raise InputError(
                f"{path} is not compressed, although its name ends in .gz: rename it"
            ) from error
        raise InputError(f"{path} is a damaged gzip file ({error}): copy it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if empty:
        raise InputError(f"{path} is empty: give a file that has lines")


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
