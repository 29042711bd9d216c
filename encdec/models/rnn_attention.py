"""A bidirectional encoder and a recurrent decoder with attention (Bahdanau 2015, Luong 2015).

Axes: see `encdec.types`; inside, time is the first axis, [T, B, ...], and G is the width of all
gates of a cell together. The time steps are in `encdec.ops.rnn_attention`: the same function is
scanned over the target in training (W = 1) and called once a token in search.
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
from encdec.ops import products, recurrence
from encdec.ops.cross_entropy import LogitFactors
from encdec.ops.recurrence import CELLS, output
from encdec.ops.rnn_attention import Constants, InputFeedingCarry, Source, step_of
from encdec.ops.scan import Step, Weights, scan
from encdec.types import Array


class RNNAttentionMemory(NamedTuple):
    """What the decoder needs of the source.

    Attributes:
      keys: float [B, S, A], for the scores.
      mask: bool [B, S], True where the token is real.
      values: the encoder states that attention sums, float [B, S, 2 hidden].
      starts: the first state of each decoder layer, arrays [B, hidden].
    """

    keys: Array
    mask: Array
    values: Array
    starts: tuple[Any, ...]


class RNNAttention(EncoderDecoder):
    """Encoder and decoder; `config.attention_type` chooses the decoder's time step."""

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
        # With dot scores the two directions together must be as wide as the decoder.
        self._declare_networks(side=c.hidden // 2 if c.score == "dot" else c.hidden)
        if c.score != "dot":
            self.keys = Dense(c.hidden, self.precision, use_bias=c.score == "additive")
        if c.score == "additive":
            self.query = self.param("query", glorot, (c.hidden, c.hidden))
            self.v = self.param("v", nn.initializers.zeros, (c.hidden,))
        if c.tie_embeddings:
            self.bias = self.param("bias", nn.initializers.zeros, (self.tgt_vocabulary,))
        else:
            width = c.hidden if c.attention_type == "luong" else c.embed
            self.logits = Output(width, self.tgt_vocabulary)

    def _declare_networks(self, side: int) -> None:
        """Declares encoder, decoder and bridges; `side` is the width of one direction."""
        c = self.config
        layer = partial(
            Recurrent, c.cell, recurrent_dropout=c.recurrent_dropout, precision=self.precision
        )
        widths = [c.embed] + [2 * side] * (c.layers - 1)
        self.forwards = [layer(n, side) for n in widths]
        self.backwards = [layer(n, side, reverse=True) for n in widths]
        self.bridges = [Dense(c.hidden, self.precision) for _ in range(c.layers)]
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
            self.readout = [
                Dense(c.embed, self.precision, use_bias=has_bias)
                for has_bias in (True, False, False)
            ]

    def logit_factors(self, src: Array, src_mask: Array, tgt_in: Array) -> LogitFactors:
        """As in `EncoderDecoder`: src int32 [B, S], src_mask bool [B, S], tgt_in int32 [B, T]."""
        memory = self.encode(src, src_mask)
        embedded = self.embedding_dropout(self.tgt_embedding(tgt_in.T))  # [T, B, D]
        x = self.decoder[0].project(embedded)[:, :, None]  # [T, B, 1, G]
        decode = self._with_feeding if self.config.attention_type == "luong" else self._layerwise
        h, context = decode(memory, x)
        return self._factors(self._read_out(h, context, embedded).swapaxes(0, 1))

    def _with_feeding(self, memory: RNNAttentionMemory, x: Array) -> tuple[Array, Array | None]:
        """Luong's decoder on projected inputs x [T, B, 1, G].

        The attentional vector is fed to the next step of the first layer, so all layers take each
        step together. Returns the vectors [T, B, hidden], and no context: they contain it.
        """
        ones = jnp.ones((*x.shape[:3], self.config.hidden), x.dtype)
        masks = tuple(self.dropout(ones) for _ in self.decoder[1:])
        vectors, _ = self._scan(memory, self.init_cache(memory, 1, 0), (x, masks))
        return vectors[:, :, 0], None

    def _layerwise(self, memory: RNNAttentionMemory, x: Array) -> tuple[Array, Array | None]:
        """The other decoders on projected inputs x [T, B, 1, G].

        Only the first layer attends, so each layer runs over all time steps before the next one.
        Returns the last layer's states [T, B, hidden] and the contexts [T, B, 2 hidden].
        """
        h, context, _ = self._scan(memory, spread(memory.starts[0], 1), x)
        h = h[:, :, 0]  # [T, B, hidden]
        unmasked = jnp.ones(h.shape[:2], bool)
        for network, carry in zip(self.decoder[1:], memory.starts[1:], strict=True):
            h = network(network.project(self.dropout(h)), unmasked, carry)[1]
        return h, context[:, :, 0]

    def _scan(self, memory: RNNAttentionMemory, start: Any, xs: Any) -> Any:
        """The outputs of the step at all time steps, with leading axis T."""
        weights = self._weights(memory)
        consts = self._constants(memory, memory.values.shape[0], 1)
        return scan(self._step, False, self.precision, weights, consts, start, xs)[1]

    def encode(self, src: Array, src_mask: Array) -> RNNAttentionMemory:
        """As in `EncoderDecoder`: src int32 [B, S], src_mask bool [B, S]."""
        c = self.config
        mask = src_mask.T
        x = self.embedding_dropout(self.src_embedding(src.T))  # [S, B, D]
        starts: list[Any] = []
        for forward, backward, bridge in zip(
            self.forwards, self.backwards, self.bridges, strict=True
        ):
            x = self.dropout(x) if starts else x
            zero = zero_state(c.cell, x, forward.hidden)
            last, forward_states = forward(forward.project(x), mask, zero)
            first, backward_states = backward(backward.project(x), mask, zero)
            x = jnp.concatenate([forward_states, backward_states], -1)  # [S, B, 2 hidden]
            # Each decoder layer starts from where both directions of its encoder layer ended.
            ends = jnp.concatenate([output(last), output(first)], -1)
            starts.append(recurrence.initial(c.cell, jnp.tanh(bridge(ends))))
        values = self.memory_dropout(x).swapaxes(0, 1)
        keys = values if c.score == "dot" else self.keys(values)
        return RNNAttentionMemory(keys, src_mask, values, tuple(starts))

    def init_cache(self, memory: RNNAttentionMemory, beams: int, max_len: int) -> Any:
        """As in `EncoderDecoder`; no array grows with max_len.

        It is an `InputFeedingCarry` for attention_type luong, else a tuple of the layers' states.
        """
        del max_len
        carries = spread(memory.starts, beams)
        if self.config.attention_type != "luong":
            return carries
        shape = (memory.values.shape[0], beams, self.config.hidden)
        return InputFeedingCarry(carries, jnp.zeros(shape, memory.values.dtype))

    def decode_factors(
        self, memory: RNNAttentionMemory, cache: Any, tokens: Array
    ) -> tuple[LogitFactors, Array, Any]:
        """As in `EncoderDecoder`: tokens int32 [B, W]; one map, M = 1."""
        matrices = self._weights(memory)
        embedded = self.tgt_embedding(tokens)
        x = self.decoder[0].project(embedded)
        consts = self._constants(memory, *tokens.shape)

        def matmul(name: str, u: Array) -> Array:
            return products.matmul(u, matrices[name], self.precision)

        if self.config.attention_type == "luong":
            ones = tuple(jnp.ones((), x.dtype) for _ in self.decoder[1:])
            cache, (h, attention) = self._step(matmul, consts, cache, (x, ones))
            context = None
        else:
            first, (h, context, attention) = self._step(matmul, consts, cache[0], x)
            carries = [first]
            for network, carry in zip(self.decoder[1:], cache[1:], strict=True):
                carry, h = network.step(network.project(h), carry)
                carries.append(carry)
            cache = tuple(carries)
        factors = self._factors(self._read_out(h, context, embedded))
        return factors, attention[:, :, None], cache

    def _read_out(self, h: Array, context: Array | None, embedded: Array) -> Array:
        """tanh(U_o h_t + V_o y(t-1) + C_o c_t) (Bahdanau 2015, appendix A.2.2, with tanh in place
        of maxout); Luong's vector, which comes without a context, is used as it is."""
        if context is None:
            return h
        of_h, of_token, of_context = self.readout
        return jnp.tanh(of_h(h) + of_token(embedded) + of_context(context))

    def _factors(self, x: Array) -> LogitFactors:
        """The output layer, its product left undone: logits = W_o x + b."""
        x = self.output_dropout(x)
        if self.config.tie_embeddings:
            return LogitFactors(x, self.tgt_embedding.embedding.T, self.bias)
        return LogitFactors(x, self.logits.kernel, self.logits.bias)

    @property
    def _step(self) -> Step:
        """The decoder's time step."""
        return step_of(self.config.attention_type, self.config.cell, self.precision)

    def _weights(self, memory: RNNAttentionMemory) -> Weights:
        """The matrices of all products in a step, by the names that the step uses."""
        weights: Weights = {"values": memory.values}
        if self.config.score == "additive":
            weights["query"] = self.query
        if self.config.attention_type == "luong":
            for layer, network in enumerate(self.decoder):
                weights |= _prefixed(str(layer), network.weights())
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
        return (
            weights | _prefixed("second", self.second.weights()) | {"context": self.second.kernel}
        )

    def _constants(self, memory: RNNAttentionMemory, *leading: int) -> Constants:
        """What is the same in every step; `leading` are B and W."""
        v = self.v if self.config.score == "additive" else None
        source = Source(memory.keys, v, memory.mask)
        cells: list[Recurrent] = self.decoder[:1]
        biases: tuple[Array, ...] = ()
        if self.config.attention_type == "luong":
            cells, biases = self.decoder, tuple(network.bias for network in self.decoder[1:])
        elif self.config.attention_type == "conditional":
            cells, biases = [self.decoder[0], self.second], (self.second.bias,)
        return Constants(source, biases, tuple(cell.constants(*leading) for cell in cells))


def _prefixed(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}/{name}": w for name, w in weights.items()}
