"""The host's side of training: feeds compiled steps, and never waits for the device.

Knows neither the model nor how sentences are scored: both come as functions.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import optax

from encdec.config import LOWER_IS_BETTER, TrainingConfig
from encdec.runs.checkpoints import Checkpoints
from encdec.training.step import StepReport, TrainState
from encdec.types import Array, Batch, Params

Program = Callable[[TrainState, Batch, Array], tuple[TrainState, StepReport]]
"""A compiled update; its state is donated."""

_AHEAD = 2
"""Steps in flight: enough to keep the device busy, few enough to stop soon."""


class Log(Protocol):
    """Takes rows of metrics."""

    def write(self, row: dict[str, Any]) -> None:
        """Takes one row: at least `step` and `kind`."""


class Bar(Protocol):
    """Shows progress."""

    def update(
        self, step: int, *, loss: float, tokens_per_second: float, learning_rate: float
    ) -> None:
        """Shows where training is: loss in nats a token."""


class Devices(Protocol):
    """How states and batches lie on devices (see `encdec.training.sharded_state`)."""

    def shard_batch(self, batch: Batch) -> Batch:
        """A batch on its devices."""

    def compiled(
        self, state: TrainState, batch: Batch, key: Array, *, measure: bool = False
    ) -> tuple[Program, int | None]:
        """The update for a batch of this shape, and the bytes that a device needs for it: not
        always known, unless they are to be measured."""

    def unreplicate(self, report: StepReport) -> StepReport:
        """What a step measured, as NumPy numbers."""

    def gather(self, state: TrainState) -> TrainState:
        """A state as NumPy arrays."""

    def gather_params(self, params: Params) -> Params:
        """Parameters as NumPy arrays."""

    def shard_params(self, params: Params) -> Params:
        """Parameters on their devices."""


class EarlyStopping(NamedTuple):
    """How validation stands.

    Attributes:
      best: the best score so far, higher is better; None before the first.
      waited: validations since it was first reached.
      step: of the latest parameters that reached it.
    """

    best: float | None = None
    waited: int = 0
    step: int = 0

    def after(self, score: float, step: int) -> "EarlyStopping":
        """The standing after one more score; of equal ones the latest is kept, none resets."""
        if self.best is None or score > self.best:
            return EarlyStopping(score, 0, step)
        return EarlyStopping(self.best, self.waited + 1, step if score == self.best else self.step)

    def is_over(self, patience: int) -> bool:
        """Whether training has waited long enough; patience 0 waits for ever."""
        return 0 < patience <= self.waited


class DivergedError(Exception):
    """A loss or gradient that is not finite; the text says which.

    Attributes:
      step: the update that would have followed from it or, of a validation loss, that led to it.
      batch: the batch that did it.
    """

    def __init__(self, step: int, batch: Batch, what: str) -> None:
        super().__init__(what)
        self.step, self.batch = step, batch


class _Pending(NamedTuple):
    """A step whose measurements the device may still be working on."""

    step: int
    batch: Batch
    report: StepReport


@dataclass
class _Window:
    """What was measured since the last row of metrics."""

    loss: float = 0.0
    correct: float = 0.0
    tokens: float = 0.0
    gradient_norm: float = 0.0
    since: float = field(default_factory=time.perf_counter)

    def add(self, done: _Pending, report: StepReport) -> None:
        loss, _, correct, tokens = map(float, report.sums)
        norm = float(report.gradient_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"the loss is {loss / max(tokens, 1):.4g} and its gradient's norm {norm:.4g}"
            raise DivergedError(done.step, done.batch, what)
        self.loss, self.correct = self.loss + loss, self.correct + correct
        self.tokens += tokens
        self.gradient_norm = norm

    def row(self, step: int, rate: float) -> dict[str, Any]:
        tokens = max(self.tokens, 1.0)
        seconds = time.perf_counter() - self.since
        return {
            "kind": "train",
            "step": step,
            "loss": self.loss / tokens,
            "accuracy": self.correct / tokens,
            "tokens_per_second": self.tokens / seconds,
            "seconds": seconds,
            "learning_rate": rate,
            "gradient_norm": self.gradient_norm,
        }


class CompiledStep:
    """A training step, compiled once for each batch shape, and known to be.

    Args:
      devices: what compiles it.
      announce: told of each compilation: the shape and whether training had warmed up.
      shapes: how many shapes the run has; one more is an error of planning.
    """

    def __init__(self, devices: Devices, shapes: int, announce: Callable[[str], None]) -> None:
        self.devices = devices
        self._programs: dict[tuple[int, ...], Program] = {}
        self._shapes = shapes
        self._announce = announce

    def __call__(
        self, state: TrainState, batch: Batch, key: Array
    ) -> tuple[TrainState, StepReport]:
        """One update."""
        shape = _shape(batch)
        if shape not in self._programs:
            self.compile(state, batch, key)
        return self._programs[shape](state, self.devices.shard_batch(batch), key)

    def compile(
        self, state: TrainState, batch: Batch, key: Array, *, measure: bool = False
    ) -> int | None:
        """Compiles the step for a batch of this shape; the bytes that a device needs for it."""
        start, shape = time.perf_counter(), _shape(batch)
        found = self.devices.compiled(state, self.devices.shard_batch(batch), key, measure=measure)
        self._programs[shape], needed = found
        rows, source, target = shape
        late = "" if len(self._programs) <= self._shapes else " (a shape that was not planned)"
        self._announce(
            f"compiled {rows} sentences of {source} + {target} tokens "
            f"in {time.perf_counter() - start:.1f} s{late}"
        )
        return needed


def _shape(batch: Batch) -> tuple[int, int, int]:
    rows, source = batch.src_mask.shape
    return rows, source, batch.tgt_mask.shape[1]


def train(
    step: CompiledStep,
    state: TrainState,
    done: int,
    batches: Iterator[Batch],
    key: Array,
    config: TrainingConfig,
    schedule: optax.Schedule,
    *,
    evaluate: Callable[[Params], dict[str, float]],
    checkpoints: Checkpoints,
    standing: EarlyStopping,
    log: Log,
    bar: Bar,
) -> int:
    """Trains to `config.max_steps`, or until `config.patience` is spent; validates and saves.

    Args:
      step: one update.
      state: where to begin; it is donated.
      done: steps that lie behind it.
      batches: those of the steps after.
      key: the dropout key of the run.
      config: when to log, validate and stop.
      schedule: for the rate in the log.
      evaluate: validation scores of parameters, `loss` among them.
      checkpoints: where states and parameters go.
      standing: how validation stands.
      log, bar: where measurements go.

    Returns:
      The last step.

    Raises:
      DivergedError: a loss, one of validation too, or a gradient is not finite; what was saved
        before stays.
    """
    pending: deque[_Pending] = deque()
    window = _Window()

    def settle(at_most: int) -> None:
        """Reads the losses of all but the last few steps; only those are waited for."""
        nonlocal window
        while len(pending) > at_most:
            window.add(pending[0], step.devices.unreplicate(pending[0].report))
            number = pending.popleft().step
            if number % config.log_every == 0 or number == config.max_steps:
                row = window.row(number, float(schedule(number - 1)))
                log.write(row)
                bar.update(
                    number,
                    loss=row["loss"],
                    tokens_per_second=row["tokens_per_second"],
                    learning_rate=row["learning_rate"],
                )
                window = _Window()

    while done < config.max_steps and not standing.is_over(config.patience):
        batch = next(batches)
        state, report = step(state, batch, key)
        done += 1
        pending.append(_Pending(done, batch, report))
        settle(_AHEAD)
        if done % config.evaluate_every == 0 or done == config.max_steps:
            settle(0)
            paused = time.perf_counter()
            standing = _validate(
                step.devices, state, done, batch, config, evaluate, checkpoints, standing, log
            )
            window.since += time.perf_counter() - paused
    checkpoints.wait()
    return done


def _validate(
    devices: Devices,
    state: TrainState,
    done: int,
    batch: Batch,
    config: TrainingConfig,
    evaluate: Callable[[Params], dict[str, float]],
    checkpoints: Checkpoints,
    standing: EarlyStopping,
    log: Log,
) -> EarlyStopping:
    """Metrics the parameters, saves the state, keeps the parameters if they are the best."""
    params = _averaged(devices, state, done, config, checkpoints)
    scores = evaluate(params)
    log.write({"kind": "valid", "step": done, **scores})
    if not math.isfinite(scores["loss"]):
        raise DivergedError(done, batch, f"after it the validation loss is {scores['loss']:.4g}")
    sign = -1 if config.best_metric in LOWER_IS_BETTER else 1
    standing = standing.after(sign * scores[config.best_metric], done)
    checkpoints.save("latest", done, devices.gather(state), standing._asdict())
    # The latest is whole on disk before the best, so a resumed run never finds a best ahead of it.
    checkpoints.wait()
    if standing.step == done:
        _save_best(devices, params, done, checkpoints)
    return standing


def save_missing_best(
    devices: Devices,
    state: TrainState,
    done: int,
    config: TrainingConfig,
    checkpoints: Checkpoints,
    standing: EarlyStopping,
) -> None:
    """Saves the best parameters if a kill came after the state that holds them, before they."""
    if standing.best is None or standing.step != done or checkpoints.has("best", done):
        return
    _save_best(devices, _average(devices, state, config, checkpoints), done, checkpoints)
    checkpoints.wait()


def _save_best(devices: Devices, params: Params, done: int, checkpoints: Checkpoints) -> None:
    checkpoints.save("best", done, {"params": devices.gather_params(params)}, {})


def _averaged(
    devices: Devices,
    state: TrainState,
    done: int,
    config: TrainingConfig,
    checkpoints: Checkpoints,
) -> Params:
    """The parameters to translate with, once these are among the recent ones."""
    if config.average_last > 1:
        recent = {"params": devices.gather_params(state.params)}
        checkpoints.save("recent", done, recent, {})
    return _average(devices, state, config, checkpoints)


def _average(
    devices: Devices, state: TrainState, config: TrainingConfig, checkpoints: Checkpoints
) -> Params:
    """The parameters to translate with: a mean of the last ones, if the settings say so."""
    if state.average is not None:
        return state.average
    if config.average_last == 1:
        return state.params
    like = {"params": devices.gather_params(state.params)}
    return devices.shard_params(checkpoints.mean_recent(like)["params"])
