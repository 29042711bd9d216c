"""Learning-rate schedules and optimizers, from Optax."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from encdec.config import TrainingConfig
from encdec.training.name_patterns import is_bias
from encdec.types import Array, Params


def schedule(config: TrainingConfig) -> optax.Schedule:
    """The learning rate of update n = 0, 1, ...: a linear warm-up, then one of

    inverse-sqrt: rate * sqrt(warmup / step) (Vaswani 2017, equation 3);
    cosine: half a cosine that reaches 0 one step after the last (Loshchilov 2017, without
      restarts), so that no update has the rate 0;
    constant.

    Returns:
      A function of n, int32 [], that gives the rate, float32 [].
    """
    warmup = max(config.warmup, 1)
    decays = {
        "inverse-sqrt": lambda step: jnp.sqrt(warmup / step),
        "cosine": lambda step: 0.5 * (1 + jnp.cos(jnp.pi * _fraction_done(config, step))),
        "constant": lambda step: jnp.ones_like(step),
    }
    decay = decays[config.schedule]

    def rate(count: Array | int) -> Array:
        step = jnp.asarray(count, jnp.float32) + 1
        warm = jnp.minimum(step / warmup, 1.0)
        return config.learning_rate * warm * decay(jnp.maximum(step, warmup))

    return rate


def _fraction_done(config: TrainingConfig, step: Array) -> Array:
    """The fraction of the steps after the warm-up that are done, 0 to 1 after the last."""
    length = max(config.max_steps + 1 - config.warmup, 1)
    return jnp.clip((step - config.warmup) / length, 0, 1)


def optimizer(config: TrainingConfig) -> optax.GradientTransformation:
    """Adam (Kingma 2015) or AdamW (Loshchilov 2019).

    Every transformation works element by element, so that devices can each update a slice of the
    parameters. `TrainingConfig.weight_decay_mask` chooses what AdamW decays: biases and the scales
    of norms usually should not.
    """
    parts = [optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)]
    if config.optimizer == "adamw":
        parts.append(
            optax.add_decayed_weights(
                config.weight_decay, WEIGHT_DECAY_MASKS[config.weight_decay_mask]
            )
        )
    parts.append(optax.scale_by_learning_rate(schedule(config)))
    return optax.chain(*parts)


def _matrices(params: Params, without: str | None = None) -> Params:
    def decays(path: jax.tree_util.KeyPath, p: Array) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        is_matrix = p.ndim > 1 and not is_bias(name)
        return is_matrix and (without is None or without not in name)

    return jax.tree_util.tree_map_with_path(decays, params)


WEIGHT_DECAY_MASKS: dict[str, Callable[[Params], Params] | None] = {
    "matrices": _matrices,
    "not-embeddings": partial(_matrices, without="embedding"),
    "all": None,
}
"""For each `weight_decay_mask`: from parameters to a bool pytree, True for those that decay; None
for all."""
