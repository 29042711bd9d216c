"""The three systems, as Linen modules with one interface (see `encdec.models.build`)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from encdec.config import AttentionConfig, ModelConfig, Seq2SeqConfig
from encdec.models.layers import COLUMNS, HEADS, VOCABULARY
from encdec.models.rnn_attention import RNNAttention
from encdec.models.seq2seq import Seq2Seq
from encdec.models.transformer import Transformer
from encdec.parallel.collectives import Axis
from encdec.types import Array, Params


def build(
    config: ModelConfig,
    src_vocabulary: int,
    tgt_vocabulary: int,
    *,
    joint: bool = False,
    shards: Axis | None = None,
    remat: bool = False,
) -> nn.Module:
    """The module of a configuration.

    Each has `__call__(src, src_mask, tgt_in) -> logits`, the same but for the last product as
    `logit_factors` for training, and for search `encode`, `init_cache` and `decode_step`.

    Args:
      config: sizes and choices.
      src_vocabulary, tgt_vocabulary: sizes, in tokens.
      joint: both sides have one vocabulary.
      shards: devices that a Transformer is split over; the others cannot be.
      remat: a Transformer's layers are computed again in the backward pass.
    """
    if isinstance(config, Seq2SeqConfig):
        return Seq2Seq(config, src_vocabulary, tgt_vocabulary)
    if isinstance(config, AttentionConfig):
        return RNNAttention(config, src_vocabulary, tgt_vocabulary)
    return Transformer(config, src_vocabulary, tgt_vocabulary, joint, shards, remat)


def init(model: nn.Module, key: Array) -> Params:
    """Fresh float32 parameters, drawn from the key."""
    return nn.unbox(_init(model, key))


def abstract(model: nn.Module) -> Params:
    """Names, shapes and types of the parameters."""
    return nn.unbox(jax.eval_shape(lambda: _init(model, jax.random.key(0))))


def split_axes(model: nn.Module) -> Params:
    """The axis (int) along which each parameter may be split over devices, -1 for none.

    As the modules declare: attention heads, inner columns, rows or columns of the vocabulary.
    """
    boxed = jax.eval_shape(lambda: _init(model, jax.random.key(0)))

    def axis(names: jax.sharding.PartitionSpec) -> int:
        found = [i for i, name in enumerate(names) if name in (HEADS, COLUMNS, VOCABULARY)]
        return found[0] if found else -1

    specs = nn.get_partition_spec(boxed)
    return jax.tree.map(axis, specs, is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec))


def _init(model: nn.Module, key: Array) -> Any:
    """Parameters in boxes that hold their logical axes."""
    token = jnp.ones((1, 1), jnp.int32)
    return jax.jit(model.init)(key, token, token > 0, token)["params"]
