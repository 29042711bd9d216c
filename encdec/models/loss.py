"""The loss of a batch under a model."""

from typing import Any

import jax
import jax.numpy as jnp

from encdec.ops.cross_entropy import LossSums, cross_entropy
from encdec.types import Array, Batch, Params


def cast(params: Params, dtype: Any) -> Params:
    """Parameters as the type that products are made of."""
    return jax.tree.map(lambda p: p.astype(dtype), params)


def batch_loss(
    model: Any,
    params: Params,
    batch: Batch,
    smoothing: float,
    key: Array | None,
    tgt_in: Array | None = None,
) -> LossSums:
    """Sums of the loss over a batch; with a key, dropout is on.

    The decoder reads `tgt_in` [B, T], or the targets themselves: BOS and all tokens but the last.
    Of a model split over devices every one gets the same sums.
    """
    rngs = None if key is None else {"dropout": key}
    src, src_mask, tgt, tgt_mask = map(jnp.asarray, batch)
    if tgt_in is None:
        tgt_in = tgt[:, :-1]
    factors: Any = model.apply(
        {"params": params}, src, src_mask, tgt_in, rngs=rngs, method="logit_factors"
    )
    return cross_entropy(
        factors.features,
        factors.kernel,
        factors.bias,
        tgt[:, 1:],
        tgt_mask,
        smoothing,
        model.tgt_vocabulary,
        getattr(model, "shards", None),
    )
