"""Products with matrices of 8-bit integers.

A CPU multiplies 8-bit integers several times as fast as float32 numbers, and reads a quarter of the
bytes. XLA makes use of that from JAX 0.11 on; in 0.7 float32 is faster. Each row of a matrix has a
scale with which its largest number is 127; the rows that it is multiplied by are rounded likewise,
when they are known (Bhandare 2019).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from encdec.types import Array

_LARGEST = 127


class Int8(NamedTuple):
    """A matrix whose entry (i, j) is about values[i, j] * scales[i].

    Attributes:
      values: int8 [m, n], from -127 to 127.
      scales: float32 [m]; 1 for a row of zeros.
    """

    values: Array
    scales: Array

    @property
    def matrix(self) -> Array:
        """What it stands for, float32 [m, n]."""
        return self.values.astype(self.scales.dtype) * self.scales[:, None]


def quantize(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and scales of the nearest `Int8` of a float matrix [m, n].

    Its entries err by half a scale at most.
    """
    largest = np.abs(matrix).max(1, initial=0)
    scales = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
    return np.rint(matrix / scales[:, None]).astype(np.int8), scales


def matmul(x: Array, y: Int8) -> Array:
    """About x @ y^T.

    Args:
      x: float [..., n], with n below 2^17, so that sums fit into 32 bits; its rows are rounded.
      y: the matrix [m, n].

    Returns:
      float32 [..., m].
    """
    largest = jnp.abs(x).max(-1, keepdims=True)
    scales = jnp.where(largest > 0, largest / _LARGEST, 1)
    rounded = jnp.round(x / scales).astype(jnp.int8)
    contracted = ((x.ndim - 1,), (1,))
    sums = jax.lax.dot_general(
        rounded, y.values, (contracted, ((), ())), preferred_element_type=jnp.int32
    )
    return sums.astype(jnp.float32) * scales * y.scales
