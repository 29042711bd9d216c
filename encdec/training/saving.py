"""Saves train states and parameters, in an order that survives a kill.

At each validation the latest state is completely on disk before the best parameters are written, so
the best parameters are never ahead of the state. A kill between the two loses the best parameters,
which `Saver.save_missing_best` writes again from the state.
"""

from dataclasses import dataclass

from encdec.config import TrainingConfig
from encdec.parallel.processes import on_all_processes
from encdec.runs.checkpoints import Checkpoints
from encdec.training.compiled_step import Devices
from encdec.training.early_stopping import EarlyStopping
from encdec.training.resume_point import ResumePoint
from encdec.training.step import TrainState
from encdec.types import Params


@dataclass(frozen=True)
class Saver:
    """Saves states and parameters that lie on devices.

    Attributes:
      devices: gathers arrays from devices, and shards them again.
      checkpoints: the checkpoints of the run.
      config: settings; they say which average of the parameters is translated with.
    """

    devices: Devices
    checkpoints: Checkpoints
    config: TrainingConfig

    def averaged(self, state: TrainState, done: int) -> Params:
        """Returns the parameters to translate with, on their devices.

        With `average_last` it first saves the current parameters as a recent checkpoint.
        """
        if self.config.average_last > 1:
            recent = {"params": self.devices.gather_params(self._current(state))}
            self.checkpoints.save("recent", done, recent, {})
        return self._average(state)

    def save_latest(self, state: TrainState, done: int, point: ResumePoint) -> None:
        """Saves the state to resume from, and waits until it is on disk."""
        whole = self.devices.gather(state)

        def save() -> None:
            self.checkpoints.save("latest", done, whole, point.to_note(), copy=False)
            self.checkpoints.wait()

        on_all_processes(save)  # all end where the main process cannot write

    def save_unvalidated(self, state: TrainState, done: int, point: ResumePoint) -> None:
        """Saves the state to resume from, between two validations.

        Before the first validation, its parameters are also those to translate with.
        """
        self.save_latest(state, done, point)
        if point.stopping.best is None:  # no checkpoints to average yet, but a moving average is
            has_average = state.average is not None
            self.save_best(self._average(state) if has_average else self._current(state), done)
        self.checkpoints.wait()

    def save_best(self, params: Params, done: int) -> None:
        """Saves the parameters to translate with, in the background."""
        self.checkpoints.save("best", done, {"params": self.devices.gather_params(params)}, {})

    def save_missing_best(self, state: TrainState, done: int, stopping: EarlyStopping) -> None:
        """Saves the best parameters if a kill came between the state and these."""
        is_best = stopping.best is not None and stopping.step == done
        if is_best and not self.checkpoints.has("best", done):
            self.save_best(self._average(state), done)
            self.checkpoints.wait()

    def _average(self, state: TrainState) -> Params:
        """The moving average, the mean of the recent checkpoints, or the current parameters."""
        if state.average is not None:
            return self.devices.merge(state.average, state.frozen)
        if self.config.average_last == 1:
            return self._current(state)
        like = {"params": self.devices.gather_params(self._current(state))}
        return self.devices.shard_params(self.checkpoints.mean_recent(like)["params"])

    def _current(self, state: TrainState) -> Params:
        """The model's parameters, from a state."""
        return self.devices.merge(state.params, state.frozen)
