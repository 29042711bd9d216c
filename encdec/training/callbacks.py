"""Callbacks: functions that training calls with its metrics, and that may stop it.

The log and the progress bar of a run are callbacks too.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from encdec.evaluation.metrics import METRICS, printed_metrics
from encdec.parallel import processes
from encdec.training.step import TrainState
from encdec.types import InputError

Callback = Callable[[int, dict[str, Any], TrainState], Any]
"""(step, metrics, state) -> a true value to stop training after this step.

It is called after every `log_every` steps with a row of kind "train" (`loss` in nats per token,
`accuracy`, `tokens_per_second`, `learning_rate`, `gradient_norm`), and after every validation with
one of kind "valid" (`loss` and the metrics). The row is the one that `metrics.jsonl` keeps.

The state is that of the step, as its arrays lie on the devices: with several devices each array has
them as its first axis. The next step donates the state's buffers, so copy what outlives the call
(`jax.device_get(state.params)`). Of several processes each calls its own callbacks.

If a callback raises, the state is saved before the exception leaves `train`, so the run can be
resumed from that step.
"""


class Verdict(NamedTuple):
    """The joint result of several callbacks.

    Attributes:
      stop: whether training ends after this step.
      error: the exception that a callback raised, or None.
    """

    stop: bool = False
    error: Exception | None = None

    def joined(self, other: "Verdict") -> "Verdict":
        """The result of two rounds of calls; of two errors the first."""
        return Verdict(self.stop or other.stop, self.error or other.error)


def check_callbacks(callbacks: Any) -> None:
    """Raises InputError unless it is a sequence of functions."""
    if not isinstance(callbacks, Sequence):
        kind = type(callbacks).__name__
        raise InputError(f"callbacks is a {kind}: give a list of functions, [callback]")
    for callback in callbacks:
        if not callable(callback):
            raise InputError(
                f"callbacks has {callback!r}, which is no function of (step, metrics, state)"
            )


def call_all(
    callbacks: Sequence[Callback], step: int, row: dict[str, Any], state: TrainState
) -> Verdict:
    """Calls callbacks in order until one raises; all processes return the same verdict."""
    stop, error = False, None
    for callback in callbacks:
        try:
            stop |= bool(callback(step, row, state))
        except Exception as raised:
            error = raised
            break
    stop, failed = processes.any_process(stop, error is not None)
    if failed and error is None:
        error = InputError(
            "a callback of another process has failed: see the error of that process"
        )
    return Verdict(stop, error)


class Log(Protocol):
    """A log of rows of metrics, each with at least `step` and `kind`."""

    def write(self, row: dict[str, Any]) -> None:
        """Writes one row."""


class Bar(Protocol):
    """A progress bar."""

    def update(
        self, step: int, *, loss: float, tokens_per_second: float, learning_rate: float
    ) -> None:
        """Shows how far training is; the loss is in nats per token."""

    def say(self, line: str) -> None:
        """Prints a line."""


def log_rows(log: Log) -> Callback:
    """A callback that writes every row to a log."""
    return lambda step, row, state: log.write(row)


def show_progress(bar: Bar) -> Callback:
    """A callback that shows training rows in a progress bar, and prints those of validation."""

    def show(step: int, row: dict[str, Any], state: TrainState) -> None:
        if row["kind"] == "train":
            names = ("loss", "tokens_per_second", "learning_rate")
            bar.update(step, **{name: row[name] for name in names})
        else:
            bar.say(f"step {step}, validation: {_values_text(row)}")

    return show


def _values_text(row: dict[str, Any]) -> str:
    """The metrics in a row of validation, `loss 1.2345, BLEU 12.34, ...`, the loss first."""
    values = {name: row[name] for name in METRICS if row.get(name) is not None}
    names = dict.fromkeys(("loss", *printed_metrics(values)))
    return ", ".join(f"{METRICS[n].title} {METRICS[n].format(values[n])}" for n in names)
