"""The loss of a batch under a model, and the log-probabilities of its target tokens."""

from typing import Any

import jax.numpy as jnp

from encdec.models.interface import bind, precision_of
from encdec.ops.cross_entropy import (
    LogitFactors,
    LossSums,
    cross_entropy,
    part_rows,
    token_log_probs,
)
from encdec.ops.int8 import Int8
from encdec.parallel import collectives, devices
from encdec.parallel.layout import Layout, layout_devices
from encdec.types import Array, Batch, Params, Precision


def batch_loss(
    model: Any,
    params: Params,
    batch: Batch,
    smoothing: float,
    key: Array | None,
    tgt_in: Array | None = None,
    rows: int | None = None,
) -> LossSums:
    """Sums of the loss over a batch.

    Args:
      model: the module.
      params: its parameters, float32.
      batch: B sentence pairs.
      smoothing: of the labels.
      key: of dropout, or None for no dropout.
      tgt_in: int32 [B, T], what the decoder reads; None for the targets: the start token and all
        tokens but the last.
      rows: the most tokens whose logits exist at a time, see `rows_of_logits`; None for those of a
        CPU.

    Returns:
      The sums over this device's sentences; the same on all devices that the model is split over.
    """
    features, kernel, bias, labels, mask = _factors(model, params, batch, key, tgt_in)
    assert not isinstance(kernel, Int8)  # which has no gradient
    split = _split(model)
    return cross_entropy(features, kernel, bias, labels, mask, smoothing, *split, rows)


def batch_log_probs(model: Any, params: Params, batch: Batch, rows: int | None = None) -> Array:
    """log p of each target token, float32 [B, T] in nats, 0 at padding; see `batch_loss`.

    All devices that the model is split over get the same.
    """
    return token_log_probs(*_factors(model, params, batch, None, None), *_split(model), rows)


def rows_of_logits(model: Any, layout: Layout) -> int:
    """The most tokens whose logits a device of this layout should hold at a time."""
    vocabulary, shards, _ = _split(model)
    return part_rows(
        collectives.shard_size(vocabulary, shards),
        is_cpu=layout_devices(layout)[0].platform == "cpu",
        memory=devices.device_memory(),
    )


def _factors(
    model: Any, params: Params, batch: Batch, key: Array | None, tgt_in: Array | None
) -> tuple[Array, Array | Int8, Array | None, Array, Array]:
    """Features [B, T, D], kernel and bias of the last linear map, labels and their mask [B, T]."""
    rngs = None if key is None else {"dropout": key}
    src, src_mask, tgt, tgt_mask = map(jnp.asarray, batch)
    if tgt_in is None:
        tgt_in = tgt[:, :-1]
    factors: LogitFactors = bind(model, params)(
        src, src_mask, tgt_in, rngs=rngs, method="logit_factors"
    )
    return *factors, tgt[:, 1:], tgt_mask


def _split(model: Any) -> tuple[int, Any, Precision]:
    """V, the devices that V is split over (None for one), and the precision of products."""
    return model.tgt_vocabulary, getattr(model, "shards", None), precision_of(model)
