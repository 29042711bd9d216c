"""Whether a search can use a model, asked before any step is trained."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from encdec.models import registry
from encdec.models.interface import EncoderDecoder, bind
from encdec.search.checks import check_step
from encdec.types import InputError, Params

_ROWS, _BEAMS, _LENGTH = 2, 3, 5


def check_family(model: EncoderDecoder) -> None:
    """Raises InputError unless `encode`, `init_cache` and `decode_step` return what
    `encdec.models.interface` says; nothing is computed.

    Args:
      model: the module; `shards` must be None.
    """
    name = type(model).__name__
    src = jnp.repeat(model.example_source(), _ROWS, 0)

    def decode(params: Params) -> None:
        apply = bind(model, params)
        memory: Any = apply(src, jnp.ones(src.shape[:2], bool), method="encode")
        for leaf in jax.tree.leaves(memory):
            if leaf.shape[:1] != (_ROWS,):
                raise InputError(
                    f"encode returned {leaf.dtype}{list(leaf.shape)} for B = {_ROWS} "
                    "sentences: all arrays must have the leading axis B"
                )
        init_cache = partial(apply, memory, _BEAMS, method="init_cache")
        step = partial(apply, method="decode_step")
        check_step(step, memory, init_cache, _ROWS, _BEAMS, _LENGTH)

    try:
        jax.eval_shape(decode, registry.abstract(model))
    except InputError as error:
        raise InputError(f"the model cannot be searched: {name}: {error}") from error
