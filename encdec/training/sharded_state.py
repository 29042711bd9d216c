"""The sharded train state, and the training step that is mapped over the devices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from encdec.config import TrainingConfig
from encdec.models import registry
from encdec.models.interface import EncoderDecoder, precision_of
from encdec.models.loss import rows_of_logits
from encdec.parallel import devices, pmap, sharding
from encdec.parallel.layout import Layout
from encdec.training.fine_tuning import Roles, merge, partition
from encdec.training.fine_tuning import split_axes as role_axes
from encdec.training.step import (
    StepReport,
    StepSharding,
    TrainState,
    init_state,
    state_axes,
    train_step,
)
from encdec.types import Array, Batch, Params


class StateSharding:
    """Shards the train state of one run over devices, and compiles its training step.

    Args:
      full_model: the model as a single device has it.
      model_shard: the model as each device of the layout has it.
      optimizer: must work element by element.
      config: settings of training.
      layout: the devices.
      roles: the role of each parameter in training; None where all are trained.

    Attributes:
      layout: as given.
      precision: of the matrix products.
      shapes: a TrainState of the shapes that a single device would have.
      shard_shapes: the same of the shapes that each device has.
    """

    def __init__(
        self,
        full_model: EncoderDecoder,
        model_shard: nn.Module,
        optimizer: optax.GradientTransformation,
        config: TrainingConfig,
        layout: Layout,
        roles: Roles | None = None,
    ) -> None:
        self.layout, self.precision = layout, precision_of(model_shard)
        self._draw_params = partial(registry.init, full_model)
        self._partition = partial(partition, roles)

        def state(params: Params, key: Array) -> TrainState:
            trainable, frozen = partition(roles, params, key)
            return init_state(trainable, optimizer, config, frozen)

        shapes, split_axes = registry.abstract(full_model), registry.split_axes(full_model)
        self.shapes: TrainState = jax.eval_shape(state, shapes, jax.random.key(0))
        trainable_axes, frozen_axes = role_axes(roles, split_axes)
        axes = state_axes(optimizer, self.shapes, trainable_axes, frozen_axes)
        specs = sharding.shard_specs(self.shapes, axes, layout)
        self._model_specs = sharding.shard_specs(shapes, split_axes, layout)
        # With ZeRO-1 the optimizer's state is split over the data shards too; parameters are not.
        self._specs: Any = specs._replace(
            optimizer=sharding.shard_specs(
                self.shapes.optimizer, axes.optimizer, layout, over_data=layout.shard_optimizer
            )
        )
        self.shard_shapes: TrainState = sharding.shard_shapes(self.shapes, self._specs, layout)
        shared = StepSharding(layout.axes, trainable_axes, layout.shard_optimizer)
        step = partial(
            train_step,
            model_shard,
            optimizer,
            config,
            sharding=shared,
            roles=roles,
            rows=rows_of_logits(model_shard, layout),
        )
        self._merge = (
            pmap.parallelize(partial(merge, roles), layout, (True, True)) if roles else None
        )
        self._step = pmap.parallelize(step, layout, (True, True, False), donate=(0,))

        def first(trainable: Params, frozen: Params | None) -> TrainState:
            return init_state(trainable, optimizer, config, frozen, sharding=shared)

        self._first = pmap.parallelize(first, layout, (True, True), donate=(0, 1))

    def init(self, key: Array) -> TrainState:
        """The state before the first step, with parameters drawn from the key.

        They are drawn on the host: they may be more than a device has room for.
        """
        with jax.default_device(devices.host_device()):
            params = self._draw_params(key)
        return self._start(params, key)

    def start(self, params: Params, key: Array) -> TrainState:
        """The state before the first step, with given parameters, as on a single device.

        The parameters are copied, because the step donates the state. The key is for low-rank
        additions.
        """
        if self.layout.size == 1:
            params = jax.tree.map(jnp.array, params)
        return self._start(params, key)

    def _start(self, params: Params, key: Array) -> TrainState:
        """As `start`; on a single device the state has the parameters themselves."""
        with jax.default_device(devices.host_device()):
            # Another key than the one that draws the model's parameters.
            trainable, frozen = self._partition(params, jax.random.fold_in(key, 1))
        state: TrainState = self._first(
            sharding.shard(trainable, self._specs.params, self.layout),
            sharding.shard(frozen, self._specs.frozen, self.layout),
        )
        return state

    def shard(self, state: TrainState) -> TrainState:
        """Shards a state of full arrays over the devices."""
        sharded: TrainState = sharding.shard(state, self._specs, self.layout)
        return sharded

    def all_finite(self, params: Params) -> bool:
        """Whether all parameters are finite; all processes get the same answer."""
        return sharding.all_finite(params, self.layout)

    def gather(self, state: TrainState) -> TrainState:
        """Gathers a state as NumPy arrays, as a single device would have them."""
        gathered: TrainState = sharding.gather(state, self._specs, self.layout)
        return gathered

    def merge(self, trainable: Params, frozen: Params | None) -> Params:
        """The model's parameters from trainable and frozen ones; all stay on their devices."""
        return self._merge(trainable, frozen) if self._merge else trainable

    def shard_params(self, params: Params) -> Params:
        """Shards the model's parameters, full arrays, over the devices."""
        return sharding.shard(params, self._model_specs, self.layout)

    def gather_params(self, params: Params) -> Params:
        """Gathers the model's parameters as NumPy arrays, as a single device would have them."""
        return sharding.gather(params, self._model_specs, self.layout)

    def shard_batch(self, batch: Batch) -> Batch:
        """Shards this process's sentences over its devices."""
        sharded: Batch = sharding.shard_batch(batch, self.layout)
        return sharded

    def compiled(
        self, state: TrainState, batch: Batch, key: Array, *, measure: bool = False
    ) -> tuple[Callable[..., tuple[TrainState, StepReport]], int | None]:
        """Compiles the step for a batch of this shape.

        Returns:
          The program, and the bytes of memory that each device needs for it; with several processes
          None unless `measure` is set.
        """
        return pmap.compile_step(self._step, state, batch, key, measure=measure)

    def unreplicate(self, report: StepReport) -> StepReport:
        """The report of a step as NumPy numbers."""
        numbers: StepReport = sharding.unreplicate(report, self.layout)
        return numbers
