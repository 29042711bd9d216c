"""Calibration of tokens that are right as often as they say, by hand; kept tokens by search."""

import itertools

import numpy as np
import pytest

from encdec.evaluation.calibration import calibration, kept_tokens


def test_tokens_that_keep_their_word_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(200_000)
    honest = calibration(probabilities, rng.random(200_000) < probabilities)
    assert honest.error < 0.01
    boastful = calibration(probabilities, rng.random(200_000) < probabilities**2)
    # The gap p - p^2 is 1/6 on average, and nowhere negative.
    assert boastful.error == pytest.approx(1 / 6, abs=0.01)


def test_bins_by_hand() -> None:
    made = calibration(np.array([0.05, 1.0, 0.92, 0.98, 0.1]), np.array([1, 1, 0, 1, 0], bool))
    low, next_, high = made.bins
    assert (low.low, low.high, low.tokens, low.confidence, low.accuracy) == (0, 0.1, 1, 0.05, 1)
    assert (next_.low, next_.tokens, next_.accuracy) == (0.1, 1, 0)
    assert (high.tokens, high.accuracy) == (3, pytest.approx(2 / 3))
    expected = (0.95 + 0.1 + 3 * abs(2.9 / 3 - 2 / 3)) / 5
    assert made.error == pytest.approx(expected)
    assert made.report().splitlines()[-1].split() == ["0.9", "to", "1.0", "3", "0.967", "0.667"]
    assert calibration(np.zeros(0), np.zeros(0, bool)).error == 0


def longest_common(tokens: list[int], reference: list[int]) -> int:
    """Tokens of the longest common subsequence, by trying all."""
    for n in range(min(len(tokens), len(reference)), 0, -1):
        both = (set(itertools.combinations(one, n)) for one in (tokens, reference))
        if set.intersection(*both):
            return n
    return 0


def test_kept_tokens_are_a_common_part() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        tokens, reference = (rng.integers(0, 4, rng.integers(0, 7)).tolist() for _ in range(2))
        kept = np.array(tokens, int)[kept_tokens(tokens, [reference])].tolist()
        assert len(kept) <= longest_common(tokens, reference)
        assert tuple(kept) in itertools.combinations(reference, len(kept))
    assert kept_tokens([5, 6, 7], [[9], [6, 7], []]).tolist() == [False, True, True]
    assert kept_tokens([5, 5], [[5, 8, 5, 5]]).sum() == 2
    assert kept_tokens([], [[1]]).shape == (0,)
