"""The three systems in plain PyTorch, for comparison in `benchmark.py`.

Sizes, dropout and inputs are those of the configurations in `encdec.config`. The differences:
nn.GRU applies the reset gate after the matrix product, r * (U h), where `encdec` has U (r * h), and
it has a second bias; nn.Transformer's attention has biases. nn.Transformer keeps no keys and values
between steps, so a step of the search is written out here with its layers' parameters: it keeps
them, and hypotheses of a sentence share those of the source. Where no sentence of a batch has
padding, these models use no masks and do less work than those of `encdec`.

Axes: see `encdec.types`; N = B * W is the number of hypotheses.
"""

from typing import Any

import torch
from torch import Tensor, nn

from encdec.config import (
    AttentionConfig,
    ModelConfig,
    Seq2SeqConfig,
    TransformerConfig,
)
from encdec.ops.positions import sinusoidal
from encdec.types import SpecialIds

PAD = SpecialIds().pad

State = tuple[Tensor, ...]
"""What a search keeps of each hypothesis; each tensor [N, ...]."""


def lengths(tokens: Tensor) -> Tensor:
    """The tokens of each sentence, int64 [B], without padding: tokens [B, T]."""
    return (tokens != PAD).sum(1)


def padding(tokens: Tensor) -> Tensor | None:
    """Where padding is, bool [B, T]; None if there is none."""
    where = tokens == PAD
    return where if where.any() else None


def run_over(rnn: nn.GRU, x: Tensor, src: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs [B, S, ...] and last states of an RNN over x [B, S, E], without padding."""
    if padding(src) is None:
        return rnn(x)
    counts = lengths(src).cpu()
    packed = nn.utils.rnn.pack_padded_sequence(x, counts, batch_first=True, enforce_sorted=False)
    outputs, states = rnn(packed)
    return nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)[0], states


class Seq2SeqPeer(nn.Module):
    """An nn.GRU reads the source backwards; another decodes from the last state of the first."""

    def __init__(self, config: Seq2SeqConfig, vocabulary: int) -> None:
        super().__init__()
        self.src_embedding = nn.Embedding(vocabulary, config.embed)
        self.tgt_embedding = nn.Embedding(vocabulary, config.embed)
        self.encoder = nn.GRU(config.embed, config.hidden, batch_first=True)
        self.decoder = nn.GRU(config.embed, config.hidden, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.logits = nn.Linear(config.hidden, vocabulary)

    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        """Teacher forcing: src int64 [B, S], tgt_in int64 [B, T] -> logits [B, T, V]."""
        x = self.dropout(self.tgt_embedding(tgt_in))
        outputs, _ = self.decoder(x, self._encode(src))
        return self.logits(self.dropout(outputs))

    def start(self, src: Tensor, beams: int) -> tuple[None, State]:
        """No memory, and the state [N, hidden] of W hypotheses for each sentence."""
        return None, (self._encode(src)[0].repeat_interleave(beams, 0),)

    def step(self, memory: None, state: State, prefix: Tensor) -> tuple[Tensor, State]:
        """prefix [N, t] -> logits [N, V] of token t, and the state after it."""
        x = self.tgt_embedding(prefix[:, -1:])
        outputs, h = self.decoder(x, state[0][None])
        return self.logits(outputs[:, 0]), (h[0],)

    def _encode(self, src: Tensor) -> Tensor:
        """[B, S] -> the last state [1, B, hidden]."""
        places = lengths(src)[:, None] - 1 - torch.arange(src.shape[1], device=src.device)
        backwards = src.gather(1, places.clamp(min=0))  # padding is not read
        return run_over(self.encoder, self.dropout(self.src_embedding(backwards)), src)[1]


class AttentionPeer(nn.Module):
    """A bidirectional nn.GRU, then an nn.GRUCell with additive attention (Bahdanau 2015)."""

    def __init__(self, config: AttentionConfig, vocabulary: int) -> None:
        super().__init__()
        embed, hidden = config.embed, config.hidden
        self.src_embedding = nn.Embedding(vocabulary, embed)
        self.tgt_embedding = nn.Embedding(vocabulary, embed)
        self.encoder = nn.GRU(embed, hidden, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * hidden, hidden)
        self.keys = nn.Linear(2 * hidden, hidden)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.v = nn.Linear(hidden, 1, bias=False)
        self.cell = nn.GRUCell(embed + 2 * hidden, hidden)
        self.readout = nn.Linear(hidden + embed + 2 * hidden, embed)
        self.dropout = nn.Dropout(config.dropout)
        self.logits = nn.Linear(embed, vocabulary)

    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        """Teacher forcing: src int64 [B, S], tgt_in int64 [B, T] -> logits [B, T, V]."""
        memory, (h,) = self.start(src, 1)
        x = self.dropout(self.tgt_embedding(tgt_in))
        states, contexts = [], []
        for token in x.unbind(1):
            context, h = self._advance(memory, h, token)
            states.append(h)
            contexts.append(context)
        return self._read_out(torch.stack(states, 1), x, torch.stack(contexts, 1))

    def start(self, src: Tensor, beams: int) -> tuple[tuple[Tensor, ...], State]:
        """Keys [N, S, A], values [N, S, 2 hidden], what is added to scores [N, S, 1]; and the first
        state [N, hidden]."""
        outputs, ends = run_over(self.encoder, self.dropout(self.src_embedding(src)), src)
        h = torch.tanh(self.bridge(torch.cat([ends[0], ends[1]], -1)))
        values = self.dropout(outputs)
        added = torch.where(src == PAD, -torch.inf, 0.0)[..., None]
        keys, values, added, h = (
            x.repeat_interleave(beams, 0) if beams > 1 else x
            for x in (self.keys(values), values, added, h)
        )
        return (keys, values, added), (h,)

    def step(
        self, memory: tuple[Tensor, ...], state: State, prefix: Tensor
    ) -> tuple[Tensor, State]:
        """prefix [N, t] -> logits [N, V] of token t, and the state after it."""
        x = self.tgt_embedding(prefix[:, -1])
        context, h = self._advance(memory, state[0], x)
        return self._read_out(h, x, context), (h,)

    def _advance(self, memory: tuple[Tensor, ...], h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """One time step: x [N, embed] -> context [N, 2 hidden] and state [N, hidden]."""
        keys, values, added = memory
        scores = self.v(torch.tanh(self.query(h)[:, None] + keys)) + added  # [N, S, 1]
        context = (scores.softmax(1).transpose(1, 2) @ values)[:, 0]
        return context, self.cell(torch.cat([x, context], -1), h)

    def _read_out(self, h: Tensor, x: Tensor, context: Tensor) -> Tensor:
        mixed = torch.tanh(self.readout(torch.cat([h, x, context], -1)))
        return self.logits(self.dropout(mixed))


class TransformerPeer(nn.Module):
    """nn.Transformer between embeddings with sinusoidal positions and a linear output."""

    positions: Tensor

    def __init__(self, config: TransformerConfig, vocabulary: int, length: int) -> None:
        super().__init__()
        self.src_embedding = nn.Embedding(vocabulary, config.width)
        self.tgt_embedding = nn.Embedding(vocabulary, config.width)
        for table in (self.src_embedding, self.tgt_embedding):
            nn.init.normal_(table.weight, std=config.width**-0.5)
        self.register_buffer("positions", torch.from_numpy(sinusoidal(length, config.width)))
        self.transformer = nn.Transformer(
            config.width,
            config.heads,
            config.layers,
            config.layers,
            config.feed_forward,
            config.dropout,
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=False,
        )
        # The paper has no norm after the last layer; nn.Transformer adds one.
        self.transformer.encoder.norm = self.transformer.decoder.norm = None
        self.dropout = nn.Dropout(config.dropout)
        self.logits = nn.Linear(config.width, vocabulary)

    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        """Teacher forcing: src int64 [B, S], tgt_in int64 [B, T] -> logits [B, T, V]."""
        mask = nn.Transformer.generate_square_subsequent_mask(tgt_in.shape[1], device=tgt_in.device)
        decoded = self.transformer.decoder(
            self._embed(self.tgt_embedding, tgt_in),
            self._encode(src),
            tgt_mask=mask,
            tgt_is_causal=True,
            memory_key_padding_mask=padding(src),
        )
        return self.logits(decoded)

    def start(self, src: Tensor, beams: int) -> tuple[tuple[list[State], Tensor | None], State]:
        """Keys and values [B, H, S, K] of the source for each layer, and where it is real, bool
        [B, 1, 1, S]; the state, keys and values of each layer [N, H, t, K], has no token yet."""
        encoded, where = self._encode(src), padding(src)
        sources = []
        for layer in self.transformer.decoder.layers:
            attention = layer.multihead_attn
            weight, bias = (
                x[x.shape[0] // 3 :] for x in (attention.in_proj_weight, attention.in_proj_bias)
            )
            both = nn.functional.linear(encoded, weight, bias).chunk(2, -1)
            sources.append(tuple(self._heads(x, len(src)) for x in both))
        empty = sources[0][0][:, :, :0].repeat_interleave(beams, 0)
        mask = None if where is None else ~where[:, None, None]
        return (sources, mask), (empty,) * (2 * len(sources))

    def step(
        self, memory: tuple[list[State], Tensor | None], state: State, prefix: Tensor
    ) -> tuple[Tensor, State]:
        """prefix [N, t] -> logits [N, V] of token t, and the state with it."""
        sources, mask = memory
        x = self._embed(self.tgt_embedding, prefix[:, -1:], prefix.shape[1] - 1)
        new: list[Tensor] = []
        for i, layer in enumerate(self.transformer.decoder.layers):
            past = state[2 * i], state[2 * i + 1]
            x, past = self._layer_step(layer, x, sources[i], mask, past)
            new += past
        return self.logits(x[:, 0]), tuple(new)

    def _layer_step(
        self, layer: Any, x: Tensor, source: State, mask: Tensor | None, past: State
    ) -> tuple[Tensor, State]:
        """x [N, 1, D] through a decoder layer, and its keys and values with those of x."""
        attend = nn.functional.scaled_dot_product_attention
        hypotheses, _, width = x.shape
        own = layer.self_attn
        q, *key_and_value = (
            self._heads(part, hypotheses)
            for part in nn.functional.linear(x, own.in_proj_weight, own.in_proj_bias).chunk(3, -1)
        )
        past = tuple(torch.cat(pair, 2) for pair in zip(past, key_and_value, strict=True))
        read = attend(q, *past)
        x = layer.norm1(x + own.out_proj(read.reshape(hypotheses, 1, width)))
        other = layer.multihead_attn
        q = nn.functional.linear(x, other.in_proj_weight[:width], other.in_proj_bias[:width])
        # The hypotheses of a sentence are queries of the same keys.
        read = attend(self._heads(q, len(source[0])), *source, attn_mask=mask)
        joined = read.transpose(1, 2).reshape(hypotheses, 1, width)
        x = layer.norm2(x + other.out_proj(joined))
        hidden = nn.functional.relu(layer.linear1(x))
        return layer.norm3(x + layer.linear2(hidden)), past

    def _heads(self, x: Tensor, rows: int) -> Tensor:
        """[..., D] -> [rows, H, ..., K]."""
        heads = self.transformer.decoder.layers[0].self_attn.num_heads
        return x.reshape(rows, -1, heads, x.shape[-1] // heads).transpose(1, 2)

    def _encode(self, src: Tensor) -> Tensor:
        x = self._embed(self.src_embedding, src)
        return self.transformer.encoder(x, src_key_padding_mask=padding(src))

    def _embed(self, table: nn.Embedding, tokens: Tensor, first: int = 0) -> Tensor:
        x = table(tokens) * table.embedding_dim**0.5
        return self.dropout(x + self.positions[first : first + tokens.shape[1]])


def build(config: ModelConfig, vocabulary: int, length: int) -> nn.Module:
    """Builds the model of a configuration; `length` is the longest sentence in tokens."""
    if isinstance(config, Seq2SeqConfig):
        return Seq2SeqPeer(config, vocabulary)
    if isinstance(config, AttentionConfig):
        return AttentionPeer(config, vocabulary)
    return TransformerPeer(config, vocabulary, length)
