"""Greedy search against a plain loop; sampling against the probabilities it should have."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.search.processors import Temperature, TopK, TopP
from encdec.search.sampling import greedy, sample
from encdec.search.types import LengthPenalty
from tests.search.stubs import BANNED, BOS, EOS, PAD, SPECIALS, Table, start, table

SENTENCES = [5, 17, 101]


def test_greedy_is_the_plain_loop() -> None:
    model = table(9, seed=1, eos=0.5)
    max_lengths = [6, 11, 3]
    search = jax.jit(
        partial(
            greedy,
            model.step,
            max_len=11,
            specials=SPECIALS,
            banned=BANNED,
            penalty=LengthPenalty(0.6),
            with_attention=True,
        )
    )
    ours = jax.device_get(search(*start(SENTENCES, 1), jnp.asarray(max_lengths)))
    for b, (sentence, limit) in enumerate(zip(SENTENCES, max_lengths, strict=True)):
        tokens: list[int] = []
        while len(tokens) < limit and EOS not in tokens:
            tokens.append(int(model.log_probs(sentence, tokens).argmax()))
        assert ours.tokens[b, 0].tolist() == tokens + [PAD] * (11 - len(tokens))
        assert ours.lengths[b, 0] == len(tokens)
        total = model.total(sentence, tokens)
        assert ours.log_probs[b, 0] == pytest.approx(total, rel=1e-5)
        assert ours.scores[b, 0] == pytest.approx(total / ((5 + len(tokens)) / 6) ** 0.6, rel=1e-5)
        for t in range(11):
            row = model.row(sentence, tokens[:t])
            expected = model.attention[row] if t < len(tokens) else 0
            np.testing.assert_array_equal(
                ours.attention[b, 0, t], np.broadcast_to(expected, (2, 3))
            )


def draws(model: Table, count: int, sentence: int = 5, **options) -> np.ndarray:
    """First tokens of many samples of one sentence."""
    search = jax.jit(
        partial(
            sample,
            model.step,
            samples=count,
            max_len=1,
            specials=SPECIALS,
            banned=BANNED,
            **options,
        )
    )
    found = search(*start([sentence], count), jnp.ones(1, jnp.int32), jax.random.split(KEY, 1))
    return np.asarray(found.tokens)[0, :, 0]


KEY = jax.random.key(11)
COUNT = 20_000


def assert_drawn_from(tokens: np.ndarray, probabilities: np.ndarray) -> None:
    """Within five standard deviations, and never what has no probability."""
    shares = np.bincount(tokens, minlength=len(probabilities)) / len(tokens)
    deviation = np.sqrt(probabilities * (1 - probabilities) / len(tokens))
    assert (np.abs(shares - probabilities) <= 5 * deviation).all(), (shares, probabilities)


def tempered(model: Table, sentence: int, temperature: float) -> np.ndarray:
    """softmax(log p / temperature) without PAD and BOS."""
    powers = np.exp(model.log_probs(sentence, []) / temperature)
    return powers / powers.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_tempered_distribution(temperature: float) -> None:
    model = table(9, seed=2, spread=1.0)
    assert_drawn_from(
        draws(model, COUNT, processors=[Temperature(np.float32(temperature))]),
        tempered(model, 5, temperature),
    )


def test_top_k_keeps_the_k_likeliest_in_proportion() -> None:
    model = table(9, seed=2, spread=1.0)
    expected = tempered(model, 5, 1.0)
    expected[np.argsort(-expected)[3:]] = 0
    assert_drawn_from(draws(model, COUNT, processors=[TopK(3)]), expected / expected.sum())


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9])
def test_top_p_keeps_the_fewest_that_reach_the_mass(p: float) -> None:
    model = table(9, seed=2, spread=1.0)
    expected = tempered(model, 5, 1.0)
    order, mass = np.argsort(-expected), 0.0
    for token in order:
        if mass >= p:
            expected[token] = 0
        else:
            mass += expected[token]
    assert_drawn_from(
        draws(model, COUNT, processors=[TopP(np.float32(p))]), expected / expected.sum()
    )


def test_a_low_temperature_is_greedy() -> None:
    model = table(9, seed=3, eos=0.5)
    max_lengths = jnp.asarray([6, 9, 4])
    one = greedy(
        model.step, *start(SENTENCES, 1), max_lengths, max_len=9, specials=SPECIALS, banned=BANNED
    )
    keys = jax.random.split(KEY, 3)
    other = sample(
        model.step,
        *start(SENTENCES, 2),
        max_lengths,
        keys,
        samples=2,
        max_len=9,
        specials=SPECIALS,
        banned=BANNED,
        processors=[Temperature(np.float32(1e-4))],
    )
    for w in range(2):
        np.testing.assert_array_equal(one.tokens[:, 0], other.tokens[:, w])


def test_samples_come_best_first_with_the_models_own_scores() -> None:
    model = table(9, seed=4, eos=0.5)
    max_lengths, keys = jnp.full(3, 8), jax.random.split(KEY, 3)
    found = jax.device_get(
        sample(
            model.step,
            *start(SENTENCES, 7),
            max_lengths,
            keys,
            samples=7,
            max_len=8,
            specials=SPECIALS,
            banned=BANNED,
            penalty=LengthPenalty(0.6),
            processors=[Temperature(np.float32(1.7))],
            with_attention=True,
        )
    )
    assert (np.diff(found.scores, axis=1) <= 0).all()
    for b, sentence in enumerate(SENTENCES):
        for w in range(7):
            tokens = found.tokens[b, w, : found.lengths[b, w]].tolist()
            assert not {PAD, BOS} & set(tokens)
            assert found.log_probs[b, w] == pytest.approx(model.total(sentence, tokens), rel=1e-4)
            last = model.attention[model.row(sentence, tokens[:-1])]
            np.testing.assert_array_equal(found.attention[b, w, len(tokens) - 1], last)


def test_draws_depend_on_the_key_and_not_on_the_batch() -> None:
    model = table(9, seed=5)
    keys = jax.random.split(KEY, 3)
    search = partial(sample, model.step, samples=4, max_len=6, specials=SPECIALS, banned=BANNED)
    together = search(*start(SENTENCES, 4), jnp.full(3, 6), keys).tokens
    alone = search(*start(SENTENCES[1:2], 4), jnp.full(1, 6), keys[1:2]).tokens
    other = search(*start(SENTENCES, 4), jnp.full(3, 6), keys[::-1]).tokens
    np.testing.assert_array_equal(together[1], alone[0])
    assert not np.array_equal(together, other)
