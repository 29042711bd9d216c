"""The paper's Transformer in the dialect of Marian, which computes the same.

Other libraries have no sines and cosines in turn. The order of the D numbers of the residual stream
is free, as long as all parameters that read or write them have the same: so all sines are moved
before all cosines. And their attention has biases, as have their logits: ours are then zero.
"""

from dataclasses import replace

import jax
import numpy as np

from encdec.config import TransformerConfig
from encdec.runs.checkpoints import flat
from encdec.types import Params

_KERNEL_AXES = {"wq": 0, "wk": 0, "wv": 0, "wo": 2}
"""The axis of the residual stream in the kernels of attention."""


def as_marian(config: TransformerConfig, params: Params) -> tuple[TransformerConfig, Params]:
    """Settings and parameters of a model that computes the same logits.

    Args:
      config: any; only what Marian lacks is changed.
      params: float32 pytree, whole.
    """
    params = jax.tree.map(np.asarray, params)
    if config.positions == "sinusoidal":
        order = np.concatenate([np.arange(0, config.width, 2), np.arange(1, config.width, 2)])
        leaves = [_reordered(name, leaf, order) for name, leaf in flat(params).items()]
        params = jax.tree.unflatten(jax.tree.structure(params), leaves)
        config = replace(config, positions="sinusoidal-halves")
    if config.biases == "feed-forward":
        params = {
            name: _with_biases(part) if name.startswith(("encoder_", "decoder_")) else part
            for name, part in params.items()
        }
        config = replace(config, biases="all")
    if not config.has_output_bias:
        rows = params["tgt_embedding"]["embedding"].shape[0]
        bias = {"bias": np.zeros(rows, np.float32)}
        params = {**params, "logits": {**params.get("logits", {}), **bias}}
        config = replace(config, output_bias=True)
    return config, params


def _reordered(name: str, leaf: np.ndarray, order: np.ndarray) -> np.ndarray:
    """A parameter with its axis of the residual stream in another order, if it has one."""
    *_, owner, last = ("", *name.split("."))
    if "embedding" in name and last == "embedding":
        axis = 1
    elif last in _KERNEL_AXES:
        axis = _KERNEL_AXES[last]
    elif last == "kernel":  # of the output projection or the feed-forward sub-layer
        axis = 1 if owner == "Dense_1" else 0
    elif (
        last == "bo"
        or (last in ("scale", "bias") and "norm" in name)
        or (last == "bias" and owner == "Dense_1")
    ):
        axis = 0
    else:
        return leaf
    return np.take(leaf, order, axis)


def _with_biases(layer: Params) -> Params:
    """A layer whose attention has biases of zero."""
    result = dict(layer)
    for name, part in layer.items():
        if name.endswith("attention"):
            biases = {
                f"b{letter}": np.zeros(part[f"w{letter}"].shape[1:], np.float32) for letter in "qkv"
            }
            biases["bo"] = np.zeros(part["wo"].shape[2], np.float32)
            result[name] = {**part, **biases}
    return result
