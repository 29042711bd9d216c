"""What a checkpoint keeps beside the train state, so that a resumed run equals an unbroken one."""

import math
from typing import Any, NamedTuple

from encdec.training.early_stopping import EarlyStopping
from encdec.types import InputError


class WindowSums(NamedTuple):
    """Sums over the steps since the last row of training metrics.

    Attributes:
      loss: nats.
      correct: target tokens that were predicted.
      tokens: target tokens.
      gradient_norm: of the latest step.
      seconds: of training, without validation.
    """

    loss: float = 0.0
    correct: float = 0.0
    tokens: float = 0.0
    gradient_norm: float = 0.0
    seconds: float = 0.0

    def row(self, step: int, rate: float) -> dict[str, Any]:
        """The row of metrics of these steps, which ends at a step with this learning rate."""
        tokens = max(self.tokens, 1.0)
        return {
            "kind": "train",
            "step": step,
            "loss": self.loss / tokens,
            "accuracy": self.correct / tokens,
            "tokens_per_second": self.tokens / self.seconds,
            "seconds": self.seconds,
            "learning_rate": rate,
            "gradient_norm": self.gradient_norm,
        }


class ResumePoint(NamedTuple):
    """Where a run stands, apart from its train state.

    Attributes:
      stopping: early stopping after the validations so far.
      window: the steps that are not in a row of metrics yet.
    """

    stopping: EarlyStopping = EarlyStopping()
    window: WindowSums = WindowSums()

    def to_note(self) -> dict[str, Any]:
        """JSON values, to be saved with a checkpoint."""
        return {"stopping": self.stopping._asdict(), "window": self.window._asdict()}

    @staticmethod
    def from_note(note: Any, where: str) -> "ResumePoint":
        """The inverse of `to_note`.

        Args:
          note: what was read; a field that it lacks has its default.
          where: the checkpoint, for the error.

        Raises:
          InputError: a field is unknown, or has a value that it cannot have.
        """
        if isinstance(note, dict) and "waited" in note:  # as earlier versions wrote it
            note = {"stopping": note}
        if not isinstance(note, dict) or not note.keys() <= {"stopping", "window"}:
            raise InputError(f"{where} is damaged: its note has other fields than were written")
        stopping = _build(EarlyStopping, note.get("stopping", {}), where)
        window = _build(WindowSums, note.get("window", {}), where)
        return ResumePoint(stopping, window)


def _build(kind: Any, values: Any, where: str) -> Any:
    """A NamedTuple of numbers, each of which has the type of its default."""
    if not isinstance(values, dict) or not values.keys() <= set(kind._fields):
        raise InputError(f"{where} is damaged: its note has other fields than were written")
    for name, value in values.items():
        default = kind._field_defaults[name]
        types: Any = int if isinstance(default, int) else int | float
        fits = isinstance(value, types) and not isinstance(value, bool) and math.isfinite(value)
        if not fits and not (value is None and default is None):
            raise InputError(f"{where} is damaged: {name} of its note is {value!r}")
    return kind(**values)
