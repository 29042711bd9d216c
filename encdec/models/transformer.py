"""The Transformer: N encoder and N decoder layers (Vaswani 2017).

Axes: see `encdec.types`. The layers are in `encdec.models.transformer_layers`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from encdec.config import TransformerConfig
from encdec.models.interface import EncoderDecoder
from encdec.models.layers import Dropout, Embedding, Output, rate
from encdec.models.transformer_layers import DecoderLayer, EncoderLayer, KeyValue, embed
from encdec.ops.cross_entropy import LogitFactors
from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.types import Array, MapKind


class TransformerMemory(NamedTuple):
    """What the decoder needs of the source.

    Attributes:
      source: for each decoder layer, keys and values [B, S, H, K] of the encoder's output.
      mask: bool [B, S].
    """

    source: tuple[KeyValue, ...]
    mask: Array


class TransformerCache(NamedTuple):
    """What a hypothesis carries.

    Attributes:
      past: for each decoder layer, keys and values [B, W, T, H, K] of the tokens so far.
      position: int32 [B, W], where the next token goes; the start token goes to 0.
    """

    past: tuple[KeyValue, ...]
    position: Array


class Transformer(EncoderDecoder):
    """Embeddings and positions, N encoder layers, N decoder layers, linear output.

    Matrices are Glorot uniform, biases zero, embeddings normal with variance 1/D, scaled by
    sqrt(D) (section 3.4). Pre-norm has one more norm at the end of each stack.

    Attributes:
      joint_vocabulary: both sides have one vocabulary.
      shards: the devices that heads, FFN hidden units and vocabulary are split over. Parameters,
        memory and cache are then this device's part; logits are whole, and the attention is that
        of this device's heads.
      remat: the backward pass computes each layer again instead of keeping its activations.
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
        """Whether both sides have one embedding."""
        return self.config.tie_embeddings and self.joint_vocabulary

    def __call__(self, src: Array, src_mask: Array, tgt_in: Array) -> Array:
        """As in `EncoderDecoder`; whole logits where the vocabulary is split."""
        return self._all_logits(self.logit_factors(src, src_mask, tgt_in))

    def logit_factors(self, src: Array, src_mask: Array, tgt_in: Array) -> LogitFactors:
        """As in `EncoderDecoder`: src int32 [B, S], src_mask bool [B, S], tgt_in int32 [B, T]."""
        memory = self.encode(src, src_mask)
        x = self._embed(self.tgt_embedding, tgt_in)  # [B, T, D]
        for layer, source in zip(self.decoder, memory.source, strict=True):
            x = layer(x, source, src_mask[:, None, None])
        return self._factors(x)

    def encode(self, src: Array, src_mask: Array) -> TransformerMemory:
        """As in `EncoderDecoder`: src int32 [B, S], src_mask bool [B, S]."""
        x = self._embed(self.tgt_embedding if self._shares_source else self.src_embedding, src)
        for layer in self.encoder:
            x = layer(x, src_mask[:, None, None])  # [B, S, D]
        if self.config.norm == "pre":
            x = self.final_norms[0](x)
        x = collectives.copy_to_model_parallel(x, self.shards)
        source = tuple(layer.cross_attention.project(x) for layer in self.decoder)
        return TransformerMemory(source, src_mask)

    def init_cache(self, memory: TransformerMemory, beams: int, max_len: int) -> TransformerCache:
        """As in `EncoderDecoder`: room for max_len tokens of each hypothesis."""
        batch, _, heads, width = memory.source[0].keys.shape
        empty = jnp.zeros((batch, beams, max_len, heads, width), memory.source[0].keys.dtype)
        past = tuple(KeyValue(empty, empty) for _ in self.decoder)
        return TransformerCache(past, jnp.zeros((batch, beams), jnp.int32))

    def decode_step(
        self, memory: TransformerMemory, cache: TransformerCache, tokens: Array
    ) -> tuple[Array, Array, TransformerCache]:
        """As in `EncoderDecoder`: tokens int32 [B, W]; M = L H maps."""
        max_len = cache.past[0].keys.shape[2]
        position = cache.position[0, 0]  # all hypotheses have equally many tokens
        x = self.embedding_dropout(
            embed(self.config, self.tgt_embedding, tokens, position, max_len)
        )
        maps, past = [], []
        for layer, source, old in zip(self.decoder, memory.source, cache.past, strict=True):
            x, attention, new = layer.step(x, source, memory.mask[:, None, None], old, position)
            maps.append(attention)  # [B, W, H, S]
            past.append(new)
        cache = TransformerCache(tuple(past), cache.position + 1)
        return self._all_logits(self._factors(x)), jnp.concatenate(maps, 2), cache

    def self_attention_maps(self, intermediates: Any) -> dict[MapKind, Array]:
        """As in `EncoderDecoder`: float32 [B, L, H, S, S] and [B, L, H, T, T]."""

        def stacked(side: str, sublayer: str) -> Array:
            layers = [intermediates[f"{side}_{i}"][sublayer] for i in range(self.config.layers)]
            return jnp.stack([layer["attention"][0] for layer in layers], 1)

        return {
            "encoder": stacked("encoder", "attention"),
            "decoder": stacked("decoder", "self_attention"),
        }

    def _embed(self, table: Embedding, tokens: Array) -> Array:
        """Embeddings and positions of whole sentences: int32 [B, T] -> [B, T, D]."""
        length = tokens.shape[1]
        x = embed(self.config, table, tokens, jnp.arange(length), length)
        return self.embedding_dropout(x)

    def _factors(self, x: Array) -> LogitFactors:
        """The output layer, its product left undone: x [B, T, D]."""
        if self.config.norm == "pre":
            x = self.final_norms[1](x)
        if self.config.tie_embeddings:
            return LogitFactors(x, self.tgt_embedding.embedding.T, None)
        return LogitFactors(x, self.logits.kernel, self.logits.bias)

    def _all_logits(self, factors: LogitFactors) -> Array:
        """Logits of the whole vocabulary from those of each device: [B, T, V]."""
        logits = collectives.all_gather(factors.logits(), self.shards, along=-1)
        return logits[..., : self.tgt_vocabulary]
