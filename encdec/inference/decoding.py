"""A batch searched or scored by a model with parameters: pure, and mapped over devices."""

from functools import lru_cache, partial
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from encdec.models.interface import EncoderDecoder
from encdec.models.loss import batch_loss, cast
from encdec.parallel import collectives, pmap
from encdec.parallel.collectives import Axes
from encdec.parallel.layout import Layout
from encdec.search.beam import beam_search
from encdec.search.sampling import greedy, sample
from encdec.search.types import SearchResult
from encdec.types import Array, Batch, MapKind, Params

Method = Literal["greedy", "beam", "sample"]


def search(
    params: Params,
    src: Array,
    src_mask: Array,
    max_lengths: Array,
    places: Array,
    knobs: dict[str, Array],
    *,
    model: nn.Module,
    dtype: Any,
    max_len: int,
    beam: int,
    method: Method,
    top_k: int,
    with_attention: bool,
) -> SearchResult:
    """Encodes a batch and searches.

    Args:
      params: of one device.
      src, src_mask: as in `Batch`.
      max_lengths: int32 [B], see `max_target_lengths`.
      places: int32 [B], of each text among all: with the seed they decide what is drawn.
      knobs: float32 "alpha"; for sampling "temperature", "top_p" and int32 "seed" too.
      model, dtype: what runs, and the type of its products.
      max_len: the largest limit there can be.
      beam, method, top_k, with_attention: how to search.
    """
    bound = partial(model.apply, {"params": cast(params, dtype)})
    memory: Any = bound(src, src_mask, method="encode")
    cache = bound(memory, beam, max_len, method="init_cache")
    step: Any = partial(bound, method="decode_step")
    common: dict[str, Any] = {
        "max_len": max_len,
        "alpha": knobs["alpha"],
        "with_attention": with_attention,
    }
    if method == "greedy":
        return greedy(step, memory, cache, max_lengths, **common)
    if method == "beam":
        return beam_search(step, memory, cache, max_lengths, beams=beam, **common)
    return sample(
        step,
        memory,
        cache,
        max_lengths,
        # A draw depends on the seed and the text's place alone, not on its batch.
        jax.vmap(partial(jax.random.fold_in, jax.random.key(knobs["seed"])))(places),
        samples=beam,
        temperature=knobs["temperature"],
        top_k=top_k,
        top_p=knobs["top_p"],
        **common,
    )


def self_attention(
    params: Params, src: Array, src_mask: Array, tgt_in: Array, *, model: EncoderDecoder, dtype: Any
) -> dict[MapKind, Array]:
    """Self-attention maps of both sides, with every target token given.

    Args:
      params: of the one device.
      src, src_mask: as in `Batch`.
      tgt_in: int32 [B, T], the start token before each target.
      model, dtype: what runs, and the type of its products.

    Returns:
      float32 attention: encoder [B, L, H, S, S], decoder [B, L, H, T, T].
    """
    bound = partial(model.apply, {"params": cast(params, dtype)}, mutable=["intermediates"])
    _, kept = bound(src, src_mask, tgt_in, method="logit_factors")
    return model.self_attention_maps(kept["intermediates"])


def max_target_lengths(lengths: Any, ratio: float, extra: int) -> Any:
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
    found: tuple[Array, Array] = collectives.psum((sums.nll, sums.tokens), axes.data)
    return found


@lru_cache(maxsize=128)
def search_step(layout: Layout, **static: Any) -> Any:
    """A search on devices: one for each set of what is fixed, so that each compiles once."""
    return pmap.parallelize(partial(search, **static), layout, (True,) * 5 + (False,))


@lru_cache(maxsize=8)
def loss_program(layout: Layout, **static: Any) -> Any:
    """The loss on devices, in the same way."""
    return pmap.parallelize(partial(loss, **static, axes=layout.axes), layout, (True, True))


@lru_cache(maxsize=8)
def self_attention_program(**static: Any) -> Any:
    """What each side looks at in itself, on one device, in the same way."""
    return jax.jit(partial(self_attention, **static))
