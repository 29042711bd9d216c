"""Bucketing: which sentences are in the same batch, and the shape of that batch.

XLA compiles a program for each shape, so there are only a few shapes: all sentences are sorted into
buckets, and all batches of a bucket have the same shape (rows, S, T). The shapes are chosen so that
few tokens are padding. All functions are pure functions of lengths, seed and epoch.
"""

from typing import NamedTuple

import numpy as np

from encdec.types import InputError

_MAX_LEVELS = 64
"""The most lengths of one side that are considered as the bound of a shape."""
_MAX_SWEEPS = 20
"""The most rounds of moving all shapes after one was added; a few are enough."""

Shape = tuple[int, int]
"""Indices (p, q) of a shape's longest source and longest target among the levels."""


class Bucket(NamedTuple):
    """Sentences whose batches have the same shape: src [rows, S], tgt [rows, T + 1].

    Attributes:
      rows: sentences in a batch.
      source_length: S, tokens with the end token.
      target_length: T, predicted tokens, the end token included.
      batches: the number of batches in an epoch.
      members: indices of the sentences, int32 (int64 where there are more than 2^31).
    """

    rows: int
    source_length: int
    target_length: int
    batches: int
    members: np.ndarray


class Bucketing(NamedTuple):
    """The buckets of a corpus. In an epoch each sentence is in one batch of its bucket."""

    buckets: tuple[Bucket, ...]

    @property
    def batches_per_epoch(self) -> int:
        return sum(bucket.batches for bucket in self.buckets)


def select_by_length(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    max_source_length: int,
    max_target_length: int,
) -> np.ndarray:
    """Returns the indices of the pairs that are not too long, int [m].

    Args:
      source_lengths, target_lengths: int [n], tokens without the end token.
      max_source_length, max_target_length: limits in the same unit.

    Raises:
      InputError: every pair is too long.
    """
    fits = (source_lengths <= max_source_length) & (target_lengths <= max_target_length)
    if not fits.any():
        raise InputError(
            f"all {len(fits)} pairs are longer than max_source_length = {max_source_length} "
            f"or max_target_length = {max_target_length} tokens: raise these"
        )
    return np.flatnonzero(fits)


def make_buckets(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    *,
    batch_tokens: int,
    num_buckets: int,
    rows_multiple: int = 1,
    selected: np.ndarray | None = None,
) -> Bucketing:
    """Sorts sentences into buckets so that few tokens are padding.

    Args:
      source_lengths: int [n], tokens with the end token.
      target_lengths: int [n], predicted tokens, the end token included.
      batch_tokens: the most tokens, padding included, of a batch's longer side: rows * max(S, T).
      num_buckets: the most buckets.
      rows_multiple: the rows of each batch are a multiple of this.
      selected: int [m], indices of the sentences to train on; None for all.

    Raises:
      InputError: `rows_multiple` rows of the longest sentence exceed `batch_tokens`.
    """
    if selected is not None:
        source_lengths, target_lengths = source_lengths[selected], target_lengths[selected]
    longest = int(max(source_lengths.max(), target_lengths.max()))
    if batch_tokens < rows_multiple * longest:
        raise InputError(
            f"batch_tokens = {batch_tokens} cannot hold {rows_multiple} row(s) of the longest "
            f"sentence, {longest} tokens: give at least {rows_multiple * longest}"
        )
    # The search needs no sentences, only a histogram over P source and Q target lengths. The index
    # of a sentence's cell fits into uint16, since P * Q <= 2^12.
    S, T = _levels(source_lengths), _levels(target_lengths)  # [P], [Q]
    cell = np.searchsorted(S, source_lengths).astype(np.uint16) * np.uint16(len(T))
    cell += np.searchsorted(T, target_lengths).astype(np.uint16)
    counts = np.bincount(cell, minlength=len(S) * len(T)).reshape(len(S), len(T))
    shapes = _search_shapes(counts, S, T, num_buckets)
    shapes = _drop_small_buckets(shapes, counts, S, T, batch_tokens, rows_multiple)
    bucket_of = _assign(shapes, S, T).ravel().astype(np.uint16)[cell]
    buckets = []
    for k in range(len(shapes)):
        members = np.flatnonzero(bucket_of == k)
        # The levels may be coarser than the lengths, so the shape shrinks to its longest sentences.
        s, t = int(source_lengths[members].max()), int(target_lengths[members].max())
        batches = -(-len(members) // _max_rows(batch_tokens, s, t, rows_multiple))
        # The sentences are spread evenly, so that the last batch is as full as the others.
        rows = -(-len(members) // (batches * rows_multiple)) * rows_multiple
        members = members if selected is None else selected[members]
        dtype = np.int32 if members.max() < 2**31 else np.int64
        buckets.append(Bucket(rows, s, t, batches, members.astype(dtype)))
    return Bucketing(tuple(buckets))


def epoch_order(bucketing: Bucketing, seed: int, epoch: int) -> list[tuple[Bucket, np.ndarray]]:
    """Returns the batches of an epoch in random order, each with its bucket and its sentences.

    A batch has at most `bucket.rows` sentences: their indices, int [sentences]. The same seed and
    epoch give the same batches.
    """
    rng = np.random.default_rng((seed, epoch))
    batches = [
        (bucket, sentences)
        for bucket in bucketing.buckets
        for sentences in np.array_split(rng.permutation(bucket.members), bucket.batches)
    ]
    return [batches[i] for i in rng.permutation(len(batches))]


def _levels(lengths: np.ndarray) -> np.ndarray:
    """Returns the lengths that may bound a shape, int64, ascending; the longest is the last.

    These are all lengths that occur or, where there are too many, quantiles of them.
    """
    values, counts = np.unique(lengths, return_counts=True)
    if len(values) > _MAX_LEVELS:
        quantiles = np.linspace(0, counts.sum(), _MAX_LEVELS + 1)[1:]
        values = values[np.unique(np.searchsorted(np.cumsum(counts), quantiles))]
    return values.astype(np.int64)


def _max_rows(batch_tokens: int, s: int, t: int, multiple: int) -> int:
    """The most rows of a batch with sources of length s and targets of length t."""
    return batch_tokens // max(s, t) // multiple * multiple


def _row_costs(shapes: list[Shape], S: np.ndarray, T: np.ndarray) -> np.ndarray:
    """The cost of a row of each of K shapes, in tokens with padding: float [K, P, Q].

    The cost is S + T of the shape if a sentence of the p-th source and q-th target length fits into
    it, and infinite otherwise.
    """
    costs = np.full((len(shapes), len(S), len(T)), np.inf)
    for k, (i, j) in enumerate(shapes):
        costs[k, : i + 1, : j + 1] = S[i] + T[j]
    return costs


def _assign(shapes: list[Shape], S: np.ndarray, T: np.ndarray) -> np.ndarray:
    """For each pair of lengths, the index of the cheapest shape that holds them: int [P, Q]."""
    return _row_costs(shapes, S, T).argmin(axis=0)


def _search_shapes(
    counts: np.ndarray, S: np.ndarray, T: np.ndarray, max_shapes: int
) -> list[Shape]:
    """Searches for shapes with little padding; finds a local optimum.

    The cost is the sum over all sentences of S + T of the cheapest shape that holds the sentence.
    The first shape has the longest source and the longest target and never moves, so every sentence
    fits into a shape. Shapes are added where they save most tokens. After each addition all shapes
    are moved, one at a time, to where they save most, given the others.

    Args:
      counts: int [P, Q], the number of sentences of the p-th source and the q-th target length.
      S, T: int [P] and [Q], these lengths, ascending.
      max_shapes: the most shapes.
    """
    shapes = [(len(S) - 1, len(T) - 1)]
    while len(shapes) < max_shapes:
        shape, saved = _best_addition(shapes, counts, S, T)
        if saved <= 0:
            break
        shapes = _move_shapes([*shapes, shape], counts, S, T)
    return shapes


def _move_shapes(
    shapes: list[Shape], counts: np.ndarray, S: np.ndarray, T: np.ndarray
) -> list[Shape]:
    """Moves each shape except the first to where it saves most tokens, until none moves."""
    for _ in range(_MAX_SWEEPS):
        before = list(shapes)
        for k in range(1, len(shapes)):
            others = shapes[:k] + shapes[k + 1 :]
            shapes[k], _ = _best_addition(others, counts, S, T)
        if shapes == before:
            break
    return shapes


def _best_addition(
    shapes: list[Shape], counts: np.ndarray, S: np.ndarray, T: np.ndarray
) -> tuple[Shape, float]:
    """Finds the shape whose addition saves most tokens, and the number of tokens saved.

    For each sentence that fits into it, a shape (p, q) saves the present cost of a row minus the
    cost S_p + T_q of a row of the new shape:

      saved(p, q) = sum over i <= p, j <= q of counts_ij * max(0, now_ij - S_p - T_q)

    The summand is the same for all shapes of the same cost c = S_p + T_q, so their sums are entries
    of one cumulative sum over both axes. The loop is over the values of c.

    Args:
      shapes: the shapes that are there already.
      counts, S, T: as in `_search_shapes`.
    """
    now = _row_costs(shapes, S, T).min(axis=0)  # [P, Q]
    cost = S[:, None] + T  # [P, Q]
    most, best = -1.0, (0, 0)
    for c in np.unique(cost):
        gains = counts * np.maximum(0, now - c)
        saved = gains.cumsum(axis=0).cumsum(axis=1)
        saved[cost != c] = -1
        i = int(saved.argmax())
        if saved.flat[i] > most:
            most, best = float(saved.flat[i]), divmod(i, len(T))
    return best, most


def _drop_small_buckets(
    shapes: list[Shape],
    counts: np.ndarray,
    S: np.ndarray,
    T: np.ndarray,
    batch_tokens: int,
    multiple: int,
) -> list[Shape]:
    """Removes shapes whose few sentences cost less in the batches of other shapes.

    A bucket that cannot fill a batch still takes a training step, so each bucket costs at least
    half a batch: the cost is the sum over shapes of max(sentences, rows / 2) * (S + T).
    """

    def bucket_sizes(kept: list[Shape]) -> np.ndarray:
        return np.bincount(_assign(kept, S, T).ravel(), counts.ravel(), len(kept))

    def cost(kept: list[Shape]) -> float:
        bounds = [(int(S[i]), int(T[j])) for i, j in kept]
        least = [_max_rows(batch_tokens, s, t, multiple) / 2 for s, t in bounds]
        return float(np.maximum(bucket_sizes(kept), least) @ [s + t for s, t in bounds])

    # The first shape stays, because every sentence fits into it.
    while len(shapes) > 1:
        fewer = min((shapes[:k] + shapes[k + 1 :] for k in range(1, len(shapes))), key=cost)
        if cost(fewer) > cost(shapes):
            break
        shapes = fewer
    return [shape for shape, size in zip(shapes, bucket_sizes(shapes), strict=True) if size]
