import itertools
from itertools import islice

import numpy as np
import pytest

from encdec.data import batches as batching
from encdec.data import vocabulary
from encdec.data.batches import (
    Rows,
    SubwordSampling,
    TrainingBatches,
    largest_batches,
    training_iterator,
)
from encdec.data.bucketing import Bucket, Bucketing, make_buckets
from encdec.data.dates import dates
from encdec.data.tokens import Examples, encode_pairs, tokens_of
from encdec.types import Batch, SpecialIds
from tests.data.lengths import natural

PAD, BOS, EOS, _ = SpecialIds()


def sentences(batch: Batch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What a batch holds, without padding and empty rows; its masks are where it is padded."""
    src, src_mask, tgt, tgt_mask = batch
    np.testing.assert_array_equal(src_mask, src != PAD)
    np.testing.assert_array_equal(tgt_mask, tgt[:, 1:] != PAD)
    assert src_mask.dtype == tgt_mask.dtype == bool
    pairs = [(tuple(s[s != PAD]), tuple(t[t != PAD])) for s, t in zip(src, tgt, strict=True)]
    return [pair for pair in pairs if pair != ((), ())]


def held(examples: Examples) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All pairs as a batch has them: BOS stands before each target."""
    rows = range(len(examples.src))
    return [(tuple(examples.src[i]), (BOS, *examples.tgt[i])) for i in rows]


@pytest.mark.parametrize(
    ("n", "batch_tokens", "shapes", "multiple"),
    [(1, 64, 8, 1), (3, 300, 8, 4), (500, 600, 7, 2), (500, 600, 1, 1), (997, 10**6, 8, 8)],
)
def test_each_sentence_comes_once_an_epoch(n, batch_tokens, shapes, multiple) -> None:
    examples = natural(n)
    made = make_buckets(
        *examples.lengths(), batch_tokens=batch_tokens, num_buckets=shapes, rows_multiple=multiple
    )
    source = TrainingBatches(examples, made, 5)
    steps = range(made.batches_per_epoch, 2 * made.batches_per_epoch)
    batches = [source[step] for step in steps]
    assert sorted(pair for batch in batches for pair in sentences(batch)) == sorted(held(examples))
    for batch in batches:
        B, S = batch.src.shape
        T = batch.tgt.shape[1] - 1
        assert batch.tgt.shape[0] == B
        assert B % multiple == 0
        assert B * max(S, T) <= batch_tokens
        assert batch.src.dtype == batch.tgt.dtype == np.int32
        assert sentences(batch)
    assert len({(batch.src.shape, batch.tgt.shape) for batch in batches}) <= shapes


def subword_case() -> tuple[Examples, Bucketing, SubwordSampling]:
    """Dates in pieces of which each has several, in batches with room for longer segmentations."""
    pairs = dates(120, 0).train
    src, tgt = (vocabulary.build("sentencepiece", side, None) for side in pairs)
    examples = encode_pairs(pairs, src, tgt)
    lengths = [side + 3 for side in examples.lengths()]
    return (
        examples,
        make_buckets(*lengths, batch_tokens=600, num_buckets=3),
        SubwordSampling(src, tgt, 0.2),
    )


@pytest.mark.parametrize("sampled", [False, True])
def test_a_resumed_run_goes_on_with_the_batches_it_would_have_seen(sampled: bool) -> None:
    """The run that is killed after any step sees what one sees that never is: the very tokens."""
    examples, made, sampling = subword_case()
    how = (sampling,) if sampled else ()
    per_epoch = made.batches_per_epoch
    n = 2 * per_epoch + 5
    whole = list(islice(training_iterator(examples, made, 11, 0, *how), n))
    assert len({batch.src.tobytes() for batch in whole}) == n
    for start in (3, per_epoch - 1, per_epoch, n - 2):
        resumed = list(islice(training_iterator(examples, made, 11, start, *how), n - start))
        alone = TrainingBatches(examples, made, 11, *how)
        for step, batch in enumerate(resumed, start):
            assert isinstance(batch, Batch)
            for other in (whole[step], alone[step]):
                assert all(map(np.array_equal, batch, other))


@pytest.mark.parametrize("sampled", [False, True])
def test_parts_of_a_batch_are_the_batch_and_empty_rows(sampled: bool) -> None:
    """What three processes make of each batch, one below the other, whatever is drawn."""
    examples, made, sampling = subword_case()
    how = (sampling if sampled else None,)
    whole = TrainingBatches(examples, made, 11, *how)
    parts = [TrainingBatches(examples, made, 11, *how, Rows(6, part, 3)) for part in range(3)]
    for step in range(made.batches_per_epoch):
        joined = [np.concatenate(sides) for sides in zip(*(p[step] for p in parts), strict=True)]
        rows = len(whole[step].src)
        assert len(joined[0]) == -(-rows // 6) * 6
        for side, gather_batch in zip(joined, whole[step], strict=True):
            np.testing.assert_array_equal(side[:rows], gather_batch)
            assert (side[rows:] == PAD).all()
    largest = max(range(made.batches_per_epoch), key=lambda step: whole[step].src.size)
    empty = largest_batches(made, Rows(6, 1, 3))[0]
    assert empty.src.shape == parts[1][largest].src.shape
    assert not empty.src.any()


def test_sampled_sentences_are_the_same_text_and_new_each_epoch() -> None:
    examples, made, sampling = subword_case()
    batches = TrainingBatches(examples, made, 4, sampling)
    steps = made.batches_per_epoch
    epochs = [
        sorted(pair for step in range(first, first + steps) for pair in sentences(batches[step]))
        for first in (0, steps)
    ]

    def texts(pairs) -> list[tuple[str, str]]:
        return sorted(
            (sampling.src_vocab.decode(s), sampling.tgt_vocab.decode(t)) for s, t in pairs
        )

    best = held(examples)
    for epoch in epochs:
        assert texts(epoch) == texts(best)
        assert all(s[-1] == t[-1] == EOS and t[0] == BOS for s, t in epoch)
    changed = [len(set(one) - set(other)) for one, other in ((epochs[0], best), epochs)]
    assert min(changed) > len(best) / 2
    other_seed = TrainingBatches(examples, made, 5, sampling)
    assert not np.array_equal(batches[0].src, other_seed[0].src)


def test_a_segmentation_that_does_not_fit_its_batch_is_not_drawn() -> None:
    examples, _, sampling = subword_case()
    tight = make_buckets(*examples.lengths(), batch_tokens=600, num_buckets=3)
    batches = TrainingBatches(examples, tight, 0, sampling)
    seen = [pair for step in range(tight.batches_per_epoch) for pair in sentences(batches[step])]
    assert len(seen) == len(examples.src)
    assert set(seen) != set(held(examples))


@pytest.mark.parametrize("budget", [16, 500, 10**6])
def test_inference_and_scoring_drop_nothing_and_have_few_shapes(budget: int) -> None:
    examples = natural(307)
    sources = list(batching.inference_batches(examples.src, budget))
    scored = list(batching.scoring_batches(examples, budget))
    for batches in (sources, scored):
        assert sorted(np.concatenate([i for i, *_ in batches])) == list(range(307))
    for indices, src, src_mask in sources:
        np.testing.assert_array_equal(src_mask, src != PAD)
        rows, S = src.shape
        assert rows * S <= budget or rows == 1
        assert rows & (rows - 1) == 0
        assert src.dtype == np.int32
        for row, i in itertools.zip_longest(src, indices):
            assert list(row[row != PAD]) == ([] if i is None else list(examples.src[i]))
    for indices, batch in scored:
        assert sentences(batch) == [held(examples)[i] for i in indices]
    assert len({src.shape for _, src, _ in sources}) <= 8
    longest = [max(len(examples.src[i]) for i in indices) for indices, *_ in sources]
    assert longest == sorted(longest, reverse=True)


def test_no_sentences_make_no_batches() -> None:
    assert list(batching.inference_batches(tokens_of([], SpecialIds()), 64)) == []


def test_lengths_round_up_to_a_few() -> None:
    allowed = [*range(8, 65, 8), 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512]
    expected = [next(a for a in allowed if a >= n) for n in range(1, 513)]
    assert [batching.round_length(n) for n in range(1, 513)] == expected


def test_padding_and_start_are_the_ids_of_each_side() -> None:
    """Marian's ids: padding comes last and starts the target, the end is 0."""
    marian = SpecialIds(pad=19, start=19, end=0, unknown=1)
    examples = Examples(
        tokens_of([[5, 6], [7]], SpecialIds()), tokens_of([[2, 3], [4, 6, 18]], marian)
    )
    ((indices, batch),) = batching.scoring_batches(examples, 64)
    assert indices.tolist() == [1, 0]
    assert batch.src.tolist() == [[7, 2, 0, 0, 0, 0, 0, 0], [5, 6, 2, 0, 0, 0, 0, 0]]
    assert batch.tgt.tolist() == [[19, 4, 6, 18, 0] + [19] * 4, [19, 2, 3, 0] + [19] * 5]
    assert batch.src_mask.sum(1).tolist() == [2, 3]
    assert batch.tgt_mask.tolist() == [[True] * 4 + [False] * 4, [True] * 3 + [False] * 5]


def test_the_largest_batch_is_measured_whatever_a_token_and_a_pair_of_tokens_cost() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        shapes = rng.integers(1, 60, (rng.integers(1, 12), 3))
        buckets = tuple(Bucket(*shape, 1, np.zeros(0, np.int32)) for shape in shapes.tolist())
        chosen = {
            (*batch.src.shape, batch.tgt_mask.shape[1])
            for batch in batching.largest_batches(Bucketing(buckets))
        }
        n, S, T = shapes.T
        tokens, pairs = n * (S + T), n * (S * S + S * T + T * T)
        for ratio in (0, *np.geomspace(1e-3, 1e3, 50), np.inf):
            costs = pairs if ratio == np.inf else tokens + ratio * pairs
            most = {tuple(shapes[i]) for i in np.flatnonzero(costs == costs.max())}
            assert most & chosen
        assert len(chosen) <= len({*map(tuple, shapes)})
