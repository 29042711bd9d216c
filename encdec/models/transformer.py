"""The Transformer: N encoder and N decoder layers (Vaswani 2017).

Letters: see `encdec.types`. Every sub-layer stands in a residual sum with a layer norm: after
the sum as in the paper, LayerNorm(x + Dropout(Sublayer(x))), or before the sub-layer,
x + Dropout(Sublayer(LayerNorm(x))), with one more norm at the end of each stack.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from encdec.config import TransformerConfig
from encdec.models.interface import EncoderDecoder
from encdec.models.layers import (
    COLUMNS,
    HEADS,
    Dense,
    Dropout,
    Embedding,
    Output,
    glorot,
    rate,
    split_init,
    zeros,
)
from encdec.ops import masks
from encdec.ops.attention import dot_product_attention_weights
from encdec.ops.cross_entropy import LogitFactors
from encdec.ops.positions import sinusoidal
from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.types import Array, MapKind

ACTIVATIONS = {"relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu}


class KeyValue(NamedTuple):
    """keys, values: each [B, S, H, K], or [B, W, T, H, K] in a hypothesis's cache."""

    keys: Array
    values: Array


class TransformerMemory(NamedTuple):
    """source: for each decoder layer, keys and values projected from the encoder. mask: [B, S]."""

    source: tuple[KeyValue, ...]
    mask: Array


class TransformerCache(NamedTuple):
    """past: for each layer, keys and values of the tokens so far. position: int32 [B, W]."""

    past: tuple[KeyValue, ...]
    position: Array


class Attention(nn.Module):
    """Multi-head attention (Vaswani 2017, section 3.2.2): no biases, Glorot uniform.

    Each device has some of the heads; H counts those.
    """

    config: TransformerConfig
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares W^Q, W^K and W^V as [D, H, K] and W^O as [H, K, D]."""
        c = self.config
        split = (c.width, collectives.shard_size(c.heads, self.shards), c.width // c.heads)
        uniform = partial(nn.initializers.variance_scaling, 1, "fan_avg", "uniform")
        flat = split_init(uniform(in_axis=0, out_axis=(1, 2)), None, HEADS, None)
        joined = split_init(uniform(in_axis=(0, 1), out_axis=2), HEADS, None, None)
        self.wq, self.wk, self.wv = (self.param(n, flat, split) for n in ("wq", "wk", "wv"))
        self.wo = self.param("wo", joined, (*split[1:], c.width))
        self.dropout = Dropout(c.attention_dropout, self.shards)

    def queries(self, x: Array) -> Array:
        """[B, T, D] -> [B, T, H, K]."""
        return jnp.einsum("btd,dhk->bthk", x, self.wq)

    def project(self, x: Array) -> KeyValue:
        """Keys and values of [B, S, D]."""
        keys = jnp.einsum("bsd,dhk->bshk", x, self.wk)
        return KeyValue(keys, jnp.einsum("bsd,dhk->bshk", x, self.wv))

    def __call__(self, queries: Array, past: KeyValue, mask: Array) -> tuple[Array, Array]:
        """softmax(Q K^T / sqrt(K)) V, heads joined by W^O.

        Args:
          queries: [B, T, H, K].
          past: keys and values [B, S, H, K].
          mask: bool, broadcastable to [B, H, T, S].

        Returns:
          [B, T, D] and the weights [B, H, T, S].
        """
        weights = dot_product_attention_weights(queries, past.keys, mask)
        self.sow("intermediates", "attention", weights)  # kept by those alone who ask for them
        kept = self.dropout(weights.astype(past.values.dtype))
        heads = jnp.einsum("bhts,bshk->bthk", kept, past.values)
        parts = jnp.einsum("bthk,hkd->btd", heads, self.wo)
        return collectives.reduce_from_model_parallel(parts, self.shards), weights


class FeedForward(nn.Module):
    """max(0, x W_1 + b_1) W_2 + b_2 (Vaswani 2017, equation 2), or another activation.

    Each device has some of the inner columns.
    """

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
        inner = ACTIVATIONS[c.activation](first(x))
        inner = Dropout(c.activation_dropout, self.shards)(inner)
        return _Joining(c.width, self.shards, name="Dense_1")(inner)


class _Joining(nn.Module):
    """x W + b where each device has some rows of W, and all have b."""

    width: int
    shards: Axis | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", split_init(glorot, COLUMNS, None), (x.shape[-1], self.width))
        bias = self.param("bias", zeros, (self.width,))
        return collectives.reduce_from_model_parallel(x @ kernel, self.shards) + bias


class AddNorm(nn.Module):
    """The residual sum and layer norm (Ba 2016) around a sub-layer y:

    post-norm x -> LayerNorm(x + Dropout(y(x))), pre-norm x -> x + Dropout(y(LayerNorm(x))).
    """

    config: TransformerConfig
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares the norm."""
        self.norm = nn.LayerNorm(epsilon=1e-6)
        self.dropout = Dropout(self.config.dropout)

    def pre_norm(self, x: Array) -> Array:
        """What the sub-layer sees of x [..., D]."""
        return collectives.copy_to_model_parallel(
            self.norm(x) if self.config.norm == "pre" else x, self.shards
        )

    def residual(self, x: Array, y: Array) -> Array:
        """x and the sub-layer's output y, each [..., D], joined."""
        joined = x + self.dropout(y)
        return joined if self.config.norm == "pre" else self.norm(joined)


class EncoderLayer(nn.Module):
    """Self-attention, feed-forward."""

    config: TransformerConfig
    shards: Axis | None = None

    def setup(self) -> None:
        """Declares both sub-layers."""
        own = (self.config, self.shards)
        self.attention = Attention(*own)
        self.feed_forward = FeedForward(*own)
        self.add_norms = [AddNorm(*own) for _ in range(2)]

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
        own = (self.config, self.shards)
        self.self_attention = Attention(*own)
        self.cross_attention = Attention(*own)
        self.feed_forward = FeedForward(*own)
        self.add_norms = [AddNorm(*own) for _ in range(3)]

    def __call__(self, x: Array, source: KeyValue, src_mask: Array) -> Array:
        """All target positions: x [B, T, D], src_mask bool [B, 1, 1, S] -> [B, T, D]."""
        inner = self.add_norms[0].pre_norm(x)
        queries, past = self.self_attention.queries(inner), self.self_attention.project(inner)
        seen = masks.causal(x.shape[1])[None, None]
        x = self.add_norms[0].residual(x, self.self_attention(queries, past, seen)[0])
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
          position: int32 [], where the token stands.

        Returns:
          [B, W, D], the source weights [B, W, H, S], and past with this token's.
        """
        batch, beams = x.shape[:2]
        inner = self.add_norms[0].pre_norm(x)
        past = _put(past, self.self_attention.project(inner), position)
        seen = (jnp.arange(past.keys.shape[2]) <= position)[None, None, None]  # [1, 1, 1, T]
        # Each hypothesis has a past of its own, so here it stands as a sentence of one token.
        queries = self.self_attention.queries(inner.reshape(batch * beams, 1, -1))
        alone = KeyValue(*(a.reshape(batch * beams, *a.shape[2:]) for a in past))
        y = self.self_attention(queries, alone, seen)[0].reshape(x.shape)
        x, weights = self._cross_attend_and_feed_forward(
            self.add_norms[0].residual(x, y), source, src_mask
        )
        return x, weights.swapaxes(1, 2), past

    def _cross_attend_and_feed_forward(
        self, x: Array, source: KeyValue, src_mask: Array
    ) -> tuple[Array, Array]:
        """Encoder-decoder attention and feed-forward: [B, T, D], and the weights [B, H, T, S]."""
        _, around_attention, around_feed_forward = self.add_norms
        queries = self.cross_attention.queries(around_attention.pre_norm(x))
        y, weights = self.cross_attention(queries, source, src_mask)
        x = around_attention.residual(x, y)
        y = self.feed_forward(around_feed_forward.pre_norm(x))
        return around_feed_forward.residual(x, y), weights


def _put(past: KeyValue, now: KeyValue, position: Array) -> KeyValue:
    """past [B, W, T, H, K] with now [B, W, H, K] at a position."""
    update = jax.lax.dynamic_update_slice_in_dim
    return KeyValue(
        update(past.keys, now.keys[:, :, None], position, axis=2),
        update(past.values, now.values[:, :, None], position, axis=2),
    )


class Transformer(EncoderDecoder):
    """Embeddings and positions, N encoder layers, N decoder layers, linear output.

    Matrices are Glorot uniform, biases zero, embeddings normal with variance 1/D, scaled by
    sqrt(D) where they enter (section 3.4).

    Attributes:
      config: sizes and choices.
      src_vocabulary, tgt_vocabulary: sizes, in tokens.
      joint_vocabulary: both sides have one vocabulary.
      shards: devices that heads, inner columns and the vocabulary are split over. Parameters,
        memory and cache are then this device's; logits are whole, weights those of its heads.
      remat: the backward pass computes each layer again instead of keeping what was inside.
    """

    config: TransformerConfig
    joint_vocabulary: bool = False
    shards: Axis | None = None
    remat: bool = False

    def setup(self) -> None:
        """Declares all layers."""
        c = self.config
        self.tgt_embedding = Embedding(self.tgt_vocabulary, c.width, self.shards)
        if not self._shares_source:
            self.src_embedding = Embedding(self.src_vocabulary, c.width, self.shards)
        layers: list[Any] = [EncoderLayer, DecoderLayer]
        encoder, decoder = map(nn.remat, layers) if self.remat else layers
        self.encoder = [encoder(c, self.shards) for _ in range(c.layers)]
        self.decoder = [decoder(c, self.shards) for _ in range(c.layers)]
        if c.norm == "pre":
            self.final_norms = [nn.LayerNorm(epsilon=1e-6) for _ in range(2)]
        if not c.tie_embeddings:
            self.logits = Output(c.width, self.tgt_vocabulary, self.shards)
        self.embedding_dropout = Dropout(rate(c.embedding_dropout, c.dropout))

    @property
    def _shares_source(self) -> bool:
        return self.config.tie_embeddings and self.joint_vocabulary

    def __call__(self, src: Array, src_mask: Array, tgt_in: Array) -> Array:
        """Teacher forcing: src [B, S], src_mask [B, S], tgt_in [B, T] -> logits [B, T, V]."""
        return self._whole(self.logit_factors(src, src_mask, tgt_in))

    def logit_factors(self, src: Array, src_mask: Array, tgt_in: Array) -> LogitFactors:
        """As `__call__`, without the last product."""
        memory = self.encode(src, src_mask)
        positions = jnp.arange(tgt_in.shape[1])
        x = self._embed(self.tgt_embedding, tgt_in, positions, tgt_in.shape[1])
        for layer, source in zip(self.decoder, memory.source, strict=True):
            x = layer(x, source, src_mask[:, None, None])
        return self._factors(x)

    def encode(self, src: Array, src_mask: Array) -> TransformerMemory:
        """Reads the source: src int32 [B, S], src_mask bool [B, S]."""
        table = self.tgt_embedding if self._shares_source else self.src_embedding
        x = self._embed(table, src, jnp.arange(src.shape[1]), src.shape[1])
        for layer in self.encoder:
            x = layer(x, src_mask[:, None, None])
        if self.config.norm == "pre":
            x = self.final_norms[0](x)
        x = collectives.copy_to_model_parallel(x, self.shards)
        source = tuple(layer.cross_attention.project(x) for layer in self.decoder)
        return TransformerMemory(source, src_mask)

    def init_cache(self, memory: TransformerMemory, beams: int, max_len: int) -> TransformerCache:
        """Room for max_len tokens of each of W hypotheses."""
        batch, _, heads, width = memory.source[0].keys.shape
        empty = jnp.zeros((batch, beams, max_len, heads, width), memory.source[0].keys.dtype)
        past = tuple(KeyValue(empty, empty) for _ in self.decoder)
        return TransformerCache(past, jnp.zeros((batch, beams), jnp.int32))

    def decode_step(
        self, memory: TransformerMemory, cache: TransformerCache, tokens: Array
    ) -> tuple[Array, Array, TransformerCache]:
        """tokens [B, W] -> (logits [B, W, V], weights [B, W, L * H, S], cache)."""
        max_len = cache.past[0].keys.shape[2]
        position = cache.position[0, 0]  # all hypotheses are equally long
        x = self._embed(self.tgt_embedding, tokens, position, max_len)
        maps, past = [], []
        for layer, source, old in zip(self.decoder, memory.source, cache.past, strict=True):
            x, weights, new = layer.step(x, source, memory.mask[:, None, None], old, position)
            maps.append(weights)
            past.append(new)
        cache = TransformerCache(tuple(past), cache.position + 1)
        return self._whole(self._factors(x)), jnp.concatenate(maps, 2), cache

    def self_attention_maps(self, intermediates: Any) -> dict[MapKind, Array]:
        """Maps [B, L, H, S, S] and [B, L, H, T, T] from what the attention layers sowed."""

        def stacked(side: str, sublayer: str) -> Array:
            layers = [intermediates[f"{side}_{i}"][sublayer] for i in range(self.config.layers)]
            return jnp.stack([layer["attention"][0] for layer in layers], 1)

        return {
            "encoder": stacked("encoder", "attention"),
            "decoder": stacked("decoder", "self_attention"),
        }

    def _whole(self, factors: LogitFactors) -> Array:
        """The logits of the whole vocabulary from each device's: [B, T, V]."""
        logits = collectives.all_gather(factors.logits(), self.shards, along=-1)
        return logits[..., : self.tgt_vocabulary]

    def _embed(self, table: Embedding, tokens: Array, positions: Array, length: int) -> Array:
        """Dropout(sqrt(D) E[token] + PE[position]): [B, T] -> [B, T, D]."""
        width = self.config.width
        encodings = jnp.asarray(sinusoidal(length, width))[positions]
        embedded = table(tokens)
        return self.embedding_dropout(embedded * width**0.5 + encodings.astype(embedded.dtype))

    def _factors(self, x: Array) -> LogitFactors:
        """x [B, T, D]."""
        if self.config.norm == "pre":
            x = self.final_norms[1](x)
        if self.config.tie_embeddings:
            return LogitFactors(x, self.tgt_embedding.embedding.T, None)
        return LogitFactors(x, self.logits.kernel, self.logits.bias)
