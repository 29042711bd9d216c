"""A small Transformer as one of larger sizes that computes the same function.

What a search costs depends on the sizes, and on the lengths of what it writes. Random parameters of
large sizes write no sentences; these write those of a small model that has been trained.

Each array is repeated along its axes and divided by the number of copies that a product adds up, so
that every activation is that of the small model, repeated. Layers that are added have zeros where
they write into the residual sum.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from encdec.config import TransformerConfig
from encdec.ops.positions import sinusoidal
from encdec.types import InputError, Params


@dataclass(frozen=True)
class _Copies:
    """How often what is repeated along the width, the heads, a head's width and the FFN."""

    width: int
    heads: int
    head_width: int
    feed_forward: int


def enlarge(
    config: TransformerConfig, params: Params, sizes: TransformerConfig
) -> tuple[TransformerConfig, Params]:
    """A Transformer that has the logits of a small one, up to rounding.

    Args:
      config, params: the small one; as in the paper, or pre-norm.
      sizes: the layers, width, heads, head width and FFN hidden size; all but the layers are
        multiples of those of `config`.

    Returns:
      Its settings and its parameters. Sinusoids become a table, since they depend on the width.

    Raises:
      InputError: the small model has another form, or a size does not fit.
    """
    form = replace(
        TransformerConfig(),
        **{name: getattr(config, name) for name in ("layers", "width", "heads", "feed_forward")},
        dropout=config.dropout,
        norm=config.norm,
        tie_embeddings=config.tie_embeddings,
        share_embeddings=config.share_embeddings,
    )
    if config != form:
        raise InputError("only a Transformer as in the paper, or pre-norm, can be enlarged")
    pairs = {
        name: (getattr(sizes, name), getattr(config, name))
        for name in ("width", "heads", "width_of_head", "feed_forward")
    }
    for name, (large, small) in pairs.items():
        if large % small:
            raise InputError(f"{name} = {large} is no multiple of the model's {small}")
    if sizes.layers < config.layers:
        raise InputError(f"layers = {sizes.layers} are fewer than the model's {config.layers}")
    copies = _Copies(*(large // small for large, small in pairs.values()))
    larger = replace(
        config,
        layers=sizes.layers,
        width=sizes.width,
        heads=sizes.heads,
        feed_forward=sizes.feed_forward,
        positions="learned",
    )
    table = np.tile(sinusoidal(larger.max_positions, config.width), copies.width)
    result: dict[str, Any] = {name: {"table": table} for name in ("src_positions", "tgt_positions")}
    for name, module in params.items():
        if "embedding" in name:
            tiled = np.tile(module["embedding"], copies.width)
            result[name] = {"embedding": tiled / math.sqrt(copies.width)}
        elif name == "logits":
            kernel = np.tile(module["kernel"], (copies.width, 1)) / copies.width
            result[name] = {**module, "kernel": kernel}
        elif name.startswith("final_norms"):
            result[name] = _norm(module, copies)
        else:
            result[name] = _layer(module, copies)
    for stack in ("encoder", "decoder"):
        _add_layers(result, stack, larger, config.layers)
    if config.tie_embeddings:
        # Logits add up as many copies as the width has, of embeddings divided by the root of it.
        is_pre = config.norm == "pre"
        last = result["final_norms_1"] if is_pre else _last_norm(result, "decoder", sizes.layers)
        for name in last:
            last[name] = last[name] / math.sqrt(copies.width)
    return larger, result


def _layer(layer: Any, copies: _Copies) -> dict[str, Any]:
    larger: dict[str, Any] = {}
    for name, module in layer.items():
        if "attention" in name:
            larger[name] = _attention(module, copies)
        elif name == "feed_forward":
            first, second = module["Dense_0"], module["Dense_1"]
            shape = (copies.width, copies.feed_forward)
            larger[name] = {
                "Dense_0": {
                    "kernel": np.tile(first["kernel"], shape) / copies.width,
                    "bias": np.tile(first["bias"], copies.feed_forward),
                },
                "Dense_1": {
                    "kernel": np.tile(second["kernel"], shape[::-1]) / copies.feed_forward,
                    "bias": np.tile(second["bias"], copies.width),
                },
            }
        else:
            larger[name] = {"norm": _norm(module["norm"], copies)}
    return larger


def _norm(norm: Any, copies: _Copies) -> dict[str, np.ndarray]:
    return {key: np.tile(norm[key], copies.width) for key in norm}


def _attention(module: Any, copies: _Copies) -> dict[str, np.ndarray]:
    into = (copies.width, copies.heads, copies.head_width)
    kernels = {name: np.tile(module[name], into) / copies.width for name in ("wq", "wk", "wv")}
    # Scores add up copies of q . k, and are divided by the root of their number.
    kernels["wq"] = kernels["wq"] / math.sqrt(copies.head_width)
    out = np.tile(module["wo"], (*into[1:], copies.width))
    return kernels | {"wo": out / (copies.heads * copies.head_width)}


def _last_norm(params: dict[str, Any], stack: str, layers: int) -> dict[str, Any]:
    """The norm with which a stack of so many layers ends, if it is post-norm."""
    layer = params[f"{stack}_{layers - 1}"]
    return layer[max(name for name in layer if name.startswith("add_norms"))]["norm"]


def _add_layers(params: dict[str, Any], stack: str, larger: TransformerConfig, has: int) -> None:
    """Adds layers that change nothing, after the last; a post-norm stack still ends as it did."""
    if has == larger.layers:
        return
    last = params[f"{stack}_{has - 1}"]
    for index in range(has, larger.layers):
        params[f"{stack}_{index}"] = _silent(last)
    if larger.norm == "post":
        old, new = (_last_norm(params, stack, layers) for layers in (has, larger.layers))
        new.update(old)
        old.update(_plain_norm(old))


def _plain_norm(norm: Any) -> dict[str, np.ndarray]:
    return {"scale": np.ones_like(norm["scale"]), "bias": np.zeros_like(norm["bias"])}


def _silent(layer: Any) -> dict[str, Any]:
    """A layer whose sub-layers write zeros."""
    silent: dict[str, Any] = {}
    for name, module in layer.items():
        if "attention" in name:
            silent[name] = module | {"wo": np.zeros_like(module["wo"])}
        elif name == "feed_forward":
            second = {key: np.zeros_like(x) for key, x in module["Dense_1"].items()}
            silent[name] = module | {"Dense_1": second}
        else:
            silent[name] = {"norm": _plain_norm(module["norm"])}
    return silent
