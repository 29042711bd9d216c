"""Parallel text: reading it from files, holding a part out, naming it by a digest."""

import codecs
import gzip
import hashlib
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from encdec.types import InputError


class Pairs(NamedTuple):
    """Sentences and their translations: src[i] and tgt[i] belong together."""

    src: list[str]
    tgt: list[str]


class PairStream(Protocol):
    """Pairs that can be read again and again, in one order, without all of them in memory."""

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Source and target of each pair."""

    def __len__(self) -> int:
        """How many there are."""


@dataclass(frozen=True)
class Listed:
    """Pairs in memory as a stream."""

    pairs: Pairs

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return zip(*self.pairs, strict=True)

    def __len__(self) -> int:
        return len(self.pairs.src)


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
    """All lines of a UTF-8 text file; one whose name ends in `.gz` is unpacked.

    Raises:
      InputError: the file is missing, empty, not readable, not UTF-8 or not whole.
    """
    try:
        with _open(Path(path)) as stream:
            lines = list(decode_lines(stream, str(path)))
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path} is no whole gzip file ({error}): copy it anew") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not lines:
        raise InputError(f"{path} is empty: give a file with one sentence a line")
    return lines


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def read_pairs(
    source: Sequence[str | Path] = (),
    target: Sequence[str | Path] = (),
    tsv: Sequence[str | Path] = (),
    columns: tuple[int, int] = (1, 2),
) -> Pairs:
    """Pairs from files of as many lines, two and two, or from TSV files alone.

    Raises:
      InputError: a file cannot be read, line counts differ, a TSV line has no tab.
    """
    if bool(tsv) == bool(source or target) or len(source) != len(target):
        raise InputError("give source and target, as many files of each, or tsv alone")
    parts = [_split_columns(read_lines(path), path, columns) for path in tsv]
    parts += [_read_parallel(*paths) for paths in zip(source, target, strict=True)]
    return Pairs([s for part in parts for s in part.src], [t for part in parts for t in part.tgt])


def _read_parallel(source: str | Path, target: str | Path) -> Pairs:
    pairs = Pairs(read_lines(source), read_lines(target))
    if len(pairs.src) != len(pairs.tgt):
        raise InputError(
            f"{source} has {len(pairs.src)} lines but {target} has {len(pairs.tgt)}: "
            "line i of one must translate line i of the other"
        )
    return pairs


def without_blanks(pairs: Pairs) -> tuple[Pairs, int]:
    """The pairs with text on both sides, and the number of those left out.

    Raises:
      InputError: no pair is left.
    """
    kept = [i for i, (s, t) in enumerate(zip(*pairs, strict=True)) if s.strip() and t.strip()]
    if not kept:
        raise InputError("no pair of the corpus has text on both sides")
    return _take(pairs, kept), len(pairs.src) - len(kept)


def _split_columns(lines: list[str], path: str | Path, columns: tuple[int, int]) -> Pairs:
    src, tgt = [], []
    for number, line in enumerate(lines, 1):
        cells = line.split("\t")
        if len(cells) < max(columns):
            raise InputError(f"{path}, line {number}: {len(cells)} columns, no {max(columns)}th")
        src.append(cells[columns[0] - 1])
        tgt.append(cells[columns[1] - 1])
    return Pairs(src, tgt)


def _take(pairs: Pairs, rows: Iterable[int]) -> Pairs:
    rows = list(rows)
    return Pairs([pairs.src[i] for i in rows], [pairs.tgt[i] for i in rows])


def hold_out(pairs: Pairs, count: int | float, seed: int) -> tuple[Pairs, Pairs]:
    """Splits pairs at random into (training, held out); no source text stands on both sides.

    All pairs of one source text go to the same side, so no pair is lost and none leaks. Held out
    are `count` pairs (below 1: that share of all), or the nearest number below that such groups
    allow, a tenth of all at most.

    Raises:
      InputError: too few different source texts to hold any out.
    """
    rows_of = defaultdict(list)
    for i, text in enumerate(pairs.src):
        rows_of[text].append(i)
    groups = list(rows_of.values())
    wanted = count if count >= 1 else int(count * len(pairs.src))
    room = min(wanted, len(pairs.src) // 10)
    held: list[int] = []
    for g in np.random.default_rng(seed).permutation(len(groups)):
        if len(held) == room:
            break
        if len(held) + len(groups[g]) <= room:
            held += groups[g]
    if not held:
        raise InputError(
            f"{len(pairs.src)} pairs with {len(groups)} different sources are too few to hold any "
            "out: give validation files (valid_source and valid_target, or valid_tsv)"
        )
    outside = sorted(set(range(len(pairs.src))).difference(held))
    return _take(pairs, outside), _take(pairs, held)


def digest(pairs: Pairs) -> str:
    """SHA-256 (hex) of a corpus; each text goes in with its length, so no two corpora share one."""
    state = hashlib.sha256()
    for side in pairs:
        state.update(struct.pack("<Q", len(side)))
        for text in side:
            data = text.encode("utf-8", "surrogatepass")
            state.update(struct.pack("<Q", len(data)))
            state.update(data)
    return state.hexdigest()
