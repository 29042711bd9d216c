"""A batch searched or scored by a model with parameters: pure, and mapped over devices."""

from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from encdec.models.interface import EncoderDecoder
from encdec.models.loss import cast
from encdec.parallel import pmap
from encdec.parallel.layout import Layout
from encdec.search import methods
from encdec.search.ensemble import ensemble
from encdec.search.methods import ArrayOptions, Sentences, StaticOptions
from encdec.search.types import SearchResult
from encdec.types import Array, MapKind, Params

Source = tuple[Array | np.ndarray, Array | np.ndarray]
"""src and src_mask, as in `Batch`."""


def search(
    params: tuple[Params, ...],
    sources: tuple[Source, ...],
    sentences: Sentences,
    arrays: ArrayOptions,
    weights: Array,
    *,
    models: tuple[nn.Module, ...],
    dtype: Any,
    static: StaticOptions,
    mean: str,
) -> SearchResult:
    """Encodes a batch and searches, with one model or with an ensemble.

    Args:
      params: of each model, as one device holds them.
      sources: of each model (their vocabularies may differ), of the same B sentences.
      sentences: what else belongs to each sentence.
      arrays, static: the options, see `encdec.search.methods.split`.
      weights: float32 [number of models]; of each in the ensemble. One model has none.
      models: static; all have one target vocabulary.
      dtype: static; the type of matrix products.
      mean: static; how an ensemble combines its models, see `encdec.search.ensemble`.
    """
    steps, memories, caches = [], [], []
    for model, own_params, (src, src_mask) in zip(models, params, sources, strict=True):
        bound: Any = partial(model.apply, {"params": cast(own_params, dtype)})
        memory = bound(src, src_mask, method="encode")
        memories.append(memory)
        caches.append(bound(memory, static.beam, static.max_len, method="init_cache"))
        steps.append(partial(bound, method="decode_step"))
    if len(models) == 1:
        return methods.search(steps[0], memories[0], caches[0], sentences, arrays, static)
    step = ensemble(steps, weights, mean=mean)
    return methods.search(step, tuple(memories), tuple(caches), sentences, arrays, static)


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


@lru_cache(maxsize=128)
def search_program(layout: Layout, **static: Any) -> Any:
    """`search` compiled for the devices of a layout; the same static arguments share a program."""
    return pmap.parallelize(partial(search, **static), layout, (True, True, True, False, False))


@lru_cache(maxsize=8)
def self_attention_program(**static: Any) -> Any:
    """What each side looks at in itself, on one device, in the same way."""
    return jax.jit(partial(self_attention, **static))
