"""The training step: one update of the parameters, a pure function of one device's arrays."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from encdec.config import TrainingConfig
from encdec.models.interface import bind
from encdec.models.loss import batch_loss
from encdec.ops.cross_entropy import LossSums
from encdec.parallel import collectives
from encdec.parallel.collectives import Axes
from encdec.training.fine_tuning import Roles, merge
from encdec.types import Array, Batch, Params


class TrainState(NamedTuple):
    """The state of training: all arrays that training changes, and the frozen parameters.

    Attributes:
      step: int32 [], updates so far.
      params: float32 pytree, the trainable parameters.
      optimizer: the state of the Optax optimizer for the trainable parameters.
      average: the exponential moving average of params, or None if the settings have none.
      frozen: float32 pytree, the frozen parameters; None where all are trained (see
        `encdec.training.fine_tuning`).
    """

    step: Array
    params: Params
    optimizer: Any
    average: Params | None
    frozen: Params | None = None


class StepReport(NamedTuple):
    """The measurements of an update.

    Attributes:
      sums: the loss of the batch before the update, float32 sums over its tokens.
      gradient_norm: float32 [], the norm of the mean gradient per token, before clipping.
    """

    sums: LossSums
    gradient_norm: Array


class StepSharding(NamedTuple):
    """How devices divide a step: each has its own shards of parameters, optimizer and batch.

    Attributes:
      axes: the names of the device axes.
      split: a pytree of the structure of the trainable parameters: the array axis (int) along which
        each is split over `axes.model`, -1 for none; None if no parameter is split.
      shard_optimizer: each device updates a slice of the parameters over `axes.data`, and holds the
        optimizer's state for that slice only (Rajbhandari 2020, "ZeRO", stage 1).
    """

    axes: Axes = Axes()
    split: Params | None = None
    shard_optimizer: bool = False


SINGLE_DEVICE = StepSharding()
"""One device computes everything."""


def init_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    config: TrainingConfig,
    frozen: Params | None = None,
    *,
    sharding: StepSharding = SINGLE_DEVICE,
) -> TrainState:
    """The state before the first step, of one device's trainable and frozen parameters."""
    # A copy, since the step donates every buffer of the state.
    average = jax.tree.map(jnp.copy, params) if config.ema_decay else None
    updated = params
    if sharding.shard_optimizer:
        axis = sharding.axes.data
        updated = jax.tree.map(lambda p: collectives.local_shard(p, axis), params)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(updated), average, frozen)


def state_axes(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    split: Params,
    frozen_split: Params | None = None,
) -> TrainState:
    """The axis (int) along which each array of a state is split, -1 for none.

    Args:
      optimizer: the optimizer that made the state.
      state: arrays or shapes.
      split: the axes of the trainable parameters.
      frozen_split: the axes of the frozen parameters.
    """
    of_optimizer: Any = optax.tree_utils.tree_map_params(
        optimizer, lambda _, axis: axis, state.optimizer, split, transform_non_params=lambda _: -1
    )
    return TrainState(
        step=-1,  # type: ignore[arg-type]
        params=split,
        optimizer=of_optimizer,
        average=None if state.average is None else split,
        frozen=frozen_split,
    )


def scheduled_inputs(
    model: nn.Module, params: Params, batch: Batch, rate: Array, key: Array
) -> Array:
    """The decoder's inputs with some tokens drawn from the model (Bengio 2015, section 2.4).

    At each step each sentence takes the target's token or, with probability `rate`, one drawn from
    p(y_t | y_<t, x), where y_<t are the inputs so far, drawn ones among them. The start token and
    padding are never replaced. No gradient goes through the draws, as in the paper, and dropout is
    off for them.

    Args:
      model, params: the model to draw from.
      batch: B sentence pairs.
      rate: float32 [], the probability of a drawn token.
      key: for the choice of positions and the draws.

    Returns:
      int32 [B, T].
    """
    apply = bind(model, params)
    src, src_mask, tgt, tgt_mask = map(jnp.asarray, batch)
    truth = tgt[:, :-1]
    rows, length = truth.shape
    # Input t is target token t - 1, so the mask of replaceable inputs is the shifted target mask.
    replaceable = jnp.pad(tgt_mask[:, :-1], ((0, 0), (1, 0)))
    memory: Any = apply(src, src_mask, method="encode")

    def step(carry: tuple[Any, Array], now: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        (cache, drawn), (tokens, may_change, key) = carry, now
        coin_key, draw_key = jax.random.split(key)
        replace = jax.random.bernoulli(coin_key, rate, (rows,)) & may_change
        tokens = jnp.where(replace, drawn, tokens)
        decoded: Any = apply(memory, cache, tokens[:, None], method="decode_step")
        logits, _, cache = decoded
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
    sharding: StepSharding = SINGLE_DEVICE,
    roles: Roles | None = None,
    rows: int | None = None,
) -> tuple[TrainState, StepReport]:
    """One update of the trainable parameters by the mean loss per token.

    With `config.gradient_accumulation` the batch is split into parts that are computed one after
    another: losses and gradients are summed over the parts and divided once, so the update is that
    of the whole batch. The same holds for sentences on other devices.

    Args:
      model, optimizer, config: static.
      state: its buffers may be donated.
      batch: B sentence pairs, B a multiple of config.gradient_accumulation.
      key: the dropout key of the run; the number of the step is folded in.
      sharding: how devices divide the step; the model must be built for the same `axes.model`.
      roles: the role of each parameter in training; None where all are trained.
      rows: static; see `batch_loss`.

    Returns:
      The next state, and the measurements of the update.
    """
    axes = sharding.axes
    key = jax.random.fold_in(key, state.step)
    # Each data shard has different sentences, so it draws different dropout masks.
    dropout_key = jax.random.fold_in(key, collectives.axis_index(axes.data)) if axes.data else key

    def loss(params: Params, batch: Batch, key: Array) -> tuple[Array, LossSums]:
        params = merge(roles, params, state.frozen, axes.model)
        tgt_in = None
        if config.scheduled_sampling:
            rate = config.scheduled_sampling * state.step.astype(jnp.float32) / config.max_steps
            key, draw_key = jax.random.split(key)
            fixed = jax.lax.stop_gradient(params)
            tgt_in = scheduled_inputs(model, fixed, batch, rate, draw_key)
        sums = batch_loss(model, params, batch, config.label_smoothing, key, tgt_in, rows)
        return sums.loss, sums

    gradients, sums = _summed_gradient(
        jax.grad(loss, has_aux=True), config, state.params, batch, dropout_key
    )
    gradients, sums = _summed_over_data(gradients, sums, sharding)
    tokens = jnp.maximum(sums.tokens, 1)
    gradients = jax.tree.map(lambda g: g / tokens, gradients)
    norm = _global_norm(gradients, sharding)
    if config.clip_norm:  # Pascanu 2013, algorithm 1
        factor = jnp.where(norm < config.clip_norm, 1.0, config.clip_norm / norm)
        gradients = jax.tree.map(lambda g: g * factor, gradients)
    params, opt_state = _updated(optimizer, gradients, state, sharding)
    average = state.average
    if average is not None:
        average = moving_average(average, params, config.ema_decay, state.step)
    state = TrainState(state.step + 1, params, opt_state, average, state.frozen)
    return state, StepReport(sums, norm)


def _summed_gradient(
    gradient: Callable[..., tuple[Params, LossSums]],
    config: TrainingConfig,
    params: Params,
    batch: Batch,
    key: Array,
) -> tuple[Params, LossSums]:
    """Sums of gradients and losses over this device's sentences, computed part by part."""
    parts = config.gradient_accumulation
    if parts == 1:
        return gradient(params, batch, key)
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(parts))

    def add(total: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(params, *part)), None

    zero = (jax.tree.map(jnp.zeros_like, params), LossSums(*jnp.zeros(3)))
    return jax.lax.scan(add, zero, (split, keys))[0]


def _summed_over_data(
    gradients: Params, sums: LossSums, sharding: StepSharding
) -> tuple[Params, LossSums]:
    """Sums gradients and losses over the data shards.

    With `shard_optimizer` a device gets the sum of its slice of each gradient only.
    """
    axis = sharding.axes.data
    if not sharding.shard_optimizer:
        return collectives.psum((gradients, sums), axis)

    def slice_sum(gradient: Array) -> Array:
        padded, along = collectives.pad_for_shards(gradient, axis)
        return collectives.reduce_scatter(padded, axis, along)

    return jax.tree.map(slice_sum, gradients), collectives.psum(sums, axis)


def _global_norm(gradients: Params, sharding: StepSharding) -> Array:
    """The norm of the full gradient, of which each device may hold a shard."""
    leaves = jax.tree.leaves(gradients)
    split = [-1] * len(leaves) if sharding.split is None else jax.tree.leaves(sharding.split)
    squares = [jnp.square(g).sum() for g in leaves]
    # Replicated gradients count once; those of split parameters are summed over the model's shards.
    replicated = [square for square, axis in zip(squares, split, strict=True) if axis < 0]
    sharded = [square for square, axis in zip(squares, split, strict=True) if axis >= 0]
    total = jnp.asarray(sum(replicated, jnp.zeros(())))
    if sharded:
        total += collectives.psum(jnp.asarray(sum(sharded)), sharding.axes.model)
    if sharding.shard_optimizer:
        total = collectives.psum(total, sharding.axes.data)
    return jnp.sqrt(total)


def _updated(
    optimizer: optax.GradientTransformation,
    gradients: Params,
    state: TrainState,
    sharding: StepSharding,
) -> tuple[Params, Any]:
    """The trainable parameters and the optimizer's state after an update.

    With `shard_optimizer` each device updates its slice, and the slices are gathered.
    """
    if not sharding.shard_optimizer:
        updates, opt_state = optimizer.update(gradients, state.optimizer, state.params)
        return optax.apply_updates(state.params, updates), opt_state
    axis = sharding.axes.data
    slices = jax.tree.map(lambda p: collectives.local_shard(p, axis), state.params)
    updates, opt_state = optimizer.update(gradients, state.optimizer, slices)
    slices = optax.apply_updates(slices, updates)
    gather = partial(collectives.all_gather_shards, axis=axis)
    return jax.tree.map(gather, slices, state.params), opt_state


def moving_average(average: Params, params: Params, decay: float, step: Array) -> Params:
    """average + (1 - d) (params - average) with d = min(decay, (1 + step) / (10 + step)).

    The decay d rises from 0.1, so that the first, random parameters are soon forgotten.

    Args:
      average, params: float32 pytrees.
      decay: the largest decay d.
      step: int32 [], updates before this one.
    """
    step = step.astype(jnp.float32)
    d = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: a + (1 - d) * (p - a), average, params)
