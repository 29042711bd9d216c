"""The host's side of training: feeds compiled steps, and never waits for the device.

Knows neither the model nor how sentences are scored: both come as functions.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import optax

from encdec.config import TrainingConfig
from encdec.ops.losses import LossSums
from encdec.training.checkpoints import Checkpoints
from encdec.training.step import TrainState
from encdec.types import Array, Batch, Params

Step = Callable[[TrainState, Batch, Array], tuple[TrainState, LossSums]]

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


@dataclass
class _Window:
    """Losses since the last row of metrics."""

    loss: float = 0.0
    correct: float = 0.0
    tokens: float = 0.0
    since: float = field(default_factory=time.perf_counter)

    def add(self, sums: LossSums) -> None:
        loss, _, correct, tokens = (float(x) for x in jax.device_get(sums))
        self.loss, self.correct = self.loss + loss, self.correct + correct
        self.tokens += tokens

    def row(self, step: int, rate: float) -> dict[str, Any]:
        tokens = max(self.tokens, 1.0)
        return {
            "kind": "train",
            "step": step,
            "loss": self.loss / tokens,
            "accuracy": self.correct / tokens,
            "tokens_per_second": self.tokens / (time.perf_counter() - self.since),
            "learning_rate": rate,
        }


class CompiledStep:
    """A training step, compiled once for each batch shape, and known to be.

    Args:
      step: pure; its state is donated.
      announce: told of each compilation: the shape and whether training had warmed up.
      shapes: how many shapes the run has; one more is an error of planning.
    """

    def __init__(self, step: Step, shapes: int, announce: Callable[[str], None]) -> None:
        self._step = jax.jit(step, donate_argnums=0)
        self._programs: dict[tuple[int, ...], Any] = {}
        self._shapes = shapes
        self._announce = announce

    def __call__(self, state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, LossSums]:
        """One update."""
        shape = (*batch.src.shape, batch.tgt.shape[1] - 1)
        if shape not in self._programs:
            start = time.perf_counter()
            self._programs[shape] = self._step.lower(state, batch, key).compile()
            rows, source, target = shape
            late = "" if len(self._programs) <= self._shapes else " (a shape that was not planned)"
            self._announce(
                f"compiled {rows} sentences of {source} + {target} tokens "
                f"in {time.perf_counter() - start:.1f} s{late}"
            )
        return self._programs[shape](state, batch, key)


def train(
    step: CompiledStep,
    state: TrainState,
    batches: Iterator[Batch],
    key: Array,
    config: TrainingConfig,
    schedule: optax.Schedule,
    *,
    evaluate: Callable[[Params], dict[str, float]],
    checkpoints: Checkpoints,
    best: float | None,
    log: Log,
    bar: Bar,
) -> TrainState:
    """Trains to `config.max_steps`; validates and saves on the way.

    Args:
      step: one update.
      state: where to begin; it is donated.
      batches: those of the steps from state.step on.
      key: the dropout key of the run.
      config: when to log, validate and stop.
      schedule: for the rate in the log.
      evaluate: validation scores of parameters, `loss` among them.
      checkpoints: where the latest and the best state go.
      best: the best score so far, or None.
      log, bar: where measurements go.

    Returns:
      The state after the last step.
    """
    done = int(state.step)
    pending: deque[tuple[int, LossSums]] = deque()
    window = _Window()

    def settle(at_most: int) -> None:
        """Reads the losses of all but the last few steps; only those are waited for."""
        nonlocal window
        while len(pending) > at_most:
            number, sums = pending.popleft()
            window.add(sums)
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

    while done < config.max_steps:
        state, sums = step(state, next(batches), key)
        done += 1
        pending.append((done, sums))
        settle(_AHEAD)
        if done % config.evaluate_every == 0 or done == config.max_steps:
            settle(0)
            paused = time.perf_counter()
            best = _validate(state, done, config, evaluate, checkpoints, best, log)
            window.since += time.perf_counter() - paused
    checkpoints.wait()
    return state


def _validate(
    state: TrainState,
    done: int,
    config: TrainingConfig,
    evaluate: Callable[[Params], dict[str, float]],
    checkpoints: Checkpoints,
    best: float | None,
    log: Log,
) -> float:
    """Scores the parameters, saves the state, keeps the parameters if they are the best."""
    scores = evaluate(state.params)
    log.write({"kind": "valid", "step": done, **scores})
    score = -scores["loss"] if config.select == "loss" else scores[config.select]
    is_best = best is None or score >= best
    best = score if is_best or best is None else best
    checkpoints.save("latest", done, state, {"best": best})
    # The latest is whole on disk before the best, so a resumed run never finds a best ahead of it.
    checkpoints.wait()
    if is_best:
        checkpoints.save("best", done, {"params": state.params}, {"scores": scores})
    return best
