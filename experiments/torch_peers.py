"""The three systems in plain PyTorch, for comparison in `benchmark.py`.

Sizes, dropout and inputs are those of the configurations in `encdec.config`. The differences:
nn.GRU applies the reset gate after the matrix product, r * (U h), where `encdec` has U (r * h), and
it has a second bias; nn.Transformer's attention has biases, and it keeps no keys and values
between steps, so its search runs the decoder over the entire prefix again for each token. The
sentences of the benchmark are all equally long, so these models have no padding masks and do less
work than those of `encdec`.

Axes: see `encdec.types`; N = B * W is the number of hypotheses.
"""

import os
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from encdec.config import (
    AttentionConfig,
    ModelConfig,
    Seq2SeqConfig,
    TrainingConfig,
    TransformerConfig,
)
from encdec.ops.positions import sinusoidal
from encdec.types import SpecialIds

PAD, START, END, _ = SpecialIds()


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

    def start(self, src: Tensor, beams: int) -> tuple[None, Tensor]:
        """No memory, and the state [N, hidden] of W hypotheses for each sentence."""
        return None, self._encode(src)[0].repeat_interleave(beams, 0)

    def step(self, memory: None, state: Tensor, prefix: Tensor) -> tuple[Tensor, Tensor]:
        """prefix [N, t] -> logits [N, V] of token t, and the state after it."""
        x = self.tgt_embedding(prefix[:, -1:])
        outputs, state = self.decoder(x, state[None])
        return self.logits(outputs[:, 0]), state[0]

    def _encode(self, src: Tensor) -> Tensor:
        """[B, S] -> the last state [1, B, hidden]."""
        return self.encoder(self.dropout(self.src_embedding(src.flip(1))))[1]


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
        (keys, values), h = self.start(src, 1)
        x = self.dropout(self.tgt_embedding(tgt_in))
        states, contexts = [], []
        for token in x.unbind(1):
            context, h = self._advance(keys, values, h, token)
            states.append(h)
            contexts.append(context)
        return self._read_out(torch.stack(states, 1), x, torch.stack(contexts, 1))

    def start(self, src: Tensor, beams: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Keys [N, S, A], values [N, S, 2 hidden] and the first state [N, hidden]."""
        outputs, ends = self.encoder(self.dropout(self.src_embedding(src)))
        h = torch.tanh(self.bridge(torch.cat([ends[0], ends[1]], -1)))
        values = self.dropout(outputs)
        keys, values, h = (
            x.repeat_interleave(beams, 0) if beams > 1 else x
            for x in (self.keys(values), values, h)
        )
        return (keys, values), h

    def step(
        self, memory: tuple[Tensor, Tensor], state: Tensor, prefix: Tensor
    ) -> tuple[Tensor, Tensor]:
        """prefix [N, t] -> logits [N, V] of token t, and the state after it."""
        x = self.tgt_embedding(prefix[:, -1])
        context, h = self._advance(*memory, state, x)
        return self._read_out(h, x, context), h

    def _advance(self, keys: Tensor, values: Tensor, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """One time step: x [N, embed] -> context [N, 2 hidden] and state [N, hidden]."""
        scores = self.v(torch.tanh(self.query(h)[:, None] + keys))  # [N, S, 1]
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
        return self.logits(self._decode(self._encode(src), tgt_in))

    def start(self, src: Tensor, beams: int) -> tuple[Tensor, Tensor]:
        """The encoder's output [N, S, D]; the state is empty, [N, 0]."""
        memory = self._encode(src).repeat_interleave(beams, 0)
        return memory, memory.new_empty(len(memory), 0)

    def step(self, memory: Tensor, state: Tensor, prefix: Tensor) -> tuple[Tensor, Tensor]:
        """prefix [N, t] -> logits [N, V] of token t."""
        return self.logits(self._decode(memory, prefix)[:, -1]), state

    def _encode(self, src: Tensor) -> Tensor:
        return self.transformer.encoder(self._embed(self.src_embedding, src))

    def _decode(self, memory: Tensor, tgt_in: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tgt_in.shape[1], device=tgt_in.device)
        x = self._embed(self.tgt_embedding, tgt_in)
        return self.transformer.decoder(x, memory, tgt_mask=mask, tgt_is_causal=True)

    def _embed(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        x = table(tokens) * table.embedding_dim**0.5
        return self.dropout(x + self.positions[: tokens.shape[1]])


def build(config: ModelConfig, vocabulary: int, length: int) -> nn.Module:
    """Builds the model of a configuration; `length` is the longest sentence in tokens."""
    if isinstance(config, Seq2SeqConfig):
        return Seq2SeqPeer(config, vocabulary)
    if isinstance(config, AttentionConfig):
        return AttentionPeer(config, vocabulary)
    return TransformerPeer(config, vocabulary, length)


def prepare(precision: Literal["float32", "tf32"]) -> None:
    """Sets PyTorch to all cores, as JAX uses them, and to a precision of float32 products."""
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_float32_matmul_precision({"float32": "highest", "tf32": "high"}[precision])


def trainer(
    model: nn.Module, config: TrainingConfig, src: Tensor, tgt: Tensor
) -> Callable[[], Tensor]:
    """A function that makes one update on a batch each time it is called.

    Args:
      model: one of the models above.
      config: learning rate, clipping and label smoothing.
      src: int64 [B, S].
      tgt: int64 [B, T + 1], the start token first.

    Returns:
      () -> the loss before the update, nats per token.
    """
    adam = torch.optim.Adam(
        model.parameters(),
        config.learning_rate,
        (config.beta1, config.beta2),
        config.epsilon,
        fused=True,
    )
    warmup = config.warmup
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda n: min((n + 1) / warmup, (warmup / (n + 1)) ** 0.5)
    )

    def update() -> Tensor:
        model.train()
        adam.zero_grad()
        logits = model(src, tgt[:, :-1])
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1),
            tgt[:, 1:].flatten(),
            ignore_index=PAD,
            label_smoothing=config.label_smoothing,
        )
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        adam.step()
        schedule.step()
        return loss.detach()

    return update


def endless(model: Any) -> Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The step with an end token of probability 0, so that every sentence takes all steps."""

    def step(memory: Any, state: Tensor, prefix: Tensor) -> tuple[Tensor, Tensor]:
        logits, state = model.step(memory, state, prefix)
        logits[:, END] = -torch.inf
        return logits, state

    return step


@torch.inference_mode()
def greedy(model: Any, src: Tensor, max_len: int) -> Tensor:
    """The likeliest token at each step: src int64 [B, S] -> int64 [B, T]."""
    model.eval()
    step = endless(model)
    memory, state = model.start(src, 1)
    prefix = src.new_full((len(src), 1), START)
    done = torch.zeros(len(src), dtype=torch.bool, device=src.device)
    for _ in range(max_len):
        logits, state = step(memory, state, prefix)
        logits[:, :END] = -torch.inf  # padding and start
        tokens = logits.argmax(-1).masked_fill(done, PAD)
        prefix = torch.cat([prefix, tokens[:, None]], 1)
        done = done | (tokens == END)
        if done.all():
            break
    return prefix[:, 1:]


@torch.inference_mode()
def beam_search(model: Any, src: Tensor, max_len: int, beams: int) -> tuple[Tensor, Tensor]:
    """Beam search in which finished hypotheses stay in the beam.

    src int64 [B, S] -> tokens int64 [B, W, T] and log-probabilities [B, W], best first.
    """
    model.eval()
    step = endless(model)
    batch = len(src)
    memory, state = model.start(src, beams)
    prefix = src.new_full((batch * beams, 1), START)
    done = torch.zeros(batch * beams, dtype=torch.bool, device=src.device)
    first = torch.arange(batch, device=src.device)[:, None] * beams
    totals = torch.full((batch, beams), -torch.inf, device=src.device)
    totals[:, 0] = 0  # all W hypotheses begin alike, so only the first counts
    for _ in range(max_len):
        logits, state = step(memory, state, prefix)
        scores = logits.log_softmax(-1)
        scores[:, :END] = -torch.inf  # padding and start
        vocabulary = scores.shape[-1]
        if done.any():
            scores[done] = -torch.inf
            scores[done, PAD] = 0
        sums = totals[..., None] + scores.view(batch, beams, vocabulary)
        totals, best = sums.view(batch, -1).topk(beams)
        parents = (first + best // vocabulary).view(-1)
        tokens = (best % vocabulary).view(-1)
        prefix = torch.cat([prefix[parents], tokens[:, None]], 1)
        state = state[parents]
        done = done[parents] | (tokens == END)
        if done.all():
            break
    return prefix[:, 1:].view(batch, beams, -1), totals
