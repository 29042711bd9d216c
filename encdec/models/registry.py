"""From settings to a model and its parameters, whatever the family."""

import dataclasses
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from encdec.config import ModelConfig
from encdec.config.families import module_class
from encdec.models.interface import EncoderDecoder
from encdec.models.layers import COLUMNS, HEADS, VOCABULARY
from encdec.parallel.collectives import Axis
from encdec.types import Array, Params, Precision


def build(
    config: ModelConfig,
    src_vocabulary: int,
    tgt_vocabulary: int,
    *,
    joint: bool = False,
    shards: Axis | None = None,
    remat: bool = False,
    scan: bool = False,
    precision: Precision = "float32",
) -> EncoderDecoder:
    """The Linen module of a model.

    Args:
      config: settings of a registered family.
      src_vocabulary, tgt_vocabulary: number of ids of either side.
      joint: both sides have one vocabulary.
      shards: the devices that the parameters are split over; only for a family with `split_fields`.
      remat: compute layers again in the backward pass; only for a family that `supports_remat`.
      scan: compile layers as a loop, where the family has this field.
      precision: of matrix products.
    """
    module = module_class(config)
    offered = {"joint_vocabulary": joint, "shards": shards, "remat": remat, "scan": scan}
    known = {field.name for field in dataclasses.fields(module)}
    chosen = {name: value for name, value in offered.items() if name in known}
    built: EncoderDecoder = module(
        config, src_vocabulary, tgt_vocabulary, precision=precision, **chosen
    )
    return built


def init(model: EncoderDecoder, key: Array) -> Params:
    """New float32 parameters, drawn from the key."""
    return nn.unbox(_init(model, key))


def abstract(model: EncoderDecoder) -> Params:
    """Names, shapes and dtypes of the parameters."""
    return nn.unbox(_boxed_shapes(model))


def split_axes(model: EncoderDecoder) -> Params:
    """The array axis (int) along which each parameter can be split over devices, -1 for none.

    The modules declare it: attention heads, FFN hidden units, rows or columns of the vocabulary.
    """

    def axis(names: jax.sharding.PartitionSpec) -> int:
        axes = [i for i, name in enumerate(names) if name in (HEADS, COLUMNS, VOCABULARY)]
        return axes[0] if axes else -1

    specs = nn.get_partition_spec(_boxed_shapes(model))
    return jax.tree.map(axis, specs, is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec))


@lru_cache(maxsize=32)
def _boxed_shapes(model: EncoderDecoder) -> Any:
    """The shapes of `_init`. They are kept because tracing a model is what a short command does
    most of the time."""
    return jax.eval_shape(lambda: _init(model, jax.random.key(0)))


def _init(model: EncoderDecoder, key: Array) -> Any:
    """Parameters in Flax's boxes, which hold their logical axes."""
    token, mask = jnp.ones((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    return jax.jit(model.init)(key, model.example_source(), mask, token)["params"]
