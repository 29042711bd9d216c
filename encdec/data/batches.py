"""Batches of token ids: bucketed for training and made ahead by Grain; the longest sentences first
for inference and scoring.

The batch of a training step is a pure function of (examples, bucketing, seed, step), so a resumed
run continues with the same batches as a run that was never stopped. Masks are made together with
the padding; no later code derives them from token ids.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from encdec.data.bucketing import Bucket, Bucketing, epoch_order
from encdec.data.tokens import Examples, Tokens, tokens_of
from encdec.data.vocabulary import Vocabulary
from encdec.types import Batch

MostRows = Callable[[int], int]
"""The length of the longest sentence of a batch, rounded up -> the most rows that fit into memory.
The longer the sentence, the fewer."""


class SubwordSampling(NamedTuple):
    """Subword regularization: a new segmentation each time a sentence is trained on.

    Attributes:
      src_vocab, tgt_vocab: the vocabularies of the examples.
      alpha: as in `Vocabulary.sample_segmentation`.
    """

    src_vocab: Vocabulary
    tgt_vocab: Vocabulary
    alpha: float


class Rows(NamedTuple):
    """The rows of each batch that a process makes.

    Attributes:
      multiple: a batch is filled up with empty sentences to a multiple of this many rows.
      part, parts: the batch is divided into `parts` with the same number of rows; `part` is made.
    """

    multiple: int = 1
    part: int = 0
    parts: int = 1


ALL_ROWS = Rows()
"""All rows of each batch, without additional rows."""


class TrainingBatches:
    """The batch of any training step, by index and from any thread.

    Each epoch has a new order. With `sampling`, segmentations are drawn from (seed, step, row),
    among those that fit the shape of the batch. The sentences of a batch do not depend on `rows`.
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
        # Threads that work ahead at the end of an epoch need the order of the next one too.
        self._order = lru_cache(maxsize=2)(lambda epoch: epoch_order(bucketing, seed, epoch))
        self._lock = threading.Lock()

    def __getitem__(self, step: int) -> Batch:
        epoch, index = divmod(step, self._per_epoch)
        with self._lock:
            bucket, indices = self._order(epoch)[index]
        examples, (multiple, part, parts) = self._examples, self._rows
        # Rows of this part; the last parts may have fewer sentences than rows, or none.
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
        """The sentences of some rows of a batch, in segmentations drawn for this step.

        Args:
          sampling: the random segmentation.
          step: the step of the batch.
          bucket: the bucket, into whose shape the segmentations must fit.
          indices: int [n], the sentences.
          first_row: the row of the first sentence among all rows of the batch.
        """
        vocab = sampling.src_vocab, sampling.tgt_vocab
        longest = bucket.source_length - 1, bucket.target_length - 1  # without the end token
        drawn: tuple[list[list[int]], list[list[int]]] = ([], [])
        for row, i in enumerate(indices, first_row):
            rng = np.random.default_rng((self._seed, step, row))
            for side in range(2):
                ids = self._examples[side][i][:-1].tolist()
                drawn[side].append(
                    vocab[side].sample_segmentation(ids, sampling.alpha, longest[side], rng)
                )
        src, tgt = (
            tokens_of(sentences, side.specials)
            for sentences, side in zip(drawn, self._examples, strict=True)
        )
        return Examples(src, tgt)


def largest_batches(bucketing: Bucketing, rows: Rows = ALL_ROWS) -> list[Batch]:
    """The batches that may need the most memory, mostly one to four, in which all is padding.

    A step keeps something for each token, padding included, and attention for each pair of tokens
    of a sentence. How much for either depends on the model and its vocabulary; whatever it is, one
    of these batches needs the most.
    """
    shapes = [(b.rows, b.source_length, b.target_length) for b in bucketing.buckets]
    costs = [(n * (S + T), n * (S * S + S * T + T * T)) for n, S, T in shapes]
    largest = dict.fromkeys(shapes[i] for i in _corners(costs))
    return [
        _padding(-(-n // rows.multiple) * rows.multiple // rows.parts, S, T) for n, S, T in largest
    ]


def _corners(points: Sequence[tuple[int, int]]) -> list[int]:
    """The indices of points (x, y) at which a x + b y is the largest for some a, b >= 0.

    They are corners of the convex hull, from the largest x to the largest y.
    """
    corners: list[int] = []
    for i in sorted(range(len(points)), key=points.__getitem__, reverse=True):
        x, y = points[i]
        if corners and y <= points[corners[-1]][1]:
            continue
        # A corner that lies on the line between its neighbours, or below it, is none.
        while len(corners) > 1:
            (x0, y0), (x1, y1) = (points[j] for j in corners[-2:])
            if (y1 - y0) * (x1 - x) > (y - y1) * (x0 - x1):
                break
            corners.pop()
        corners.append(i)
    return corners


def _padding(count: int, S: int, T: int) -> Batch:
    """A batch of `count` empty pairs."""
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
    """The batches of step `start_step` and all steps after it, made ahead by two threads."""
    import grain  # here because it takes long, and only training needs it

    batches = TrainingBatches(examples, bucketing, seed, sampling, rows)
    steps = grain.MapDataset.range(start_step, sys.maxsize)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    return iter(steps.map(batches.__getitem__).to_iter_dataset(options))


def inference_batches(
    src: Tokens, max_batch_tokens: int, most_rows: MostRows | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Sources in batches of few shapes, the longest first; each source comes once.

    Args:
      src: the sentences.
      max_batch_tokens: the most tokens of a batch, padding included; a longer sentence gets a
        batch to itself.
      most_rows: see there; None where there may be any number.

    Yields:
      Indices of n sentences, int64 [n]; src int32 [B, S] and src_mask bool [B, S]. n <= B, and the
      rows after the n-th are padding.
    """
    lengths = src.lengths()
    for indices, rows in _chunks(lengths, max_batch_tokens, most_rows):
        length = round_length(int(lengths[indices].max()))
        yield indices, *src.padded(indices, rows, length)


def scoring_batches(
    examples: Examples, max_batch_tokens: int, most_rows: MostRows | None = None
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Sentence pairs in batches, as in `inference_batches`; the longer side of a pair counts.

    Yields:
      Indices of n pairs, int64 [n], and a Batch of B >= n rows, padding after the n-th.
    """
    source, target = examples.lengths()
    for indices, rows in _chunks(np.maximum(source, target), max_batch_tokens, most_rows):
        S, T = (round_length(int(lengths[indices].max())) for lengths in (source, target))
        yield indices, _batch(examples, indices, rows, S, T)


def round_length(length: int) -> int:
    """Rounds a length up, so that batches have few shapes.

    The lengths are multiples of 8 up to 64, then four in each octave: 80, 96, 112, 128, 160, ...
    """
    step = max(8, 2 ** ((length - 1).bit_length() - 3))
    return -(-length // step) * step


def _chunks(
    lengths: np.ndarray, max_batch_tokens: int, most_rows: MostRows | None
) -> Iterator[tuple[np.ndarray, int]]:
    """Sentences of each batch, longest first, int64 [n], and its number of rows, a power of two."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        length = round_length(int(lengths[order[0]]))
        fit = max_batch_tokens // length
        if most_rows is not None:
            fit = min(fit, most_rows(length))
        fit = max(1, fit)
        rows = min(1 << (fit.bit_length() - 1), 1 << (len(order) - 1).bit_length())
        yield order[:rows], rows
        order = order[rows:]


def _batch(examples: Examples, indices: np.ndarray, rows: int, S: int, T: int) -> Batch:
    """The batch of shape [rows, S] and [rows, T + 1] of some examples; empty rows come last."""
    src, src_mask = examples.src.padded(indices, rows, S)
    labels, tgt_mask = examples.tgt.padded(indices, rows, T)
    first = np.full((rows, 1), examples.tgt.specials.pad, np.int32)
    first[: len(indices)] = examples.tgt.specials.start
    return Batch(src, src_mask, np.concatenate([first, labels], 1), tgt_mask)
