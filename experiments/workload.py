"""(No script.) What the benchmarks compute with: batches, their FLOPs, and the fastest product."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from encdec.config import AttentionConfig, ModelConfig, Seq2SeqConfig, TransformerConfig
from encdec.data import sentencepiece_model
from encdec.data.sources import read_pairs
from encdec.data.tokens import encode_pairs
from encdec.ops.products import matmul
from encdec.types import Batch, InputError, Precision, SpecialIds

_, START, END, UNKNOWN = SpecialIds()

Run = Callable[[], Any]
"""One piece of work; it returns when the device has finished."""


class Shape(NamedTuple):
    """The axes of a batch, padding included.

    Attributes:
      sentences: B.
      source, target: S and T, tokens of a sentence.
      vocabulary: V, of both sides.
    """

    sentences: int
    source: int
    target: int
    vocabulary: int


def shape_of(batch: Batch, vocabulary: int) -> Shape:
    """The axes of a batch."""
    return Shape(*batch.src.shape, batch.tgt_mask.shape[1], vocabulary)


def random_batch(shape: Shape) -> Batch:
    """Random sentences of equal length: src [B, S] and tgt [B, T + 1], with the end token."""
    random = np.random.default_rng(0)
    src, tgt = (
        random.integers(UNKNOWN + 1, shape.vocabulary, (shape.sentences, length), np.int32)
        for length in (shape.source, shape.target + 1)
    )
    src[:, -1] = tgt[:, -1] = END
    tgt[:, 0] = START
    return Batch(src, np.ones(src.shape, bool), tgt, np.ones(tgt[:, 1:].shape, bool))


def text_batches(
    source: Path, target: Path, *, sentences: int, batches: int, vocabulary: int
) -> list[Batch]:
    """Random pairs of a text, sorted by the length of their sources and cut into batches.

    Args:
      source, target: parallel files; subwords of both are learnt from them first.
      sentences: B, pairs of each batch.
      batches: how many.
      vocabulary: tokens of each side.

    Returns:
      Batches [B, S] and [B, T + 1], each as long as its longest sentences.

    Raises:
      InputError: a file cannot be read, or has too few pairs or subwords.
    """
    pairs = read_pairs([source], [target])
    vocabularies = [sentencepiece_model.train(side, vocabulary, "bpe") for side in pairs]
    examples = encode_pairs(pairs, *vocabularies)
    count = sentences * batches
    if len(pairs.src) < count:
        raise InputError(f"{source} has {len(pairs.src)} pairs, but the workload needs {count}")
    chosen = np.random.default_rng(0).choice(len(pairs.src), count, replace=False)
    src_lengths, tgt_lengths = examples.src.lengths(), examples.tgt.lengths()
    chosen = chosen[np.argsort(src_lengths[chosen], kind="stable")]
    made = []
    for rows in chosen.reshape(batches, sentences):
        src, src_mask = examples.src.padded(rows, sentences, int(src_lengths[rows].max()))
        tgt, tgt_mask = examples.tgt.padded(rows, sentences, int(tgt_lengths[rows].max()))
        made.append(
            Batch(src, src_mask, np.pad(tgt, ((0, 0), (1, 0)), constant_values=START), tgt_mask)
        )
    return made


def forward_flops(config: ModelConfig, shape: Shape) -> int:
    """FLOPs of a forward pass: 2 n m for each product of a row with a matrix [n, m]."""
    B, S, T, V = shape
    if isinstance(config, TransformerConfig):
        D, F = config.width, config.feed_forward
        encoder = S * (4 * D * D + 2 * S * D + 2 * D * F)
        cross = T * (2 * D * D + 2 * S * D) + S * 2 * D * D
        decoder = T * (4 * D * D + 2 * T * D + 2 * D * F) + cross
        products = config.layers * (encoder + decoder) + T * D * V
    elif isinstance(config, Seq2SeqConfig):
        E, H = config.embed, config.hidden
        products = (S + T) * (E + H) * 3 * H + T * H * V
    else:
        products = _attention_products(config, S, T, V)
    return 2 * B * products


def _attention_products(config: AttentionConfig, S: int, T: int, V: int) -> int:
    E, H = config.embed, config.hidden
    encoder = 2 * S * (E + H) * 3 * H
    bridge_and_keys = (1 + S) * 2 * H * H
    attention = H * H + S * H + S * 2 * H  # query, scores, weighted sum
    cell = (E + 2 * H + H) * 3 * H
    readout = (H + E + 2 * H) * E + E * V
    return encoder + bridge_and_keys + T * (attention + cell + readout)


def clock(run: Run) -> float:
    """The duration of one call in seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def matmul_peak(precision: Precision) -> float:
    """FLOP/s of the fastest square float32 product, of sizes doubled until one takes 50 ms."""
    best, size, seconds = 0.0, 256, 0.0
    while seconds < 0.05 and size < 8192:
        size *= 2
        run = _product(size, precision)
        run()
        seconds = statistics.median(clock(run) for _ in range(10))
        best = max(best, 2 * size**3 / seconds)
    return best


def _product(size: int, precision: Precision) -> Run:
    """A square matrix product."""
    x = jax.random.normal(jax.random.key(0), (size, size))
    multiply = jax.jit(lambda x, y: matmul(x, y, precision))
    return lambda: jax.block_until_ready(multiply(x, x))
