"""The statistical aligner against all alignments, and on words whose translation is known."""

import itertools

import numpy as np
import pytest

from experiments import hmm_aligner
from experiments.alignments import Example, digit_links, error_rate


def test_posteriors_are_those_of_all_alignments() -> None:
    """Sums over every sequence of states, (word, from it or from none)."""
    rng = np.random.default_rng(0)
    size, words = 3, 4
    p, jumps = rng.random((2, size + 1, words)), rng.random(2 * hmm_aligner.WINDOW + 1)
    move = np.array([[jumps[k - i + hmm_aligner.WINDOW] for k in range(size)] for i in range(size)])
    move *= (1 - hmm_aligner.NULL) / move.sum(1, keepdims=True)
    from_words, from_none, _, _ = hmm_aligner._forward_backward(p, jumps)
    states = list(itertools.product(range(size), (False, True)))
    for n in range(2):
        expected = np.zeros((2, words, size))
        for path in itertools.product(states, repeat=words):
            weight, before = 1.0, None
            for j, (i, is_none) in enumerate(path):
                if is_none:
                    stays = 1 / size if before is None else float(before == i)
                    weight *= hmm_aligner.NULL * stays * p[n, size, j]
                else:
                    step = (1 - hmm_aligner.NULL) / size if before is None else move[before, i]
                    weight *= step * p[n, i, j]
                before = i
            for j, (i, is_none) in enumerate(path):
                expected[int(is_none), j, i] += weight
        expected /= expected.sum((0, 2), keepdims=True)
        np.testing.assert_allclose(from_words[:, n], expected[0], rtol=1e-9)
        np.testing.assert_allclose(from_none[:, n], expected[1], rtol=1e-9)


def test_known_words_are_aligned() -> None:
    """Word w is written as 40 - w, two neighbours change places, and word 0 is left out."""
    rng = np.random.default_rng(1)
    source, target, links = [], [], []
    for _ in range(300):
        words = rng.permutation(20)[: rng.integers(3, 8)]
        order = np.arange(len(words))
        order[:2] = order[1::-1]
        order = order[words[order] > 0]
        source.append(words)
        target.append(40 - words[order])
        links.append({(int(i), j) for j, i in enumerate(order)})
    both = zip(hmm_aligner.align(source, target), hmm_aligner.align(target, source), strict=True)
    right = found = 0
    for (forward, backward), expected in zip(both, links, strict=True):
        sure, possible = hmm_aligner.symmetric(forward, backward)
        assert (sure <= possible).all()
        ours = {(int(i), int(j)) for j, i in np.argwhere(sure)}
        right, found = right + len(ours & expected), found + len(ours)
    assert right / found > 0.98
    assert right / sum(map(len, links)) > 0.95


def test_digits_that_are_certain() -> None:
    sure = digit_links("Donnerstag, 3. Mai 1979", "1979-05-03")
    assert sure == {(12, 9), *((19 + k, k) for k in range(4))}
    assert digit_links("11/11/11", "2011-11-11") == set()  # which is which?
    assert digit_links("03/05/79", "1979-05-03") == {
        *((6 + k, 2 + k) for k in range(2)),
        *((3 + k, 5 + k) for k in range(2)),
        *((k, 8 + k) for k in range(2)),
    }
    example = Example(np.zeros((1, 1, 1)), [], [], {(0, 0), (1, 1)}, {(0, 0), (1, 1), (2, 1)})
    # One link is sure, one only possible, one wrong: 1 - (1 + 2) / (3 + 2).
    assert error_rate([{(0, 0), (2, 1), (5, 5)}], [example]) == pytest.approx(0.4)
