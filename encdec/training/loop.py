"""The training loop on the host: it feeds compiled steps, and seldom waits for the device.

It knows neither the model nor the validation: both are functions that the caller passes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from signal import Signals
from typing import Literal, NamedTuple

import jax
import optax

from encdec.config import TrainingConfig
from encdec.evaluation.metrics import metric
from encdec.training.callbacks import Callback, Verdict, call_all
from encdec.training.compiled_step import CompiledStep
from encdec.training.early_stopping import EarlyStopping
from encdec.training.interruption import Interruption
from encdec.training.resume_point import ResumePoint
from encdec.training.saving import Saver
from encdec.training.step import TrainState
from encdec.training.step_reports import DivergedError, StepReports
from encdec.types import Array, Batch, Params

_AHEAD = 2
"""Steps in flight: enough to keep the device busy, few enough to stop soon."""

Evaluate = Callable[[Params], dict[str, float]]
"""From parameters on their devices to validation metrics, `loss` (nats per token) among them."""


class LoopEnd(NamedTuple):
    """The step at which training ended, the reason, and the signal where that is the reason."""

    step: int
    reason: Literal["max_steps", "patience", "callback", "batches", "signal"]
    signal: Signals | None = None


def train(
    step: CompiledStep,
    state: TrainState,
    done: int,
    batches: Iterator[Batch],
    key: Array,
    config: TrainingConfig,
    schedule: optax.Schedule,
    *,
    evaluate: Evaluate | None,
    saver: Saver,
    start: ResumePoint,
    interruption: Interruption,
    callbacks: Sequence[Callback],
) -> LoopEnd:
    """Trains up to `config.max_steps` or an earlier end; validates and saves.

    Args:
      step: the compiled training step.
      state: the state to start from; it is donated.
      done: the updates that the state has had.
      batches: the batches of the following steps; training ends after the last batch.
      key: the dropout key of the run.
      config: when to log, validate and stop.
      schedule: the learning rate, for the log.
      evaluate: the validation; without one (None) the latest parameters are the best.
      saver: saves states and parameters.
      start: early stopping and sums of metrics after the earlier steps.
      interruption: says when to save between validations, and when a signal ends training.
      callbacks: are called in order with every row of metrics.

    Raises:
      DivergedError: a training loss, a validation loss or a gradient is not finite; earlier
        checkpoints are kept.
      Exception: any exception of a callback or of `batches`, after the state was saved.
    """
    position = _Position(state, done, start.stopping, done)
    reports = StepReports(step.devices, start.window)
    fixed = (step, key, config, schedule, evaluate, saver, interruption, callbacks)
    return _Loop(*fixed, reports, position).run(batches)


@dataclass
class _Position:
    """Where a training stands.

    Attributes:
      state: the newest; its step may still be running.
      done: the updates that it has had.
      stopping: early stopping after the last validation.
      saved: the updates at the last checkpoint.
      batch: that of the last update.
    """

    state: TrainState
    done: int
    stopping: EarlyStopping
    saved: int
    batch: Batch | None = None


@dataclass(frozen=True)
class _Loop:
    """A training: what stays the same in it, see `train`, and where it stands."""

    step: CompiledStep
    key: Array
    config: TrainingConfig
    schedule: optax.Schedule
    evaluate: Evaluate | None
    saver: Saver
    interruption: Interruption
    callbacks: Sequence[Callback]
    reports: StepReports
    at: _Position

    def run(self, batches: Iterator[Batch]) -> LoopEnd:
        """Trains to an end."""
        at, patience = self.at, self.config.patience
        upcoming = self._next(batches)
        while upcoming is not None and not at.stopping.is_over(patience):
            self._update(upcoming)
            upcoming = self._next(batches)
            verdict = self._after_update(is_last=upcoming is None)
            pause = self.interruption.after(at.done)
            if pause.save or verdict.stop or verdict.error:
                with self.reports.paused():
                    self._save_unvalidated()
            if verdict.error:
                raise verdict.error
            if verdict.stop:
                return LoopEnd(at.done, "callback")
            if pause.signal:
                return LoopEnd(at.done, "signal", pause.signal)
        self.saver.checkpoints.wait()
        if at.done >= self.config.max_steps:
            return LoopEnd(at.done, "max_steps")
        return LoopEnd(at.done, "patience" if at.stopping.is_over(patience) else "batches")

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        """The next batch, None after the last; saves the state before an error is raised."""
        try:
            return next(batches, None) if self.at.done < self.config.max_steps else None
        except Exception:
            # Saving needs all processes, and the others may have no error.
            if jax.process_count() == 1:
                self._save_unvalidated()
            raise

    def _update(self, batch: Batch) -> None:
        """Starts the step of a batch, which is compiled first where its shape is new."""
        at = self.at
        if self.step.is_new(batch):
            self.reports.settle(0)
            with self.reports.paused():
                self.step.compile(at.state, batch, self.key)
        at.state, report = self.step(at.state, batch, self.key)
        at.done, at.batch = at.done + 1, batch
        self.reports.add(at.done, batch, report)

    def _after_update(self, *, is_last: bool) -> Verdict:
        """Logs, validates and saves where it is time to; returns what the callbacks want."""
        done = self.at.done
        logs = is_last or done % self.config.log_every == 0
        validates = is_last or done % self.config.evaluate_every == 0
        # Callbacks get the state of the row, so no step may still be running.
        self.reports.settle(0 if logs or validates else _AHEAD)
        verdict = Verdict()
        if logs:
            row = self.reports.row(done, float(self.schedule(done - 1)))
            with self.reports.paused():
                verdict = call_all(self.callbacks, done, row, self.at.state)
        if validates:
            with self.reports.paused():
                verdict = verdict.joined(self._validate_and_save())
        return verdict

    def _save_unvalidated(self) -> None:
        """Saves the state. No validation: a resumed run must equal one that was never stopped."""
        at = self.at
        self.reports.settle(0)
        if at.saved < at.done:
            self._check_params()
            point = ResumePoint(at.stopping, self.reports.window())
            self.saver.save_unvalidated(at.state, at.done, point)
        at.saved = at.done
        self.interruption.saved()

    def _validate_and_save(self) -> Verdict:
        """Validates and saves the state, and the parameters if they are the best."""
        at = self.at
        point = ResumePoint(at.stopping, self.reports.window())
        self._check_params()
        params = self.saver.averaged(at.state, at.done)
        at.stopping, verdict = self._validate(params)
        self.saver.save_latest(at.state, at.done, point._replace(stopping=at.stopping))
        if at.stopping.step == at.done:
            self.saver.save_best(params, at.done)
        at.saved = at.done
        self.interruption.saved()
        return verdict

    def _validate(self, params: Params) -> tuple[EarlyStopping, Verdict]:
        """Evaluates parameters; returns the state of early stopping and the callbacks' verdict."""
        done, stopping = self.at.done, self.at.stopping
        if self.evaluate is None:
            return stopping.without(done), Verdict()
        metrics = self.evaluate(params)
        row = {"kind": "valid", "step": done, **metrics}
        verdict = call_all(self.callbacks, done, row, self.at.state)
        if not math.isfinite(metrics["loss"]):
            raise self._diverged(f"the validation loss is {metrics['loss']:.4g}")
        value = metric(self.config.best_metric).sign * metrics[self.config.best_metric]
        return stopping.after(value, metrics["loss"], done), verdict

    def _check_params(self) -> None:
        """Raises DivergedError before parameters that are not finite replace a checkpoint."""
        if not self.saver.devices.all_finite(self.at.state.params):
            raise self._diverged("a parameter is not finite")

    def _diverged(self, what: str) -> DivergedError:
        """What happened after the last update."""
        assert self.at.batch is not None
        return DivergedError(self.at.done, self.at.batch, f"after it {what}")
