"""The last layer of models for the tokens of a shortlist: its columns are chosen once for a batch,
and each step multiplies by these only.

Axes: see `encdec.types`; K tokens of a shortlist, which is int32 [B, K], -1 after its tokens.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from encdec.models import registry
from encdec.models.interface import EncoderDecoder, bind
from encdec.ops.cross_entropy import LogitFactors
from encdec.ops.products import matmul
from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.types import Array, Cache, DecodeStep, Memory, Precision

Apply = Callable[..., Any]
"""`model.apply` with parameters, see `bind`."""


class ShortlistedMemory(NamedTuple):
    """The memory of a model and its last layer for the shortlist of each sentence.

    Attributes:
      memory: from `encode`.
      kernel: float32 [B, D, K]; whole on all devices.
      bias: float32 [B, K], -inf where there is no token.
    """

    memory: Memory
    kernel: Array
    bias: Array


def with_output(
    apply: Apply, memory: Memory, shortlist: Array, shards: Axis | None
) -> ShortlistedMemory:
    """The memory of B sentences with the output layer of their shortlists.

    Args:
      apply: the model.
      memory: from `encode`.
      shortlist: of each sentence.
      shards: the devices that the vocabulary is split over.
    """
    # Only the parameters of the layer are read, and so only they are computed.
    cache = apply(memory, 1, 1, method="init_cache")
    first = jnp.zeros((shortlist.shape[0], 1), jnp.int32)
    factors, _, _ = apply(memory, cache, first, method="decode_factors")
    assert isinstance(factors, LogitFactors)
    columns = factors.matrix.shape[1]
    local = shortlist - collectives.axis_index(shards) * columns
    kernel = jnp.take(factors.matrix.T, local, 0, mode="clip").swapaxes(1, 2)  # [B, D, K]
    bias = jnp.zeros(shortlist.shape, kernel.dtype)
    if factors.bias is not None:
        bias = jnp.take(factors.bias, local, mode="clip")
    if shards is not None:
        # Each device has the tokens of its columns, and 0 for others; the sum has all.
        is_local = (local >= 0) & (local < columns)
        kernel = collectives.psum(jnp.where(is_local[:, None], kernel, 0), shards)
        bias = collectives.psum(jnp.where(is_local, bias, 0), shards)
    return ShortlistedMemory(memory, kernel, jnp.where(shortlist >= 0, bias, -jnp.inf))


def step_of(apply: Apply, precision: Precision) -> DecodeStep:
    """A model's step with a `ShortlistedMemory`: tokens are ids, and logits are [B, W, K]."""

    def step(shown: ShortlistedMemory, cache: Cache, ids: Array) -> tuple[Array, Array, Cache]:
        factors, attention, cache = apply(shown.memory, cache, ids, method="decode_factors")
        logits = matmul(factors.features, shown.kernel, precision)
        return logits + shown.bias[:, None], attention, cache

    return step


@lru_cache(maxsize=32)
def output_width(model: EncoderDecoder) -> int:
    """D, the numbers that the last layer of a model reads.

    Args:
      model: the module; `shards` must be None.
    """

    def features(params: Any) -> Array:
        source, mask = model.example_source(), jnp.ones((1, 1), bool)
        first = jnp.ones((1, 1), jnp.int32)
        factors: LogitFactors = bind(model, params)(source, mask, first, method="logit_factors")
        return factors.features

    return int(jax.eval_shape(features, registry.abstract(model)).shape[-1])
