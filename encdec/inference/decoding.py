"""Search and self-attention of a batch under given parameters: pure functions, then programs."""

from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from encdec.models import registry
from encdec.models.interface import EncoderDecoder
from encdec.models.loss import cast
from encdec.parallel import pmap
from encdec.parallel.layout import Layout
from encdec.search import methods
from encdec.search.ensemble import ensemble
from encdec.search.methods import ArrayOptions, Sentences, StaticOptions
from encdec.search.types import SearchResult
from encdec.types import Array, Cache, Params

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
      params: the parameters of each model, as one device holds them.
      sources: the same B source sentences for each model, in the ids of its own vocabulary.
      sentences: length limit, number and prefix of each sentence.
      arrays, static: the options, see `encdec.search.methods.split`.
      weights: float32 [number of models], the weight of each in the ensemble; not used for one
        model.
      models: static; all have the same target vocabulary.
      dtype: static; the type of matrix products.
      mean: static; how an ensemble combines its models, see `encdec.search.ensemble`.

    Returns:
      The result of `encdec.search.methods.search`.
    """
    steps, memories, init_caches = [], [], []
    for model, model_params, (src, src_mask) in zip(models, params, sources, strict=True):
        bound: Any = partial(model.apply, {"params": cast(model_params, dtype)})
        memory = bound(src, src_mask, method="encode")
        memories.append(memory)
        init_caches.append(partial(bound, memory, static.beam, method="init_cache"))
        steps.append(partial(bound, method="decode_step"))
    if len(models) == 1:
        return methods.search(steps[0], memories[0], init_caches[0], sentences, arrays, static)

    def init_cache(room: int) -> Cache:
        return tuple(init(room) for init in init_caches)

    step = ensemble(steps, weights, mean=mean)
    return methods.search(step, tuple(memories), init_cache, sentences, arrays, static)


def max_target_lengths(lengths: Any, ratio: float, extra: int) -> Any:
    """The most tokens that each translation may have, int32 [B]; 0 for an empty source.

    Args:
      lengths: int [B], source tokens with the end token; NumPy or JAX.
      ratio: target tokens for each source token.
      extra: target tokens in addition.
    """
    return (lengths > 0).astype(np.int32) * (lengths * ratio + extra).astype(np.int32)


@lru_cache(maxsize=32)
def cache_bytes(model: EncoderDecoder, beams: int) -> int:
    """Bytes of float32 that the caches of a sentence grow by with each target token.

    Args:
      model: the module; `shards` must be None.
      beams: W, hypotheses of a sentence.
    """

    def caches(params: Params) -> tuple[Cache, Cache]:
        mask = jnp.ones((1, 1), bool)
        apply = partial(model.apply, {"params": params})
        memory = apply(model.example_source(), mask, method="encode")
        one, two = (apply(memory, beams, room, method="init_cache") for room in (1, 2))
        return one, two

    shapes = jax.eval_shape(caches, registry.abstract(model))
    one, two = (sum(4 * leaf.size for leaf in jax.tree.leaves(each)) for each in shapes)
    return int(two - one)


@lru_cache(maxsize=128)
def search_program(layout: Layout, **static: Any) -> Any:
    """`search` compiled for the devices of a layout, once for each set of static arguments."""
    return pmap.parallelize(partial(search, **static), layout, (True, True, True, False, False))
