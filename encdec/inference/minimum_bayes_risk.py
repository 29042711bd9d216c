"""The choice of a translation by minimum Bayes risk instead of by its score."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from encdec.evaluation.expected_utility import expected_chrf
from encdec.inference.translation import Translation


def by_expected_utility(
    candidates: Sequence[Translation], count: int, *, drawn: bool
) -> list[Translation]:
    """The different candidates with the highest expected chrF against all of them, best first.

    Draws are equally weighted references (Eikema and Aziz 2020, section 6); those of an n-best list
    have the weights of their probabilities (Kumar and Byrne 2004, equation 12). Tokens that several
    groups of a beam have found count once.

    Args:
      candidates: translations of one text, with the scores of the search.
      count: the most translations to return.
      drawn: whether they are samples.

    Returns:
      Translations whose score is their expected chrF, 0 to 100. Of equal ones the score of the
      search decides, and of several with the same text only the best one is returned.
    """
    weights = np.ones(len(candidates))
    if not drawn:
        log_probs = np.array([one.log_prob for one in candidates])
        tokens = [tuple(one.tgt_ids) for one in candidates]
        is_first = [tokens.index(ids) == i for i, ids in enumerate(tokens)]
        weights = np.exp(log_probs - log_probs.max(initial=-np.inf)) * is_first
    utilities = expected_chrf([one.text for one in candidates], weights)
    order = sorted(range(len(candidates)), key=lambda i: (-utilities[i], -candidates[i].score))
    best: dict[str, Translation] = {}
    for i in order:
        best.setdefault(candidates[i].text, replace(candidates[i], score=float(utilities[i])))
    return list(best.values())[:count]
