"""Which parameters are trained: all, those that no pattern freezes, or low-rank additions.

A state of training holds two pytrees of the model's structure: `trainable`, which gradients,
optimizer and averages see, and `frozen`. Each position belongs to one role:

| role | trainable | frozen | the model's parameter |
|---|---|---|---|
| trained | W | None | W |
| frozen | None | W | W |
| low-rank | LowRank(A, B) | W | W + (alpha / r) A B |

`merge` computes the model's parameters from both. A model does not know that they were merged.

Low-rank additions are LoRA (Hu 2021, section 4.1). A matrix is a tensor [*inputs, *outputs]: an
attention kernel [D, H, K] maps D to H K, and [H, K, D] maps H K to D. A is [*inputs, r] and B is
[r, *outputs], so that A B is one contraction of the shape of W.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from encdec.config import FineTuningConfig
from encdec.models import registry
from encdec.parallel import collectives
from encdec.parallel.collectives import Axis
from encdec.runs.checkpoints import flat
from encdec.runs.parameters import abstract_params, build_model
from encdec.runs.run import Run
from encdec.training.name_patterns import is_bias, match
from encdec.types import Array, InputError, Params


class LowRank(NamedTuple):
    """The factors of an addition to a matrix, each float32.

    Attributes:
      a: [*inputs, r].
      b: [r, *outputs].
    """

    a: Any
    b: Any


@dataclass(frozen=True)
class Role:
    """The role of one parameter in training.

    Attributes:
      trained: whether the parameter itself is trained.
      input_axes: if above 0, a low-rank addition is trained, and this is the number of leading axes
        that are the inputs of the matrix.
      split: the axis along which the model's shards split the parameter, -1 for none.
    """

    trained: bool = True
    input_axes: int = 0
    split: int = -1

    @property
    def low_rank_split(self) -> LowRank:
        """The axes (int) of the factors A and B that devices split, -1 for none."""
        if self.split < 0:
            return LowRank(-1, -1)
        if self.split < self.input_axes:
            return LowRank(self.split, -1)
        return LowRank(-1, self.split - self.input_axes + 1)


class Roles(NamedTuple):
    """The roles of all parameters of a model.

    Attributes:
      of: pytree of Role, of the structure of the model's parameters.
      rank: r of the low-rank additions; 0 where there are none.
      scale: alpha / r.
    """

    of: Params
    rank: int = 0
    scale: float = 1.0


def assign_roles(config: FineTuningConfig, shapes: Params, split: Params) -> Roles | None:
    """The role of each parameter; None where all are trained.

    Args:
      config: patterns and rank.
      shapes: the model's parameters or their shapes, as on a single device.
      split: a pytree of the same structure: the axis (int) along which each parameter is split over
        the model's shards, -1 for none.

    Raises:
      InputError: a pattern matches nothing, everything would be frozen, or the rank exceeds a
        matrix.
    """
    names, axes = flat(shapes), flat(split)
    if config.lora_rank:
        inputs = {
            name: 0 if is_bias(name) else input_axes(leaf.shape, axes[name])
            for name, leaf in names.items()
        }
        targets = _low_rank_targets(config, names, inputs)
        roles = [Role(False, inputs[n] if n in targets else 0, axes[n]) for n in names]
        return Roles(_like(shapes, roles), config.lora_rank, config.lora_scale)
    if not config.freeze:
        return None
    frozen = match("freeze", config.freeze, names)
    if len(frozen) == len(names):
        raise InputError(
            f"freeze = {_quoted(config.freeze)} freezes all {len(names)} parameters: leave out a "
            "pattern, so that something is trained"
        )
    return Roles(_like(shapes, [Role(name not in frozen, 0, axes[name]) for name in names]))


def roles_of_run(run: Run) -> Roles | None:
    """The role of each parameter of a run; raises InputError as `assign_roles` does."""
    model = build_model(run)
    return assign_roles(
        run.config.fine_tuning, registry.abstract(model), registry.split_axes(model)
    )


def input_axes(shape: tuple[int, ...], split: int) -> int:
    """The number of leading axes of a parameter that are the inputs of a matrix; 0 for others.

    A tensor of three axes is an attention kernel, whose heads are the axis that devices split:
    heads and head width go together, [D, (H, K)] or [(H, K), D].
    """
    if len(shape) == 2:
        return 1
    return {0: 2, 1: 1}.get(split, 0) if len(shape) == 3 else 0


def _low_rank_targets(
    config: FineTuningConfig, names: dict[str, Any], inputs: dict[str, int]
) -> set[str]:
    """The names of the matrices with low-rank additions."""
    matrices = [name for name, axes in inputs.items() if axes]
    if config.lora_targets:
        targets = match("lora_targets", config.lora_targets, matrices, "matrix")
    else:
        not_by_default = ("embedding", "logits", "positions", "_bias_")
        targets = {n for n in matrices if not any(part in n for part in not_by_default)}
    if not targets:
        raise InputError(
            "lora_rank is for matrices, and this model has only embeddings and the output "
            "projection: name these with lora_targets, or leave lora_rank out"
        )
    most = {n: _largest_rank(names[n].shape, inputs[n]) for n in targets}
    smallest = min(sorted(targets), key=lambda n: most[n])
    if config.lora_rank > most[smallest]:
        raise InputError(
            f"lora_rank = {config.lora_rank} cannot be used: {smallest} "
            f"{list(names[smallest].shape)} has rank {most[smallest]} at most; a rank up to that, "
            "or lora_targets without it, would do"
        )
    return targets


def _largest_rank(shape: tuple[int, ...], input_axes: int) -> int:
    return min(math.prod(shape[:input_axes]), math.prod(shape[input_axes:]))


def _quoted(patterns: Sequence[str]) -> str:
    return " ".join(map(repr, patterns))


def _like(tree: Params, leaves: Sequence[Any]) -> Params:
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def partition(roles: Roles | None, params: Params, key: Array) -> tuple[Params, Params | None]:
    """A model's parameters as the trainable and the frozen ones.

    A is drawn from a normal distribution of variance 1 / inputs, and B is zero, so that training
    begins with the model as it is (Hu 2021, section 4.1).

    Args:
      roles: from `assign_roles`; None where all parameters are trained.
      params: the model's parameters, float32, as on a single device.
      key: the key from which the factors A are drawn.

    Returns:
      The trainable and the frozen parameters, see the table in the docstring of the module.
    """
    if roles is None:
        return params, None
    rank = roles.rank
    keys = _like(params, list(jax.random.split(key, len(jax.tree.leaves(params)))))

    def trainable(role: Role, p: Array, key: Array) -> Array | LowRank | None:
        if not role.input_axes:
            return p if role.trained else None
        inputs, outputs = p.shape[: role.input_axes], p.shape[role.input_axes :]
        a = jax.random.normal(key, (*inputs, rank)) * math.prod(inputs) ** -0.5
        return LowRank(a, jnp.zeros((rank, *outputs)))

    frozen = jax.tree.map(lambda role, p: None if role.trained else p, roles.of, params)
    return jax.tree.map(trainable, roles.of, params, keys), frozen


def merge(
    roles: Roles | None, trainable: Params, frozen: Params | None, axis: Axis | None = None
) -> Params:
    """The parameters of the model, float32, see the table in the docstring of the module.

    Args:
      roles: from `assign_roles`; None where all parameters are trained.
      trainable, frozen: from `partition`, or one device's shards of them.
      axis: the devices that the model is split over.
    """
    if roles is None:
        return trainable

    def of_role(role: Role, trained: Any, base: Any) -> Array:
        if role.trained:
            return trained
        return base + roles.scale * _product(role, trained, axis) if role.input_axes else base

    return jax.tree.map(of_role, roles.of, trainable, frozen)


def _product(role: Role, factors: LowRank, axis: Axis | None) -> Array:
    """The product A B of one device's shards: [*inputs, *outputs]."""
    a, b = factors
    if role.split >= 0:
        # One factor is split like the matrix. The other factor is on all devices, and each device
        # computes only its shard's part of the gradient of that factor: the parts are summed.
        if role.split < role.input_axes:
            b = collectives.copy_to_model_parallel(b, axis)
        else:
            a = collectives.copy_to_model_parallel(a, axis)
    return jnp.tensordot(a, b, 1, precision=jax.lax.Precision.HIGHEST)


def split_axes(roles: Roles | None, split: Params) -> tuple[Params, Params | None]:
    """The axes (int) along which trainable and frozen parameters are split, -1 for none.

    Args:
      roles: from `assign_roles`; None where all parameters are trained.
      split: the axes of the model's parameters.
    """
    if roles is None:
        return split, None

    def trainable(role: Role, axis: int) -> int | LowRank | None:
        if role.input_axes:
            return role.low_rank_split
        return axis if role.trained else None

    frozen = jax.tree.map(lambda role, axis: None if role.trained else axis, roles.of, split)
    return jax.tree.map(trainable, roles.of, split), frozen


def trained_count(run: Run) -> int | None:
    """The number of trained scalars of a run; None if all parameters are trained."""
    roles = roles_of_run(run)
    return roles and trainable_count(roles, abstract_params(run))


def trainable_count(roles: Roles | None, shapes: Params) -> int:
    """The number of trained scalars of parameters of these shapes."""
    trainable, _ = jax.eval_shape(
        lambda params: partition(roles, params, jax.random.key(0)), shapes
    )
    return sum(leaf.size for leaf in jax.tree.leaves(trainable))
