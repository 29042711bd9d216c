"""Pairwise chrF against sacreBLEU, and the expectation against its definition."""

import random

import numpy as np
import pytest
from sacrebleu.metrics.chrf import CHRF

from encdec.evaluation.expected_utility import expected_chrf, pairwise_chrf

TEXTS = [
    "Zwei Männer kochen.",
    "Zwei Männer  kochen etwas.",
    "",
    "aaaa aaaaaa aa",
    "a",
    "aab aaab",
    "日本語の文",
    "  ",
    "Ein Hund läuft durch den Schnee, und ein zweiter Hund läuft hinterher.",
]


def noise(rng: random.Random) -> str:
    return "".join(rng.choice("ab c") for _ in range(rng.randrange(30)))


def test_it_is_the_chrf_of_sacrebleu() -> None:
    rng = random.Random(5)
    texts = [*TEXTS, *(noise(rng) for _ in range(20))]
    metric = CHRF()
    expected = [[metric.sentence_score(one, [other]).score for other in texts] for one in texts]
    np.testing.assert_allclose(pairwise_chrf(texts), expected, rtol=1e-9, atol=1e-9)


def test_the_expectation_is_over_the_weights() -> None:
    weights = np.arange(1.0, 10.0)
    matrix = pairwise_chrf(TEXTS)
    expected = [sum(w * u for w, u in zip(weights, row, strict=True)) / 45 for row in matrix]
    np.testing.assert_allclose(expected_chrf(TEXTS, weights), expected)


def test_a_text_that_comes_twice_counts_twice() -> None:
    texts = ["ein Hund", "ein Hund", "eine Katze"]
    found = expected_chrf(texts, np.ones(3))
    np.testing.assert_allclose(found, expected_chrf(texts[1:], np.array([2.0, 1.0]))[[0, 0, 1]])
    assert found[0] > found[2]


@pytest.mark.parametrize("texts", [[""], ["x"]])
def test_one_text(texts: list[str]) -> None:
    np.testing.assert_allclose(expected_chrf(texts, np.ones(1)), [100.0 * bool(texts[0])])
