"""Functions that training calls with what it measures, and that may stop it.

The log and the progress bar of a run are callbacks too.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

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

Before an exception leaves the call of `train`, the step is saved: the run can be resumed from it.
"""


class Verdict(NamedTuple):
    """What the callbacks want.

    Attributes:
      stop: training is to end after this step.
      error: what one of them raised.
    """

    stop: bool = False
    error: Exception | None = None

    def joined(self, other: "Verdict") -> "Verdict":
        """What two rounds of calls want; of two errors the first."""
        return Verdict(self.stop or other.stop, self.error or other.error)


def call_all(
    callbacks: Sequence[Callback], step: int, row: dict[str, Any], state: TrainState
) -> Verdict:
    """Calls one after another up to one that raises; all processes get the same verdict."""
    stop, error = False, None
    for callback in callbacks:
        try:
            stop |= bool(callback(step, row, state))
        except Exception as raised:
            error = raised
            break
    stop, failed = processes.any_process(stop, error is not None)
    if failed and error is None:
        error = InputError("a callback of another process has failed: its own message says why")
    return Verdict(stop, error)


class Log(Protocol):
    """Takes rows of metrics, each with at least `step` and `kind`."""

    def write(self, row: dict[str, Any]) -> None:
        """Takes one row."""


class Bar(Protocol):
    """Shows progress."""

    def update(
        self, step: int, *, loss: float, tokens_per_second: float, learning_rate: float
    ) -> None:
        """Shows how far training is; the loss is in nats per token."""


def log_rows(log: Log) -> Callback:
    """Writes every row to a log."""
    return lambda step, row, state: log.write(row)


def show_progress(bar: Bar) -> Callback:
    """Shows every training row in a progress bar."""

    def show(step: int, row: dict[str, Any], state: TrainState) -> None:
        if row["kind"] == "train":
            names = ("loss", "tokens_per_second", "learning_rate")
            bar.update(step, **{name: row[name] for name in names})

    return show
