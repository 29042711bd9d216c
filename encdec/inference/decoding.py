"""What is decoded with: the parameters of one model or of several, bound to a search."""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from encdec.inference import shortlisted
from encdec.inference.program_memory import peak_bytes, scaled_bytes
from encdec.models import registry
from encdec.models.interface import EncoderDecoder, bind, has_padding, precision_of
from encdec.search import methods
from encdec.search.ensemble import ensemble
from encdec.search.loop import Search, map_hypotheses
from encdec.search.methods import ArrayOptions, Sentences, StaticOptions
from encdec.types import Array, Cache, DecodeStep, Memory, Params

_LONGEST_ROUNDED = 128
"""Source tokens up to which `search_length` rounds; longer sources are few."""

Source = tuple[Array | np.ndarray, Array | np.ndarray]
"""src and src_mask, as in `Batch`."""


class Shared(NamedTuple):
    """What all devices and all batches have in common.

    Attributes:
      arrays: the options that are arguments of programs.
      weights: float32 [number of models], in an ensemble; not used for one model.
    """

    arrays: ArrayOptions
    weights: Any


class Model(NamedTuple):
    """What is decoded with: one model, or an ensemble; hashable.

    Attributes:
      models: all have the same target vocabulary.
      mean: how an ensemble combines its models, see `encdec.search.ensemble`.
    """

    models: tuple[nn.Module, ...]
    mean: str

    def encode(
        self,
        params: tuple[Params, ...],
        sources: tuple[Source, ...],
        shortlist: Array | None = None,
        *,
        pads: bool = False,
    ) -> Memory:
        """The memory of each model.

        Args:
          params: the parameters of each model, as one device holds them.
          sources: the same B source sentences for each model, in the ids of its own vocabulary.
          shortlist: int32 [B, K], see `Sentences`.
          pads: static; whether memories are padded to the `search_length` of their sources.
        """
        bound = self._bound(params)
        each = [
            apply(*source, method="encode") for apply, source in zip(bound, sources, strict=True)
        ]
        if pads:
            each = [
                apply(memory, search_length(model, mask.shape[1]), method="pad_memory")
                if has_padding(model)
                else memory
                for model, apply, memory, (_, mask) in zip(
                    self.models, bound, each, sources, strict=True
                )
            ]
        if shortlist is None:
            return tuple(each)
        return tuple(
            shortlisted.with_output(apply, memory, shortlist, getattr(model, "shards", None))
            for apply, memory, model in zip(bound, each, self.models, strict=True)
        )

    def search(
        self,
        params: tuple[Params, ...],
        memory: Memory,
        sentences: Sentences,
        shared: Shared,
        static: StaticOptions,
        *,
        are_alike: bool = False,
    ) -> Search:
        """The parts of the search.

        Args:
          params: as in `encode`.
          memory: from there.
          sentences: length limit, number and prefix of each sentence, and its shortlist.
          shared, static: the options, see `encdec.search.methods.split`.
          are_alike: all hypotheses of a sentence have the same tokens, as before the first step;
            the models then compute one of them.
        """
        bound = self._bound(params)
        if has_shortlist := sentences.shortlist is not None:
            pairs = zip(bound, self.models, strict=True)
            steps = [shortlisted.step_of(apply, precision_of(model)) for apply, model in pairs]
        else:
            steps = [partial(apply, method="decode_step") for apply in bound]

        is_beam = static.method == "beam" and static.beam_groups == 1
        method = "init_beam_cache" if is_beam else "init_cache"

        def init_cache(room: int) -> Cache:
            each = [one.memory for one in memory] if has_shortlist else memory
            pairs = zip(bound, each, strict=True)
            return tuple(apply(m, static.beam, room, method=method) for apply, m in pairs)

        step = ensemble(steps, shared.weights, mean=self.mean)
        if are_alike:
            step = _step_of_one(step)
        return methods.parts(step, memory, init_cache, sentences, shared.arrays, static)

    def _bound(self, params: tuple[Params, ...]) -> list[Any]:
        return [bind(m, p) for m, p in zip(self.models, params, strict=True)]


def _step_of_one(step: DecodeStep) -> DecodeStep:
    """The step where all hypotheses of a sentence have the same tokens."""

    def step_of_all(memory: Memory, cache: Cache, tokens: Array) -> tuple[Array, Array, Cache]:
        def for_all(x: Array) -> Array:
            return jnp.broadcast_to(x, (x.shape[0], tokens.shape[1], *x.shape[2:]))

        one = map_hypotheses(lambda x: x[:, :1], cache)
        logits, attended, cache = step(memory, one, tokens[:, :1])
        return for_all(logits), for_all(attended), map_hypotheses(for_all, cache)

    return step_of_all


def search_length(model: nn.Module, length: int) -> int:
    """S of a search whose sources have `length` tokens, padding included.

    Where the family of the model can pad a memory it is a power of two up to 128, so that few
    programs are compiled; else it is `length`.
    """
    if length > _LONGEST_ROUNDED or not has_padding(model):
        return length
    return max(8, 1 << (length - 1).bit_length())


@lru_cache(maxsize=32)
def cache_bytes(model: EncoderDecoder) -> int:
    """Bytes that the cache of a hypothesis grows by with each target token.

    Args:
      model: the module; `shards` must be None.
    """

    def caches(params: Params) -> tuple[Cache, Cache]:
        mask = jnp.ones((1, 1), bool)
        apply = partial(model.apply, {"params": params})
        memory = apply(model.example_source(), mask, method="encode")
        one, two = (apply(memory, 1, room, method="init_cache") for room in (1, 2))
        return one, two

    shapes = jax.eval_shape(caches, registry.abstract(model))
    one, two = (sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(each)) for each in shapes)
    return int(two - one)


def encoding_bytes(model: EncoderDecoder, length: int) -> int:
    """About the bytes that a source needs while it is encoded, its memory among them.

    Args:
      model: the module; `shards` must be None.
      length: S, tokens of the source.
    """
    return scaled_bytes(partial(_encoding_bytes, model), length)


@lru_cache(maxsize=256)
def _encoding_bytes(model: EncoderDecoder, length: int) -> int:
    def encode(params: Params, src: Array, src_mask: Array) -> Memory:
        return bind(model, params)(src, src_mask, method="encode")

    source = (jax.ShapeDtypeStruct((1, length), dtype) for dtype in (jnp.int32, bool))
    return peak_bytes(encode, registry.abstract(model), *source)
