"""The layers of a Transformer (Vaswani 2017): embeddings, attention, feed-forward, residual sums.

Axes: see `encdec.types`. Every sub-layer is inside a residual sum with a layer norm: after the sum
as in the paper, LayerNorm(x + Dropout(Sublayer(x))), or before the sub-layer,
x + Dropout(Sublayer(LayerNorm(x))).

Where parameters are split over devices (Shoeybi 2019, section 3), each device has some of the heads
and some of the FFN hidden units: what enters them is copied, what leaves them is summed.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from encdec.config import TransformerConfig
from encdec.models.layers import (
    COLUMNS,
    HEADS,
    Dense,
    Dropout,
    Embedding,
    glorot,
    split_init,
    zeros,
)
from encdec.ops import masks
from encdec.ops.attention import dot_product_attention_weights
from encdec.ops.positions import sinusoidal
from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.types import Array

ACTIVATIONS = {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu}


class KeyValue(NamedTuple):
    """Projected keys and values.

    Attributes:
      keys, values: float [B, S, H, K] of the source, [B, W, T, H, K] in a hypothesis's cache.
    """

    keys: Array
    values: Array


def embed(
    config: TransformerConfig, table: Embedding, tokens: Array, positions: Array, length: int
) -> Array:
    """sqrt(D) E[token] + PE[position] (sections 3.4 and 3.5).

    Args:
      config: D.
      table: E.
      tokens: int32 [B, T].
      positions: int32, broadcastable to tokens; below `length`.
      length: static; how many positions there are.

    Returns:
      float [B, T, D].
    """
    embedded = table(tokens)
    encodings = jnp.asarray(sinusoidal(length, config.width))[positions]
    return embedded * config.width**0.5 + encodings.astype(embedded.dtype)


class Attention(nn.Module):
    """Multi-head attention (section 3.2.2), without biases, Glorot uniform.

    With `shards`, H counts the heads of this device.
    """

    config: TransformerConfig
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares W^Q, W^K and W^V as [D, H, K] and W^O as [H, K, D]."""
        c = self.config
        split = (c.width, collectives.shard_size(c.heads, self.shards), c.width // c.heads)
        uniform = partial(nn.initializers.variance_scaling, 1, "fan_avg", "uniform")
        # The fans are those of the matrices [D, H K] and [H K, D] of the paper.
        flat = split_init(uniform(in_axis=0, out_axis=(1, 2)), None, HEADS, None)
        joined = split_init(uniform(in_axis=(0, 1), out_axis=2), HEADS, None, None)
        self.wq, self.wk, self.wv = (self.param(n, flat, split) for n in ("wq", "wk", "wv"))
        self.wo = self.param("wo", joined, (*split[1:], c.width))
        self.dropout = Dropout(c.attention_dropout, self.shards)

    def queries(self, x: Array) -> Array:
        """[B, T, D] -> [B, T, H, K]."""
        return jnp.einsum("btd,dhk->bthk", x, self.wq)

    def project(self, x: Array) -> KeyValue:
        """Keys and values [B, S, H, K] of [B, S, D]."""
        keys = jnp.einsum("bsd,dhk->bshk", x, self.wk)
        return KeyValue(keys, jnp.einsum("bsd,dhk->bshk", x, self.wv))

    def __call__(self, queries: Array, past: KeyValue, mask: Array) -> tuple[Array, Array]:
        """softmax(Q K^T / sqrt(K)) V, heads joined by W^O.

        Args:
          queries: [B, T, H, K].
          past: keys and values [B, S, H, K].
          mask: bool, broadcastable to [B, H, T, S].

        Returns:
          [B, T, D], and the attention float32 [B, H, T, S].
        """
        attention = dot_product_attention_weights(queries, past.keys, mask)
        # Flax keeps what is sown only where "intermediates" is mutable; elsewhere this is nothing.
        self.sow("intermediates", "attention", attention)
        dropped = self.dropout(attention.astype(past.values.dtype))
        heads = jnp.einsum("bhts,bshk->bthk", dropped, past.values)
        parts = jnp.einsum("bthk,hkd->btd", heads, self.wo)
        return collectives.reduce_from_model_parallel(parts, self.shards), attention


class FeedForward(nn.Module):
    """max(0, x W_1 + b_1) W_2 + b_2 (equation 2), or with another activation."""

    config: TransformerConfig
    shards: Axis | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., D] -> [..., D]."""
        c = self.config
        first = Dense(
            collectives.shard_size(c.feed_forward, self.shards),
            kernel_init=split_init(glorot, None, COLUMNS),
            bias_init=split_init(zeros, COLUMNS),
        )
        hidden = ACTIVATIONS[c.activation](first(x))  # [..., F]
        hidden = Dropout(c.activation_dropout, self.shards)(hidden)
        return _RowParallelDense(c.width, self.shards, name="Dense_1")(hidden)


class _RowParallelDense(nn.Module):
    """x W + b, where each device has some rows of W and all devices have b."""

    width: int
    shards: Axis | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", split_init(glorot, COLUMNS, None), (x.shape[-1], self.width))
        bias = self.param("bias", zeros, (self.width,))
        return collectives.reduce_from_model_parallel(x @ kernel, self.shards) + bias


class AddNorm(nn.Module):
    """The residual sum and layer norm (Ba 2016) around a sub-layer y.

    post-norm: x -> LayerNorm(x + Dropout(y(x))); pre-norm: x -> x + Dropout(y(LayerNorm(x))).
    """

    config: TransformerConfig
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares the norm."""
        self.norm = nn.LayerNorm(epsilon=1e-6)
        self.dropout = Dropout(self.config.dropout)

    def pre_norm(self, x: Array) -> Array:
        """The sub-layer's input: x [..., D] itself, or its norm."""
        return collectives.copy_to_model_parallel(
            self.norm(x) if self.config.norm == "pre" else x, self.shards
        )

    def residual(self, x: Array, y: Array) -> Array:
        """The sum of x and the sub-layer's output y, each [..., D], normed in the paper's order."""
        joined = x + self.dropout(y)
        return joined if self.config.norm == "pre" else self.norm(joined)


class EncoderLayer(nn.Module):
    """Self-attention, feed-forward."""

    config: TransformerConfig
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares both sub-layers."""
        common = (self.config, self.shards)
        self.attention = Attention(*common)
        self.feed_forward = FeedForward(*common)
        self.add_norms = [AddNorm(*common) for _ in range(2)]

    def __call__(self, x: Array, mask: Array) -> Array:
        """x [B, S, D], mask bool [B, 1, 1, S] -> [B, S, D]."""
        around_attention, around_feed_forward = self.add_norms
        inner = around_attention.pre_norm(x)
        queries, past = self.attention.queries(inner), self.attention.project(inner)
        x = around_attention.residual(x, self.attention(queries, past, mask)[0])
        return around_feed_forward.residual(x, self.feed_forward(around_feed_forward.pre_norm(x)))


class DecoderLayer(nn.Module):
    """Masked self-attention, encoder-decoder attention, feed-forward."""

    config: TransformerConfig
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares the three sub-layers."""
        common = (self.config, self.shards)
        self.self_attention = Attention(*common)
        self.cross_attention = Attention(*common)
        self.feed_forward = FeedForward(*common)
        self.add_norms = [AddNorm(*common) for _ in range(3)]

    def __call__(self, x: Array, source: KeyValue, src_mask: Array) -> Array:
        """All target positions: x [B, T, D], src_mask bool [B, 1, 1, S] -> [B, T, D]."""
        inner = self.add_norms[0].pre_norm(x)
        queries, past = self.self_attention.queries(inner), self.self_attention.project(inner)
        mask = masks.causal(x.shape[1])[None, None]  # [1, 1, T, T]
        x = self.add_norms[0].residual(x, self.self_attention(queries, past, mask)[0])
        return self._cross_attend_and_feed_forward(x, source, src_mask)[0]

    def step(
        self, x: Array, source: KeyValue, src_mask: Array, past: KeyValue, position: Array
    ) -> tuple[Array, Array, KeyValue]:
        """One target position of each hypothesis.

        Args:
          x: [B, W, D].
          source: [B, S, H, K], one for all hypotheses of a sentence.
          src_mask: bool [B, 1, 1, S].
          past: [B, W, T, H, K].
          position: int32 [], of the token among the T.

        Returns:
          [B, W, D], the encoder-decoder attention [B, W, H, S], and `past` with this token's keys
          and values.
        """
        B, W = x.shape[:2]
        inner = self.add_norms[0].pre_norm(x)
        past = _append(past, self.self_attention.project(inner), position)
        mask = (jnp.arange(past.keys.shape[2]) <= position)[None, None, None]  # [1, 1, 1, T]
        # Each hypothesis has a past of its own: to self-attention it is a sentence of one query.
        queries = self.self_attention.queries(inner.reshape(B * W, 1, -1))  # [B W, 1, H, K]
        past_of_each = KeyValue(*(a.reshape(B * W, *a.shape[2:]) for a in past))
        y = self.self_attention(queries, past_of_each, mask)[0].reshape(x.shape)
        # The source is that of the sentence: to cross-attention W hypotheses are W queries.
        x, attention = self._cross_attend_and_feed_forward(
            self.add_norms[0].residual(x, y), source, src_mask
        )
        return x, attention.swapaxes(1, 2), past

    def _cross_attend_and_feed_forward(
        self, x: Array, source: KeyValue, src_mask: Array
    ) -> tuple[Array, Array]:
        """Encoder-decoder attention and feed-forward: [B, T, D], and the attention [B, H, T, S]."""
        _, around_attention, around_feed_forward = self.add_norms
        queries = self.cross_attention.queries(around_attention.pre_norm(x))
        y, attention = self.cross_attention(queries, source, src_mask)
        x = around_attention.residual(x, y)
        y = self.feed_forward(around_feed_forward.pre_norm(x))
        return around_feed_forward.residual(x, y), attention


def _append(past: KeyValue, new: KeyValue, position: Array) -> KeyValue:
    """past [B, W, T, H, K] with new [B, W, H, K] written at a position of T."""
    update = jax.lax.dynamic_update_slice_in_dim
    return KeyValue(
        update(past.keys, new.keys[:, :, None], position, axis=2),
        update(past.values, new.values[:, :, None], position, axis=2),
    )
