"""Checks of the functions and arrays that a caller gives to a search.

They look at shapes and dtypes only, before anything is computed.
"""

from typing import Any

import jax
import jax.numpy as jnp

from encdec.types import InputError, Kept


def check_limits(max_lengths: Any) -> None:
    """Raises InputError unless it is an array of integers [B]."""
    is_array = hasattr(max_lengths, "shape") and hasattr(max_lengths, "dtype")
    if not is_array or max_lengths.ndim != 1 or not jnp.issubdtype(max_lengths.dtype, jnp.integer):
        raise InputError(
            f"max_lengths is {_described(max_lengths)}: it must be int32[B], the most tokens of "
            "each sentence"
        )


def check_step(
    step: Any, memory: Any, init_cache: Any, rows: int, width: int, max_len: int
) -> None:
    """Raises InputError unless a model is what a search asks for, see `encdec.types.DecodeStep`.

    Args:
      step: the model.
      memory: of the sentences.
      init_cache: makes the cache of W hypotheses for each sentence.
      rows: B.
      width: W.
      max_len: the most tokens of a hypothesis.
    """
    for name, function in (("step", step), ("init_cache", init_cache)):
        if not callable(function):
            raise InputError(f"{name} is {_described(function)}: it must be a function")
    leading = (rows, width)
    cache = jax.eval_shape(lambda: init_cache(max(max_len, 1)))
    for leaf in jax.tree.leaves(cache, is_leaf=lambda x: isinstance(x, Kept)):
        if not isinstance(leaf, Kept) and leaf.shape[:2] != leading:
            raise InputError(
                f"init_cache returned {_described(leaf)}: its shape must begin with [B, W] = "
                f"{list(leading)}"
            )
    tokens = jax.ShapeDtypeStruct(leading, jnp.int32)
    returned: Any = jax.eval_shape(lambda *given: step(memory, *given), cache, tokens)
    if not (isinstance(returned, tuple) and len(returned) == 3):
        what = f"{len(returned)} values" if isinstance(returned, tuple) else _described(returned)
        raise InputError(f"the step returned {what}: it must return (logits, attention, cache)")
    logits, attention, next_cache = returned
    for name, array, letters, note in (
        ("logits", logits, "V", ""),
        ("attention", attention, "M, S", "; zeros [B, W, 0, S] for a model without attention"),
    ):
        shape = getattr(array, "shape", ())
        if shape[:2] != leading or len(shape) != 2 + len(letters.split()):
            raise InputError(
                f"the step returned {name} {_described(array)}: they must be float32[B, W, "
                f"{letters}] with [B, W] = {list(leading)}{note}"
            )
    check_same("the step", "cache", cache, next_cache)


def check_same(who: str, what: str, before: Any, after: Any) -> None:
    """Raises InputError unless a pytree has the structure, shapes and dtypes of another one.

    Args:
      who: what made the one of the other.
      what: the pytrees are.
      before, after: the pytrees.
    """
    one, other = (str(jax.tree.map(_described, each)) for each in (before, after))
    if one != other:
        raise InputError(
            f"{who} got the {what} {one} and returned {other}: structure, shapes and dtypes must "
            "stay"
        )


def _described(value: Any) -> str:
    """`float32[2, 3]`, or the name of a type."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    return f"a {type(value).__name__}"
