"""Seq2Seq: one fixed vector between two recurrent networks (Cho 2014, Sutskever 2014).

Axes: see `encdec.types`; inside, time is the first axis, [T, B, ...], and G is the width of all
gates of a cell together.
"""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp

from encdec.config import Seq2SeqConfig
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
from encdec.ops.cross_entropy import LogitFactors
from encdec.ops.recurrence import CELLS, output
from encdec.types import Array


class Seq2SeqMemory(NamedTuple):
    """The fixed vector.

    Attributes:
      carries: the state of each encoder layer after the last token, arrays [B, hidden].
      mask: bool [B, S].
    """

    carries: tuple[Any, ...]
    mask: Array


class Seq2SeqCache(NamedTuple):
    """What a hypothesis carries.

    Attributes:
      carries: the state of each decoder layer, arrays [B, W, hidden].
    """

    carries: tuple[Any, ...]


class Seq2Seq(EncoderDecoder):
    """p(y | x) = prod_t p(y_t | y_<t, v) with v the encoder's last state.

    The decoder starts from v, layer by layer (Sutskever 2014, section 2). With
    `context_every_step`, v's top layer also enters the first cell and the output at each step
    (Cho 2014, section 2.2: h_t = f(h(t-1), y(t-1), c)).
    """

    config: Seq2SeqConfig

    def setup(self) -> None:
        """Declares embeddings, both networks and the output projection."""
        c = self.config
        widths = [c.embed] + [c.hidden] * (c.layers - 1)
        self.src_embedding = Embedding(self.src_vocabulary, c.embed)
        self.tgt_embedding = Embedding(self.tgt_vocabulary, c.embed)
        layer = partial(
            Recurrent, c.cell, recurrent_dropout=c.recurrent_dropout, precision=self.precision
        )
        self.encoder = [layer(n, c.hidden, c.reverse_source) for n in widths]
        self.decoder = [layer(n, c.hidden) for n in widths]
        if c.context_every_step:
            gates = CELLS[c.cell].gates * c.hidden
            self.context_in = Dense(gates, self.precision, use_bias=False)
            self.context_out = self.param("context_out", glorot, (c.hidden, self.tgt_vocabulary))
        self.dropout = Dropout(c.dropout)
        self.embedding_dropout = Dropout(rate(c.embedding_dropout, c.dropout))
        self.output_dropout = Dropout(rate(c.output_dropout, c.dropout))
        self.logits = Output(c.hidden, self.tgt_vocabulary)

    def logit_factors(self, src: Array, src_mask: Array, tgt_in: Array) -> LogitFactors:
        """As in `EncoderDecoder`: src int32 [B, S], src_mask bool [B, S], tgt_in int32 [B, T]."""
        memory = self.encode(src, src_mask)
        x = self.embedding_dropout(self.tgt_embedding(tgt_in.T))  # [T, B, D]
        # Padding comes last in a target and weighs nothing in the loss, so it needs no mask here.
        unmasked = jnp.ones(x.shape[:2], bool)
        for layer, (network, carry) in enumerate(zip(self.decoder, memory.carries, strict=True)):
            x = self.dropout(x) if layer else x
            projected = network.project(x) + self._context_in(memory, layer)
            x = network(projected, unmasked, carry)[1]
        return self._factors(x.swapaxes(0, 1), memory)

    def encode(self, src: Array, src_mask: Array) -> Seq2SeqMemory:
        """As in `EncoderDecoder`: src int32 [B, S], src_mask bool [B, S]."""
        c = self.config
        x = self.embedding_dropout(self.src_embedding(src.T))  # [S, B, D]
        carries = []
        for layer, network in enumerate(self.encoder):
            x = self.dropout(x) if layer else x
            start = zero_state(c.cell, x, c.hidden)
            carry, x = network(network.project(x), src_mask.T, start)
            carries.append(carry)
        return Seq2SeqMemory(tuple(carries), src_mask)

    def init_cache(self, memory: Seq2SeqMemory, beams: int, max_len: int) -> Seq2SeqCache:
        """As in `EncoderDecoder`; no array grows with max_len."""
        del max_len
        return Seq2SeqCache(spread(memory.carries, beams))

    def decode_factors(
        self, memory: Seq2SeqMemory, cache: Seq2SeqCache, tokens: Array
    ) -> tuple[LogitFactors, Array, Seq2SeqCache]:
        """As in `EncoderDecoder`: tokens int32 [B, W]; no attention, M = 0."""
        x = self.tgt_embedding(tokens)
        carries = []
        for layer, (network, carry) in enumerate(zip(self.decoder, cache.carries, strict=True)):
            context = self._context_in(memory, layer)
            context = context if isinstance(context, float) else context[:, None]
            carry, x = network.step(network.project(x) + context, carry)
            carries.append(carry)
        attention = jnp.zeros((*tokens.shape, 0, memory.mask.shape[1]))
        return self._factors(x, memory), attention, Seq2SeqCache(tuple(carries))

    def _context_in(self, memory: Seq2SeqMemory, layer: int) -> Array | float:
        """What the fixed vector adds to the projected input of a layer at every step: [B, G] for
        the first with `context_every_step`, else 0."""
        if layer or not self.config.context_every_step:
            return 0.0
        return self.context_in(output(memory.carries[-1]))

    def _factors(self, x: Array, memory: Seq2SeqMemory) -> LogitFactors:
        """The output layer, its product left undone: x [B, T, hidden].

        With `context_every_step` it also reads the fixed vector, which is appended to each x.
        """
        x = self.output_dropout(x)
        kernel, bias = self.logits.kernel, self.logits.bias
        if self.config.context_every_step:
            fixed = jnp.broadcast_to(output(memory.carries[-1])[:, None], x.shape)
            x = jnp.concatenate([x, fixed], -1)
            kernel = jnp.concatenate([kernel, self.context_out])
        return LogitFactors(x, kernel, bias)
