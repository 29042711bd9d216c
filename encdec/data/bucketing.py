"""Which sentences share a batch, and of what shape: pure functions of lengths, seed and epoch.

XLA compiles each shape once. So all sentences are sorted into a few buckets, each of one shape
(rows, S, T), such that few cells are padding.
"""

from typing import NamedTuple

import numpy as np

from encdec.types import InputError

_LEVELS = 64
"""Most lengths of a side that a shape's bounds are chosen from."""
_SWEEPS = 20
"""Most rounds of improvement after each new shape; a few are enough."""


class Bucket(NamedTuple):
    """Sentences that share one batch shape: src [rows, source_length], tgt [rows, T + 1]."""

    rows: int
    source_length: int
    target_length: int
    batches: int
    members: np.ndarray
    """Indices of the sentences, int32 (int64 where there are more than 2^31)."""


class Bucketing(NamedTuple):
    """How an epoch falls into batches: each sentence once, in a batch of its bucket's shape."""

    buckets: tuple[Bucket, ...]

    @property
    def batches_per_epoch(self) -> int:
        return sum(bucket.batches for bucket in self.buckets)


def rows_within(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    max_source_length: int,
    max_target_length: int,
) -> np.ndarray:
    """Indices of the pairs that are not too long; lengths and maxima count tokens without EOS.

    Raises:
      InputError: every pair is too long.
    """
    short = (source_lengths <= max_source_length) & (target_lengths <= max_target_length)
    if not short.any():
        raise InputError(
            f"all {len(short)} pairs are longer than max_source_length = {max_source_length} "
            f"or max_target_length = {max_target_length} tokens: raise these"
        )
    return np.flatnonzero(short)


def make_buckets(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    *,
    batch_tokens: int,
    num_buckets: int,
    rows_multiple: int = 1,
    rows: np.ndarray | None = None,
) -> Bucketing:
    """Buckets that waste few cells on padding.

    Args:
      source_lengths: int [n], tokens with EOS.
      target_lengths: int [n], predicted tokens, EOS among them.
      batch_tokens: most cells of a batch's longer side: rows * max(S, T).
      num_buckets: most buckets.
      rows_multiple: what must divide each batch's rows: devices times parts of a batch.
      rows: int [m], the sentences to train on; all when left out.

    Raises:
      InputError: the longest sentence does not fit `rows_multiple` times.
    """
    if rows is not None:
        source_lengths, target_lengths = source_lengths[rows], target_lengths[rows]
    longest = int(max(source_lengths.max(), target_lengths.max()))
    if batch_tokens < rows_multiple * longest:
        raise InputError(
            f"batch_tokens = {batch_tokens} cannot hold {rows_multiple} row(s) of the longest "
            f"sentence, {longest} tokens: at least {rows_multiple * longest} can"
        )
    S, T = _levels(source_lengths), _levels(target_lengths)  # [P], [Q]; P * Q < 2^16
    place = np.searchsorted(S, source_lengths).astype(np.uint16) * np.uint16(len(T))
    place += np.searchsorted(T, target_lengths).astype(np.uint16)
    counts = np.bincount(place, minlength=len(S) * len(T)).reshape(len(S), len(T))
    chosen = _worth_their_batches(
        _cheapest_shapes(counts, S, T, num_buckets), counts, S, T, batch_tokens, rows_multiple
    )
    owner = _owners(chosen, S, T).ravel().astype(np.uint16)[place]
    buckets = []
    for k in range(len(chosen)):
        members = np.flatnonzero(owner == k)
        s, t = int(source_lengths[members].max()), int(target_lengths[members].max())
        batches = -(-len(members) // _rows(batch_tokens, s, t, rows_multiple))
        # Rows no more than an even share needs: the last batch is as full as the others.
        share = -(-len(members) // (batches * rows_multiple)) * rows_multiple
        members = members if rows is None else rows[members]
        narrow = np.int32 if members.max() < 2**31 else np.int64
        buckets.append(Bucket(share, s, t, batches, members.astype(narrow)))
    return Bucketing(tuple(buckets))


def epoch_order(bucketing: Bucketing, seed: int, epoch: int) -> list[tuple[Bucket, np.ndarray]]:
    """The batches of an epoch: each its bucket and its sentences (int, `rows` at most)."""
    rng = np.random.default_rng((seed, epoch))
    batches = [
        (bucket, sentences)
        for bucket in bucketing.buckets
        for sentences in np.array_split(rng.permutation(bucket.members), bucket.batches)
    ]
    return [batches[i] for i in rng.permutation(len(batches))]


def _levels(lengths: np.ndarray) -> np.ndarray:
    """The lengths that occur, int64, rising; of very many, some that hold about equal shares."""
    values, counts = np.unique(lengths, return_counts=True)
    if len(values) > _LEVELS:
        shares = np.linspace(0, counts.sum(), _LEVELS + 1)[1:]
        values = values[np.unique(np.searchsorted(np.cumsum(counts), shares))]
    return values.astype(np.int64)


def _rows(batch_tokens: int, s: int, t: int, multiple: int) -> int:
    return batch_tokens // max(s, t) // multiple * multiple


def _costs(shapes: list[tuple[int, int]], S: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Cells of a row of each shape, where a sentence fits it: float [K, P, Q], else inf."""
    costs = np.full((len(shapes), len(S), len(T)), np.inf)
    for k, (i, j) in enumerate(shapes):
        costs[k, : i + 1, : j + 1] = S[i] + T[j]
    return costs


def _owners(shapes: list[tuple[int, int]], S: np.ndarray, T: np.ndarray) -> np.ndarray:
    """For each pair of lengths, the shape with the fewest cells that holds it: int [P, Q]."""
    return _costs(shapes, S, T).argmin(axis=0)


def _cheapest_shapes(
    counts: np.ndarray, S: np.ndarray, T: np.ndarray, most: int
) -> list[tuple[int, int]]:
    """Shapes for which the sum over sentences of the cells of the cheapest that fits is small.

    The first holds all. Each next is put where it saves most, and then each in turn is put where
    it saves most beside the others, until none moves: a local optimum.

    Args:
      counts: int [P, Q], sentences of the p-th source and the q-th target length.
      S, T: int [P] and [Q], these lengths, rising.
      most: most shapes.

    Returns:
      Indices (p, q) of the shapes' bounds.
    """
    shapes = [(len(S) - 1, len(T) - 1)]
    while len(shapes) < most:
        shape, saved = _best_addition(_costs(shapes, S, T).min(axis=0), counts, S, T)
        if saved <= 0:
            break
        shapes = _settled([*shapes, shape], counts, S, T)
    return shapes


def _settled(
    shapes: list[tuple[int, int]], counts: np.ndarray, S: np.ndarray, T: np.ndarray
) -> list[tuple[int, int]]:
    """The shapes, each but the first where it saves most while the others stay."""
    for _ in range(_SWEEPS):
        before = list(shapes)
        for k in range(1, len(shapes)):
            others = shapes[:k] + shapes[k + 1 :]
            shapes[k], _ = _best_addition(_costs(others, S, T).min(axis=0), counts, S, T)
        if shapes == before:
            break
    return shapes


def _best_addition(
    now: np.ndarray, counts: np.ndarray, S: np.ndarray, T: np.ndarray
) -> tuple[tuple[int, int], float]:
    """The shape that saves most cells beside others, and how many it saves.

    saved(p, q) = sum over i <= p, j <= q of counts(i, j) * max(0, now(i, j) - S(p) - T(q)); for
    one S + T the sums of all its shapes are one cumulative sum.

    Args:
      now: float [P, Q], cells that a row takes with the others.
      counts, S, T: as in `_cheapest_shapes`.
    """
    cells = S[:, None] + T
    best, place = -1.0, (0, 0)
    for c in np.unique(cells):
        gains = counts * np.maximum(0, now - c)
        saved = gains.cumsum(axis=0).cumsum(axis=1)
        saved[cells != c] = -1
        at = int(saved.argmax())
        if saved.flat[at] > best:
            best, place = float(saved.flat[at]), divmod(at, len(T))
    return place, best


def _worth_their_batches(
    shapes: list[tuple[int, int]],
    counts: np.ndarray,
    S: np.ndarray,
    T: np.ndarray,
    batch_tokens: int,
    multiple: int,
) -> list[tuple[int, int]]:
    """The shapes without those whose few sentences fit into the batches of others.

    Each bucket is charged for half a batch at least:
    sum over shapes of max(sentences, rows / 2) * (S + T).
    """

    def cost(kept: list[tuple[int, int]]) -> float:
        held = np.bincount(_owners(kept, S, T).ravel(), counts.ravel(), len(kept))
        bounds = [(int(S[i]), int(T[j])) for i, j in kept]
        least = [_rows(batch_tokens, s, t, multiple) / 2 for s, t in bounds]
        return float(np.maximum(held, least) @ [s + t for s, t in bounds])

    while len(shapes) > 1:
        fewer = min((shapes[:k] + shapes[k + 1 :] for k in range(1, len(shapes))), key=cost)
        if cost(fewer) > cost(shapes):
            break
        shapes = fewer
    held = np.bincount(_owners(shapes, S, T).ravel(), counts.ravel(), len(shapes))
    return [shape for shape, sentences in zip(shapes, held, strict=True) if sentences]
