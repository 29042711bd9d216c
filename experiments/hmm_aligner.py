"""A statistical word aligner: IBM model 1, then an HMM (Vogel, Ney and Tillmann 1996), in NumPy.

It is what alignments of attention are compared with. States of the HMM are the source words, and
for each of them a state without a source word (Och and Ney 2003).
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

WINDOW = 10
"""The longest jump, in source words, that has a probability of its own."""
NULL = 0.1
"""The probability that a target word comes from no source word."""
SMOOTHING = 0.01
"""Is added to each count of two words."""

Sentences = Sequence[np.ndarray]
"""The words of each sentence as numbers, int [n]."""


class Lexicon:
    """p(target word | source word) for the pairs of words that occur in a pair of sentences.

    Attributes:
      table: for each pair of sentences the index of (source word or none, target word), int
        [I + 1, J]; none is last.
      probabilities: float [pairs of words].
    """

    def __init__(self, source: Sentences, target: Sentences) -> None:
        none = max((int(s.max(initial=0)) for s in source), default=0) + 1
        width = max((int(t.max(initial=0)) for t in target), default=0) + 1
        keys = [
            np.append(s, none)[:, None] * width + t for s, t in zip(source, target, strict=True)
        ]
        unique, flat = np.unique(np.concatenate([key.ravel() for key in keys]), return_inverse=True)
        ends = np.cumsum([key.size for key in keys])[:-1]
        parts = zip(np.split(flat, ends), keys, strict=True)
        self.table = [part.reshape(key.shape) for part, key in parts]
        self._source = unique // width
        self.probabilities = np.zeros(len(unique))
        self.update(np.ones(len(unique)))

    def update(self, counts: np.ndarray) -> None:
        """The probabilities that make these counts likeliest."""
        counts = counts + SMOOTHING
        self.probabilities = counts / np.bincount(self._source, counts)[self._source]


def train_model_1(lexicon: Lexicon, iterations: int) -> None:
    """IBM model 1: each target word comes from any source word with the same probability."""
    for _ in range(iterations):
        counts = np.zeros_like(lexicon.probabilities)
        for table in lexicon.table:
            p = lexicon.probabilities[table]
            np.add.at(counts, table, p / p.sum(0))
        lexicon.update(counts)


def train_hmm(lexicon: Lexicon, iterations: int) -> list[np.ndarray]:
    """The HMM, after these iterations of Baum and Welch.

    Returns:
      For each pair of sentences the posterior probability that target word j comes from source word
      i, float [J, I].
    """
    jumps = np.exp(-np.abs(np.arange(-WINDOW, WINDOW + 1) - 1) / 2)
    groups = defaultdict(list)  # pairs of the same shape are computed together
    for n, table in enumerate(lexicon.table):
        groups[table.shape].append(n)
    posteriors = [np.zeros((shape[1], shape[0] - 1)) for shape in map(np.shape, lexicon.table)]
    for iteration in range(iterations + 1):
        counts, jump_counts = np.zeros_like(lexicon.probabilities), np.full(2 * WINDOW + 1, 1e-3)
        for (rows, words), members in groups.items():
            if rows == 1 or words == 0:
                continue
            tables = np.stack([lexicon.table[n] for n in members])  # [N, I + 1, J]
            from_words, from_none, steps, places = _forward_backward(
                lexicon.probabilities[tables], jumps
            )
            if iteration == iterations:
                for n, posterior in zip(members, from_words.swapaxes(0, 1), strict=True):
                    posteriors[n] = posterior
                continue
            np.add.at(counts, tables[:, :-1], from_words.transpose(1, 2, 0))
            np.add.at(counts, tables[:, -1], from_none.sum(-1).T)
            np.add.at(jump_counts, places, steps)
        if iteration < iterations:
            lexicon.update(counts)
            jumps = jump_counts / jump_counts.sum()
    return posteriors


def _forward_backward(
    p: np.ndarray, jumps: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Posteriors of states for pairs of one shape.

    Args:
      p: float [N, I + 1, J], p(target word j | source word i or none).
      jumps: float [2 * WINDOW + 1].

    Returns:
      Posteriors of the states of words and of those without, float [J, N, I] each; expected counts
      of steps between states, float [I, I]; and the index of each step among the jumps, int [I, I].
    """
    pairs, rows, words = p.shape
    size = rows - 1
    emit, none = p[:, :-1].transpose(2, 0, 1), p[:, -1].T[..., None]  # [J, N, I], [J, N, 1]
    distance = np.arange(size) - np.arange(size)[:, None]
    places = np.clip(distance, -WINDOW, WINDOW) + WINDOW
    move = jumps[places]
    move = (1 - NULL) * move / move.sum(1, keepdims=True)
    forward, scale = np.zeros((words, 2, pairs, size)), np.zeros((words, pairs, 1))
    for j in range(words):
        before = forward[j - 1].sum(0) if j else np.full((pairs, size), 1 / size)
        to_words = before @ move if j else (1 - NULL) * before
        forward[j] = to_words * emit[j], NULL * before * none[j]
        scale[j] = forward[j].sum((0, 2))[:, None]
        forward[j] /= scale[j]
    backward = np.ones((words, pairs, size))
    steps = np.zeros((size, size))
    for j in range(words - 2, -1, -1):
        after = emit[j + 1] * backward[j + 1] / scale[j + 1]
        steps += np.einsum("ni,nk->ik", forward[j].sum(0), after) * move
        backward[j] = after @ move.T + NULL * none[j + 1] * backward[j + 1] / scale[j + 1]
    return forward[:, 0] * backward, forward[:, 1] * backward, steps, places


def align(source: Sentences, target: Sentences) -> list[np.ndarray]:
    """Posteriors float [J, I] of each pair of sentences, after 5 iterations of each model."""
    lexicon = Lexicon(source, target)
    train_model_1(lexicon, 5)
    return train_hmm(lexicon, 5)


def symmetric(forward: np.ndarray, backward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The links of both directions and those of grow-diag-final-and (Koehn 2005): bool [J, I].

    Args:
      forward: posteriors of source words for target words, float [J, I].
      backward: of target words for source words, float [I, J].
    """
    one = (forward == forward.max(1, keepdims=True)) & (forward > 0.4)
    other = ((backward == backward.max(1, keepdims=True)) & (backward > 0.4)).T
    both, grown = one & other, one & other
    grows = True
    while grows:
        grows = False
        for j, i in np.argwhere(grown):
            for y, x in ((j + a, i + b) for a in (-1, 0, 1) for b in (-1, 0, 1)):
                if 0 <= y < grown.shape[0] and 0 <= x < grown.shape[1]:
                    is_free = not grown[y].any() or not grown[:, x].any()
                    if (one | other)[y, x] and not grown[y, x] and is_free:
                        grown[y, x] = grows = True
    for links in (one, other):
        for j, i in np.argwhere(links):
            if not grown[j].any() and not grown[:, i].any():
                grown[j, i] = True
    return both, grown
