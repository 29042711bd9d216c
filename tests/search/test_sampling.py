"""Greedy search against a plain loop; sampling against the probabilities it should have."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.search.interface import History
from encdec.search.sampling import greedy, sample
from encdec.search.truncation import EpsilonCutoff, Temperature, TopK, TopP
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
        gains = model.by_token(sentence, tokens, 11)
        np.testing.assert_allclose(ours.token_log_probs[b, 0], gains, rtol=1e-5, atol=1e-6)
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
        draws(model, COUNT, processors=[TopP(np.float32(p), np.float32(1 - p))]),
        expected / expected.sum(),
    )


@pytest.mark.parametrize("p", [0.3, 0.9, 0.999, 1 - 1e-6, 1 - 1e-9])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_top_p_cuts_none_by_rounding(p: float, spread: float) -> None:
    """Of 32,000 tokens the same as sums in float64, within the rounding of one float32 sum."""
    logits = np.random.default_rng(7).normal(0, spread, 32_000).astype(np.float32)
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    rule = TopP(np.float32(p), np.float32(1 - p))
    history = History(jnp.zeros((1, 1, 1), jnp.int32), jnp.int32(0))
    ours = np.isfinite(np.asarray(rule((), jnp.asarray(log_probs)[None, None], history)[1])[0, 0])
    exact = np.exp(log_probs.astype(np.float64))
    exact /= exact.sum()
    order = np.argsort(-log_probs, kind="stable")
    before = after = 0.0
    tails = np.empty(len(order))
    for place in range(len(order) - 1, -1, -1):
        after += exact[order[place]]
        tails[place] = after
    for place, token in enumerate(order):
        ratio = before / p if p <= 0.5 else (1 - p) / tails[place]
        if not 1 - 1e-5 < ratio < 1 + 1e-5:
            assert ours[token] == (ratio < 1)
        before += exact[token]
    assert 0 < ours.sum() <= len(order)


def test_epsilon_cutoff_keeps_tokens_of_that_probability_and_the_likeliest() -> None:
    model = table(9, seed=2, spread=1.0)
    probabilities = tempered(model, 5, 1.0)
    epsilon = float(np.sort(probabilities)[-3:-1].mean())  # between the second and the third
    expected = np.where(probabilities >= epsilon, probabilities, 0)
    assert np.count_nonzero(expected) == 2
    drawn = draws(model, COUNT, processors=[EpsilonCutoff(np.float32(epsilon))])
    assert_drawn_from(drawn, expected / expected.sum())
    drawn = draws(model, 100, processors=[EpsilonCutoff(np.float32(0.999))])
    assert set(drawn.tolist()) == {int(probabilities.argmax())}


@pytest.mark.parametrize("temperature", [1e-4, 1e-37])
def test_a_low_temperature_is_greedy(temperature: float) -> None:
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
        processors=[Temperature(np.float32(temperature))],
    )
    for w in range(2):
        np.testing.assert_array_equal(one.tokens[:, 0], other.tokens[:, w])


def test_scores_of_samples_are_the_models_own() -> None:
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
    for b, sentence in enumerate(SENTENCES):
        for w in range(7):
            tokens = found.tokens[b, w, : found.lengths[b, w]].tolist()
            assert not {PAD, BOS} & set(tokens)
            total = model.total(sentence, tokens)
            assert found.log_probs[b, w] == pytest.approx(total, rel=1e-4)
            penalty = ((5 + len(tokens)) / 6) ** 0.6
            assert found.scores[b, w] == pytest.approx(total / penalty, rel=1e-4)
            gains = model.by_token(sentence, tokens, 8)
            np.testing.assert_allclose(found.token_log_probs[b, w], gains, rtol=1e-4, atol=1e-6)
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


def test_the_first_draws_are_the_same_however_many_there_are() -> None:
    model, keys = table(9, seed=5), jax.random.split(KEY, 3)
    few, many = (
        sample(
            model.step,
            *start(SENTENCES, count),
            jnp.full(3, 6),
            keys,
            samples=count,
            max_len=6,
            specials=SPECIALS,
            banned=BANNED,
        ).tokens
        for count in (2, 5)
    )
    np.testing.assert_array_equal(few, many[:, :2])
    assert len({tuple(row) for row in many[0].tolist()}) > 1
