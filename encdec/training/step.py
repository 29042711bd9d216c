"""One update, as a pure function."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from encdec.config import TrainingConfig
from encdec.ops import masks
from encdec.ops.losses import LossSums, cross_entropy
from encdec.types import PAD, Array, Batch, Params


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


def init_state(
    model: nn.Module, optimizer: optax.GradientTransformation, config: TrainingConfig, key: Array
) -> TrainState:
    """Fresh parameters, drawn from the key, and a fresh optimiser."""
    token = jnp.ones((1, 1), jnp.int32)
    params = jax.jit(model.init)(key, token, token > 0, token)["params"]
    # A copy, since the step donates every buffer of the state.
    average = jax.tree.map(jnp.copy, params) if config.ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), average)


def batch_loss(
    model: nn.Module,
    params: Params,
    batch: Batch,
    smoothing: float,
    key: Array | None,
    tgt_in: Array | None = None,
) -> LossSums:
    """Sums of the loss over a batch; with a key, dropout is on.

    The decoder reads `tgt_in` [B, T], or the targets themselves: BOS and all tokens but the last.
    """
    rngs = None if key is None else {"dropout": key}
    src, tgt = jnp.asarray(batch.src), jnp.asarray(batch.tgt)
    read = tgt[:, :-1] if tgt_in is None else tgt_in
    factors: Any = model.apply(
        {"params": params}, src, masks.padding(src), read, rngs=rngs, method="logit_factors"
    )
    labels = tgt[:, 1:]
    return cross_entropy(factors.features, factors.kernel, factors.bias, labels, smoothing)


def scheduled_inputs(
    model: nn.Module, params: Params, batch: Batch, share: Array, key: Array
) -> Array:
    """The decoder's inputs with a share of them drawn by the model (Bengio 2015, section 2.4).

    At each step a coin decides for each sentence between the target's token and one drawn from
    p(y_t | y_<t, x), where y_<t are the inputs so far, drawn ones among them. BOS stays, and so
    does padding. No gradient goes through the draws, as in the paper; dropout is off for them.

    Args:
      batch: src [B, S], tgt [B, T + 1].
      share: float32 [], probability of the model's own token.
      key: for coins and draws.

    Returns:
      int32 [B, T].
    """
    apply = partial(model.apply, {"params": params})
    src, truth = jnp.asarray(batch.src), jnp.asarray(batch.tgt)[:, :-1]
    rows, length = truth.shape
    memory: Any = apply(src, masks.padding(src), method="encode")

    def step(carry: tuple[Any, Array], now: tuple[Array, Array]) -> tuple[Any, Array]:
        (cache, drawn), (tokens, key) = carry, now
        coin_key, draw_key = jax.random.split(key)
        own = jax.random.bernoulli(coin_key, share, (rows,)) & (drawn != PAD) & (tokens != PAD)
        tokens = jnp.where(own, drawn, tokens)
        found: Any = apply(memory, cache, tokens[:, None], method="decode_step")
        logits, _, cache = found
        drawn = jax.random.categorical(draw_key, logits[:, 0]).astype(jnp.int32)
        return (cache, drawn), tokens

    cache = apply(memory, 1, length, method="init_cache")
    start = (cache, jnp.full((rows,), PAD, jnp.int32))  # nothing is drawn yet: BOS stays
    _, tokens = jax.lax.scan(step, start, (truth.T, jax.random.split(key, length)))
    return tokens.T


def train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    config: TrainingConfig,
    state: TrainState,
    batch: Batch,
    key: Array,
) -> tuple[TrainState, StepReport]:
    """One update of the parameters by the mean loss a token.

    With `config.accumulate` the batch is split into parts, one after another: losses and gradients
    are summed over the parts and divided once, so the update is that of the whole.

    Args:
      model, optimizer, config: static.
      state: its buffers may be donated.
      batch: rows a multiple of config.accumulate.
      key: the run's dropout key; the step is folded in here.

    Returns:
      The next state, and what was measured on the way.
    """
    key = jax.random.fold_in(key, state.step)

    def loss(params: Params, batch: Batch, key: Array) -> tuple[Array, LossSums]:
        tgt_in = None
        if config.scheduled_sampling:
            done = state.step.astype(jnp.float32) / config.max_steps
            share = config.scheduled_sampling * done
            key, own = jax.random.split(key)
            tgt_in = scheduled_inputs(model, jax.lax.stop_gradient(params), batch, share, own)
        sums = batch_loss(model, params, batch, config.label_smoothing, key, tgt_in)
        return sums.loss, sums

    gradient = jax.grad(loss, has_aux=True)
    if config.accumulate == 1:
        gradients, sums = gradient(state.params, batch, key)
    else:
        gradients, sums = _accumulated(gradient, config.accumulate, state.params, batch, key)
    tokens = jnp.maximum(sums.tokens, 1)
    gradients = jax.tree.map(lambda g: g / tokens, gradients)
    updates, opt_state = optimizer.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        average = moving_average(average, params, config.ema_decay, state.step)
    report = StepReport(sums, optax.tree.norm(gradients))
    return TrainState(state.step + 1, params, opt_state, average), report


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
    split = jax.tree.map(lambda x: x.reshape(parts, -1, x.shape[-1]), batch)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(parts))

    def add(total: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(params, *part)), None

    nothing = (jax.tree.map(jnp.zeros_like, params), LossSums(*jnp.zeros(4)))
    return jax.lax.scan(add, nothing, (split, keys))[0]
