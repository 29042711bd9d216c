"""A training step that is compiled once for each batch shape, and announces each compilation."""

import copy
import time
from collections.abc import Callable
from typing import Protocol

from encdec.training.step import StepReport, TrainState
from encdec.types import Array, Batch, Params

Program = Callable[[TrainState, Batch, Array], tuple[TrainState, StepReport]]
"""A compiled update; its state is donated."""


class Devices(Protocol):
    """How states and batches lie on devices (see `encdec.training.sharded_state`)."""

    def shard_batch(self, batch: Batch) -> Batch:
        """Puts a batch on its devices."""

    def compiled(
        self, state: TrainState, batch: Batch, key: Array, *, measure: bool = False
    ) -> tuple[Program, int | None]:
        """Compiles the update for a batch of this shape.

        Returns:
          The program, and the bytes of memory that each device needs for it; with several processes
          None unless `measure` is set.
        """

    def unreplicate(self, report: StepReport) -> StepReport:
        """The report of a step as NumPy numbers."""

    def all_finite(self, params: Params) -> bool:
        """Whether all parameters are finite; all processes get the same answer."""

    def gather(self, state: TrainState) -> TrainState:
        """Gathers a state as NumPy arrays."""

    def merge(self, trainable: Params, frozen: Params | None) -> Params:
        """The parameters of the model, from the trainable and frozen parameters of a state."""

    def gather_params(self, params: Params) -> Params:
        """Gathers the parameters of the model as NumPy arrays."""

    def shard_params(self, params: Params) -> Params:
        """Puts the parameters of the model on their devices."""


class CompiledStep:
    """A training step that is compiled for each shape of batches, and counts these.

    Args:
      devices: compiles the step.
      shapes: the number of batch shapes of the run, so that a further shape is announced as
        unexpected; None if the shapes are not known in advance.
      announce: is called after each compilation with a line and the seconds that it took.
    """

    def __init__(
        self, devices: Devices, shapes: int | None, announce: Callable[[str, float], None]
    ) -> None:
        self.devices = devices
        self._programs: dict[tuple[int, ...], Program] = {}
        self._shapes = shapes
        self._announce = announce

    def announced_by(self, announce: Callable[[str, float], None]) -> "CompiledStep":
        """The same step, whose further compilations are announced otherwise."""
        other = copy.copy(self)
        other._announce = announce
        return other

    def __call__(
        self, state: TrainState, batch: Batch, key: Array
    ) -> tuple[TrainState, StepReport]:
        """Makes one update; the state is donated."""
        if self.is_new(batch):
            self.compile(state, batch, key)
        return self._programs[_shape(batch)](state, self.devices.shard_batch(batch), key)

    def is_new(self, batch: Batch) -> bool:
        """Whether the step must be compiled before batches of this shape."""
        return _shape(batch) not in self._programs

    def compile(
        self, state: TrainState, batch: Batch, key: Array, *, measure: bool = False
    ) -> int | None:
        """Compiles the step for batches of this shape; returns the bytes that each device needs."""
        start, shape = time.perf_counter(), _shape(batch)
        sharded = self.devices.shard_batch(batch)
        self._programs[shape], needed = self.devices.compiled(state, sharded, key, measure=measure)
        seconds, (rows, source, target) = time.perf_counter() - start, shape
        self._announce(
            f"compiled {rows} sentences of {source} + {target} tokens in {seconds:.1f} s "
            f"({self._remark()})",
            seconds,
        )
        return needed

    def _remark(self) -> str:
        count = len(self._programs)
        if self._shapes is None:
            return f"shape {count} of the batches"
        if count > self._shapes:
            return "a shape that was not planned"
        return f"shape {count} of {self._shapes}"


def _shape(batch: Batch) -> tuple[int, int, int]:
    """Rows, source length and target length."""
    rows, source = batch.src_mask.shape
    return rows, source, batch.tgt_mask.shape[1]
