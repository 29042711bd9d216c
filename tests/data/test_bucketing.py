"""Bucketing, against plain loops and brute force over all choices of shapes."""

import itertools
import re

import numpy as np
import pytest

from encdec.data import bucketing
from encdec.data.bucketing import Bucketing, epoch_order, make_buckets, select_by_length
from encdec.types import InputError
from tests.data.lengths import natural_lengths


def real_fraction(made: Bucketing, source: np.ndarray, target: np.ndarray) -> float:
    """The fraction of all tokens in an epoch's batches that are not padding."""
    padded = [b.batches * b.rows * (b.source_length + b.target_length) for b in made.buckets]
    return (source.sum() + target.sum()) / sum(padded)


@pytest.mark.parametrize(
    ("n", "batch_tokens", "num_buckets", "multiple"),
    [(1, 64, 8, 1), (3, 300, 8, 4), (500, 600, 7, 2), (500, 600, 1, 1), (997, 10**6, 8, 8)],
)
def test_each_sentence_has_one_bucket_that_holds_it(n, batch_tokens, num_buckets, multiple) -> None:
    source, target = natural_lengths(n)
    made = make_buckets(
        source, target, batch_tokens=batch_tokens, num_buckets=num_buckets, rows_multiple=multiple
    )
    assert sorted(np.concatenate([b.members for b in made.buckets])) == list(range(n))
    assert len(made.buckets) <= num_buckets
    for bucket in made.buckets:
        S, T = bucket.source_length, bucket.target_length
        assert (source[bucket.members].max(), target[bucket.members].max()) == (S, T)
        assert bucket.rows % multiple == 0
        assert bucket.rows * max(S, T) <= batch_tokens
        assert 0 <= bucket.rows * bucket.batches - len(bucket.members) < multiple * bucket.batches


@pytest.mark.parametrize("batch_tokens", [2048, 4096, 8192])
def test_nine_tokens_in_ten_are_not_padding_with_twelve_buckets(batch_tokens: int) -> None:
    lengths = natural_lengths(29_000)
    fractions = [
        real_fraction(make_buckets(*lengths, batch_tokens=batch_tokens, num_buckets=k), *lengths)
        for k in (1, 4, 12)
    ]
    assert fractions == sorted(fractions)
    assert fractions[-1] > 0.9


def test_two_pairs_of_lengths_and_two_shapes_leave_no_padding() -> None:
    source, target = np.array([5] * 64 + [11] * 32), np.array([4] * 64 + [14] * 32)
    made = make_buckets(source, target, batch_tokens=5 * 64, num_buckets=2)
    assert real_fraction(made, source, target) == pytest.approx(1, abs=0.05)


def test_few_sentences_make_one_batch_not_many_small_ones() -> None:
    assert (
        make_buckets(*natural_lengths(60), batch_tokens=4096, num_buckets=12).batches_per_epoch == 1
    )


def padded_tokens(shapes, counts: np.ndarray, S: np.ndarray, T: np.ndarray) -> float:
    """Tokens of all sentences, each padded to the cheapest shape that it fits, by plain loops."""
    total = 0.0
    for (p, q), n in np.ndenumerate(counts):
        total += n * min((S[i] + T[j] for i, j in shapes if i >= p and j >= q), default=np.inf)
    return total


def small_case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 9, (4, 5)) * rng.integers(0, 2, (4, 5))
    counts[-1, -1] = 1
    S, T = (np.sort(rng.choice(np.arange(1, 30), n, replace=False)) for n in (4, 5))
    return counts, S, T


@pytest.mark.parametrize("seed", range(5))
def test_an_added_shape_is_the_best_of_all(seed: int) -> None:
    counts, S, T = small_case(seed)
    others = [(3, 4), (1, 2)]
    shape, saved = bucketing._best_addition(others, counts, S, T)
    every = [[*others, place] for place in itertools.product(range(4), range(5))]
    costs = [padded_tokens(shapes, counts, S, T) for shapes in every]
    assert padded_tokens([*others, shape], counts, S, T) == min(costs)
    assert padded_tokens(others, counts, S, T) - saved == min(costs)


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_the_shapes_are_nearly_the_cheapest_of_all(most: int) -> None:
    """Against brute force: the search ends where no single move helps, seldom far from the best."""
    excess = []
    for seed in range(8):
        counts, S, T = small_case(seed)
        shapes = bucketing._search_shapes(counts, S, T, most)
        every = itertools.combinations(itertools.product(range(4), range(5)), most - 1)
        best = min(padded_tokens([(3, 4), *shapes], counts, S, T) for shapes in every)
        excess.append(padded_tokens(shapes, counts, S, T) / best - 1)
    assert min(excess) >= 0
    assert np.median(excess) == 0
    assert max(excess) < 0.03


def test_a_batch_too_small_for_the_longest_is_refused_with_one_that_is_not() -> None:
    lengths = np.array([3, 9, 4]), np.array([5, 2, 17])
    with pytest.raises(InputError, match="batch_tokens = 101 cannot hold 6 ") as caught:
        make_buckets(*lengths, batch_tokens=101, num_buckets=2, rows_multiple=6)
    least = int(re.search(r"give at least (\d+)", str(caught.value))[1])
    assert least == 6 * 17
    made = make_buckets(*lengths, batch_tokens=least, num_buckets=2, rows_multiple=6)
    assert {bucket.rows for bucket in made.buckets} == {6}


def test_more_lengths_than_levels_are_bucketed_too() -> None:
    lengths = np.arange(1, 1301), np.arange(1300, 0, -1)
    made = make_buckets(*lengths, batch_tokens=2600, num_buckets=3)
    assert sorted(np.concatenate([b.members for b in made.buckets])) == list(range(1300))
    assert all(bucket.rows * bucket.source_length <= 2600 for bucket in made.buckets)


def test_buckets_hold_only_the_selected_sentences() -> None:
    source, target = np.array([2, 3, 1, 9, 1]), np.array([2, 1, 3, 2, 1])
    selected = select_by_length(source, target, 3, 2)
    assert list(selected) == [0, 1, 4]
    made = make_buckets(source, target, batch_tokens=64, num_buckets=2, selected=selected)
    assert sorted(np.concatenate([b.members for b in made.buckets])) == [0, 1, 4]
    assert max(b.source_length for b in made.buckets) == 3
    with pytest.raises(InputError, match="all 5 pairs are longer than max_source_length = 0 or"):
        select_by_length(source, target, 0, 2)


def test_the_order_depends_on_epoch_and_seed() -> None:
    made = make_buckets(*natural_lengths(400), batch_tokens=300, num_buckets=4)
    assert min(bucket.batches for bucket in made.buckets) > 2
    orders = [
        [tuple(rows) for _, rows in epoch_order(made, *at)] for at in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] == [tuple(rows) for _, rows in epoch_order(made, 0, 0)]
    batches = [{frozenset(rows) for rows in order} for order in orders]
    assert not batches[0] & batches[1]  # sentences change their neighbours
    shapes = [bucket.rows for bucket, _ in epoch_order(made, 0, 0)]
    assert shapes != sorted(shapes)
    assert shapes != sorted(shapes, reverse=True)
