"""The corpus that a run's settings name: the dates, files, or one of TensorFlow Datasets."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from encdec.config import DataConfig, RunConfig
from encdec.data import tfds
from encdec.data.dates import dates
from encdec.data.holdout import Kept, blank_note, digest, holdout_mask, read_holdout, scan
from encdec.data.sources import (
    Listed,
    Pairs,
    PairStream,
    Part,
    file_parts,
    read_all,
    read_pairs,
)
from encdec.types import InputError


class Corpus(NamedTuple):
    """What a run learns from and is scored on.

    Attributes:
      train: pairs to train on, with text on both sides.
      valid: pairs to validate on, blank ones too.
      held_out: pairs the run is scored on in the end.
      digest: SHA-256 (hex) of the training text, of the choice made from it, and of `valid`.
    """

    train: PairStream
    valid: Pairs
    held_out: Pairs
    digest: str


def read_corpus(config: RunConfig, say: Callable[[str], None]) -> Corpus:
    """The corpus that the settings name. What has nothing to validate on has a part held out.

    Reads the training text once, twice where a part is held out, and keeps none of it.

    Raises:
      InputError: see `encdec.data.sources`, `encdec.data.holdout` and `encdec.data.tfds`.
    """
    data = config.data
    if not data.has_corpus:
        made = dates(data.date_sentences, config.seed)
        train = Listed(made.train)
        everything = np.ones(len(train), bool)
        mark = _corpus_digest(digest(train), everything, made.valid)
        return Corpus(train, made.valid, made.test, mark)
    valid = _validation_pairs(data)
    parts = _training_parts(data)
    found = scan(parts, config.seed)
    if note := blank_note(found):
        say(note)
    kept = found.full
    if valid is None:
        held = holdout_mask(found, data.holdout)
        valid, kept = read_holdout(parts, held), kept & ~held
        say(f"{len(valid.src)} of {found.full.sum()} pairs are held out to validate on")
    return Corpus(Kept(parts, kept), valid, valid, _corpus_digest(found.digest, kept, valid))


def _training_parts(data: DataConfig) -> tuple[Part, ...]:
    if data.corpus is None:
        return file_parts(data.source, data.target, data.tsv, data.tsv_columns)
    return (_split(data, data.train_split),)


def _validation_pairs(data: DataConfig) -> Pairs | None:
    """Pairs to validate on, in memory; None where a part of the training text is held out."""
    if data.has_validation_files:
        return read_pairs(data.valid_source, data.valid_target, data.valid_tsv, data.tsv_columns)
    if data.corpus is None:
        return None
    usual = data.valid_split == DataConfig.valid_split
    if usual and data.valid_split not in tfds.splits(data.corpus, data.corpus_folder):
        return None
    split = _split(data, data.valid_split)
    if not (valid := read_all(split)).src:
        raise InputError(f"{split.name}: there is no pair to validate on")
    return valid


def _split(data: DataConfig, split: str) -> Part:
    languages = (data.source_language, data.target_language)
    return tfds.open_split(str(data.corpus), split, data.corpus_folder, languages, data.reverse)


def _corpus_digest(text: str, kept: np.ndarray, valid: Pairs) -> str:
    marks = f"{text} {digest(Listed(valid))} ".encode()
    return hashlib.sha256(marks + np.packbits(kept).tobytes()).hexdigest()
