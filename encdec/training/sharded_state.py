"""A training state on its devices, and the step that is mapped over them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import optax

from encdec.config import TrainingConfig
from encdec.models import registry
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
    """How one run's training lies on devices.

    Args:
      whole: the model as one device has it.
      split: the model as each device of the layout has it.
      optimizer: element by element.
      config: of the training.
      layout: the devices.
      dtype: of products.
    """

    def __init__(
        self,
        whole: nn.Module,
        split: nn.Module,
        optimizer: optax.GradientTransformation,
        config: TrainingConfig,
        layout: Layout,
        dtype: Any,
    ) -> None:
        self.layout, self.dtype = layout, dtype
        self._fresh = lambda key: init_state(registry.init(whole, key), optimizer, config)
        axes = registry.split_axes(whole)
        self.shapes: TrainState = jax.eval_shape(self._fresh, jax.random.key(0))
        where = state_axes(optimizer, self.shapes, axes)
        lying = sharding.shard_specs(self.shapes, where, layout)
        self._parts: Any = lying._replace(
            optimizer=sharding.shard_specs(
                self.shapes.optimizer, where.optimizer, layout, over_data=layout.shard_optimizer
            )
        )
        sharing = StepSharding(layout.axes, axes, layout.shard_optimizer)
        step = partial(train_step, split, optimizer, config, sharing=sharing, dtype=dtype)
        self._step = pmap.parallelize(step, layout, (True, True, False), donate=(0,))

    def init(self, key: Array) -> TrainState:
        """The state before the first step, parameters drawn from the key."""
        state = self._fresh(key)
        return state if self.layout.size == 1 else self.shard(jax.device_get(state))

    def shard(self, state: TrainState) -> TrainState:
        """A whole state on its devices."""
        placed: TrainState = sharding.shard(state, self._parts, self.layout)
        return placed

    def gather(self, state: TrainState) -> TrainState:
        """A state as NumPy arrays, as if one device had held it."""
        found: TrainState = sharding.gather(state, self._parts, self.layout)
        return found

    def shard_params(self, params: Params) -> Params:
        """Whole parameters on their devices."""
        return sharding.shard(params, self._parts.params, self.layout)

    def gather_params(self, params: Params) -> Params:
        """Parameters as NumPy arrays, as if one device had held them."""
        return sharding.gather(params, self._parts.params, self.layout)

    def shard_batch(self, batch: Batch) -> Batch:
        """This process's sentences on its devices."""
        placed: Batch = sharding.shard_batch(batch, self.layout)
        return placed

    def compiled(
        self, state: TrainState, batch: Batch, key: Array, *, measure: bool = False
    ) -> tuple[Callable[..., tuple[TrainState, StepReport]], int | None]:
        """The step for a batch of this shape, and the bytes that a device needs for it: not
        always known, unless they are to be measured."""
        return pmap.compile_step(self._step, state, batch, key, measure=measure)

    def unreplicate(self, report: StepReport) -> StepReport:
        """What a step measured, as NumPy numbers."""
        found: StepReport = sharding.unreplicate(report, self.layout)
        return found
