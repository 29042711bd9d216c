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
      config, params: the small one; post-norm, as in the paper.
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
        tie_embeddings=config.tie_embeddings,
        share_embeddings=config.share_embeddings,
    )
    if config != form:
        raise InputError("only a post-norm Transformer as in the paper can be enlarged")
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
        else:
            result[name] = _layer(module, copies)
    for stack in ("encoder", "decoder"):
        _add_layers(result, stack, config.layers, sizes.layers)
    if config.tie_embeddings:
        # Logits add up as many copies as the width has, of embeddings divided by the root of it.
        last = _last_norm(result[f"decoder_{sizes.layers - 1}"])
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
            norm = module["norm"]
            larger[name] = {"norm": {key: np.tile(norm[key], copies.width) for key in norm}}
    return larger


def _attention(module: Any, copies: _Copies) -> dict[str, np.ndarray]:
    into = (copies.width, copies.heads, copies.head_width)
    kernels = {name: np.tile(module[name], into) / copies.width for name in ("wq", "wk", "wv")}
    # Scores add up copies of q . k, and are divided by the root of their number.
    kernels["wq"] = kernels["wq"] / math.sqrt(copies.head_width)
    out = np.tile(module["wo"], (*into[1:], copies.width))
    return kernels | {"wo": out / (copies.heads * copies.head_width)}


def _last_norm(layer: Any) -> Any:
    names = sorted(name for name in layer if name.startswith("add_norms"))
    return layer[names[-1]]["norm"]


def _add_layers(params: dict[str, Any], stack: str, has: int, wanted: int) -> None:
    """Adds layers that change nothing, after the last; its last norm moves to the end."""
    if has == wanted:
        return
    last = params[f"{stack}_{has - 1}"]
    ending = dict(_last_norm(last))
    _last_norm(last).update(_plain_norm(ending))
    for index in range(has, wanted):
        params[f"{stack}_{index}"] = layer = _silent(last)
    _last_norm(layer).update(ending)


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
