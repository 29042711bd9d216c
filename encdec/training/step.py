"""One update, as a pure function."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from encdec.config import TrainingConfig
from encdec.models.loss import batch_loss, cast
from encdec.ops.cross_entropy import LossSums
from encdec.parallel import collectives
from encdec.parallel.collectives import Axes
from encdec.types import Array, Batch, Params


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
      step: int32 [], updates done.
      params: float32 pytree.
      optimizer: Optax's state.
      average: an exponential moving average of params, or None where there is none.
    """

    step: Array
    params: Params
    optimizer: Any
    average: Params | None


class StepReport(NamedTuple):
    """What an update measured.

    Attributes:
      sums: the batch's loss before the update.
      gradient_norm: of the mean gradient a token, before clipping, float32 [].
    """

    sums: LossSums
    gradient_norm: Array


class StepSharding(NamedTuple):
    """How devices share a step; each sees its own part of parameters, optimiser and batch.

    Attributes:
      axes: the devices.
      split: a pytree like the parameters of the array axis (int) that each is split along over
        `axes.model`, -1 for none; None where there is no such axis.
      shard_optimizer: each device updates a slice of the parameters over `axes.data` and holds the
        optimiser's state for it alone (Rajbhandari 2020, "ZeRO", stage 1).
    """

    axes: Axes = Axes()
    split: Params | None = None
    shard_optimizer: bool = False


SINGLE_DEVICE = StepSharding()
"""One device does everything."""


def init_state(
    params: Params, optimizer: optax.GradientTransformation, config: TrainingConfig
) -> TrainState:
    """The state before the first step."""
    # A copy, since the step donates every buffer of the state.
    average = jax.tree.map(jnp.copy, params) if config.ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), average)


def state_axes(
    optimizer: optax.GradientTransformation, state: TrainState, split: Params
) -> TrainState:
    """The axis (int) that each array of a state is split along, -1 for none.

    Args:
      optimizer: whose state it is.
      state: arrays or shapes.
      split: of the parameters.
    """
    of_optimizer: Any = optax.tree_utils.tree_map_params(
        optimizer, lambda _, axis: axis, state.optimizer, split, transform_non_params=lambda _: -1
    )
    return TrainState(
        step=-1,  # type: ignore[arg-type]
        params=split,
        optimizer=of_optimizer,
        average=None if state.average is None else split,
    )


def scheduled_inputs(
    model: nn.Module, params: Params, batch: Batch, share: Array, key: Array
) -> Array:
    """The decoder's inputs with a share of them drawn by the model (Bengio 2015, section 2.4).

    At each step a coin decides for each sentence between the target's token and one drawn from
    p(y_t | y_<t, x), where y_<t are the inputs so far, drawn ones among them. The start token
    stays, and so does padding. No gradient goes through the draws, as in the paper; dropout is off
    for them.

    Args:
      batch: B sentence pairs.
      share: float32 [], probability of the model's own token.
      key: for coins and draws.

    Returns:
      int32 [B, T].
    """
    apply = partial(model.apply, {"params": params})
    src, src_mask, tgt, tgt_mask = map(jnp.asarray, batch)
    truth = tgt[:, :-1]
    rows, length = truth.shape
    # Input t is target token t - 1: what may be replaced is the target's mask, one step later.
    replaceable = jnp.pad(tgt_mask[:, :-1], ((0, 0), (1, 0)))
    memory: Any = apply(src, src_mask, method="encode")

    def step(carry: tuple[Any, Array], now: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        (cache, drawn), (tokens, may_change, key) = carry, now
        coin_key, draw_key = jax.random.split(key)
        own = jax.random.bernoulli(coin_key, share, (rows,)) & may_change
        tokens = jnp.where(own, drawn, tokens)
        found: Any = apply(memory, cache, tokens[:, None], method="decode_step")
        logits, _, cache = found
        drawn = jax.random.categorical(draw_key, logits[:, 0]).astype(jnp.int32)
        return (cache, drawn), tokens

    cache = apply(memory, 1, length, method="init_cache")
    start = (cache, truth[:, 0])  # nothing is drawn yet: the start token stays
    xs = (truth.T, replaceable.T, jax.random.split(key, length))
    _, tokens = jax.lax.scan(step, start, xs)
    return tokens.T


def train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    config: TrainingConfig,
    state: TrainState,
    batch: Batch,
    key: Array,
    *,
    sharing: StepSharding = SINGLE_DEVICE,
    dtype: Any = jnp.float32,
) -> tuple[TrainState, StepReport]:
    """One update of the parameters by the mean loss a token.

    With `config.gradient_accumulation` the batch is split into parts that are computed one after
    another: losses and gradients are summed over the parts and divided once, so the update is that
    of the whole batch. The same holds for sentences on other devices.

    Args:
      model, optimizer, config: static.
      state: its buffers may be donated.
      batch: rows a multiple of config.gradient_accumulation.
      key: the run's dropout key; the step is folded in here.
      sharing: how devices share the step; the model must be of the same `axes.model`.
      dtype: of products; parameters, sums and softmax stay float32.

    Returns:
      The next state, and what was measured on the way.
    """
    axes = sharing.axes
    key = jax.random.fold_in(key, state.step)
    if axes.data:  # other sentences, other dropout
        key = jax.random.fold_in(key, collectives.axis_index(axes.data))

    def loss(params: Params, batch: Batch, key: Array) -> tuple[Array, LossSums]:
        params = cast(params, dtype)
        tgt_in = None
        if config.scheduled_sampling:
            done = state.step.astype(jnp.float32) / config.max_steps
            share = config.scheduled_sampling * done
            key, own = jax.random.split(key)
            tgt_in = scheduled_inputs(model, jax.lax.stop_gradient(params), batch, share, own)
        sums = batch_loss(model, params, batch, config.label_smoothing, key, tgt_in)
        return sums.loss, sums

    gradient = jax.grad(loss, has_aux=True)
    if config.gradient_accumulation == 1:
        gradients, sums = gradient(state.params, batch, key)
    else:
        gradients, sums = _accumulated(
            gradient, config.gradient_accumulation, state.params, batch, key
        )
    if sharing.shard_optimizer:
        sums = collectives.psum(sums, axes.data)
        gradients = jax.tree.map(partial(_summed_slice, axes), gradients)
    else:
        gradients, sums = collectives.psum((gradients, sums), axes.data)
    tokens = jnp.maximum(sums.tokens, 1)
    gradients = jax.tree.map(lambda g: g / tokens, gradients)
    norm = _global_norm(gradients, sharing)
    if config.clip_norm:  # Pascanu 2013
        factor = jnp.where(norm < config.clip_norm, 1.0, config.clip_norm / norm)
        gradients = jax.tree.map(lambda g: g * factor, gradients)
    params, opt_state = _updated(optimizer, gradients, state, sharing)
    average = state.average
    if average is not None:
        average = moving_average(average, params, config.ema_decay, state.step)
    return TrainState(state.step + 1, params, opt_state, average), StepReport(sums, norm)


def _updated(
    optimizer: optax.GradientTransformation,
    gradients: Params,
    state: TrainState,
    sharing: StepSharding,
) -> tuple[Params, Any]:
    """The parameters and the optimiser's state after an update; with slices, each its own."""
    if not sharing.shard_optimizer:
        updates, opt_state = optimizer.update(gradients, state.optimizer, state.params)
        return optax.apply_updates(state.params, updates), opt_state
    axis = sharing.axes.data
    slices = jax.tree.map(lambda p: collectives.local_shard(p, axis), state.params)
    updates, opt_state = optimizer.update(gradients, state.optimizer, slices)
    slices = optax.apply_updates(slices, updates)
    return jax.tree.map(
        partial(collectives.all_gather_shards, axis=axis), slices, state.params
    ), opt_state


def _summed_slice(axes: Axes, gradient: Array) -> Array:
    """This device's slice of a gradient's sum over the data axis."""
    padded, along = collectives.pad_for_shards(gradient, axes.data)
    return collectives.reduce_scatter(padded, axes.data, along)


def _global_norm(gradients: Params, sharing: StepSharding) -> Array:
    """The norm of the whole gradient, of which a device may hold a part."""
    leaves = jax.tree.leaves(gradients)
    axes = jax.tree.leaves(sharing.split) if sharing.split is not None else [-1] * len(leaves)
    squares = [jnp.square(g).sum() for g in leaves]
    here = [square for square, axis in zip(squares, axes, strict=True) if axis >= 0]
    everywhere = [square for square, axis in zip(squares, axes, strict=True) if axis < 0]
    whole = jnp.asarray(sum(everywhere, jnp.zeros(())))
    if here:
        whole += collectives.psum(jnp.asarray(sum(here)), sharing.axes.model)
    if sharing.shard_optimizer:
        whole = collectives.psum(whole, sharing.axes.data)
    return jnp.sqrt(whole)


def moving_average(average: Params, params: Params, decay: float, step: Array) -> Params:
    """average + (1 - d) (params - average), with d = min(decay, (1 + step) / (10 + step)), so that
    the first, random parameters are soon forgotten."""
    step = step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: a + (1 - kept) * (p - a), average, params)


def _accumulated(
    gradient: Callable[..., tuple[Params, LossSums]],
    parts: int,
    params: Params,
    batch: Batch,
    key: Array,
) -> tuple[Params, LossSums]:
    """Sums of gradients and losses over equal parts of a batch."""
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(parts))

    def add(total: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(params, *part)), None

    nothing = (jax.tree.map(jnp.zeros_like, params), LossSums(*jnp.zeros(4)))
    return jax.lax.scan(add, nothing, (split, keys))[0]
