"""Every processor in plain NumPy, for one hypothesis at a time."""

from collections.abc import Callable, Sequence

import numpy as np

from tests.search.stubs import EOS, Table

Rule = Callable[[np.ndarray, list[int]], np.ndarray]
"""(log-probabilities float64 [V], tokens so far) -> log-probabilities."""


def forbid(log_probs: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    changed = log_probs.copy()
    changed[list(tokens)] = -np.inf
    return changed


def min_length(length: int) -> Rule:
    return lambda log_probs, tokens: forbid(log_probs, [EOS] if len(tokens) + 1 < length else [])


def banned(*phrases: list[int]) -> Rule:
    def rule(log_probs: np.ndarray, tokens: list[int]) -> np.ndarray:
        ends = [last for *before, last in phrases if tokens[len(tokens) - len(before) :] == before]
        return forbid(log_probs, ends)

    return rule


def no_repeat_ngram(size: int) -> Rule:
    def rule(log_probs: np.ndarray, tokens: list[int]) -> np.ndarray:
        def repeats(token: int) -> bool:
            ngrams = [tuple([*tokens, token][i : i + size]) for i in range(len(tokens) + 2 - size)]
            return len(ngrams) > 0 and ngrams.count(ngrams[-1]) > 1

        return forbid(log_probs, [t for t in range(len(log_probs)) if repeats(t)])

    return rule


def repetition_penalty(penalty: float) -> Rule:
    def rule(log_probs: np.ndarray, tokens: list[int]) -> np.ndarray:
        return np.array([penalty * p if t in tokens else p for t, p in enumerate(log_probs)])

    return rule


def temperature(value: float) -> Rule:
    def rule(log_probs: np.ndarray, _: list[int]) -> np.ndarray:
        powers = np.exp(log_probs) ** (1 / value)
        with np.errstate(divide="ignore"):
            return np.log(powers / powers.sum())

    return rule


def top_k(k: int) -> Rule:
    return lambda log_probs, _: forbid(log_probs, np.argsort(-log_probs)[k:])


def top_p(p: float) -> Rule:
    def rule(log_probs: np.ndarray, _: list[int]) -> np.ndarray:
        probabilities = np.exp(log_probs) / np.exp(log_probs).sum()
        kept, mass = [], 0.0
        for token in np.argsort(-probabilities):
            if mass < p:
                kept.append(token)
            mass += probabilities[token]
        return forbid(log_probs, [t for t in range(len(log_probs)) if t not in kept])

    return rule


def forced_prefix(prefix: list[int]) -> Rule:
    def rule(log_probs: np.ndarray, tokens: list[int]) -> np.ndarray:
        if len(tokens) >= len(prefix):
            return log_probs
        certain = np.full(len(log_probs), -np.inf)
        certain[prefix[len(tokens)]] = 0
        return certain

    return rule


def applied(rules: Sequence[Rule], log_probs: np.ndarray, tokens: list[int]) -> np.ndarray:
    """All rules in order; a hypothesis that they leave no token can only end."""
    changed = log_probs
    for rule in rules:
        changed = rule(changed, tokens)
    if (changed == -np.inf).all():
        changed[EOS] = log_probs[EOS]
    return changed


def total(model: Table, rules: Sequence[Rule], sentence: int, tokens: list[int]) -> float:
    """The sum of the processed log-probabilities of a hypothesis."""
    return sum(
        applied(rules, model.log_probs(sentence, tokens[:t]), tokens[:t])[token]
        for t, token in enumerate(tokens)
    )
