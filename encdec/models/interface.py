"""What training and search ask of a model.

A family is a subclass of `EncoderDecoder` and a subclass of `encdec.config.ModelConfig`, joined
under a name by `encdec.register`.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from encdec.ops.cross_entropy import LogitFactors
from encdec.ops.products import ALGORITHMS
from encdec.types import Array, Cache, InputError, MapKind, Memory, Params, Precision


class EncoderDecoder(nn.Module):
    """p(target | source), one target token after the other.

    Axes: see `encdec.types`. A subclass may add the fields `joint_vocabulary` (bool, both sides
    have one vocabulary), `shards` (the devices that its parameters are split over, or None),
    `remat` and `scan` (bool); it is given those that it has, so they belong to the abilities that
    its settings declare.

    Attributes:
      config: settings of the family.
      src_vocabulary, tgt_vocabulary: number of ids of either side.
      precision: of matrix products, see `encdec.ops.products`. Parameters, states and sums are
        float32. Products that name no precision, as those of Flax's layers, get the nearest that
        float32 arrays can have (see `bind`).
    """

    config: Any
    src_vocabulary: int
    tgt_vocabulary: int
    precision: Precision = "float32"

    def __call__(self, src: Array, src_mask: Array, tgt_in: Array) -> Array:
        """Logits of every target token given those before it (teacher forcing).

        Args:
          src: int32 [B, S], or what else the family reads, such as features float32 [B, S, D].
          src_mask: bool [B, S], False at padding.
          tgt_in: int32 [B, T], the start token, then target tokens.

        Returns:
          float32 [B, T, V].
        """
        factors: Any = self.logit_factors(src, src_mask, tgt_in)
        if not isinstance(factors, LogitFactors):
            raise InputError(
                f"{type(self).__name__}.logit_factors returned a {type(factors).__name__}: it must "
                "return encdec.LogitFactors(features, kernel, bias)"
            )
        return factors.logits(self.precision)

    def logit_factors(self, src: Array, src_mask: Array, tgt_in: Array) -> LogitFactors:
        """As `__call__` without the last matrix product, which training does part by part."""
        raise self._undefined("logit_factors")

    def encode(self, src: Array, src_mask: Array) -> Memory:
        """Reads the source.

        Returns:
          A pytree of arrays, all with leading axis B: what depends on the source alone. A search
          takes rows out of it.
        """
        raise self._undefined("encode")

    def pad_memory(self, memory: Memory, length: int) -> Memory:
        """The memory of the same sources with more padding, S = length, as `encode` returns it.

        A family need not define it. Where it does, a search has fewer different lengths S than the
        encoder, and so fewer programs are compiled.
        """
        raise self._undefined("pad_memory")

    def init_cache(self, memory: Memory, beams: int, max_len: int) -> Cache:
        """The state of hypotheses that have no token yet.

        Args:
          memory: from `encode`.
          beams: W, hypotheses of each sentence.
          max_len: most tokens that a hypothesis will have.

        Returns:
          A pytree of arrays with leading axes [B, W]. Its shapes are what a cache costs:
          `jax.eval_shape` gives them without computing.
        """
        raise self._undefined("init_cache")

    def init_beam_cache(self, memory: Memory, beams: int, max_len: int) -> Cache:
        """As `init_cache`, for hypotheses of which one may continue another one.

        What it holds in `Kept` does not move with hypotheses: the model finds in the rest what
        belongs to which of them. By default it is what `init_cache` returns, of which each
        hypothesis gets a copy that continues it.
        """
        return self.init_cache(memory, beams, max_len)

    def decode_step(
        self, memory: Memory, cache: Cache, tokens: Array
    ) -> tuple[Array, Array, Cache]:
        """Adds one token to each hypothesis.

        Args:
          memory: from `encode`; one for all hypotheses of a sentence.
          cache: from `init_cache` or `init_beam_cache`, or the step before.
          tokens: int32 [B, W], the last token of each hypothesis, at first the start token. Before
            the first step all hypotheses are alike, so there a search steps only the first one:
            tokens are [B, 1], the cache is that of `init_cache` or `init_beam_cache` for all, but
            of what is not `Kept` it has [:, :1]. What is returned then holds for all of them.

        Returns:
          Logits of the next token, float32 [B, W, V]; how much it attended to each source position,
          float32 [B, W, M, S] with M = 0 for a model without attention; and the next cache.
        """
        factors, attention, cache = self.decode_factors(memory, cache, tokens)
        return factors.logits(self.precision), attention, cache

    def decode_factors(
        self, memory: Memory, cache: Cache, tokens: Array
    ) -> tuple[LogitFactors, Array, Cache]:
        """As `decode_step` without the last matrix product, of which a search with a shortlist does
        a part. A family whose last layer is another one defines `decode_step` instead.

        The kernel and the bias do not depend on cache and tokens. Where the vocabulary is split
        over devices, they are this device's columns.
        """
        raise self._undefined("decode_step or decode_factors")

    def int8_params(self, params: Params) -> Params:
        """Parameters whose matrices are 8-bit integers, in a form that this module computes with.

        Args:
          params: of NumPy arrays.

        Returns:
          A pytree of NumPy arrays for `apply`; see `encdec.models.layers.int8_params`.
        """
        raise self._undefined("int8_params")

    def self_attention_maps(self, intermediates: Any) -> dict[MapKind, Array]:
        """The maps of kinds "encoder" and "decoder", for settings that declare them.

        Args:
          intermediates: what `logit_factors` sowed into the collection of that name.

        Returns:
          float32 [B, L, H, S, S] and [B, L, H, T, T].
        """
        raise self._undefined("self_attention_maps")

    def _undefined(self, method: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} must define {method}")

    def example_source(self) -> Array:
        """A source of the smallest shape, from which parameters are declared: int32 [1, 1]."""
        return jnp.ones((1, 1), jnp.int32)


def has_factors(model: EncoderDecoder) -> bool:
    """Whether a family defines `decode_factors`, so that its search may have a shortlist."""
    return type(model).decode_factors is not EncoderDecoder.decode_factors


def has_padding(model: nn.Module) -> bool:
    """Whether a family defines `pad_memory`."""
    method = getattr(type(model), "pad_memory", EncoderDecoder.pad_memory)
    return method is not EncoderDecoder.pad_memory


def has_int8(model: EncoderDecoder) -> bool:
    """Whether a family defines `int8_params`."""
    return type(model).int8_params is not EncoderDecoder.int8_params


def bind(model: nn.Module, params: Params) -> Callable[..., Any]:
    """`model.apply` with these parameters, in which each product has the model's precision.

    The gradients of a product have its precision. JAX chooses by the device where a product names
    none, and Flax's layers name none.
    """
    algorithm = ALGORITHMS[precision_of(model)]

    @wraps(model.apply)
    def apply(*arguments: Any, **keywords: Any) -> Any:
        with jax.default_matmul_precision(algorithm.name.lower()):
            return model.apply({"params": params}, *arguments, **keywords)

    return apply


def precision_of(model: nn.Module) -> Precision:
    """The precision of a model's products; float32 for a module that has no such field."""
    precision: Precision = getattr(model, "precision", "float32")
    return precision
