import itertools
import re
from itertools import islice

import numpy as np
import pytest

from encdec.data import batching, vocabulary
from encdec.data.batching import Examples, deliver, epoch_order, plan, training_batch
from encdec.data.sources import Pairs
from encdec.types import BOS, EOS, PAD, Batch, InputError


def natural(n: int, seed: int = 0) -> Examples:
    """n pairs, each of its own tokens, with lengths like those of captions and their translations.

    Long-tailed source lengths of mean 14, target lengths that follow them.
    """
    rng = np.random.default_rng(seed)
    source = np.clip(rng.gamma(8, 13 / 8, n).round().astype(int), 1, 50)
    target = np.clip(np.round(source * 1.1 + rng.normal(0, 1.5, n)).astype(int), 1, 60)
    examples = Examples([], [])
    for i, (s, t) in enumerate(zip(source, target, strict=True)):
        examples.src.append(np.array([10 + i] * s + [EOS], np.int32))
        examples.tgt.append(np.array([BOS] + [10 + i] * t + [EOS], np.int32))
    return examples


def sentences(batch: Batch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What a batch holds, without padding and empty rows."""
    pairs = [(tuple(s[s != PAD]), tuple(t[t != PAD])) for s, t in zip(*batch, strict=True)]
    return [pair for pair in pairs if pair != ((), ())]


def held(examples: Examples) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(tuple(s), tuple(t)) for s, t in zip(*examples, strict=True)]


def test_pairs_are_encoded_and_long_ones_counted() -> None:
    pairs = Pairs(["ab", "abc", "a", "b"], ["xy", "x", "xyx", "x"])
    src, tgt = vocabulary.build("chars", ["abc"], None), vocabulary.build("chars", ["xy"], None)
    examples, left_out = batching.encode_pairs(pairs, src, tgt, 2, 2)
    assert left_out == 2
    assert held(examples) == [
        ((*src.encode("ab"), EOS), (BOS, *tgt.encode("xy"), EOS)),
        ((*src.encode("b"), EOS), (BOS, *tgt.encode("x"), EOS)),
    ]
    assert [list(side) for side in examples.lengths()] == [[3, 2], [3, 2]]
    assert {tokens.dtype for side in examples for tokens in side} == {np.dtype(np.int32)}
    with pytest.raises(InputError, match="all 2 pairs are longer than max_source_length = 1"):
        batching.encode_pairs(Pairs(pairs.src[:2], pairs.tgt[:2]), src, tgt, 1, 2)


@pytest.mark.parametrize(
    ("n", "batch_tokens", "shapes", "multiple"),
    [(1, 64, 8, 1), (3, 300, 8, 4), (500, 600, 7, 2), (500, 600, 1, 1), (997, 10**6, 8, 8)],
)
def test_each_sentence_comes_once_an_epoch(n, batch_tokens, shapes, multiple) -> None:
    examples = natural(n)
    made = plan(
        *examples.lengths(), batch_tokens=batch_tokens, shapes=shapes, rows_multiple=multiple
    )
    steps = range(made.batches_per_epoch, 2 * made.batches_per_epoch)
    source = batching.TrainingBatches(examples, made, 5)
    batches = [source[step] for step in steps]
    seen = [pair for batch in batches for pair in sentences(batch)]
    assert sorted(seen) == sorted(held(examples))
    for batch in batches:
        B, S = batch.src.shape
        T = batch.tgt.shape[1] - 1
        assert batch.tgt.shape[0] == B
        assert B % multiple == 0
        assert B * max(S, T) <= batch_tokens
        assert batch.src.dtype == batch.tgt.dtype == np.int32
        assert sentences(batch)
    assert len({(batch.src.shape, batch.tgt.shape) for batch in batches}) <= shapes


def real_share(examples: Examples, **settings: int) -> float:
    made = plan(*examples.lengths(), **settings)
    batches = [training_batch(examples, made, 0, step) for step in range(made.batches_per_epoch)]
    real = sum((b.src != PAD).sum() + (b.tgt[:, 1:] != PAD).sum() for b in batches)
    return real / sum(b.src.size + b.tgt[:, 1:].size for b in batches)


def test_few_cells_are_padding_and_more_shapes_waste_less() -> None:
    examples = natural(4000)
    shares = [real_share(examples, batch_tokens=2048, shapes=k) for k in (1, 4, 12)]
    assert shares == sorted(shares)
    assert shares[-1] > 0.88
    # Two lengths, two shapes: no padding but for rows that keep an even share.
    two = Examples([np.full(n, 7, np.int32) for n in [5] * 64 + [11] * 32], [])
    two.tgt.extend(np.full(n, 7, np.int32) for n in [4] * 64 + [14] * 32)
    assert real_share(two, batch_tokens=5 * 64, shapes=2) == pytest.approx(1, abs=0.05)


def test_few_sentences_make_one_full_batch_not_many_small_ones() -> None:
    made = plan(*natural(60).lengths(), batch_tokens=4096, shapes=8)
    assert made.batches_per_epoch == 1


def test_the_cuts_are_the_cheapest_of_all() -> None:
    rng = np.random.default_rng(4)
    for most in (1, 2, 3, 5):
        counts = rng.integers(0, 30, 7)
        rows = np.sort(rng.integers(2, 20, 7))[::-1]
        cells = rows * np.sort(rng.integers(2, 50, 7))

        def cost(segments, counts=counts, rows=rows, cells=cells) -> float:
            return sum(
                -(-counts[i:j].sum() // rows[j - 1]) * cells[j - 1] for i, j in segments if j > i
            )

        every = (
            list(itertools.pairwise((0, *cuts, 7)))
            for cuts in itertools.combinations_with_replacement(range(8), most - 1)
        )
        chosen = batching._cheapest_segments(counts, rows, cells, most)
        assert len(chosen) <= most
        assert sum(counts[i:j].sum() for i, j in chosen) == counts.sum()
        assert cost(chosen) == min(map(cost, every))


def test_a_batch_too_small_for_the_longest_is_refused_with_one_that_is_not() -> None:
    lengths = np.array([3, 9, 4]), np.array([5, 2, 17])
    with pytest.raises(InputError, match="batch_tokens = 101 cannot hold 6 ") as caught:
        plan(*lengths, batch_tokens=101, shapes=2, rows_multiple=6)
    least = int(re.search(r"at least (\d+) can", str(caught.value))[1])
    assert least == 6 * 17
    assert plan(*lengths, batch_tokens=least, shapes=2, rows_multiple=6).buckets[-1].rows == 6


def test_very_many_lengths_are_planned_too() -> None:
    lengths = np.arange(1, 1301), np.arange(1300, 0, -1)
    made = plan(*lengths, batch_tokens=2600, shapes=3)
    assert sorted(np.concatenate([b.members for b in made.buckets])) == list(range(1300))
    for bucket in made.buckets:
        assert lengths[0][bucket.members].max() == bucket.source_length
        assert lengths[1][bucket.members].max() == bucket.target_length


def test_each_epoch_and_seed_has_an_order_of_its_own() -> None:
    made = plan(*natural(300).lengths(), batch_tokens=400, shapes=4)
    orders = [
        [tuple(rows) for _, rows in epoch_order(made, *at)] for at in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] == [tuple(rows) for _, rows in epoch_order(made, 0, 0)]
    company = [{frozenset(rows) for rows in order} for order in orders]
    assert not company[0] & company[1]
    shapes = [bucket.rows for bucket, _ in epoch_order(made, 0, 0)]
    assert shapes != sorted(shapes)
    assert shapes != sorted(shapes, reverse=True)


def test_a_resumed_run_goes_on_with_the_batches_it_would_have_seen() -> None:
    examples = natural(90)
    made = plan(*examples.lengths(), batch_tokens=256, shapes=3)
    n = 2 * made.batches_per_epoch + 5
    whole = list(islice(deliver(examples, made, 11, 0), n))
    for start in (3, made.batches_per_epoch, n - 2):
        resumed = list(islice(deliver(examples, made, 11, start), n - start))
        pure = [training_batch(examples, made, 11, step) for step in range(start, n)]
        for one, two, three in zip(whole[start:], resumed, pure, strict=True):
            assert isinstance(two, Batch)
            assert all(map(np.array_equal, one, two))
            assert all(map(np.array_equal, one, three))


@pytest.mark.parametrize("budget", [16, 500, 10**6])
def test_inference_and_scoring_drop_nothing_and_have_few_shapes(budget: int) -> None:
    examples = natural(307)
    sources = list(batching.inference_batches(examples.src, budget))
    scored = list(batching.scoring_batches(examples, budget))
    for batches in (sources, scored):
        assert sorted(np.concatenate([i for i, _ in batches])) == list(range(307))
    for indices, src in sources:
        rows, S = src.shape
        assert rows * S <= budget or rows == 1
        assert rows & (rows - 1) == 0
        assert src.dtype == np.int32
        for row, i in itertools.zip_longest(src, indices):
            assert list(row[row != PAD]) == ([] if i is None else list(examples.src[i]))
    for indices, batch in scored:
        assert sentences(batch) == [held(examples)[i] for i in indices]
    assert len({src.shape for _, src in sources}) <= 8
    longest = [max(len(examples.src[i]) for i in indices) for indices, _ in sources]
    assert longest == sorted(longest, reverse=True)


def test_no_sentences_make_no_batches() -> None:
    assert list(batching.inference_batches([], 64)) == []


def test_lengths_round_up_to_a_few() -> None:
    allowed = [*range(8, 65, 8), 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512]
    expected = [next(a for a in allowed if a >= n) for n in range(1, 513)]
    assert [batching.round_length(n) for n in range(1, 513)] == expected
