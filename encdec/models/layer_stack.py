"""Layers of one kind, one after the other: each in the program by itself, or all as one loop."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from encdec.ops.products import KEPT
from encdec.types import Array


def in_turn(layers: Sequence[nn.Module], x: Array, shared: tuple[Any, ...], own: Any) -> Array:
    """The output of the last layer: layer i maps x to layer(x, *shared, own[i]).

    Args:
      layers: bound modules.
      x: the input of the first layer; all outputs have its shape.
      shared: what all layers are given.
      own: what each layer is given, a sequence.
    """
    for layer, mine in zip(layers, own, strict=True):
        x = layer(x, *shared, mine)
    return x


def scanned(
    layers: Sequence[nn.Module],
    x: Array,
    shared: tuple[Any, ...],
    own: Sequence[Any],
    key: Array | None,
    *,
    remat: bool = False,
) -> Array:
    """As `in_turn`, but the program has the code of one layer, and so compiles in less time.

    The parameters are stacked in the program only: the modules keep theirs by name. What layers sow
    is lost. A loop would keep each intermediate result for the gradient; this one keeps what goes
    through `encdec.ops.products.kept`, and computes the rest again.

    Args:
      layers, x, shared, own: as for `in_turn`. All layers have parameters of the same names and
        shapes, and pytrees of the same kind as their own.
      key: of dropout, from which each layer gets its own; None for none.
      remat: keep nothing but the inputs of the layers.
    """
    layer, _ = layers[0].unbind()
    keys = None if key is None else jax.random.split(key, len(layers))
    each = [(one.variables["params"], mine) for one, mine in zip(layers, own, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    names = () if remat else (KEPT,)

    # The gradient of a loop is a loop: XLA cannot merge a layer and its recomputation.
    @partial(
        jax.checkpoint,
        policy=jax.checkpoint_policies.save_only_these_names(*names),
        prevent_cse=False,
    )
    def body(x: Array, of_layer: tuple[Any, Array | None]) -> tuple[Array, None]:
        (params, mine), key = of_layer
        rngs = None if key is None else {"dropout": key}
        y: Array = layer.apply({"params": params}, x, *shared, mine, rngs=rngs)  # type: ignore
        return y, None

    return jax.lax.scan(body, x, (stacked, keys))[0]
