"""Dropout with few random bits."""

import math

import jax
import jax.numpy as jnp

from encdec.types import Array


def dropout(key: Array, x: Array, rate: float) -> Array:
    """Zeroes a random share of x and scales the rest, so that the mean stays (Srivastava 2014).

    Two bytes of randomness decide over an element, half of what a float would take: the rate
    is rounded to the nearest 1/65536.

    Args:
      key: a typed PRNG key.
      x: float, any shape.
      rate: share dropped, in [0, 1).
    """
    threshold = round((1 - rate) * 65_536)
    if threshold >= 65_536:
        return x
    words = jax.random.bits(key, (math.ceil(x.size / 2),), "uint32")
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[: x.size]
    kept = halves.reshape(x.shape) < threshold
    return jnp.where(kept, x * jnp.asarray(65_536 / threshold, x.dtype), 0)
