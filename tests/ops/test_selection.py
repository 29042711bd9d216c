"""Selection in two levels is sorting."""

import jax
import numpy as np
import pytest

from encdec.ops.selection import argmax, logsumexp, top_k, top_k_of_sums


@pytest.mark.parametrize("size", [7, 300, 1000, 5003])
@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("levels", [3, 40, 10**6])
def test_the_largest_and_their_places(size: int, k: int, levels: int) -> None:
    """With few levels many numbers are equal: the first of them comes first."""
    x = np.random.default_rng(size + k).integers(0, levels, (2, 5, size)).astype(np.float32)
    x[:, :, ::3] = -np.inf
    order = np.argsort(-x, -1, kind="stable")[..., :k]
    values, places = jax.jit(top_k, static_argnums=1)(x, k)
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, -1))


@pytest.mark.parametrize(("rows", "size"), [(3, 7), (2, 1000), (4, 5003)])
@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("levels", [3, 10**6])
@pytest.mark.parametrize("never", [(), (0, 2), (6,)])
def test_the_largest_sums(
    rows: int, size: int, k: int, levels: int, never: tuple[int, ...]
) -> None:
    random = np.random.default_rng(size + k)
    x = random.integers(0, levels, (2, rows, size)).astype(np.float32)
    x[..., never] = levels  # never the largest, though they are
    offsets = random.integers(0, levels, (2, rows)).astype(np.float32)
    offsets[0, 0] = -np.inf
    more = random.normal(0, 9, (2, rows)).astype(np.float32)
    sums = x + offsets[..., None] + more[..., None]
    sums[..., never] = -np.inf
    order = np.argsort(-sums.reshape(2, -1), -1, kind="stable")[:, :k]
    found = jax.jit(top_k_of_sums, static_argnums=(2, 3))(x, (offsets, more), k, never)
    np.testing.assert_array_equal(found[1] * size + found[2], order)
    np.testing.assert_array_equal(found[0], np.take_along_axis(sums.reshape(2, -1), order, 1))


@pytest.mark.parametrize("size", [7, 1000, 5003])
def test_the_logarithm_of_a_sum(size: int) -> None:
    x = np.random.default_rng(size).normal(0, 30, (2, 3, size)).astype(np.float32)
    x[:, 1, ::2] = -np.inf
    x[1, 2] += 1000
    expected = np.logaddexp.reduce(x.astype(np.float64), -1)
    np.testing.assert_allclose(jax.jit(logsumexp)(x), expected, rtol=1e-6)


def test_nothing_but_minus_infinity() -> None:
    x = np.full((2, 1000), -np.inf, np.float32)
    np.testing.assert_array_equal(top_k(x, 2)[1], [[0, 1]] * 2)


@pytest.mark.parametrize("size", [7, 257, 400, 5003])
def test_the_first_of_the_largest(size: int) -> None:
    x = np.random.default_rng(size).integers(0, 9, (3, 2, size)).astype(np.float32)
    x[0] = -np.inf
    np.testing.assert_array_equal(jax.jit(argmax)(x), x.argmax(-1))
    x[:, :, [3, 6]] = 10  # the largest, and not allowed
    found = jax.jit(argmax, static_argnums=1)(x, (3, 6))
    x[:, :, [3, 6]] = -np.inf
    np.testing.assert_array_equal(found[1:], x.argmax(-1)[1:])
    assert (found[0] == 0).all()
