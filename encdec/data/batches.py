"""Batches: of a plan for training, delivered by Grain; of a power of two rows for the rest.

A training step's batch is a pure function of (examples, plan, seed, step): a resumed run goes on
with the batches that it would have seen.
"""

import sys
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import grain
import numpy as np

from encdec.data.bucketing import Bucket, Bucketing, epoch_order
from encdec.data.tokens import Examples, Tokens, tokens_of
from encdec.data.vocabulary import Vocabulary
from encdec.types import Batch


class SubwordSampling(NamedTuple):
    """Each time a sentence is trained on, it is cut anew: subword regularisation.

    Attributes:
      src_vocab, tgt_vocab: what the examples were encoded with.
      alpha: how far from the likeliest, as `Vocabulary.sample_segmentation` takes it.
    """

    src_vocab: Vocabulary
    tgt_vocab: Vocabulary
    alpha: float


class Rows(NamedTuple):
    """Which rows of each batch are made.

    Attributes:
      multiple: a batch gets empty sentences until its rows are a multiple of this.
      part, parts: of as many equal parts this one is made.
    """

    multiple: int = 1
    part: int = 0
    parts: int = 1


ALL_ROWS = Rows()
"""Each batch as it was planned."""


class TrainingBatches:
    """The batch of each step by random access, from any thread; keeps the order of two epochs.

    Each epoch has a new order. With subword sampling a sentence is cut by the chance of
    (seed, step, row), among the ways that fit the shape of its batch. Which sentences share a batch
    does not depend on the rows that are made of it.
    """

    def __init__(
        self,
        examples: Examples,
        bucketing: Bucketing,
        seed: int,
        sampling: SubwordSampling | None = None,
        rows: Rows = ALL_ROWS,
    ) -> None:
        self._examples, self._seed, self._sampling, self._rows = examples, seed, sampling, rows
        self._per_epoch = bucketing.batches_per_epoch
        self._order = lru_cache(maxsize=2)(lambda epoch: epoch_order(bucketing, seed, epoch))
        self._lock = threading.Lock()

    def __getitem__(self, step: int) -> Batch:
        epoch, within = divmod(step, self._per_epoch)
        with self._lock:
            bucket, indices = self._order(epoch)[within]
        examples, (multiple, part, parts) = self._examples, self._rows
        rows = -(-bucket.rows // multiple) * multiple // parts
        indices = indices[part * rows : (part + 1) * rows]
        if self._sampling:
            examples = self._resampled(self._sampling, step, bucket, indices, part * rows)
            indices = np.arange(len(indices))
        return _batch(examples, indices, rows, bucket.source_length, bucket.target_length)

    def _resampled(
        self,
        sampling: SubwordSampling,
        step: int,
        bucket: Bucket,
        indices: np.ndarray,
        first_row: int,
    ) -> Examples:
        """The sentences of some rows of a batch, cut anew."""
        vocab, most = sampling[:2], (bucket.source_length - 1, bucket.target_length - 1)
        cuts: tuple[list[list[int]], list[list[int]]] = ([], [])
        for row, i in enumerate(indices, first_row):
            rng = np.random.default_rng((self._seed, step, row))
            for side in range(2):
                ids = self._examples[side][i][:-1].tolist()
                cut = vocab[side].sample_segmentation(ids, sampling.alpha, most[side], rng)
                cuts[side].append(cut)
        return Examples(
            *(tokens_of(cut, side.specials) for cut, side in zip(cuts, self._examples, strict=True))
        )


def largest_batch(bucketing: Bucketing, rows: Rows = ALL_ROWS) -> Batch:
    """An empty batch of the plan's largest shape: the one with the most cells."""
    bucket = max(bucketing.buckets, key=lambda b: b.rows * (b.source_length + b.target_length))
    count = -(-bucket.rows // rows.multiple) * rows.multiple // rows.parts
    S, T = bucket.source_length, bucket.target_length
    return Batch(
        src=np.zeros((count, S), np.int32),
        src_mask=np.zeros((count, S), bool),
        tgt=np.zeros((count, T + 1), np.int32),
        tgt_mask=np.zeros((count, T), bool),
    )


def training_iterator(
    examples: Examples,
    bucketing: Bucketing,
    seed: int,
    start_step: int,
    sampling: SubwordSampling | None = None,
    rows: Rows = ALL_ROWS,
) -> Iterator[Batch]:
    """Batches of step `start_step` and all after it, without end, made ahead by two threads."""
    batches = TrainingBatches(examples, bucketing, seed, sampling, rows)
    steps = grain.MapDataset.range(start_step, sys.maxsize)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    return iter(steps.map(batches.__getitem__).to_iter_dataset(options))


def inference_batches(
    src: Tokens, max_batch_tokens: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Sources in batches of few shapes, the longest first; every source comes once.

    Args:
      src: the sentences.
      max_batch_tokens: most cells of a batch; a longer sentence gets a batch of its own.

    Yields:
      Indices int64 [n], src int32 [B, S] and src_mask bool [B, S], n <= B: the rows after the
      n-th are padding.
    """
    lengths = src.lengths()
    for indices, rows in _chunks(lengths, max_batch_tokens):
        length = round_length(int(lengths[indices].max()))
        yield indices, *src.padded(indices, rows, length)


def scoring_batches(
    examples: Examples, max_batch_tokens: int
) -> Iterator[tuple[np.ndarray, Batch]]:
    """`inference_batches` with targets: indices int64 [n] and a Batch of B >= n rows."""
    source, target = examples.lengths()
    for indices, rows in _chunks(np.maximum(source, target), max_batch_tokens):
        S, T = (round_length(int(lengths[indices].max())) for lengths in (source, target))
        yield indices, _batch(examples, indices, rows, S, T)


def round_length(length: int) -> int:
    """The next of 8, 16, ... 64, then four to each doubling: 80, 96, 112, 128, 160, ..."""
    step = max(8, 2 ** ((length - 1).bit_length() - 3))
    return -(-length // step) * step


def _chunks(lengths: np.ndarray, max_batch_tokens: int) -> Iterator[tuple[np.ndarray, int]]:
    """Indices (int64) from the longest on, and the rows, a power of two, of their batch."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        fit = max(1, max_batch_tokens // round_length(int(lengths[order[0]])))
        rows = min(1 << (fit.bit_length() - 1), 1 << (len(order) - 1).bit_length())
        yield order[:rows], rows
        order = order[rows:]


def _batch(examples: Examples, indices: np.ndarray, rows: int, S: int, T: int) -> Batch:
    src, src_mask = examples.src.padded(indices, rows, S)
    labels, tgt_mask = examples.tgt.padded(indices, rows, T)
    first = np.full((rows, 1), examples.tgt.specials.pad, np.int32)
    first[: len(indices)] = examples.tgt.specials.start
    return Batch(src, src_mask, np.concatenate([first, labels], 1), tgt_mask)
