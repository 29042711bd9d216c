"""A bidirectional encoder, and a decoder that looks back at it (Bahdanau 2015, Luong 2015).

Letters: see `encdec.types`; A is the width that scores are taken in. Inside, time leads:
[T, B, ...]. One step function serves training (one hypothesis, scanned) and decoding (W).
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from encdec.config import AttentionConfig
from encdec.models.layers import (
    Dense,
    Dropout,
    Output,
    Recurrent,
    embedding,
    glorot,
    spread,
    zero_state,
)
from encdec.ops import recurrence
from encdec.ops.attention import additive_scores, dot_scores, masked_softmax
from encdec.ops.recurrence import CELLS, Product, Weights, output
from encdec.types import Array, LogitFactors


class Source(NamedTuple):
    """What is scored. keys [B, S, A]; v [A], or None for a product score; mask [B, S]."""

    keys: Array
    v: Array | None
    mask: Array


class AttentionalMemory(NamedTuple):
    """source: the keys. values [B, S, 2 hidden]: states to be summed. starts: [B, hidden] each."""

    source: Source
    values: Array
    starts: tuple[Any, ...]


class AttentionalCache(NamedTuple):
    """carries: each layer's state. fed: Luong's attentional vector. Each [B, W, hidden]."""

    carries: tuple[Any, ...]
    fed: Array


def attend(product: Product, source: Source, h: Array) -> tuple[Array, Array]:
    """alpha = softmax(score(h, keys)); context = sum_s alpha_s value_s (Bahdanau 2015, eq. 5, 6).

    Args:
      product: with "values", and "query" for the additive score.
      source: what is scored.
      h: [B, W, hidden].

    Returns:
      context [B, W, 2 hidden] and weights [B, W, S].
    """
    if source.v is None:
        scores = dot_scores(h, source.keys)
    else:
        scores = additive_scores(product("query", h), source.keys, source.v)
    weights = masked_softmax(scores, source.mask[:, None])
    return product("values", weights), weights


def bahdanau_step(
    product: Product, source: Source, carry: Any, x: Array, *, cell: str
) -> tuple[Any, tuple[Array, Array, Array]]:
    """c_t from h(t-1), then h_t = f(h(t-1), y(t-1), c_t) (Bahdanau 2015, appendix A.2.2).

    Args:
      product: with the cell's matrices, "context", and what `attend` needs.
      source: what is scored.
      carry: the bottom layer's state [B, W, hidden].
      x: projected embeddings of the last tokens, [B, W, G].

    Returns:
      The state, and (h_t, context, weights).
    """
    context, weights = attend(product, source, output(carry))
    carry = CELLS[cell].step(product, carry, x + product("context", context))
    return carry, (output(carry), context, weights)


def luong_step(
    product: Product,
    consts: tuple[Source, tuple[Array, ...]],
    carry: AttentionalCache,
    x: tuple[Array, tuple[Array, ...]],
    *,
    cell: str,
) -> tuple[AttentionalCache, tuple[Array, Array]]:
    """h_t from the last token and the fed attentional vector, then c_t from h_t, then
    h~_t = tanh(W_c [c_t; h_t]) (Luong 2015, equation 5, section 3.3).

    Args:
      product: with each layer's matrices as "layer/name", "feed", "combine_context",
        "combine_state", and what `attend` needs.
      consts: what is scored, and the biases of the layers above the first.
      carry: all layers' states and the last attentional vector.
      x: projected embeddings [B, W, G], and for each layer above the first what its input is
        multiplied by (dropout), [B, W, hidden].

    Returns:
      The states, and (h~_t, weights).
    """
    source, biases = consts
    inputs, masks = x
    inputs = inputs + product("feed", carry.fed)
    carries: list[Any] = []
    for layer, state in enumerate(carry.carries):
        if layer:
            below = output(carries[-1]) * masks[layer - 1]
            inputs = product(f"{layer}/kernel", below) + biases[layer - 1]
        of_layer = partial(_named, product, layer)
        carries.append(CELLS[cell].step(of_layer, state, inputs))
    h = output(carries[-1])
    context, weights = attend(product, source, h)
    vector = jnp.tanh(product("combine_context", context) + product("combine_state", h))
    return AttentionalCache(tuple(carries), vector), (vector, weights)


def _named(product: Product, layer: int, name: str, u: Array) -> Array:
    return product(f"{layer}/{name}", u)


_BAHDANAU = {cell: partial(bahdanau_step, cell=cell) for cell in CELLS}
_LUONG = {cell: partial(luong_step, cell=cell) for cell in CELLS}


class Attentional(nn.Module):
    """Encoder and decoder with attention; `config.order` says whose."""

    config: AttentionConfig
    src_vocabulary: int
    tgt_vocabulary: int

    def setup(self) -> None:
        """Declares the parameters; v begins at zero (Bahdanau 2015, appendix B.1)."""
        c = self.config
        self.src_embedding = embedding(self.src_vocabulary, c.embed)
        self.tgt_embedding = embedding(self.tgt_vocabulary, c.embed)
        # A plain dot product needs joined states as wide as the decoder's.
        side = c.hidden // 2 if c.score == "dot" else c.hidden
        widths = [c.embed] + [2 * side] * (c.layers - 1)
        self.forwards = [Recurrent(c.cell, n, side) for n in widths]
        self.backwards = [Recurrent(c.cell, n, side, reverse=True) for n in widths]
        self.bridges = [Dense(c.hidden) for _ in range(c.layers)]
        self.decoder = [
            Recurrent(c.cell, n, c.hidden) for n in [c.embed] + [c.hidden] * (c.layers - 1)
        ]
        if c.score != "dot":
            self.keys = Dense(c.hidden, use_bias=c.score == "additive")
        if c.score == "additive":
            self.query = self.param("query", glorot, (c.hidden, c.hidden))
            self.v = self.param("v", nn.initializers.zeros, (c.hidden,))
        gates = CELLS[c.cell].gates * c.hidden
        if c.order == "bahdanau":
            self.context = self.param("context", glorot, (2 * side, gates))
            self.readout = [Dense(c.embed), *(Dense(c.embed, use_bias=False) for _ in range(2))]
        else:
            self.feed = self.param("feed", glorot, (c.hidden, gates))
            self.combine_context = self.param("combine_context", glorot, (2 * side, c.hidden))
            self.combine_state = self.param("combine_state", glorot, (c.hidden, c.hidden))
        self.dropout = Dropout(c.dropout)
        self.logits = Output(c.embed if c.order == "bahdanau" else c.hidden, self.tgt_vocabulary)

    def __call__(self, src: Array, src_mask: Array, tgt_in: Array) -> Array:
        """Teacher forcing: src [B, S], src_mask [B, S], tgt_in [B, T] -> logits [B, T, V]."""
        return self.logit_factors(src, src_mask, tgt_in).logits()

    def logit_factors(self, src: Array, src_mask: Array, tgt_in: Array) -> LogitFactors:
        """As `__call__`, without the last product."""
        memory = self.encode(src, src_mask)
        embedded = self.dropout(self.tgt_embedding(tgt_in.T))  # [T, B, D]
        if self.config.order == "bahdanau":
            return self._factors(self._bahdanau(memory, embedded).swapaxes(0, 1))
        x = self.decoder[0].project(embedded)[:, :, None]  # [T, B, 1, G]
        ones = jnp.ones((*x.shape[:3], self.config.hidden))
        masks = tuple(self.dropout(ones) for _ in self.decoder[1:])
        step = _LUONG[self.config.cell]
        consts = (memory.source, self._biases())
        start = self.init_cache(memory, 1, 0)
        weights = self._weights(memory)
        _, (vectors, _) = recurrence.scan(step, False, weights, consts, start, (x, masks))
        return self._factors(vectors[:, :, 0].swapaxes(0, 1))

    def _bahdanau(self, memory: AttentionalMemory, embedded: Array) -> Array:
        """[T, B, D] -> [T, B, D]; only the bottom layer sees the source step by step."""
        x = self.decoder[0].project(embedded)[:, :, None]  # [T, B, 1, G]
        start = spread(memory.starts[0], 1)
        step = _BAHDANAU[self.config.cell]
        weights = self._weights(memory)
        _, (h, context, _) = recurrence.scan(step, False, weights, memory.source, start, x)
        h = h[:, :, 0]  # [T, B, hidden]
        everywhere = jnp.ones(h.shape[:2], bool)
        for network, carry in zip(self.decoder[1:], memory.starts[1:], strict=True):
            h = network(network.project(self.dropout(h)), everywhere, carry)[1]
        return self._read_out(h, embedded, context[:, :, 0])

    def encode(self, src: Array, src_mask: Array) -> AttentionalMemory:
        """Reads the source in both directions: src int32 [B, S], src_mask bool [B, S]."""
        c = self.config
        mask = src_mask.T
        x = self.src_embedding(src.T)  # [S, B, D]
        starts = []
        for ahead, back, bridge in zip(self.forwards, self.backwards, self.bridges, strict=True):
            x = self.dropout(x)
            zero = zero_state(c.cell, src.shape[0], ahead.hidden)
            last, right = ahead(ahead.project(x), mask, zero)
            first, left = back(back.project(x), mask, zero)
            x = jnp.concatenate([right, left], -1)  # [S, B, 2 hidden]
            ends = jnp.concatenate([output(last), output(first)], -1)
            starts.append(recurrence.initial(c.cell, jnp.tanh(bridge(ends))))
        values = self.dropout(x).swapaxes(0, 1)
        keys = values if c.score == "dot" else self.keys(values)
        v = self.v if c.score == "additive" else None
        return AttentionalMemory(Source(keys, v, src_mask), values, tuple(starts))

    def init_cache(self, memory: AttentionalMemory, beams: int, max_len: int) -> AttentionalCache:
        """The state of W hypotheses before their first token; no array grows with max_len."""
        del max_len
        fed = jnp.zeros((memory.values.shape[0], beams, self.config.hidden))
        return AttentionalCache(spread(memory.starts, beams), fed)

    def decode_step(
        self, memory: AttentionalMemory, cache: AttentionalCache, tokens: Array
    ) -> tuple[Array, Array, AttentionalCache]:
        """tokens [B, W] -> (logits [B, W, V], weights [B, W, 1, S], cache)."""
        matrices = self._weights(memory)
        embedded = self.tgt_embedding(tokens)
        x = self.decoder[0].project(embedded)

        def product(name: str, u: Array) -> Array:
            return u @ matrices[name]

        if self.config.order == "luong":
            ones = tuple(jnp.ones(()) for _ in self.decoder[1:])
            consts = (memory.source, self._biases())
            cache, (vector, weights) = luong_step(
                product, consts, cache, (x, ones), cell=self.config.cell
            )
            return self._factors(vector).logits(), weights[:, :, None], cache
        bottom, (h, context, weights) = bahdanau_step(
            product, memory.source, cache.carries[0], x, cell=self.config.cell
        )
        carries = [bottom]
        for network, carry in zip(self.decoder[1:], cache.carries[1:], strict=True):
            carry, h = network.step(network.project(h), carry)
            carries.append(carry)
        logits = self._factors(self._read_out(h, embedded, context)).logits()
        return logits, weights[:, :, None], cache._replace(carries=tuple(carries))

    def _read_out(self, h: Array, embedded: Array, context: Array) -> Array:
        """tanh(U_o h_t + V_o y(t-1) + C_o c_t) (Bahdanau 2015, appendix A.2.2, with tanh in place
        of maxout)."""
        of_h, of_token, of_context = self.readout
        return jnp.tanh(of_h(h) + of_token(embedded) + of_context(context))

    def _factors(self, x: Array) -> LogitFactors:
        """logits = W_o x + b."""
        return LogitFactors(self.dropout(x), self.logits.kernel, self.logits.bias)

    def _weights(self, memory: AttentionalMemory) -> Weights:
        """All matrices that a step's products take, by name."""
        weights: Weights = {"values": memory.values}
        if self.config.score == "additive":
            weights["query"] = self.query
        if self.config.order == "bahdanau":
            return weights | self.decoder[0].weights() | {"context": self.context}
        for layer, network in enumerate(self.decoder):
            weights |= {f"{layer}/{name}": w for name, w in network.weights().items()}
            if layer:
                weights[f"{layer}/kernel"] = network.kernel
        return weights | {
            "feed": self.feed,
            "combine_context": self.combine_context,
            "combine_state": self.combine_state,
        }

    def _biases(self) -> tuple[Array, ...]:
        """Biases of the layers above the first."""
        return tuple(network.bias for network in self.decoder[1:])
