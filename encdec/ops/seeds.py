"""Seeds of 64 bits as PRNG keys.

`jax.random.key` keeps only the low 32 bits of a seed where JAX has no 64-bit integers.
"""

import jax
import jax.numpy as jnp
import numpy as np

from encdec.types import Array


def seed_words(seed: int) -> np.ndarray:
    """The high and the low 32 bits of a seed from 0 to 2^64 - 1: uint32 [2]."""
    return np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)


def key_from_words(words: Array | np.ndarray) -> Array:
    """The typed PRNG key of a seed, given as from `seed_words`; below 2^31 that of
    `jax.random.key`."""
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
