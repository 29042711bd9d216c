"""The training loop on the host: it feeds compiled steps, and seldom waits for the device.

It knows neither the model nor the validation: both are functions that the caller passes.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from signal import Signals
from typing import Any, Literal, NamedTuple

import jax
import optax

from encdec.config import TrainingConfig
from encdec.evaluation.metrics import metric
from encdec.training.callbacks import Callback, Verdict, call_all
from encdec.training.compiled_step import CompiledStep, Devices
from encdec.training.early_stopping import EarlyStopping
from encdec.training.interruption import Interruption
from encdec.training.resume_point import ResumePoint, WindowSums
from encdec.training.saving import Saver
from encdec.training.step import StepReport, TrainState
from encdec.types import Array, Batch, Params

_AHEAD = 2
"""Steps in flight: enough to keep the device busy, few enough to stop soon."""

Evaluate = Callable[[Params], dict[str, float]]
"""From parameters on their devices to validation metrics, `loss` (nats per token) among them."""


class DivergedError(Exception):
    """A loss or gradient is not finite; the message says which.

    Attributes:
      step: the update that the loss or gradient belongs to; for a validation loss the update before
        the validation.
      batch: the batch of that update.
    """

    def __init__(self, step: int, batch: Batch, what: str) -> None:
        super().__init__(what)
        self.step, self.batch = step, batch


class LoopEnd(NamedTuple):
    """The step at which training ended, the reason, and the signal where that is the reason."""

    step: int
    reason: Literal["max_steps", "patience", "callback", "batches", "signal"]
    signal: Signals | None = None


class _Pending(NamedTuple):
    """A step whose report the device may not have computed yet."""

    step: int
    batch: Batch
    report: StepReport


class _Reports:
    """The reports of the steps in flight, and sums of those that have arrived.

    Args:
      devices: copies a report to the host.
      window: the sums of the steps before, which are not in a row yet.
    """

    def __init__(self, devices: Devices, window: WindowSums) -> None:
        self._devices = devices
        self._pending: deque[_Pending] = deque()
        self._sums = window
        self._since = time.perf_counter() - window.seconds

    def add(self, step: int, batch: Batch, report: StepReport) -> None:
        """Adds the report of a step, which the device may not have computed yet."""
        self._pending.append(_Pending(step, batch, report))

    def settle(self, at_most: int) -> None:
        """Waits until at most `at_most` steps are in flight; raises DivergedError."""
        while len(self._pending) > at_most:
            first = self._pending[0]
            self._add(first, self._devices.unreplicate(first.report))
            self._pending.popleft()

    def _add(self, done: _Pending, report: StepReport) -> None:
        loss, correct, tokens = map(float, report.sums)
        norm = float(report.gradient_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"the loss is {loss / max(tokens, 1):.4g} and its gradient's norm {norm:.4g}"
            raise DivergedError(done.step, done.batch, what)
        sums = self._sums
        self._sums = sums._replace(
            loss=sums.loss + loss,
            correct=sums.correct + correct,
            tokens=sums.tokens + tokens,
            gradient_norm=norm,
        )

    def window(self) -> WindowSums:
        """The sums since the last row."""
        return self._sums._replace(seconds=time.perf_counter() - self._since)

    def row(self, step: int, rate: float) -> dict[str, Any]:
        """The row of metrics since the last row."""
        row = self.window().row(step, rate)
        self._sums, self._since = WindowSums(), time.perf_counter()
        return row

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time within does not count as training."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start


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
    reports, saved = _Reports(step.devices, start.window), done
    stopping = start.stopping

    def save_unvalidated() -> None:
        """Saves the state. No validation: a resumed run must equal one that was never stopped."""
        nonlocal saved
        reports.settle(0)
        if saved < done:
            _check_params(saver.devices, state, done, batch)
            saver.save_unvalidated(state, done, ResumePoint(stopping, reports.window()))
        saved = done
        interruption.saved()

    def next_batch() -> Batch | None:
        """The next batch, None after the last; saves the state before an error is raised."""
        try:
            return next(batches, None) if done < config.max_steps else None
        except Exception:
            # Saving needs all processes, and the others may have no error.
            if jax.process_count() == 1:
                save_unvalidated()
            raise

    upcoming = next_batch()
    while upcoming is not None and not stopping.is_over(config.patience):
        batch = upcoming
        if step.is_new(batch):
            reports.settle(0)
            with reports.paused():
                step.compile(state, batch, key)
        state, report = step(state, batch, key)
        done += 1
        reports.add(done, batch, report)
        upcoming = next_batch()
        logs = upcoming is None or done % config.log_every == 0
        validates = upcoming is None or done % config.evaluate_every == 0
        # Callbacks get the state of the row, so no step may still be running.
        reports.settle(0 if logs or validates else _AHEAD)
        verdict = Verdict()
        if logs:
            row = reports.row(done, float(schedule(done - 1)))
            with reports.paused():
                verdict = call_all(callbacks, done, row, state)
        if validates:
            with reports.paused():
                point = ResumePoint(stopping, reports.window())
                stopping, after_validation = _validate_and_save(
                    state, done, batch, config, evaluate, saver, point, callbacks
                )
            saved, verdict = done, verdict.joined(after_validation)
            interruption.saved()
        pause = interruption.after(done)
        if pause.save or verdict.stop or verdict.error:
            with reports.paused():
                save_unvalidated()
        if verdict.error:
            raise verdict.error
        if verdict.stop:
            return LoopEnd(done, "callback")
        if pause.signal:
            return LoopEnd(done, "signal", pause.signal)
    saver.checkpoints.wait()
    if done >= config.max_steps:
        return LoopEnd(done, "max_steps")
    return LoopEnd(done, "patience" if stopping.is_over(config.patience) else "batches")


def _check_params(devices: Devices, state: TrainState, done: int, batch: Batch) -> None:
    """Raises DivergedError before parameters that are not finite replace a checkpoint."""
    if not devices.all_finite(state.params):
        raise DivergedError(done, batch, "after it a parameter is not finite")


def _validate_and_save(
    state: TrainState,
    done: int,
    batch: Batch,
    config: TrainingConfig,
    evaluate: Evaluate | None,
    saver: Saver,
    point: ResumePoint,
    callbacks: Sequence[Callback],
) -> tuple[EarlyStopping, Verdict]:
    """Validates and saves the state, and the parameters if they are the best."""
    _check_params(saver.devices, state, done, batch)
    params = saver.averaged(state, done)
    stopping, verdict = _validate(
        params, state, done, batch, config, evaluate, point.stopping, callbacks
    )
    saver.save_latest(state, done, point._replace(stopping=stopping))
    if stopping.step == done:
        saver.save_best(params, done)
    return stopping, verdict


def _validate(
    params: Params,
    state: TrainState,
    done: int,
    batch: Batch,
    config: TrainingConfig,
    evaluate: Evaluate | None,
    stopping: EarlyStopping,
    callbacks: Sequence[Callback],
) -> tuple[EarlyStopping, Verdict]:
    """Evaluates parameters; returns the state of early stopping and the callbacks' verdict."""
    if evaluate is None:  # equal values: the latest parameters are the best
        return stopping.after(0.0, 0.0, done), Verdict()
    metrics = evaluate(params)
    verdict = call_all(callbacks, done, {"kind": "valid", "step": done, **metrics}, state)
    if not math.isfinite(metrics["loss"]):
        raise DivergedError(done, batch, f"after it the validation loss is {metrics['loss']:.4g}")
    sign = metric(config.best_metric).sign
    value = sign * metrics[config.best_metric]
    return stopping.after(value, metrics["loss"], done), verdict
