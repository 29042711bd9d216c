"""Minimum Bayes risk: how similar each of several translations is to all of them.

The translation to choose is the one whose expected similarity to a translation from the model is
the highest (Kumar and Byrne 2004; Eikema and Aziz 2020). Candidates serve as references, too.

Axes: N texts, G different n-grams.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

_ORDERS = 6
_BETA = 2


def expected_chrf(texts: Sequence[str], weights: np.ndarray) -> np.ndarray:
    """The expected chrF of each text against a random one of them.

    Args:
      texts: N candidates, each of which is a reference, too.
      weights: float [N], not all 0: the probability of each as a reference, up to a factor.

    Returns:
      float64 [N], 0 to 100.
    """
    different = list(dict.fromkeys(texts))
    number = {text: i for i, text in enumerate(different)}
    of_text = np.array([number[text] for text in texts])
    weights = np.bincount(of_text, weights, len(different))
    expected = pairwise_chrf(different) @ (weights / weights.sum())
    return np.asarray(expected[of_text])


def pairwise_chrf(texts: Sequence[str]) -> np.ndarray:
    """chrF of each text against each as its reference, as sacreBLEU computes it for a sentence.

    Popović 2015: the mean over n = 1 to 6 of the precision and of the recall of character n-grams
    without spaces, and their F-score with beta 2. An n for which one of two texts has no n-gram is
    left out. N-grams are counted once for each text, and compared by matrix products.

    Returns:
      float64 [N, N], 0 to 100; [i, j] is text i against the reference j.
    """
    bare = ["".join(text.split()) for text in texts]
    shape = (len(texts), len(texts))
    precision, recall, orders = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for order in range(1, _ORDERS + 1):
        totals = np.array([max(len(text) - order + 1, 0) for text in bare])
        both = (totals[:, None] > 0) & (totals > 0)
        overlap = _overlaps(_counts(bare, order))
        per_text = np.maximum(totals, 1)
        precision += np.where(both, overlap / per_text[:, None], 0)
        recall += np.where(both, overlap / per_text, 0)
        orders += both
    precision, recall = precision / np.maximum(orders, 1), recall / np.maximum(orders, 1)
    factor = _BETA**2
    sums = factor * precision + recall
    f_score = (1 + factor) * precision * recall / np.where(sums > 0, sums, 1)
    return np.asarray(100 * f_score)


def _counts(texts: Sequence[str], order: int) -> np.ndarray:
    """How often each text has each n-gram: float32 [N, G]."""
    each = [Counter(text[i : i + order] for i in range(len(text) - order + 1)) for text in texts]
    columns = {ngram: i for i, ngram in enumerate(dict.fromkeys(n for one in each for n in one))}
    counts = np.zeros((len(texts), len(columns)), np.float32)
    for row, one in zip(counts, each, strict=True):
        row[[columns[ngram] for ngram in one]] = list(one.values())
    return counts


def _overlaps(counts: np.ndarray) -> np.ndarray:
    """The n-grams that two texts have in common, sum of min(c_i, c_j): float64 [N, N].

    min(a, b) is the number of t >= 1 with a >= t and b >= t, so each t is a matrix product.
    """
    overlap = np.zeros((len(counts), len(counts)))
    least = 1
    while counts.size:
        overlap += (reached := (counts >= least).astype(np.float32)) @ reached.T
        least += 1
        counts = counts[:, (counts >= least).any(0)]
    return overlap
