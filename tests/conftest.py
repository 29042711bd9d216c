"""Strict arithmetic for all tests: no silent change of type."""

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
