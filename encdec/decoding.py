"""A batch searched or scored by a model with parameters: pure, and mapped over devices."""

from functools import lru_cache, partial
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from encdec import parallel
from encdec.ops import collectives, masks
from encdec.ops.collectives import Axes
from encdec.parallel import Layout
from encdec.search import Found, beam_search, greedy, sample
from encdec.training.step import batch_loss, cast
from encdec.types import Array, Batch, Params

Method = Literal["greedy", "beam", "sample"]


def search(
    params: Params,
    src: Array,
    limits: Array,
    places: Array,
    knobs: dict[str, Array],
    *,
    model: nn.Module,
    dtype: Any,
    max_len: int,
    beam: int,
    method: Method,
    top_k: int,
    with_weights: bool,
) -> Found:
    """Encodes a batch and searches.

    Args:
      params: of one device.
      src: int32 [B, S].
      limits: int32 [B], see `length_limits`.
      places: int32 [B], of each text among all: with the seed they decide what is drawn.
      knobs: float32 "alpha"; for sampling "temperature", "top_p" and int32 "seed" too.
      model, dtype: what runs, and the type of its products.
      max_len: the largest limit there can be.
      beam, method, top_k, with_weights: how to search.
    """
    bound = partial(model.apply, {"params": cast(params, dtype)})
    memory: Any = bound(src, masks.padding(src), method="encode")
    cache = bound(memory, beam, max_len, method="init_cache")
    step: Any = partial(bound, method="decode_step")
    common: dict[str, Any] = {
        "max_len": max_len,
        "alpha": knobs["alpha"],
        "with_weights": with_weights,
    }
    if method == "greedy":
        return greedy(step, memory, cache, limits, **common)
    if method == "beam":
        return beam_search(step, memory, cache, limits, beams=beam, **common)
    return sample(
        step,
        memory,
        cache,
        limits,
        # A draw depends on the seed and the text's place alone, not on its batch.
        jax.vmap(partial(jax.random.fold_in, jax.random.key(knobs["seed"])))(places),
        samples=beam,
        temperature=knobs["temperature"],
        top_k=top_k,
        top_p=knobs["top_p"],
        **common,
    )


def length_limits(lengths: Any, ratio: float, extra: int) -> Any:
    """The most tokens that each translation may have, int32 [B]: none for an empty source.

    Args:
      lengths: int [B], source tokens with EOS; NumPy or JAX.
      ratio: tokens for each of them, and
      extra: this many more.
    """
    return (lengths > 0).astype(np.int32) * (lengths * ratio + extra).astype(np.int32)


def loss(
    params: Params, batch: Batch, *, model: nn.Module, dtype: Any, axes: Axes
) -> tuple[Array, Array]:
    """Negative log-likelihood (nats) and tokens of all devices' sentences."""
    sums = batch_loss(model, cast(params, dtype), batch, 0.0, None)
    found: tuple[Array, Array] = collectives.total((sums.nll, sums.tokens), axes.data)
    return found


@lru_cache(maxsize=128)
def search_program(layout: Layout, **static: Any) -> Any:
    """A search on devices: one for each set of what is fixed, so that each compiles once."""
    return parallel.mapped(partial(search, **static), layout, (True, True, True, True, False))


@lru_cache(maxsize=8)
def loss_program(layout: Layout, **static: Any) -> Any:
    """The loss on devices, in the same way."""
    return parallel.mapped(partial(loss, **static, axes=layout.axes), layout, (True, True))
