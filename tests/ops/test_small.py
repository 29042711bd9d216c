"""Losses, masks, positions, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from encdec.ops import cross_entropy as losses
from encdec.ops import masks
from encdec.ops.cross_entropy import cross_entropy
from encdec.ops.dropout import dropout, hash_bits
from encdec.ops.positions import sinusoidal
from tests import oracles

B, T, D, V = 2, 5, 3, 7


def batch():
    rng = np.random.default_rng(0)
    shapes = (B, T, D), (D, V), (V,)
    factors = tuple(1.5 * rng.normal(size=shape).astype(np.float32) for shape in shapes)
    labels = rng.integers(1, V, (B, T)).astype(np.int32)
    mask = np.ones((B, T), bool)
    mask[1, 2:] = False
    return factors, labels, mask


@pytest.fixture(params=[10**9, 21], ids=["whole", "in parts of three tokens"])
def cells(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CELLS", request.param)


@pytest.mark.usefixtures("cells")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_builds_the_whole_distribution_in_a_loop(smoothing: float) -> None:
    (x, kernel, bias), labels, mask = batch()
    loss = nll = correct = tokens = 0.0
    for features, y, counts in zip(x.reshape(-1, D), labels.ravel(), mask.ravel(), strict=True):
        if not counts:
            continue
        row = features @ kernel + bias
        wanted = np.full(V, smoothing / V)
        wanted[y] += 1 - smoothing
        log_probs = np.log(oracles.softmax(row))
        loss -= wanted @ log_probs
        nll -= log_probs[y]
        correct += row.argmax() == y
        tokens += 1
    found = jax.jit(cross_entropy, static_argnums=5)(x, kernel, bias, labels, mask, smoothing)
    np.testing.assert_allclose(found, (loss, nll, correct, tokens), rtol=1e-5)


@pytest.mark.usefixtures("cells")
@pytest.mark.parametrize("with_bias", [True, False])
def test_cross_entropy_gradient_is_p_minus_q(with_bias: bool) -> None:
    (x, kernel, bias), labels, mask = batch()
    bias = bias if with_bias else None
    gradient = jax.grad(lambda f: 3 * cross_entropy(*f, labels, mask, 0.1).loss)((x, kernel, bias))
    wanted = np.full((B, T, V), 0.1 / V)
    np.put_along_axis(wanted, labels[..., None], 0.9 + 0.1 / V, -1)
    z = x @ kernel + (bias if with_bias else 0)
    dz = 3 * (oracles.softmax(z) - wanted) * mask[..., None]
    np.testing.assert_allclose(gradient[0], dz @ kernel.T, atol=2e-5)
    np.testing.assert_allclose(gradient[1], np.einsum("btd,btv->dv", x, dz), atol=2e-5)
    if with_bias:
        np.testing.assert_allclose(gradient[2], dz.sum((0, 1)), atol=2e-5)
    else:
        assert gradient[2] is None


def test_cross_entropy_gradient_against_finite_differences() -> None:
    factors, labels, mask = batch()
    loss = jax.jit(lambda *f: cross_entropy(*f, labels, mask, 0.1).loss)
    check_grads(loss, factors, order=1, modes=["rev"], rtol=2e-2, atol=2e-2)


def test_positions_are_the_papers_formula() -> None:
    np.testing.assert_allclose(sinusoidal(11, 6), oracles.positions(11, 6), atol=1e-6)


def test_a_causal_mask_shows_the_past() -> None:
    assert masks.causal(4).tolist() == [[s <= t for s in range(4)] for t in range(4)]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(rate: float) -> None:
    x = jnp.ones((101, 37, 3))
    dropped = np.asarray(dropout(jax.random.key(0), x, rate))
    share, n = (dropped == 0).mean(), x.size
    assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / n)
    np.testing.assert_allclose(dropped[dropped != 0], 1 / (1 - rate), rtol=1e-6)


def test_dropout_gradient_against_finite_differences() -> None:
    (x, _, _), _, _ = batch()
    drop = jax.jit(lambda x: jnp.sin(dropout(jax.random.key(2), x, 0.3)).sum())
    check_grads(drop, (x,), order=1, modes=["rev"], rtol=2e-2, atol=2e-2)


def test_dropout_at_rate_zero_is_nothing() -> None:
    x = jnp.arange(5.0)
    assert (dropout(jax.random.key(0), x, 0.0) == x).all()


def masks_of(count: int, n: int) -> np.ndarray:
    """Bits of masks whose keys were folded from neighbouring steps, as training does."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.arange(count))
    draw = jax.jit(jax.vmap(lambda key: hash_bits(key, (n // 64, 64))))
    return np.asarray(draw(keys)).reshape(count, n)


def test_dropout_bits_are_even() -> None:
    """Each byte's values, by chi-square: 255 degrees of freedom, six standard deviations."""
    bits = masks_of(8, 2**16).ravel()
    for shift in (0, 8, 16, 24):
        counts = np.bincount(bits >> shift & 255, minlength=256)
        expected = bits.size / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 6 * np.sqrt(2 * 255)


def test_dropout_masks_do_not_know_each_other() -> None:
    """Neither places beside or above each other, nor masks of other keys, correlate."""
    kept = (masks_of(60, 2**14) < 0.9 * 2**32).astype(np.float64)
    kept = (kept - kept.mean()) / kept.std()
    limit = 6 / np.sqrt(kept[0].size)
    between = np.corrcoef(kept)
    assert np.abs(between - np.eye(60)).max() < limit
    for lag in (1, 2, 3, 63, 64, 65, 128, 4096):
        assert abs((kept[:, :-lag] * kept[:, lag:]).mean()) < limit / np.sqrt(60) * 1.2
