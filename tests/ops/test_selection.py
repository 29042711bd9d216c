"""Selection in two levels is sorting."""

import jax
import numpy as np
import pytest

from encdec.ops.selection import argmax, top_k


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


def test_nothing_but_minus_infinity() -> None:
    x = np.full((2, 1000), -np.inf, np.float32)
    np.testing.assert_array_equal(top_k(x, 2)[1], [[0, 1]] * 2)


@pytest.mark.parametrize("size", [7, 257, 400, 5003])
def test_the_first_of_the_largest(size: int) -> None:
    x = np.random.default_rng(size).integers(0, 9, (3, 2, size)).astype(np.float32)
    x[0] = -np.inf
    np.testing.assert_array_equal(jax.jit(argmax)(x), x.argmax(-1))
