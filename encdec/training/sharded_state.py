"""A train state on its devices, and the step that is mapped over them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from encdec.config import TrainingConfig
from encdec.models import registry
from encdec.models.interface import EncoderDecoder
from encdec.parallel import pmap, sharding
from encdec.parallel.layout import Layout
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
    """How the train state and the step of one run lie on devices.

    Args:
      whole: the model as a single device has it.
      split: the model as each device of the layout has it.
      optimizer: updates element by element.
      config: of the training.
      layout: the devices.
      dtype: the type of products.

    Attributes:
      layout, dtype: as given.
      shapes: a TrainState of the shapes that a single device would have.
    """

    def __init__(
        self,
        whole: EncoderDecoder,
        split: nn.Module,
        optimizer: optax.GradientTransformation,
        config: TrainingConfig,
        layout: Layout,
        dtype: Any,
    ) -> None:
        self.layout, self.dtype = layout, dtype
        self._draw_params = partial(registry.init, whole)
        self._state = lambda params: init_state(params, optimizer, config)
        split_axes = registry.split_axes(whole)
        self.shapes: TrainState = jax.eval_shape(self._state, registry.abstract(whole))
        axes = state_axes(optimizer, self.shapes, split_axes)
        specs = sharding.shard_specs(self.shapes, axes, layout)
        # With ZeRO-1 the optimizer's state is cut over the data shards too; parameters are not.
        self._specs: Any = specs._replace(
            optimizer=sharding.shard_specs(
                self.shapes.optimizer, axes.optimizer, layout, over_data=layout.shard_optimizer
            )
        )
        shared = StepSharding(layout.axes, split_axes, layout.shard_optimizer)
        step = partial(train_step, split, optimizer, config, sharing=shared, dtype=dtype)
        self._step = pmap.parallelize(step, layout, (True, True, False), donate=(0,))

    def init(self, key: Array) -> TrainState:
        """The state before the first step, with parameters drawn from the key."""
        return self._on_devices(self._state(self._draw_params(key)))

    def start(self, params: Params) -> TrainState:
        """The state before the first step, with given parameters (whole arrays), which are copied:
        the step donates its own."""
        return self._on_devices(self._state(jax.tree.map(jnp.array, params)))

    def _on_devices(self, state: TrainState) -> TrainState:
        return state if self.layout.size == 1 else self.shard(jax.device_get(state))

    def shard(self, state: TrainState) -> TrainState:
        """A state of whole arrays on its devices."""
        sharded: TrainState = sharding.shard(state, self._specs, self.layout)
        return sharded

    def gather(self, state: TrainState) -> TrainState:
        """A state as NumPy arrays, as if a single device had held it."""
        gathered: TrainState = sharding.gather(state, self._specs, self.layout)
        return gathered

    def shard_params(self, params: Params) -> Params:
        """Whole parameters on their devices."""
        return sharding.shard(params, self._specs.params, self.layout)

    def gather_params(self, params: Params) -> Params:
        """Parameters as NumPy arrays, as if a single device had held them."""
        return sharding.gather(params, self._specs.params, self.layout)

    def shard_batch(self, batch: Batch) -> Batch:
        """This process's sentences on its devices."""
        sharded: Batch = sharding.shard_batch(batch, self.layout)
        return sharded

    def compiled(
        self, state: TrainState, batch: Batch, key: Array, *, measure: bool = False
    ) -> tuple[Callable[..., tuple[TrainState, StepReport]], int | None]:
        """The step for a batch of this shape, and the bytes of memory that a device needs for it;
        between processes they are None unless `measure` asks for them."""
        return pmap.compile_step(self._step, state, batch, key, measure=measure)

    def unreplicate(self, report: StepReport) -> StepReport:
        """What a step measured, as NumPy numbers."""
        numbers: StepReport = sharding.unreplicate(report, self.layout)
        return numbers
