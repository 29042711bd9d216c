"""A bidirectional encoder, and a decoder that looks back at it (Bahdanau 2015, Luong 2015).

Letters: see `encdec.types`. Inside, time leads: [T, B, ...]. The steps stand in
`encdec.ops.rnn_attention`: one function serves training (one hypothesis, scanned) and decoding (W).
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from encdec.config import AttentionConfig
from encdec.models.interface import EncoderDecoder
from encdec.models.layers import (
    Dense,
    Dropout,
    Embedding,
    Output,
    Recurrent,
    glorot,
    rate,
    spread,
    zero_state,
)
from encdec.ops import recurrence
from encdec.ops.cross_entropy import LogitFactors
from encdec.ops.recurrence import CELLS, Weights, output
from encdec.ops.rnn_attention import STEPS, Constants, InputFeedingCarry, Source
from encdec.types import Array


class RNNAttentionMemory(NamedTuple):
    """source: the keys. values [B, S, 2 hidden]: states to be summed. starts: [B, hidden] each."""

    source: Source
    values: Array
    starts: tuple[Any, ...]


class RNNAttention(EncoderDecoder):
    """Encoder and decoder with attention; `config.attention_type` says whose."""

    config: AttentionConfig

    def setup(self) -> None:
        """Declares the parameters; v begins at zero (Bahdanau 2015, appendix B.1)."""
        c = self.config
        self.src_embedding = Embedding(self.src_vocabulary, c.embed)
        self.tgt_embedding = Embedding(self.tgt_vocabulary, c.embed)
        self.dropout = Dropout(c.dropout)
        self.embedding_dropout = Dropout(rate(c.embedding_dropout, c.dropout))
        self.memory_dropout = Dropout(rate(c.memory_dropout, c.dropout))
        self.output_dropout = Dropout(rate(c.output_dropout, c.dropout))
        # A plain dot product needs joined states as wide as the decoder's.
        self._declare_networks(side=c.hidden // 2 if c.score == "dot" else c.hidden)
        if c.score != "dot":
            self.keys = Dense(c.hidden, use_bias=c.score == "additive")
        if c.score == "additive":
            self.query = self.param("query", glorot, (c.hidden, c.hidden))
            self.v = self.param("v", nn.initializers.zeros, (c.hidden,))
        if c.tie_embeddings:
            self.bias = self.param("bias", nn.initializers.zeros, (self.tgt_vocabulary,))
        else:
            width = c.hidden if c.attention_type == "luong" else c.embed
            self.logits = Output(width, self.tgt_vocabulary)

    def _declare_networks(self, side: int) -> None:
        """Encoder, decoder and what joins them; `side` is the width of one direction."""
        c = self.config
        layer = partial(Recurrent, c.cell, recurrent_dropout=c.recurrent_dropout)
        widths = [c.embed] + [2 * side] * (c.layers - 1)
        self.forwards = [layer(n, side) for n in widths]
        self.backwards = [layer(n, side, reverse=True) for n in widths]
        self.bridges = [Dense(c.hidden) for _ in range(c.layers)]
        self.decoder = [layer(n, c.hidden) for n in [c.embed] + [c.hidden] * (c.layers - 1)]
        gates = CELLS[c.cell].gates * c.hidden
        if c.attention_type == "conditional":
            self.second = layer(2 * side, c.hidden)
        elif c.attention_type == "bahdanau":
            self.context = self.param("context", glorot, (2 * side, gates))
        if c.attention_type == "luong":
            self.feed = self.param("feed", glorot, (c.hidden, gates))
            self.combine_context = self.param("combine_context", glorot, (2 * side, c.hidden))
            self.combine_state = self.param("combine_state", glorot, (c.hidden, c.hidden))
        else:
            self.readout = [Dense(c.embed), *(Dense(c.embed, use_bias=False) for _ in range(2))]

    def logit_factors(self, src: Array, src_mask: Array, tgt_in: Array) -> LogitFactors:
        """As `__call__`, without the last product."""
        memory = self.encode(src, src_mask)
        embedded = self.embedding_dropout(self.tgt_embedding(tgt_in.T))  # [T, B, D]
        x = self.decoder[0].project(embedded)[:, :, None]  # [T, B, 1, G]
        h, context = (self._fed if self.config.attention_type == "luong" else self._free)(memory, x)
        return self._factors(self._read_out(h, context, embedded).swapaxes(0, 1))

    def _fed(self, memory: RNNAttentionMemory, x: Array) -> tuple[Array, Array | None]:
        """Luong's decoder: every layer waits for the attentional vector; x [T, B, 1, G]."""
        ones = jnp.ones((*x.shape[:3], self.config.hidden), x.dtype)
        masks = tuple(self.dropout(ones) for _ in self.decoder[1:])
        vectors, _ = self._scan(memory, self.init_cache(memory, 1, 0), (x, masks))
        return vectors[:, :, 0], None

    def _free(self, memory: RNNAttentionMemory, x: Array) -> tuple[Array, Array | None]:
        """The other decoders: only the bottom layer sees the source; x [T, B, 1, G]."""
        h, context, _ = self._scan(memory, spread(memory.starts[0], 1), x)
        h = h[:, :, 0]  # [T, B, hidden]
        everywhere = jnp.ones(h.shape[:2], bool)
        for network, carry in zip(self.decoder[1:], memory.starts[1:], strict=True):
            h = network(network.project(self.dropout(h)), everywhere, carry)[1]
        return h, context[:, :, 0]

    def _scan(self, memory: RNNAttentionMemory, start: Any, xs: Any) -> Any:
        """What the step shows at each time step, leading axis T."""
        weights = self._weights(memory)
        consts = self._constants(memory.source, memory.values.shape[0], 1)
        step = STEPS[self.config.attention_type][self.config.cell]
        return recurrence.scan(step, False, weights, consts, start, xs)[1]

    def encode(self, src: Array, src_mask: Array) -> RNNAttentionMemory:
        """Reads the source in both directions: src int32 [B, S], src_mask bool [B, S]."""
        c = self.config
        mask = src_mask.T
        x = self.embedding_dropout(self.src_embedding(src.T))  # [S, B, D]
        starts: list[Any] = []
        for ahead, back, bridge in zip(self.forwards, self.backwards, self.bridges, strict=True):
            x = self.dropout(x) if starts else x
            zero = zero_state(c.cell, x, ahead.hidden)
            last, right = ahead(ahead.project(x), mask, zero)
            first, left = back(back.project(x), mask, zero)
            x = jnp.concatenate([right, left], -1)  # [S, B, 2 hidden]
            ends = jnp.concatenate([output(last), output(first)], -1)
            starts.append(recurrence.initial(c.cell, jnp.tanh(bridge(ends))))
        values = self.memory_dropout(x).swapaxes(0, 1)
        keys = values if c.score == "dot" else self.keys(values)
        v = self.v if c.score == "additive" else None
        return RNNAttentionMemory(Source(keys, v, src_mask), values, tuple(starts))

    def init_cache(self, memory: RNNAttentionMemory, beams: int, max_len: int) -> Any:
        """The state of W hypotheses before their first token; no array grows with max_len.

        For order luong a `InputFeedingCarry`, else a tuple of each layer's state.
        """
        del max_len
        carries = spread(memory.starts, beams)
        if self.config.attention_type != "luong":
            return carries
        shape = (memory.values.shape[0], beams, self.config.hidden)
        return InputFeedingCarry(carries, jnp.zeros(shape, memory.values.dtype))

    def decode_step(
        self, memory: RNNAttentionMemory, cache: Any, tokens: Array
    ) -> tuple[Array, Array, Any]:
        """tokens [B, W] -> (logits [B, W, V], weights [B, W, 1, S], cache)."""
        matrices = self._weights(memory)
        embedded = self.tgt_embedding(tokens)
        x = self.decoder[0].project(embedded)
        step = STEPS[self.config.attention_type][self.config.cell]
        consts = self._constants(memory.source, *tokens.shape)

        def matmul(name: str, u: Array) -> Array:
            return u @ matrices[name]

        if self.config.attention_type == "luong":
            ones = tuple(jnp.ones((), x.dtype) for _ in self.decoder[1:])
            cache, (h, weights) = step(matmul, consts, cache, (x, ones))
            context = None
        else:
            bottom, (h, context, weights) = step(matmul, consts, cache[0], x)
            carries = [bottom]
            for network, carry in zip(self.decoder[1:], cache[1:], strict=True):
                carry, h = network.step(network.project(h), carry)
                carries.append(carry)
            cache = tuple(carries)
        logits = self._factors(self._read_out(h, context, embedded)).logits()
        return logits, weights[:, :, None], cache

    def _read_out(self, h: Array, context: Array | None, embedded: Array) -> Array:
        """tanh(U_o h_t + V_o y(t-1) + C_o c_t) (Bahdanau 2015, appendix A.2.2, with tanh in place
        of maxout); Luong's vector has seen all three."""
        if context is None:
            return h
        of_h, of_token, of_context = self.readout
        return jnp.tanh(of_h(h) + of_token(embedded) + of_context(context))

    def _factors(self, x: Array) -> LogitFactors:
        """logits = W_o x + b."""
        x = self.output_dropout(x)
        if self.config.tie_embeddings:
            return LogitFactors(x, self.tgt_embedding.embedding.T, self.bias)
        return LogitFactors(x, self.logits.kernel, self.logits.bias)

    def _weights(self, memory: RNNAttentionMemory) -> Weights:
        """All matrices that a step's products take, by name."""
        weights: Weights = {"values": memory.values}
        if self.config.score == "additive":
            weights["query"] = self.query
        if self.config.attention_type == "luong":
            for layer, network in enumerate(self.decoder):
                weights |= _owned(str(layer), network.weights())
                if layer:
                    weights[f"{layer}/kernel"] = network.kernel
            return weights | {
                "feed": self.feed,
                "combine_context": self.combine_context,
                "combine_state": self.combine_state,
            }
        weights |= self.decoder[0].weights()
        if self.config.attention_type == "bahdanau":
            return weights | {"context": self.context}
        return weights | _owned("second", self.second.weights()) | {"context": self.second.kernel}

    def _constants(self, source: Source, *leading: int) -> Constants:
        """What a step sees beside products; `leading` are B and W."""
        cells: list[Recurrent] = self.decoder[:1]
        biases: tuple[Array, ...] = ()
        if self.config.attention_type == "luong":
            cells, biases = self.decoder, tuple(network.bias for network in self.decoder[1:])
        elif self.config.attention_type == "conditional":
            cells, biases = [self.decoder[0], self.second], (self.second.bias,)
        return Constants(source, biases, tuple(cell.dropout_mask(*leading) for cell in cells))


def _owned(owner: str, weights: Weights) -> Weights:
    return {f"{owner}/{name}": w for name, w in weights.items()}
