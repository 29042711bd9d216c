"""Statistics of a training corpus in one pass, and the choice of pairs that are held out.

The choice must not split pairs with the same source text between training and validation, must be
the same whenever it is made, and must not need the text in memory. So each source text is hashed
with the seed as key, and the pairs with the smallest hashes are held out. A pair takes 9 bytes of
memory, and 8 more while the hashes are sorted.
"""

import hashlib
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from encdec.data.sources import Pair, PairReader
from encdec.types import InputError

_MAX_LISTED = 5
"""Blank pairs that a message lists."""
_BLOCK = 1 << 20
"""Hashes that are looked up at once, to bound the memory of temporary arrays."""


class CorpusStatistics(NamedTuple):
    """What one pass over a corpus of n pairs computes.

    Attributes:
      source_hashes: uint64 [n], a keyed hash of each source text.
      nonblank: bool [n], whether a pair has text on both sides.
      first_blank: the reader and the number, counted from 1, of the first pairs that are blank.
      digest: SHA-256 (hex) of the text, see `digest`.
    """

    source_hashes: np.ndarray
    nonblank: np.ndarray
    first_blank: tuple[tuple[PairReader, int], ...]
    digest: str


@dataclass(frozen=True, eq=False)
class SelectedPairs:
    """A stream of those pairs of a corpus that a mask keeps.

    Attributes:
      readers: the parts of the corpus.
      keep: bool [n], True for the pairs of the stream.
    """

    readers: tuple[PairReader, ...]
    keep: np.ndarray

    def __iter__(self) -> Iterator[Pair]:
        pairs = itertools.chain.from_iterable(self.readers)
        for keep, pair in itertools.zip_longest(self.keep, pairs):
            if keep is None or pair is None:
                raise InputError(
                    f"{self.readers[0].name}: the corpus has changed while it was read: start "
                    "again once nothing writes to it"
                )
            if keep:
                yield pair

    def __len__(self) -> int:
        return int(np.count_nonzero(self.keep))


class Digest:
    """SHA-256 of a sequence of pairs.

    The lengths of both texts are hashed with them, so that two different sequences never give the
    hash function the same bytes.
    """

    def __init__(self) -> None:
        self._state = hashlib.sha256()

    def add(self, pair: Pair) -> None:
        source, target = (text.encode("utf-8", "surrogatepass") for text in pair)
        self._state.update(struct.pack("<QQ", len(source), len(target)) + source + target)

    def hex(self) -> str:
        return self._state.hexdigest()


def digest(pairs: Iterable[Pair]) -> str:
    """SHA-256 (hex) of the text of pairs, in their order."""
    state = Digest()
    for pair in pairs:
        state.add(pair)
    return state.hex()


def corpus_statistics(readers: Sequence[PairReader], seed: int) -> CorpusStatistics:
    """Reads a corpus once and computes what the choice of training pairs needs.

    Args:
      readers: the parts of the corpus.
      seed: the key of the hash, so that another seed holds out other pairs.

    Raises:
      InputError: a part cannot be read, or no pair has text on both sides.
    """
    key, state = struct.pack("<Q", seed), Digest()
    source_hashes, nonblank = bytearray(), bytearray()  # far smaller than lists of numbers
    first_blank: list[tuple[PairReader, int]] = []
    for reader in readers:
        for number, pair in enumerate(reader, 1):
            state.add(pair)
            source = pair[0].encode("utf-8", "surrogatepass")
            source_hashes += hashlib.blake2b(source, digest_size=8, key=key).digest()
            has_text = bool(pair[0].strip() and pair[1].strip())
            nonblank.append(has_text)
            if not has_text and len(first_blank) < _MAX_LISTED:
                first_blank.append((reader, number))
    if not any(nonblank):
        raise InputError(f"{readers[0].name}: no pair of the corpus has text on both sides")
    return CorpusStatistics(
        np.frombuffer(source_hashes, "<u8"),
        np.frombuffer(nonblank, bool),
        tuple(first_blank),
        state.hex(),
    )


def describe_blank_pairs(statistics: CorpusStatistics) -> str | None:
    """One line that counts the blank pairs and says where the first are; None without any."""
    count = len(statistics.nonblank) - int(np.count_nonzero(statistics.nonblank))
    if not count:
        return None
    groups = itertools.groupby(statistics.first_blank, lambda place: place[0])
    places = [(reader, [number for _, number in group]) for reader, group in groups]
    listed = "; ".join(
        f"{'' if len(places) == 1 else reader.name + ', '}"
        f"{reader.unit}{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        for reader, numbers in places
    )
    more = ", ..." if count > len(statistics.first_blank) else ""
    pairs, are = ("pair", "is") if count == 1 else ("pairs", "are")
    return f"{count} {pairs} with an empty side {are} left out of training ({listed}{more})"


def holdout_mask(statistics: CorpusStatistics, count: int | float) -> np.ndarray:
    """Chooses the pairs to hold out, bool [n], True for held out.

    All pairs with the same source text are on the same side of the split. Blank pairs are neither
    held out nor counted.

    Args:
      statistics: of the corpus.
      count: how many pairs to hold out, or the fraction of all if it is below 1. At most a tenth
        of all are held out, and fewer than `count` where the groups of equal sources do not add up
        to it.

    Raises:
      InputError: the corpus has too few different source texts to hold any out.
    """
    ordered = statistics.source_hashes[statistics.nonblank]
    ordered.sort()
    wanted = count if count >= 1 else int(count * len(ordered))
    remaining = min(int(wanted), len(ordered) // 10)
    # Groups of equal hashes, from the smallest hash on; a group that is too large is skipped.
    chosen: list[int] = []
    for source_hash, group in itertools.groupby(ordered):
        if not remaining:
            break
        size = sum(1 for _ in group)
        if size <= remaining:
            chosen.append(source_hash)
            remaining -= size
    if not chosen:
        raise InputError(
            f"{len(ordered)} pairs with {len(np.unique(ordered))} different sources are too few to "
            "hold any out: give validation files (valid_source and valid_target, or valid_tsv), or "
            "from Python encdec.Corpus(pairs, valid=other_pairs)"
        )
    chosen_hashes = np.array(chosen, np.uint64)
    return statistics.nonblank & _is_in_sorted(statistics.source_hashes, chosen_hashes)


def _is_in_sorted(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which values occur in an ascending array, bool [n]; np.isin would sort the values too."""
    result = np.empty(len(values), bool)
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        nearest = np.minimum(np.searchsorted(ordered, block), len(ordered) - 1)
        result[start : start + _BLOCK] = ordered[nearest] == block
    return result
