"""A cache of what a pass over a corpus of files computes, so that a later start does not read it.

    KEY.npz     KEY is a hash of the names of the files and of the settings that choose the pairs

An entry holds sizes and times of the files, and is used only if they are the same.
"""

import hashlib
import io
import json
import os
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from encdec.data.holdout import (
    CorpusStatistics,
    SelectedPairs,
    corpus_statistics,
    holdout_mask,
)
from encdec.data.sources import PairReader, Pairs, read_all
from encdec.files import atomic_write, parse_json

_FORMAT = "encdec corpus 1"
_SETTLED = 2.0
"""Seconds without a change after which a file's time tells that it was not written again."""


class CorpusPass(NamedTuple):
    """What is known of a corpus.

    Attributes:
      statistics: of the corpus.
      held_out: the pairs that are held out; none where none are asked for.
    """

    statistics: CorpusStatistics
    held_out: Pairs


def read_once(
    readers: Sequence[PairReader], seed: int, holdout: int | float | None, root: Path
) -> CorpusPass:
    """Computes the statistics of a corpus and the pairs to hold out, or takes them from the cache.

    Args:
      readers: the parts of the corpus; only those with an attribute `files` are cached.
      seed: see `corpus_statistics`.
      holdout: how many pairs to hold out, see `holdout_mask`; None for none.
      root: the folder of the cache; it is created if it does not exist.

    Raises:
      InputError: see `corpus_statistics` and `holdout_mask`.
    """
    files = [file for reader in readers for file in getattr(reader, "files", ())]
    if not all(hasattr(reader, "files") for reader in readers):
        return _read(readers, seed, holdout)
    names = [_FORMAT, seed, holdout, *map(repr, readers), *(os.path.abspath(f) for f in files)]
    path = root / f"{hashlib.sha256(json.dumps(names).encode()).hexdigest()}.npz"
    stamps, start = _stamps(files), time.time()
    if stamps and (known := _load(path, readers, stamps)):
        return known
    done = _read(readers, seed, holdout)
    settled = stamps and all(start - stamp[1] / 1e9 > _SETTLED for stamp in stamps)
    if settled and _stamps(files) == stamps:
        with suppress(OSError):  # without the cache only the next start is slower
            root.mkdir(parents=True, exist_ok=True)
            _save(path, readers, stamps, done)
    return done


def _read(readers: Sequence[PairReader], seed: int, holdout: int | float | None) -> CorpusPass:
    statistics = corpus_statistics(readers, seed)
    if holdout is None:
        return CorpusPass(statistics, Pairs([], []))
    chosen = holdout_mask(statistics, holdout)
    return CorpusPass(statistics, read_all(SelectedPairs(tuple(readers), chosen)))


def _stamps(files: Sequence[str | Path]) -> list[list[int]]:
    """Size, time of writing and time of change (ns) of each file; nothing if one is not there."""
    try:
        stats = [os.stat(file) for file in files]
    except OSError:
        return []
    return [[stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for stat in stats]


def _save(
    path: Path, readers: Sequence[PairReader], stamps: list[list[int]], done: CorpusPass
) -> None:
    of = done.statistics
    number = {id(reader): i for i, reader in enumerate(readers)}
    blank = [(number[id(reader)], place) for reader, place in of.first_blank]
    tree = {"stamps": stamps, "digest": of.digest, "blank": blank, "held_out": done.held_out}
    meta = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    with atomic_write(path) as file:
        np.savez(file, meta=meta, source_hashes=of.source_hashes, nonblank=of.nonblank)


def _load(path: Path, readers: Sequence[PairReader], stamps: list[list[int]]) -> CorpusPass | None:
    """The entry; None if there is none, it is damaged, or the files have changed since."""
    try:
        # Read as a whole: the CRCs of the file are checked.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            tree: Any = parse_json(arrays["meta"].tobytes())
            if tree["stamps"] != stamps:
                return None
            statistics = CorpusStatistics(
                arrays["source_hashes"],
                arrays["nonblank"],
                tuple((readers[i], place) for i, place in tree["blank"]),
                tree["digest"],
            )
    except (OSError, EOFError, ValueError, LookupError, TypeError, zipfile.BadZipFile):
        return None
    return CorpusPass(statistics, Pairs(*tree["held_out"]))
