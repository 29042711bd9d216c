"""The corpus of a run: the one that a caller passes, or the one that the settings name.

Settings name the dates, files, or a corpus of TensorFlow Datasets.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from encdec import files
from encdec.config import DataConfig, RunConfig
from encdec.data import tfds
from encdec.data.corpus_cache import read_once
from encdec.data.dates import dates
from encdec.data.given_batches import BatchSource
from encdec.data.holdout import (
    SelectedPairs,
    describe_blank_pairs,
    digest,
    holdout_mask,
)
from encdec.data.sources import (
    GivenPairs,
    InMemoryPairs,
    Pair,
    PairReader,
    Pairs,
    PairStream,
    file_readers,
    read_all,
    read_pairs,
)
from encdec.types import Batch, InputError


@dataclass(frozen=True)
class Corpus:
    """What `encdec.train` learns from and validates on.

    Any object with the attributes `train` and `valid` can be passed instead; of `held_out` and
    `digest` a missing one counts as None. The sides may be text or, without any text, batches
    (see `encdec.data.given_batches`).

    Attributes:
      train: pairs (source, target) of text, read several times in the same order: a list, a
        `Pairs`, or any object whose `__iter__` starts again at the first pair. Only what is in
        memory already stays there: other objects are streamed. Or batches.
      valid: pairs to validate on. Without any, a part of `train` is held out, as
        `DataConfig.holdout` says. Or batches, without which there is no validation.
      held_out: pairs on which the finished run is evaluated; those of `valid` if None.
      digest: a text that changes when `train` does, by which a resumed run knows its corpus; a
        SHA-256 of all pairs if None.
    """

    train: Pairs | Iterable[Pair] | BatchSource
    valid: Pairs | Iterable[Pair] | Iterable[Batch] | None = None
    held_out: Pairs | Iterable[Pair] | None = None
    digest: str | None = None


class TrainingText(NamedTuple):
    """The checked text of a run.

    Attributes:
      train: pairs to train on, with text on both sides.
      valid: pairs to validate on, blank ones too.
      held_out: pairs on which the finished run is evaluated.
      digest: SHA-256 (hex) of the training text, of the pairs left out of it, and of `valid`.
      in_memory: whether `train` is in memory, so that its tokens may be too.
    """

    train: PairStream
    valid: Pairs
    held_out: Pairs
    digest: str
    in_memory: bool = False


def as_corpus(given: Any) -> Corpus:
    """What a caller passes to `encdec.train`: pairs, batches, or an object that has them.

    Raises:
      InputError: it is none of them, or lacks an attribute; the line names it.
    """
    kind = type(given).__name__
    missing = [name for name in ("train", "valid") if not hasattr(given, name)]
    if not missing:
        parts = {name: getattr(given, name, None) for name in ("held_out", "digest")}
        return Corpus(given.train, given.valid, **parts)
    if len(missing) == 1:
        raise InputError(f"the corpus, a {kind}, has no attribute {missing[0]!r}: None will do")
    if isinstance(given, str | bytes | dict | Batch) or not (
        isinstance(given, Iterable) or callable(given)
    ):
        raise InputError(
            f"the corpus is a {kind}, with no attribute 'train' or 'valid': give a list of "
            "(source, target) pairs, an encdec.Corpus, or a list of batches"
        )
    return Corpus(given)


def has_batches(corpus: Corpus) -> bool:
    """Whether a corpus is of batches: a function or an iterator is, since text is read again."""
    train = corpus.train
    if callable(train) or (isinstance(train, Iterable) and iter(train) is train):
        return True
    return isinstance(train, Iterable) and isinstance(next(iter(train), None), Batch)


def read_corpus(
    config: RunConfig, say: Callable[[str], None], given: Corpus | None = None
) -> TrainingText:
    """Opens the text that a run is trained, validated and evaluated on.

    The training text is read once, or twice if pairs are held out, and is not kept in memory; files
    that have not changed since an earlier start are not read (see `encdec.data.corpus_cache`).

    Args:
      config: settings, which name a corpus where none is given.
      say: receives lines about blank pairs and about pairs that are held out.
      given: the text of a caller, if there is one.

    Raises:
      InputError: see `encdec.data.sources`, `encdec.data.holdout` and `encdec.data.tfds`; a corpus
        is both given and named; what is given are no pairs of str, or pairs that can be read only
        once.
    """
    data = config.data
    if given is not None:
        check_only_corpus(data)
        return _given_text(given, config, say)
    if not data.has_corpus:
        made = dates(data.date_sentences, config.seed)
        train = InMemoryPairs(made.train)
        keep = np.ones(len(train), bool)
        corpus_digest = _digest(digest(train), keep, made.valid)
        return TrainingText(train, made.valid, made.test, corpus_digest, in_memory=True)
    return _split_text(training_readers(data), _validation_pairs(data), config, say)


def check_only_corpus(data: DataConfig) -> None:
    """Raises InputError where the settings name a corpus although one was passed."""
    if data.has_corpus:
        named = data.corpus or ", ".join(data.tsv or data.source)
        raise InputError(f"a corpus was passed, and the settings name {named}: give one of the two")


def _given_text(given: Corpus, config: RunConfig, say: Callable[[str], None]) -> TrainingText:
    for name in ("train", "valid", "held_out"):
        side = getattr(given, name)
        if side is None:
            continue
        kind = type(side).__name__
        if not isinstance(side, Iterable):
            raise InputError(
                f"{name} of the corpus is a {kind}, which has no __iter__: give a list of pairs, "
                "or an object whose __iter__ begins with the first pair each time"
            )
        if iter(side) is side:
            raise InputError(
                f"{name} of the corpus is a {kind}, which can be read only once: "
                "give a list of pairs, or an object whose __iter__ starts again at the first"
            )
    valid = None
    if given.valid is not None:
        valid = read_all(GivenPairs(given.valid, "valid of the corpus"))
        if not valid.src:
            raise InputError("valid of the corpus has no pair: leave it out to hold some out")
    reader = GivenPairs(given.train, "train of the corpus")
    text = _split_text((reader,), valid, config, say, given.digest)
    if given.held_out is not None:
        text = text._replace(held_out=read_all(GivenPairs(given.held_out, "held_out")))
    return text._replace(in_memory=isinstance(given.train, list | tuple))


def _split_text(
    readers: tuple[PairReader, ...],
    valid: Pairs | None,
    config: RunConfig,
    say: Callable[[str], None],
    given_digest: str | None = None,
) -> TrainingText:
    """Leaves out blank pairs and, if there are no pairs to validate on, holds some out."""
    if valid is not None and not any(map(_has_text, *valid)):
        raise InputError("no pair to validate on has text on both sides: give some, or none at all")
    count = config.data.holdout if valid is None else None
    statistics, held_out = read_once(readers, config.seed, count, files.cache_folder() / "corpora")
    if note := describe_blank_pairs(statistics):
        say(note)
    keep = statistics.nonblank
    if valid is None:
        valid, keep = held_out, keep & ~holdout_mask(statistics, config.data.holdout)
        say(f"{len(valid.src)} of {statistics.nonblank.sum()} pairs are held out to validate on")
    corpus_digest = _digest(given_digest or statistics.digest, keep, valid)
    return TrainingText(SelectedPairs(readers, keep), valid, valid, corpus_digest)


def _has_text(source: str, target: str) -> bool:
    return bool(source.strip() and target.strip())


def training_readers(data: DataConfig) -> tuple[PairReader, ...]:
    """Readers of the training text that settings name, pairs that are held out among it.

    Raises:
      InputError: a file is none that can be read twice, or the corpus cannot be opened.
    """
    if data.corpus is not None:
        return (_open_split(data, data.train_split),)
    for path in map(Path, (*data.source, *data.target, *data.tsv)):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(
                f"{path} is a pipe or a device, but training text is read more than once: write it "
                "to a file"
            )
    return file_readers(data.source, data.target, data.tsv, data.tsv_columns)


def _validation_pairs(data: DataConfig) -> Pairs | None:
    """The pairs to validate on; None where training pairs are to be held out."""
    if data.has_validation_files:
        return read_pairs(data.valid_source, data.valid_target, data.valid_tsv, data.tsv_columns)
    if data.corpus is None:
        return None
    # The default split may be missing; one that a person names may not.
    is_default = data.valid_split == DataConfig.valid_split
    if is_default and data.valid_split not in tfds.splits(data.corpus, data.corpus_folder):
        return None
    split = _open_split(data, data.valid_split)
    if not (valid := read_all(split)).src:
        raise InputError(f"{split.name}: there is no pair to validate on")
    return valid


def _open_split(data: DataConfig, split: str) -> PairReader:
    languages = (data.source_language, data.target_language)
    return tfds.open_split(str(data.corpus), split, data.corpus_folder, languages, data.reverse)


def _digest(train_digest: str, keep: np.ndarray, valid: Pairs) -> str:
    digests = f"{train_digest} {digest(InMemoryPairs(valid))} ".encode()
    return hashlib.sha256(digests + np.packbits(keep).tobytes()).hexdigest()
