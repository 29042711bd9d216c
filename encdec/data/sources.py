"""Parallel text, read again and again without all of it in memory: two files, or TSV files."""

import codecs
import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from encdec.types import InputError

Pair = tuple[str, str]
"""A source text and its translation."""


class Pairs(NamedTuple):
    """Sentences and their translations in memory: src[i] and tgt[i] belong together."""

    src: list[str]
    tgt: list[str]


class PairStream(Protocol):
    """Pairs that can be read again and again, in one order, without all of them in memory."""

    def __iter__(self) -> Iterator[Pair]:
        """Source and target of each pair."""

    def __len__(self) -> int:
        """How many there are."""


@dataclass(frozen=True)
class Listed:
    """Pairs in memory as a stream."""

    pairs: Pairs

    def __iter__(self) -> Iterator[Pair]:
        return zip(*self.pairs, strict=True)

    def __len__(self) -> int:
        return len(self.pairs.src)


class Part(Protocol):
    """A file, two files side by side, or a split: what is read of a corpus at a stretch."""

    @property
    def name(self) -> str:
        """What a person knows it by."""

    @property
    def unit(self) -> str:
        """What a pair is there: a line or a row."""

    def __iter__(self) -> Iterator[Pair]:
        """All pairs in order; raises InputError where something cannot be read."""


@dataclass(frozen=True)
class ParallelFiles:
    """Two text files, line i of one the translation of line i of the other."""

    source: str | Path
    target: str | Path
    unit: str = "line"

    @property
    def name(self) -> str:
        return str(self.source)

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
    """A text file with a pair in each line, in two of its tab-separated columns (from 1).

    A blank line is a pair with nothing on either side, as it is of two files.
    """

    path: str | Path
    columns: tuple[int, int] = (1, 2)
    unit: str = "line"

    @property
    def name(self) -> str:
        return str(self.path)

    def __iter__(self) -> Iterator[Pair]:
        source, target = (column - 1 for column in self.columns)
        for number, line in enumerate(stream_lines(self.path), 1):
            cells = line.split("\t")
            if not line.strip():
                cells = [""] * max(self.columns)
            if len(cells) < max(self.columns):
                count = f"{len(cells)} column{'' if len(cells) == 1 else 's'}"
                raise InputError(
                    f"{self.path}, line {number} has {count} between tabs, but tsv_columns = "
                    f"{self.columns} asks for column {max(self.columns)}"
                )
            yield cells[source], cells[target]


def file_parts(
    source: Sequence[str | Path] = (),
    target: Sequence[str | Path] = (),
    tsv: Sequence[str | Path] = (),
    columns: tuple[int, int] = (1, 2),
) -> tuple[Part, ...]:
    """As many source as target files, two and two, or TSV files alone; nothing is opened yet.

    Raises:
      InputError: neither, both, or not as many of each.
    """
    if bool(tsv) == bool(source or target) or len(source) != len(target):
        raise InputError("give source and target, as many files of each, or tsv alone")
    if tsv:
        return tuple(TsvFile(path, columns) for path in tsv)
    return tuple(ParallelFiles(*paths) for paths in zip(source, target, strict=True))


def read_all(pairs: Iterable[Pair]) -> Pairs:
    """Pairs of a part or a stream in memory."""
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
    """All pairs of the files (see `file_parts`) in memory, blank ones too.

    Raises:
      InputError: a file cannot be read, line counts differ, a TSV line has too few columns.
    """
    return read_all(itertools.chain.from_iterable(file_parts(source, target, tsv, columns)))


def decode_lines(stream: Iterable[bytes], name: str) -> Iterator[str]:
    """Lines of text, one at a time, from lines of bytes.

    Only `\\n` ends a line, so U+2028 and its like stay inside one; a `\\r` before it and a byte
    order mark before the first line are cut.

    Args:
      stream: what a file open in binary mode yields.
      name: the file's name for errors.

    Raises:
      InputError: a line is not UTF-8.
    """
    for number, line in enumerate(stream, 1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            yield line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}, line {number}: not UTF-8 (byte {error.start + 1}); convert the file first"
            ) from error


def read_lines(path: str | Path) -> list[str]:
    """All lines of a file: `stream_lines` in memory."""
    return list(stream_lines(path))


def stream_lines(path: str | Path) -> Iterator[str]:
    """Lines of a UTF-8 text file, one at a time; one whose name ends in `.gz` is unpacked.

    Raises:
      InputError: the file is missing, empty, not readable, not UTF-8 or not whole.
    """
    empty = True
    try:
        with _open(Path(path)) as stream:
            for line in decode_lines(stream, str(path)):
                empty = False
                yield line
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path} is no whole gzip file ({error}): copy it anew") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if empty:
        raise InputError(f"{path} is empty: give a file with one sentence a line")


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
