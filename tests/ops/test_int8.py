"""Products of 8-bit integers against a plain loop in Python's integers."""

import jax.numpy as jnp
import numpy as np
import pytest

from encdec.ops import int8
from encdec.ops.int8 import Int8


def made(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def quantized(matrix: np.ndarray) -> Int8:
    return Int8(*map(jnp.asarray, int8.quantize(matrix)))


def by_hand(row: np.ndarray) -> tuple[list[int], float]:
    """The integers of a row, and their scale."""
    largest = max((abs(float(x)) for x in row), default=0.0)
    scale = largest / 127 if largest else 1.0
    return [round(float(x) / scale) for x in row], scale


def test_products_are_those_of_integers() -> None:
    x, y = made((2, 3, 7), 0), made((5, 7), 1)
    found = np.asarray(int8.matmul(jnp.asarray(x), quantized(y)))
    assert found.shape == (2, 3, 5)
    assert found.dtype == np.float32
    for i, j, k in np.ndindex(found.shape):
        (left, one), (right, other) = by_hand(x[i, j]), by_hand(y[k])
        integers = sum(a * b for a, b in zip(left, right, strict=True))
        assert found[i, j, k] == pytest.approx(integers * one * other, rel=1e-5, abs=1e-6)


def test_sums_do_not_overflow() -> None:
    x, y = np.full((1, 60_000), 3, np.float32), np.full((2, 60_000), -5, np.float32)
    found = int8.matmul(jnp.asarray(x), quantized(y))
    np.testing.assert_allclose(found, np.full((1, 2), -900_000), rtol=1e-6)


def test_entries_err_by_half_a_scale() -> None:
    matrix = made((11, 13), 2) * np.logspace(-8, 8, 11, dtype=np.float32)[:, None]
    values, scales = int8.quantize(matrix)
    assert values.dtype == np.int8
    assert np.abs(values).max(1).tolist() == [127] * 11
    error = np.abs(Int8(values, scales).matrix - matrix)  # type: ignore[arg-type]
    assert (error <= scales[:, None] * 0.5001).all()


def test_rows_of_zeros_stay_zero() -> None:
    y = made((3, 5), 3)
    y[1] = 0
    x = made((2, 5), 4)
    x[0] = 0
    found = np.asarray(int8.matmul(jnp.asarray(x), quantized(y)))
    assert not found[0].any()
    assert not found[:, 1].any()
    assert found[1, 0]


def test_a_product_is_near_the_one_of_floats() -> None:
    x, y = made((9, 256), 5), made((17, 256), 6)
    found = int8.matmul(jnp.asarray(x), quantized(y))
    # The errors of 2 x 256 roundings, each uniform within half a scale, are independent.
    of_rounding = [np.abs(z).max(1) / 127 / np.sqrt(12) for z in (x, y)]
    spread = np.sqrt(256) * (of_rounding[0][:, None] + of_rounding[1])
    assert (np.abs(found - x @ y.T) < 6 * spread).all()
