"""Losses, masks, positions, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.ops import masks
from encdec.ops.dropout import dropout
from encdec.ops.losses import cross_entropy
from encdec.ops.positions import sinusoidal
from encdec.types import PAD
from tests import oracles

B, T, V = 2, 5, 7


def batch():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(B, T, V)).astype(np.float32) * 3
    labels = rng.integers(1, V, (B, T)).astype(np.int32)
    labels[1, 2:] = PAD
    return logits, labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_builds_the_whole_distribution_in_a_loop(smoothing: float) -> None:
    logits, labels = batch()
    loss = nll = correct = tokens = 0.0
    for row, ids in zip(logits.reshape(-1, V), labels.ravel(), strict=True):
        if ids == PAD:
            continue
        wanted = np.full(V, smoothing / V)
        wanted[ids] += 1 - smoothing
        log_probs = np.log(oracles.softmax(row))
        loss -= wanted @ log_probs
        nll -= log_probs[ids]
        correct += row.argmax() == ids
        tokens += 1
    found = jax.jit(cross_entropy, static_argnums=2)(logits, labels, smoothing)
    np.testing.assert_allclose(found, (loss, nll, correct, tokens), rtol=1e-5)


def test_cross_entropy_gradient_is_p_minus_q() -> None:
    logits, labels = batch()
    gradient = jax.grad(lambda z: cross_entropy(z, labels, 0.1).loss)(logits)
    wanted = np.full((B, T, V), 0.1 / V)
    np.put_along_axis(wanted, labels[..., None], 0.9 + 0.1 / V, -1)
    expected = (oracles.softmax(logits) - wanted) * (labels != PAD)[..., None]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_positions_are_the_papers_formula() -> None:
    np.testing.assert_allclose(sinusoidal(11, 6), oracles.positions(11, 6), atol=1e-6)


def test_masks() -> None:
    tokens = jnp.array([[5, 6, PAD], [7, PAD, PAD]])
    assert masks.padding(tokens).tolist() == [[True, True, False], [True, False, False]]
    assert masks.causal(4).tolist() == [[s <= t for s in range(4)] for t in range(4)]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(rate: float) -> None:
    x = jnp.ones((101, 37, 3))  # an odd number of elements
    dropped = np.asarray(dropout(jax.random.key(0, impl="rbg"), x, rate))
    share, n = (dropped == 0).mean(), x.size
    assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / n)
    np.testing.assert_allclose(dropped[dropped != 0], 1 / (1 - rate), rtol=1e-4)
    other = dropout(jax.random.key(1, impl="rbg"), x, rate)
    # Independent masks agree where both keep or both drop.
    agree = rate**2 + (1 - rate) ** 2
    assert abs((np.asarray(other) == dropped).mean() - agree) < 4 * np.sqrt(0.25 / n)


def test_dropout_at_rate_zero_is_nothing() -> None:
    x = jnp.arange(5.0)
    assert (dropout(jax.random.key(0), x, 0.0) == x).all()
