"""Dropout whose randomness is computed where it is used."""

import jax
import jax.numpy as jnp

from encdec.types import Array


def dropout(key: Array, x: Array, rate: float) -> Array:
    """Zeroes a random share of x and scales the rest, so that the mean stays (Srivastava 2014).

    Args:
      key: a typed PRNG key.
      x: float, any shape of fewer than 2^32 elements.
      rate: share dropped, in [0, 1).
    """
    if rate == 0:
        return x
    kept = hashed(key, x.shape) < jnp.uint32(min((1 - rate) * 2**32, 2**32 - 1))
    return jnp.where(kept, x * jnp.asarray(1 / (1 - rate), x.dtype), 0)


def hashed(key: Array, shape: tuple[int, ...]) -> Array:
    """Random uint32 of a shape: each element's place mixed with 64 bits of the key.

    A compiler fuses it into what uses it, so that no random bits go through memory; JAX's own
    generators cost a Transformer's training step a seventh of its time on a CPU. Good enough to
    drop activations, and meant for nothing else. The mixing is lowbias32 (Wellons 2018,
    "Prospecting for hash functions").
    """
    first, second = jax.random.bits(key, (2,), "uint32")
    x = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        x = x + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride *= shape[axis]
    x = x * jnp.uint32(0x9E3779B9) + first
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = x ^ second
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
