import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from encdec.ops.dropout import dropout, hash_bits


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_a_fraction_is_dropped_and_the_mean_stays(rate: float) -> None:
    x = jnp.ones((101, 37, 3))
    dropped = np.asarray(dropout(jax.random.key(0), x, rate))
    fraction, n = (dropped == 0).mean(), x.size
    assert abs(fraction - rate) < 4 * np.sqrt(rate * (1 - rate) / n)
    np.testing.assert_allclose(dropped[dropped != 0], 1 / (1 - rate), rtol=1e-6)


def test_gradient_against_finite_differences() -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    drop = jax.jit(lambda x: jnp.sin(dropout(jax.random.key(2), x, 0.3)).sum())
    check_grads(drop, (x,), order=1, modes=["rev"], rtol=2e-2, atol=2e-2)


def test_rate_zero_is_the_identity() -> None:
    x = jnp.arange(5.0)
    assert (dropout(jax.random.key(0), x, 0.0) == x).all()


def bits_of_keys(count: int, n: int) -> np.ndarray:
    """The bits [count, n] of keys that are folded from consecutive steps, as in training."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.arange(count))
    draw = jax.jit(jax.vmap(lambda key: hash_bits(key, (n // 64, 64))))
    return np.asarray(draw(keys)).reshape(count, n)


def test_each_byte_of_the_bits_is_uniform() -> None:
    """Chi-square with 255 degrees of freedom, within six standard deviations."""
    bits = bits_of_keys(8, 2**16).ravel()
    for shift in (0, 8, 16, 24):
        counts = np.bincount(bits >> shift & 255, minlength=256)
        expected = bits.size / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 6 * np.sqrt(2 * 255)


def test_masks_are_uncorrelated() -> None:
    """Neither neighbouring elements of a mask nor the masks of different keys correlate."""
    kept = (bits_of_keys(60, 2**14) < 0.9 * 2**32).astype(np.float64)
    kept = (kept - kept.mean()) / kept.std()
    limit = 6 / np.sqrt(kept[0].size)
    between = np.corrcoef(kept)
    assert np.abs(between - np.eye(60)).max() < limit
    for lag in (1, 2, 3, 63, 64, 65, 128, 4096):
        assert abs((kept[:, :-lag] * kept[:, lag:]).mean()) < limit / np.sqrt(60) * 1.2
