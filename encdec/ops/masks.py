"""Masks: bool, True = keep."""

import jax.numpy as jnp

from encdec.types import Array


def causal(length: int) -> Array:
    """Position t attends to positions up to t: bool [T, T] (Vaswani 2017, section 3.2.3)."""
    return jnp.tril(jnp.ones((length, length), bool))
