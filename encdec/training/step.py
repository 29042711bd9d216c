"""One update, as a pure function."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from encdec.ops import masks
from encdec.ops.losses import LossSums, cross_entropy
from encdec.types import Array, Batch, Params


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
      step: int32 [], updates done.
      params: float32 pytree.
      optimizer: Optax's state.
    """

    step: Array
    params: Params
    optimizer: Any


def init_state(model: nn.Module, optimizer: optax.GradientTransformation, key: Array) -> TrainState:
    """Fresh parameters, drawn from the key, and a fresh optimiser."""
    token = jnp.ones((1, 1), jnp.int32)
    params = jax.jit(model.init)(key, token, token > 0, token)["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def batch_loss(
    model: nn.Module, params: Params, batch: Batch, smoothing: float, key: Array | None
) -> LossSums:
    """Sums of the loss over a batch; with a key, dropout is on."""
    rngs = None if key is None else {"dropout": key}
    src, tgt = jnp.asarray(batch.src), jnp.asarray(batch.tgt)
    factors: Any = model.apply(
        {"params": params}, src, masks.padding(src), tgt[:, :-1], rngs=rngs, method="logit_factors"
    )
    labels = tgt[:, 1:]
    return cross_entropy(factors.features, factors.kernel, factors.bias, labels, smoothing)


def train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    smoothing: float,
    accumulate: int,
    state: TrainState,
    batch: Batch,
    key: Array,
) -> tuple[TrainState, LossSums]:
    """One update of the parameters by the mean loss a token.

    Args:
      model, optimizer, smoothing: static.
      accumulate: static; parts that the batch is split into, one after another. Losses and
        gradients are summed over the parts and divided once, so the update is that of the whole.
      state: its buffers may be donated.
      batch: rows a multiple of accumulate.
      key: the run's dropout key; the step is folded in here.

    Returns:
      The next state, and the sums of the loss before the update.
    """
    key = jax.random.fold_in(key, state.step)

    def loss(params: Params, batch: Batch, key: Array) -> tuple[Array, LossSums]:
        sums = batch_loss(model, params, batch, smoothing, key)
        return sums.loss, sums

    gradient = jax.grad(loss, has_aux=True)
    if accumulate == 1:
        gradients, sums = gradient(state.params, batch, key)
    else:
        gradients, sums = _accumulated(gradient, accumulate, state.params, batch, key)
    tokens = jnp.maximum(sums.tokens, 1)
    gradients = jax.tree.map(lambda g: g / tokens, gradients)
    updates, opt_state = optimizer.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, opt_state), sums


def _accumulated(
    gradient: Callable[..., tuple[Params, LossSums]],
    parts: int,
    params: Params,
    batch: Batch,
    key: Array,
) -> tuple[Params, LossSums]:
    """Sums of gradients and losses over equal parts of a batch."""
    split = jax.tree.map(lambda x: x.reshape(parts, -1, x.shape[-1]), batch)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(parts))

    def add(total: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(params, *part)), None

    nothing = (jax.tree.map(jnp.zeros_like, params), LossSums(*jnp.zeros(4)))
    return jax.lax.scan(add, nothing, (split, keys))[0]
