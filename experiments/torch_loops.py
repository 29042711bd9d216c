"""Training and search of the models of `torch_peers.py`, for comparison in `benchmark.py`.

Axes: see `encdec.types`; N = B * W is the number of hypotheses.
"""

import os
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from encdec.config import TrainingConfig
from encdec.types import SpecialIds

PAD, START, END, _ = SpecialIds()


def prepare(precision: Literal["float32", "tf32"]) -> None:
    """Sets PyTorch to all cores, as JAX uses them, and to a precision of float32 products."""
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_float32_matmul_precision({"float32": "highest", "tf32": "high"}[precision])


def make_endless(model: Any, bias: float) -> None:
    """Gives the end token a bias with which it is never likely."""
    with torch.no_grad():
        model.logits.bias[END] = bias


def trainer(model: nn.Module, config: TrainingConfig) -> Callable[[tuple[Tensor, ...]], Tensor]:
    """A function that makes one update each time it is called.

    Args:
      model: one of the models above.
      config: learning rate, clipping and label smoothing.

    Returns:
      (src int64 [B, S], tgt int64 [B, T + 1], the start token first) -> the loss before the update,
      nats per token.
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

    def update(pair: tuple[Tensor, ...]) -> Tensor:
        src, tgt = pair
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


@torch.inference_mode()
def greedy(model: Any, src: Tensor, limits: Tensor) -> Tensor:
    """The likeliest token at each step: src [B, S], limits [B] of tokens, int64 -> int64 [B, T]."""
    model.eval()
    memory, state = model.start(src, 1)
    prefix = src.new_full((len(src), 1), START)
    done = torch.zeros(len(src), dtype=torch.bool, device=src.device)
    for length in range(1, int(limits.max()) + 1):
        logits, state = model.step(memory, state, prefix)
        logits[:, :END] = -torch.inf  # padding and start
        tokens = logits.argmax(-1).masked_fill(done, PAD)
        prefix = torch.cat([prefix, tokens[:, None]], 1)
        done = done | (tokens == END) | (length >= limits)
        if done.all():
            break
    return prefix[:, 1:]


@torch.inference_mode()
def beam_search(model: Any, src: Tensor, limits: Tensor, beams: int) -> tuple[Tensor, Tensor]:
    """Beam search in which finished hypotheses stay in the beam.

    src [B, S] and limits [B] of tokens, int64 -> tokens int64 [B, W, T] and log-probabilities
    [B, W], best first.
    """
    model.eval()
    batch = len(src)
    memory, state = model.start(src, beams)
    prefix = src.new_full((batch * beams, 1), START)
    done = torch.zeros(batch * beams, dtype=torch.bool, device=src.device)
    first = torch.arange(batch, device=src.device)[:, None] * beams
    totals = torch.full((batch, beams), -torch.inf, device=src.device)
    totals[:, 0] = 0  # all W hypotheses begin alike, so only the first counts
    most = limits.repeat_interleave(beams)
    for length in range(1, int(limits.max()) + 1):
        logits, state = model.step(memory, state, prefix)
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
        state = tuple(x[parents] for x in state)
        done = done[parents] | (tokens == END) | (length >= most)
        if done.all():
            break
    return prefix[:, 1:].view(batch, beams, -1), totals
