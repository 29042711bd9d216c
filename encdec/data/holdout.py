"""One pass over a training corpus: its size, its digest, what to leave out and what to hold out.

Held out is by a seeded hash of the source text, so that all pairs of one source fall on the same
side and the choice needs no text in memory: 9 bytes a pair stay, 8 more while it is sorted.
"""

import hashlib
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from encdec.data.sources import Pair, Pairs, Part, read_all
from encdec.types import InputError

_NAMED = 5  # blank pairs that are named


class Scan(NamedTuple):
    """What one pass over a corpus finds.

    Attributes:
      sources: uint64 [n], a seeded hash of each source text.
      full: bool [n], whether a pair has text on both sides.
      first_blanks: part and number, counted from 1, of the first pairs that have not.
      digest: SHA-256 (hex) of the text, see `digest`.
    """

    sources: np.ndarray
    full: np.ndarray
    first_blanks: tuple[tuple[Part, int], ...]
    digest: str


@dataclass(frozen=True, eq=False)
class Kept:
    """The pairs of a corpus that `kept` (bool [n]) marks, as a stream."""

    parts: tuple[Part, ...]
    kept: np.ndarray

    def __iter__(self) -> Iterator[Pair]:
        pairs = itertools.chain.from_iterable(self.parts)
        for kept, pair in itertools.zip_longest(self.kept, pairs):
            if kept is None or pair is None:
                raise InputError(
                    f"{self.parts[0].name}: the corpus has changed while it was read: start again "
                    "once nothing writes to it"
                )
            if kept:
                yield pair

    def __len__(self) -> int:
        return int(np.count_nonzero(self.kept))


class Digest:
    """SHA-256 of pairs; each text goes in with its length, so no two corpora share one."""

    def __init__(self) -> None:
        self._state = hashlib.sha256()

    def add(self, pair: Pair) -> None:
        source, target = (text.encode("utf-8", "surrogatepass") for text in pair)
        self._state.update(struct.pack("<QQ", len(source), len(target)) + source + target)

    def hex(self) -> str:
        return self._state.hexdigest()


def digest(pairs: Iterable[Pair]) -> str:
    """SHA-256 (hex) of a corpus, in its order."""
    state = Digest()
    for pair in pairs:
        state.add(pair)
    return state.hex()


def scan(parts: Sequence[Part], seed: int) -> Scan:
    """Reads a corpus once; `seed` is that of the hash.

    Raises:
      InputError: a part cannot be read, or no pair has text on both sides.
    """
    key, state = struct.pack("<Q", seed), Digest()
    sources, full = bytearray(), bytearray()
    blanks: list[tuple[Part, int]] = []
    for part in parts:
        for number, pair in enumerate(part, 1):
            state.add(pair)
            text = pair[0].encode("utf-8", "surrogatepass")
            sources += hashlib.blake2b(text, digest_size=8, key=key).digest()
            whole = bool(pair[0].strip() and pair[1].strip())
            full.append(whole)
            if not whole and len(blanks) < _NAMED:
                blanks.append((part, number))
    if not any(full):
        raise InputError(f"{parts[0].name}: no pair of the corpus has text on both sides")
    return Scan(
        np.frombuffer(sources, "<u8"), np.frombuffer(full, bool), tuple(blanks), state.hex()
    )


def blank_note(found: Scan) -> str | None:
    """How many pairs have an empty side, and where the first of them are; None without any."""
    blank = len(found.full) - int(np.count_nonzero(found.full))
    if not blank:
        return None
    groups = itertools.groupby(found.first_blanks, lambda place: place[0])
    places = [(part, [number for _, number in group]) for part, group in groups]
    one_part = len(places) == 1
    named = "; ".join(
        f"{'' if one_part else part.name + ', '}{part.unit}{'s' if len(numbers) > 1 else ''} "
        f"{', '.join(map(str, numbers))}"
        for part, numbers in places
    )
    more = ", ..." if blank > len(found.first_blanks) else ""
    pairs, are = ("pair", "is") if blank == 1 else ("pairs", "are")
    return f"{blank} {pairs} with an empty side {are} left out of training ({named}{more})"


def holdout_mask(found: Scan, count: int | float) -> np.ndarray:
    """Which pairs to hold out, bool [n]; no source text stands on both sides.

    All pairs of one source text go to the same side, so none leaks. Held out are `count` pairs
    (below 1: that share of all), or the nearest number below that such groups allow, a tenth of
    all at most. Pairs with an empty side are not among them, nor counted.

    Raises:
      InputError: too few different source texts to hold any out.
    """
    ranked = found.sources[found.full]
    ranked.sort()
    wanted = count if count >= 1 else int(count * len(ranked))
    room = min(int(wanted), len(ranked) // 10)
    taken: list[int] = []
    for source, group in itertools.groupby(ranked):
        if not room:
            break
        size = sum(1 for _ in group)
        if size <= room:
            taken.append(source)
            room -= size
    if not taken:
        raise InputError(
            f"{len(ranked)} pairs with {len(np.unique(ranked))} different sources are too few to "
            "hold any out: give validation files (valid_source and valid_target, or valid_tsv)"
        )
    return found.full & _among(found.sources, np.array(taken, np.uint64))


def _among(values: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """Which values are in a rising array, bool [n]; np.isin would sort all of them."""
    result = np.empty(len(values), bool)
    for start in range(0, len(values), 1 << 20):
        block = values[start : start + (1 << 20)]
        nearest = np.minimum(np.searchsorted(ranked, block), len(ranked) - 1)
        result[start : start + (1 << 20)] = ranked[nearest] == block
    return result


def read_holdout(parts: Sequence[Part], held: np.ndarray) -> Pairs:
    """The pairs that `holdout_mask` chose (bool [n]), in memory and in the corpus's order."""
    return read_all(Kept(tuple(parts), held))
