"""Batches of few shapes: planned ahead from the lengths alone, then delivered by Grain.

XLA compiles each shape once. So sentences are sorted into a few buckets, each with one shape
(rows, S, T), and a step's batch is a pure function of (plan, seed, step): a resumed run goes on
with the batches that it would have seen.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import grain
import numpy as np

from encdec.data.sources import Pairs
from encdec.data.vocabulary import Vocabulary
from encdec.types import BOS, EOS, PAD, Batch, InputError

_MOST_POINTS = 512  # the dynamic programme's table has this many rows and columns at most


class Examples(NamedTuple):
    """Encoded pairs: src[i] is int32 tokens, EOS; tgt[i] is int32 BOS, tokens, EOS."""

    src: list[np.ndarray]
    tgt: list[np.ndarray]

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Source tokens and predicted target tokens of each pair: int64 [n] and int64 [n]."""
        source = np.array([len(tokens) for tokens in self.src], np.int64)
        return source, np.array([len(tokens) - 1 for tokens in self.tgt], np.int64)


class Bucket(NamedTuple):
    """Sentences that share one batch shape: src [rows, source_length], tgt [rows, T + 1]."""

    rows: int
    source_length: int
    target_length: int
    batches: int
    members: np.ndarray
    """Indices of the sentences, int64."""


class Plan(NamedTuple):
    """How an epoch falls into batches: each sentence once, in a batch of its bucket's shape."""

    buckets: tuple[Bucket, ...]

    @property
    def batches_per_epoch(self) -> int:
        return sum(bucket.batches for bucket in self.buckets)


def encode_pairs(
    pairs: Pairs,
    src_vocab: Vocabulary,
    tgt_vocab: Vocabulary,
    max_source_length: int,
    max_target_length: int,
) -> tuple[Examples, int]:
    """Token ids of the pairs that are not too long, and the number of those left out.

    The maximum lengths count tokens without EOS and BOS.

    Raises:
      InputError: every pair is too long.
    """
    examples = Examples([], [])
    for source, target in zip(*pairs, strict=True):
        src, tgt = src_vocab.encode(source), tgt_vocab.encode(target)
        if len(src) <= max_source_length and len(tgt) <= max_target_length:
            examples.src.append(np.array([*src, EOS], np.int32))
            examples.tgt.append(np.array([BOS, *tgt, EOS], np.int32))
    if not examples.src:
        raise InputError(
            f"all {len(pairs.src)} pairs are longer than max_source_length = {max_source_length} "
            f"or max_target_length = {max_target_length} tokens: raise these"
        )
    return examples, len(pairs.src) - len(examples.src)


def plan(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    *,
    batch_tokens: int,
    shapes: int,
    rows_multiple: int = 1,
) -> Plan:
    """Buckets that waste few cells on padding.

    Args:
      source_lengths: int [n], tokens with EOS.
      target_lengths: int [n], predicted tokens, EOS among them.
      batch_tokens: most cells of a batch's longer side: rows * max(S, T).
      shapes: most buckets.
      rows_multiple: what must divide each batch's rows: devices times parts of a batch.

    Raises:
      InputError: the longest sentence does not fit `rows_multiple` times.
    """
    longest = int(max(source_lengths.max(), target_lengths.max()))
    if batch_tokens < rows_multiple * longest:
        raise InputError(
            f"batch_tokens = {batch_tokens} cannot hold {rows_multiple} row(s) of the longest "
            f"sentence, {longest} tokens: at least {rows_multiple * longest} can"
        )
    S, T = _chain(source_lengths, target_lengths)
    point = np.maximum(np.searchsorted(S, source_lengths), np.searchsorted(T, target_lengths))
    rows = batch_tokens // np.maximum(S, T) // rows_multiple * rows_multiple
    counts = np.bincount(point, minlength=len(S))
    buckets = []
    for first, end in _cheapest_segments(counts, rows, rows * (S + T), shapes):
        members = np.flatnonzero((first <= point) & (point < end))
        batches = -(-len(members) // int(rows[end - 1]))
        # Rows no more than an even share needs: the last batch is as full as the others.
        share = -(-len(members) // (batches * rows_multiple)) * rows_multiple
        s, t = int(source_lengths[members].max()), int(target_lengths[members].max())
        buckets.append(Bucket(share, s, t, batches, members))
    return Plan(tuple(buckets))


def _chain(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nested bounds (S, T), each holding about the same share of either side's lengths.

    One bound at each length that occurs, so both arrays rise and the last holds all pairs.
    """
    source, target = np.sort(source), np.sort(target)
    counts = [np.searchsorted(x, np.unique(x), "right") for x in (source, target)]
    within = np.unique(np.concatenate(counts)) - 1
    if len(within) > _MOST_POINTS:
        within = within[np.linspace(0, len(within) - 1, _MOST_POINTS).round().astype(int)]
    return source[within], target[within]


def _cheapest_segments(
    counts: np.ndarray, rows: np.ndarray, cells: np.ndarray, most: int
) -> list[tuple[int, int]]:
    """Cuts the chain's points 0..P into segments [i, j), each a bucket of point j-1's shape.

    c(i, j) = cells(j-1) * ceil(sentences in [i, j) / rows(j-1)) and, by dynamic programming,
    best_k(j) = min over i of best_(k-1)(i) + c(i, j).

    Args:
      counts: int [P], sentences that fit point p and none before it.
      rows: int [P], rows of a batch of point p's shape.
      cells: int [P], source and target cells of such a batch.
      most: most segments.

    Returns:
      The segments that hold sentences, in order.
    """
    P = len(counts)
    total = np.concatenate([[0], np.cumsum(counts)])
    sentences = total[None, 1:] - total[:, None]  # [P + 1, P]
    cost = np.full((P + 1, P + 1), np.inf)
    cost[:, 1:] = np.where(sentences >= 0, np.ceil(sentences / rows) * cells, np.inf)
    cost[np.tril_indices(P + 1, -1)] = np.inf
    np.fill_diagonal(cost, 0)  # an empty segment: fewer buckets may be cheaper
    best = np.where(np.arange(P + 1) == 0, 0, np.inf)
    choices = []
    for _ in range(min(most, P)):
        through = best[:, None] + cost
        choices.append(through.argmin(axis=0))
        best = through.min(axis=0)
    segments, end = [], P
    for choice in reversed(choices):
        first = int(choice[end])
        if total[first] < total[end]:
            segments.append((first, end))
        end = first
    return segments[::-1]


def epoch_order(plan: Plan, seed: int, epoch: int) -> list[tuple[Bucket, np.ndarray]]:
    """The batches of an epoch: each its bucket and its sentences (int64, `rows` at most)."""
    rng = np.random.default_rng((seed, epoch))
    batches = [
        (bucket, sentences)
        for bucket in plan.buckets
        for sentences in np.array_split(rng.permutation(bucket.members), bucket.batches)
    ]
    return [batches[i] for i in rng.permutation(len(batches))]


def training_batch(examples: Examples, plan: Plan, seed: int, step: int) -> Batch:
    """The batch of a step, by (seed, step) alone; each epoch has a new order.

    Sorts a whole epoch for one batch: `TrainingBatches` gives many.
    """
    return TrainingBatches(examples, plan, seed)[step]


class TrainingBatches:
    """`training_batch` by random access, from any thread; keeps the order of two epochs."""

    def __init__(self, examples: Examples, plan: Plan, seed: int) -> None:
        self._examples = examples
        self._per_epoch = plan.batches_per_epoch
        self._order = lru_cache(maxsize=2)(lambda epoch: epoch_order(plan, seed, epoch))
        self._lock = threading.Lock()

    def __getitem__(self, step: int) -> Batch:
        epoch, within = divmod(step, self._per_epoch)
        with self._lock:
            bucket, sentences = self._order(epoch)[within]
        return _batch(
            self._examples, sentences, bucket.rows, bucket.source_length, bucket.target_length
        )


def deliver(examples: Examples, plan: Plan, seed: int, start_step: int) -> Iterator[Batch]:
    """Batches of step `start_step` and all after it, without end, made ahead by two threads."""
    batches = TrainingBatches(examples, plan, seed)
    steps = grain.MapDataset.range(start_step, sys.maxsize)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    return iter(steps.map(batches.__getitem__).to_iter_dataset(options))


def inference_batches(
    src: Sequence[np.ndarray], max_batch_tokens: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sources in batches of few shapes, the longest first; every source comes once.

    Args:
      src: int32 tokens and EOS of each sentence.
      max_batch_tokens: most cells of a batch; a longer sentence gets a batch of its own.

    Yields:
      Indices int64 [n] and src int32 [B, S], n <= B: the rows after the n-th are PAD.
    """
    lengths = np.array([len(tokens) for tokens in src], np.int64)
    for indices, rows in _chunks(lengths, max_batch_tokens):
        S = round_length(int(lengths[indices].max()))
        yield indices, _padded([src[i] for i in indices], rows, S)


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
    return Batch(
        _padded([examples.src[i] for i in indices], rows, S),
        _padded([examples.tgt[i] for i in indices], rows, T + 1),
    )


def _padded(sentences: list[np.ndarray], rows: int, length: int) -> np.ndarray:
    block = np.full((rows, length), PAD, np.int32)
    for row, tokens in zip(block, sentences, strict=False):
        row[: len(tokens)] = tokens
    return block
