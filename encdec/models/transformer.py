"""The Transformer: N encoder and N decoder layers (Vaswani 2017).

Its settings have a choice for each thing in which models trained by others differ from the paper's,
so that this one module computes Marian, BART, M2M100 and T5 as well. Axes: see `encdec.types`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from encdec.config import TransformerConfig
from encdec.models import layer_stack
from encdec.models.interface import EncoderDecoder
from encdec.models.layers import Dropout, Embedding, Output, OutputBias, int8_params, rate
from encdec.models.transformer_attention import KeyValue, for_search
from encdec.models.transformer_layers import DecoderLayer, EncoderLayer, make_norm
from encdec.models.transformer_positions import PositionEncoding, RelativeBias
from encdec.ops.cross_entropy import LogitFactors
from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.types import Array, Kept, MapKind, Params


class TransformerMemory(NamedTuple):
    """What the decoder needs of the source.

    Attributes:
      source: for each decoder layer, keys [B, H, K, S] and values [B, H, S, K] of the encoder's
        output.
      mask: bool [B, S].
    """

    source: tuple[KeyValue, ...]
    mask: Array


class TransformerCache(NamedTuple):
    """What hypotheses carry. Their tokens are written into slots, P of them in each step.

    Attributes:
      past: for each decoder layer, keys [B, G, H, K, T P] and values [B, G, H, T P, K], the slots
        of a step side by side. Where each hypothesis has its own, G = W and P = 1. Where they share
        them it is `Kept`, G = 1 and P = W: a hypothesis reads the slots of those it continues.
      position: int32 [B, W], where the next token goes; the start token goes to 0.
      slots: int32 [B, W, T], the slot of each of a hypothesis's tokens among those of its step, -1
        where there is none yet; None where P = 1.
    """

    past: tuple[KeyValue, ...] | Kept
    position: Array
    slots: Array | None


_MOST_SHARED = 16
"""Hypotheses that share slots: each reads those of all, which is more work than copying its own
where they are many."""


class Transformer(EncoderDecoder):
    """Embeddings and positions, N encoder layers, N decoder layers, linear output.

    Matrices are Glorot uniform, biases zero, embeddings and learned positions normal with variance
    1/D; embeddings are scaled by sqrt(D) (section 3.4).

    Attributes:
      joint_vocabulary: both sides have one vocabulary.
      shards: the devices that heads, FFN hidden units and vocabulary are split over. Parameters,
        memory and cache are then this device's part; logits are whole, and the attention is that
        of this device's heads.
      remat: the backward pass computes each layer again instead of keeping its activations.
      scan: where all positions are computed at once, the layers of a stack are one loop of the
        program, which compiles faster.
    """

    config: TransformerConfig
    joint_vocabulary: bool = False
    shards: Axis | None = None
    remat: bool = False
    scan: bool = False

    def setup(self) -> None:
        """Declares all layers."""
        c = self.config
        self.tgt_embedding = Embedding(self.tgt_vocabulary, c.width, self.shards)
        if not self._shares_source:
            self.src_embedding = Embedding(self.src_vocabulary, c.width, self.shards)
        self.src_positions, self.tgt_positions = (PositionEncoding(c) for _ in range(2))
        if c.embedding_norm:
            self.embedding_norms = [make_norm(c) for _ in range(2)]
        self.embedding_dropout = Dropout(rate(c.embedding_dropout, c.dropout))
        encoder: Any = EncoderLayer
        decoder: Any = DecoderLayer
        if self.remat and not self.scan:
            encoder, decoder = nn.remat(encoder), nn.remat(decoder)
        self.encoder = [encoder(c, self.shards, self.precision) for _ in range(c.layers)]
        self.decoder = [decoder(c, self.shards, self.precision) for _ in range(c.layers_of_decoder)]
        if c.positions == "relative":
            tables = (c.layers, c.layers_of_decoder) if c.relative_every_layer else (1, 1)
            self.encoder_bias, self.decoder_bias = (
                [RelativeBias(c, is_encoder, self.shards) for _ in range(count)]
                for is_encoder, count in zip((True, False), tables, strict=True)
            )
        if c.norm == "pre":
            self.final_norms = [make_norm(c) for _ in range(2)]
        self.stack_dropout = Dropout(c.stack_dropout)
        if not c.tie_embeddings:
            self.logits: Any = Output(c.width, self.tgt_vocabulary, self.shards, c.has_output_bias)
        elif c.has_output_bias:
            self.logits = OutputBias(self.tgt_vocabulary, self.shards)

    @property
    def _shares_source(self) -> bool:
        """Whether both sides have one embedding."""
        is_shared = self.config.tie_embeddings or self.config.share_embeddings
        return is_shared and self.joint_vocabulary

    def __call__(self, src: Array, src_mask: Array, tgt_in: Array) -> Array:
        """As in `EncoderDecoder`; whole logits where the vocabulary is split."""
        return self._all_logits(self.logit_factors(src, src_mask, tgt_in))

    def logit_factors(self, src: Array, src_mask: Array, tgt_in: Array) -> LogitFactors:
        """As in `EncoderDecoder`: src int32 [B, S], src_mask bool [B, S], tgt_in int32 [B, T]."""
        source = self._source(src, src_mask)
        length = tgt_in.shape[1]
        x = self._embed(1, tgt_in, jnp.arange(length), length)  # [B, T, D]
        biases = self._relative("decoder", lambda table: table(length))
        x = self._stack(self.decoder, x, (source, src_mask[:, None, None]), biases)
        return self._factors(x)

    def encode(self, src: Array, src_mask: Array) -> TransformerMemory:
        """As in `EncoderDecoder`: src int32 [B, S], src_mask bool [B, S]."""
        x = self._source(src, src_mask)
        projected = [layer.cross_attention.project(x) for layer in self.decoder]
        return TransformerMemory(
            tuple(for_search(source, self.precision) for source in projected), src_mask
        )

    def _source(self, src: Array, src_mask: Array) -> Array:
        """The encoder's output [B, S, D], as the decoder's layers project it."""
        length = src.shape[1]
        x = self._embed(0, src, jnp.arange(length), length)
        biases = self._relative("encoder", lambda table: table(length))
        x = self._stack(self.encoder, x, (src_mask[:, None, None],), biases)
        return collectives.copy_to_model_parallel(self._end_of_stack(0, x), self.shards)

    def _stack(
        self,
        layers: Sequence[nn.Module],
        x: Array,
        shared: tuple[Any, ...],
        biases: Sequence[Array | None],
    ) -> Array:
        """All layers of the encoder or the decoder: x [B, T, D] and what else they are given."""
        is_kept = self.is_initializing() or self.is_mutable_collection("intermediates")
        if not self.scan or is_kept:
            return layer_stack.in_turn(layers, x, shared, biases)
        key = self.make_rng("dropout") if self.has_rng("dropout") else None
        return layer_stack.scanned(layers, x, shared, biases, key, remat=self.remat)

    def pad_memory(self, memory: TransformerMemory, length: int) -> TransformerMemory:
        """As in `EncoderDecoder`: zeros that the mask hides."""
        more = length - memory.mask.shape[1]
        nothing = (0, 0)

        def pad(x: Array, axis: int) -> Array:
            return jnp.pad(x, [(0, more) if at == axis else nothing for at in range(x.ndim)])

        source = (KeyValue(pad(keys, 3), pad(values, 2)) for keys, values in memory.source)
        return TransformerMemory(tuple(source), pad(memory.mask, 1))

    def init_cache(self, memory: TransformerMemory, beams: int, max_len: int) -> TransformerCache:
        """As in `EncoderDecoder`: room for max_len tokens of each hypothesis."""
        batch = memory.mask.shape[0]
        past = self._no_past(memory, beams, max_len)
        return TransformerCache(past, jnp.zeros((batch, beams), jnp.int32), None)

    def init_beam_cache(
        self, memory: TransformerMemory, beams: int, max_len: int
    ) -> TransformerCache:
        """As in `EncoderDecoder`: hypotheses share their slots unless they are very many."""
        if not 1 < beams <= _MOST_SHARED:
            return self.init_cache(memory, beams, max_len)
        batch = memory.mask.shape[0]
        return TransformerCache(
            Kept(self._no_past(memory, 1, max_len * beams)),
            jnp.zeros((batch, beams), jnp.int32),
            jnp.full((batch, beams, max_len), -1, jnp.int32),
        )

    def _no_past(self, memory: TransformerMemory, groups: int, slots: int) -> tuple[KeyValue, ...]:
        """Keys [B, G, H, K, slots] and values [B, G, H, slots, K], all zero, for each layer."""
        batch, heads, width, _ = memory.source[0].keys.shape
        keys = jnp.zeros((batch, groups, heads, width, slots), memory.source[0].keys.dtype)
        return tuple(KeyValue(keys, keys.swapaxes(3, 4)) for _ in self.decoder)

    def decode_step(
        self, memory: TransformerMemory, cache: TransformerCache, tokens: Array
    ) -> tuple[Array, Array, TransformerCache]:
        """As in `EncoderDecoder`; whole logits where the vocabulary is split."""
        factors, attention, cache = self.decode_factors(memory, cache, tokens)
        return self._all_logits(factors), attention, cache

    def decode_factors(
        self, memory: TransformerMemory, cache: TransformerCache, tokens: Array
    ) -> tuple[LogitFactors, Array, TransformerCache]:
        """As in `EncoderDecoder`: tokens int32 [B, W]; M = L H maps."""
        pasts = cache.past.tree if isinstance(cache.past, Kept) else cache.past
        position = cache.position[0, 0]  # all hypotheses have equally many tokens
        slots = cache.slots
        max_len = pasts[0].keys.shape[4] if slots is None else slots.shape[2]
        per_step = pasts[0].keys.shape[4] // max_len  # more than W where only some are computed
        if slots is None:
            mask = (jnp.arange(max_len) <= position)[None, None, None, None]  # [1, 1, 1, 1, T]
        else:
            own = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
            slots = slots.at[:, :, position].set(own)
            is_own = slots[..., None] == jnp.arange(per_step)  # [B, W, T, P]
            mask = is_own.reshape(tokens.shape[0], 1, 1, tokens.shape[1], -1)
        x = self._embed(1, tokens, position, max_len)
        biases = self._relative("decoder", lambda table: table.of_query(position, max_len))
        maps, past = [], []
        for layer, source, old, bias in zip(
            self.decoder, memory.source, pasts, biases, strict=True
        ):
            if bias is not None:  # [1, H, 1, T]
                bias = jnp.repeat(bias, per_step, -1)[:, None]
            src_mask = memory.mask[:, None, None]
            first_slot = position * per_step
            x, attention, new = layer.step(x, source, src_mask, old, mask, first_slot, bias)
            maps.append(attention)  # [B, W, H, S]
            past.append(new)
        kept = Kept(tuple(past)) if isinstance(cache.past, Kept) else tuple(past)
        cache = TransformerCache(kept, cache.position + 1, slots)
        return self._factors(x), jnp.concatenate(maps, 2), cache

    def int8_params(self, params: Params) -> Params:
        """As in `EncoderDecoder`: matrices of all layers, and that of the output."""
        result: dict[str, Any] = {
            name: _int8_layer(tree) if name.startswith(("encoder_", "decoder_")) else tree
            for name, tree in params.items()
        }
        if self.config.tie_embeddings:
            table = params["tgt_embedding"]["embedding"]
            result["tgt_embedding"] = {"embedding": table} | int8_params("embedding", table)
        else:
            output = dict(params["logits"])
            kernel = output.pop("kernel")
            result["logits"] = output | int8_params("kernel", kernel.T)
        return result

    def self_attention_maps(self, intermediates: Any) -> dict[MapKind, Array]:
        """As in `EncoderDecoder`: float32 [B, L, H, S, S] and [B, L, H, T, T]."""

        c = self.config

        def stacked(side: str, count: int, sublayer: str) -> Array:
            layers = [intermediates[f"{side}_{i}"][sublayer] for i in range(count)]
            return jnp.stack([layer["attention"][0] for layer in layers], 1)

        return {
            "encoder": stacked("encoder", c.layers, "attention"),
            "decoder": stacked("decoder", c.layers_of_decoder, "self_attention"),
        }

    def _embed(self, stack: int, tokens: Array, positions: Array, length: int) -> Array:
        """sqrt(D) E[token] + PE[position] (sections 3.4 and 3.5): int32 [B, T] -> [B, T, D].

        Args:
          stack: 0 for the encoder, 1 for the decoder.
          tokens: int32 [B, T].
          positions: int32, broadcastable to tokens; below `length`.
          length: static; how many positions there are.
        """
        c = self.config
        is_target = stack == 1 or self._shares_source
        x = (self.tgt_embedding if is_target else self.src_embedding)(tokens)
        if c.scale_embeddings:
            x = x * c.width**0.5
        x = (self.src_positions, self.tgt_positions)[stack](x, positions, length)
        if c.embedding_norm:
            x = self.embedding_norms[stack](x)
        return self.embedding_dropout(x)

    def _relative(
        self, side: str, bias_of: Callable[[RelativeBias], Array]
    ) -> Sequence[Array | None]:
        """The bias of the scores in each layer of a stack; a table may serve all layers."""
        layers = self.encoder if side == "encoder" else self.decoder
        if self.config.positions != "relative":
            return [None] * len(layers)
        tables = self.encoder_bias if side == "encoder" else self.decoder_bias
        biases = [bias_of(table) for table in tables]
        return biases if len(biases) == len(layers) else biases * len(layers)

    def _end_of_stack(self, stack: int, x: Array) -> Array:
        """What a stack returns: x [B, T, D] of its last layer, normed where that was pre-norm."""
        if self.config.norm == "pre":
            x = self.final_norms[stack](x)
        return self.stack_dropout(x)

    def _factors(self, x: Array) -> LogitFactors:
        """The output layer, its product left undone: x [B, T, D]."""
        c = self.config
        x = self._end_of_stack(1, x)
        if c.scale_outputs:
            x = x * c.width**-0.5
        if c.tie_embeddings:
            bias = self.logits.bias if c.has_output_bias else None
            embedding = self.tgt_embedding
            kernel = embedding.embedding.T if embedding.int8 is None else embedding.int8
            return LogitFactors(x, kernel, bias)
        return LogitFactors(x, self.logits.kernel, self.logits.bias)

    def _all_logits(self, factors: LogitFactors) -> Array:
        """Logits of the whole vocabulary from those of each device: [B, T, V]."""
        logits = collectives.all_gather(factors.logits(self.precision), self.shards, along=-1)
        return logits[..., : self.tgt_vocabulary]


def _int8_layer(layer: Params) -> Params:
    """The parameters of a layer, with `Int8` for its kernels [inputs, outputs], W^Q, W^K and W^V
    [D, H, K], and W^O [H, K, D]."""
    result: dict[str, Any] = {}
    for name, leaf in layer.items():
        if isinstance(leaf, dict):
            result[name] = _int8_layer(leaf)
        elif name in ("kernel", "wq", "wk", "wv"):
            result |= int8_params(name, leaf.reshape(len(leaf), -1).T)
        elif name == "wo":
            result |= int8_params(name, leaf.reshape(-1, leaf.shape[-1]).T)
        else:
            result[name] = leaf
    return result
